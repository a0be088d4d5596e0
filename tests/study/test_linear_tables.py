"""Tables of linear judges: the figures are computed again from the judges' own."""

import numpy as np
import pytest
from small_study import make_study

from distjudge_trl.errors import UserInputError
from distjudge_trl.evaluation.statistics import seed_difference
from distjudge_trl.study.groups import group_results
from distjudge_trl.study.linear_judges import STEPS, Outcome, Point
from distjudge_trl.study.linear_tables import LinearStudy, linear_tables, points_table, read_linear


FLOOR = 0.05
ABOUT = {"test_items": 40, "noise_floor": FLOOR, "prior_kl": 0.35}


def make_linear(points, methods=("single-point", "no-adversary", "distribution"), seeds=3, about=ABOUT):
    rng = np.random.default_rng(0)
    outcomes = [
        Outcome(method, point, seed, *(0.1 + 0.1 * rng.random(2)).round(5).tolist(), 0.5, 0.25, 20)
        for point in points
        for seed in range(seeds)
        for method in methods
    ]
    return LinearStudy("A title", dict(about), outcomes)


ONE = [Point(100, 0, 0.8, 0.25)]


def kls(study, method, point, figure):
    return np.array([getattr(o, figure) for o in study.outcomes if (o.method, o.point) == (method, point)])


def test_files_are_read_as_they_were_written(tmp_path):
    study = make_linear([*ONE, Point(50, 3, 0.4, 0.1)])
    study.save(tmp_path / "first.json")
    assert read_linear(tmp_path) == {"first": study}
    assert len((tmp_path / "first.json").read_text().splitlines()) == len(study.outcomes) + 2


@pytest.mark.parametrize("text", ["", "[]", '{"title": "a"}', '{"columns": ["method"], "rows": []}'])
def test_other_files_are_named(tmp_path, text):
    (tmp_path / "other.json").write_text(text)
    with pytest.raises(UserInputError, match=r"other\.json: was not written by"):
        read_linear(tmp_path)


def test_every_method_at_every_point():
    points = [*ONE, Point(1000, 3, 0.4, 0.1)]
    study = make_linear(points)
    table = points_table(study)
    assert [row[:5] for row in table.rows[2:4]] == [
        ["100", "all", "0.8", "0.25", "distribution"],
        ["1,000", "3", "0.4", "0.1", "single-point"],
    ]
    own, other = (kls(study, method, points[1], "scaled_kl") for method in ("distribution", "no-adversary"))
    found = seed_difference(own, other)
    assert table.rows[-1][6] == f"{own.mean() - FLOOR:.4f} ± {own.std(ddof=1):.4f}"
    assert table.rows[-1][7].startswith(f"{found.value:+.4f} [{found.low:+.4f}, {found.high:+.4f}]")
    assert table.rows[-1][8:] == ["0.25 ± 0.00", "50.0 ± 0.0"] and "is 0.3000 above it" in table.notes[0]


def test_words_beside_the_language_model_on_the_same_items(tmp_path):
    content = {
        "data": {"first": {"task": "snli"}},
        "runs": {"main": {"data": ["first"], "methods": ["no-adversary", "distribution"], "seeds": [0, 1]}},
    }
    data = group_results(make_study(tmp_path, content)[1])
    metrics = data["first"]["distribution"].results[0].results["metrics"]
    same = {**ABOUT, "test_items": metrics["num_items"], "noise_floor": metrics["noise_floor"]}
    studies = {"first": make_linear(ONE, about=same), "second": make_linear(ONE)}
    table = linear_tables(studies, data)["linear-yardstick"]
    own = data["first"]["distribution"].text("excess_kl", "temperature")
    assert table.rows[0][-1] == own and table.rows[1][-2:] == ["-", "-"]
    words = kls(studies["second"], "no-adversary", ONE[0], "scaled_kl") - FLOOR
    assert table.rows[1][6] == f"{words.mean():.3f} ± {words.std(ddof=1):.3f}" and table.rows[1][4] == "0.300"
    others = {"first": make_linear(ONE, about={**same, "test_items": 41})}
    assert linear_tables(others, data)["linear-yardstick"].rows[0][-1] == "-", "other items"
    plain = linear_tables(studies, data)["linear-gains-plain"]
    assert plain.header == ["data", "single-point", "distribution"] and len(plain.rows) == 2
    found = kls(studies["second"], "distribution", ONE[0], "kl") - kls(studies["second"], "no-adversary", ONE[0], "kl")
    assert plain.rows[1][2].startswith(f"{found.mean():+.4f} [")


def test_a_curve_over_items_and_annotators():
    points = [Point(items, m, 0.8, 0.25) for items in (100, 1000) for m in (1, 0)]
    study = make_linear(points)
    table = linear_tables({"few-words": study}, {})["linear-few-words"]
    assert [row[:2] for row in table.rows] == [["100", "1"], ["100", "all"], ["1,000", "1"], ["1,000", "all"]]
    assert table.rows[3][2].startswith(f"{kls(study, 'no-adversary', points[3], 'scaled_kl').mean() - FLOOR:.3f}")
    assert table.rows[3][4] == study.difference("distribution", points[3], "scaled_kl")


def test_alpha_times_epsilon():
    points = [Point(100, 0, alpha, radius) for alpha in (0.0, 0.8) for radius in (0.1, 0.25)]
    study = make_linear(points, methods=["distribution"])
    table = linear_tables({"grid-words": study}, {})["linear-grid-words"]
    plain, scaled = (
        {point: kls(study, "distribution", point, figure).mean() - FLOOR for point in points}
        for figure in ("kl", "scaled_kl")
    )
    assert table.header == ["alpha", "epsilon 0.1", "epsilon 0.25"]
    assert table.rows[1] == ["0.8", *(f"{plain[p]:.4f} / {scaled[p]:.4f}" for p in points[2:])]
    best = min(scaled, key=scaled.get)
    assert f"the lowest is alpha {best.alpha:g}, epsilon {best.radius:g}" in table.notes[2]
    assert f"means {np.std(list(scaled.values()), ddof=1):.4f}, of seeds" in table.notes[2]


def test_judges_that_were_cut_off_are_counted():
    study = make_linear(ONE)
    assert not any("still improving" in note for note in points_table(study).notes)
    late = study._replace(outcomes=[study.outcomes[0]._replace(steps=STEPS), *study.outcomes[1:]])
    assert points_table(late).notes[-1] == f"1 of these 9 judges were still improving at the last step, {STEPS:,}."
