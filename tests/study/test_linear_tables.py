"""Tables of linear judges: the figures are computed again from the judges' own."""

import numpy as np
import pytest
from small_study import make_study

from distjudge_trl.errors import UserInputError
from distjudge_trl.evaluation.statistics import Estimate
from distjudge_trl.study.grids import Noise
from distjudge_trl.study.groups import group_results
from distjudge_trl.study.linear_judges import PATIENCE, Comparison, Outcome, Point
from distjudge_trl.study.linear_study import LinearStudy, read_linear
from distjudge_trl.study.linear_tables import linear_tables, points_table


FLOOR = 0.05
LIMIT = 300
ABOUT = {"test_items": 40, "noise_floor": FLOOR, "prior_kl": 0.35, "most_steps": LIMIT}


def make_linear(
    points, methods=("single-point", "no-adversary", "distribution"), seeds=3, about=ABOUT, features="words"
):
    rng = np.random.default_rng(0)
    outcomes = [
        Outcome(method, point, seed, *(0.1 + 0.1 * rng.random(2)).round(5).tolist(), 0.5, 0.25, 20)
        for point in points
        for seed in range(seeds)
        for method in methods
    ]
    # Intervals as wide as to leave 0 out now and then.
    compared = [
        Comparison(method, point, *(Estimate(v, round(v - 0.01, 5), round(v + 0.01, 5)) for v in (-0.0125, 0.005)))
        for point in points
        for method in methods
        if method != "no-adversary"
    ]
    return LinearStudy(
        "A title", features, None if features == "words" else "2 layers of tiny", dict(about), outcomes, compared
    )


ONE = [Point(100, 0, 0.8, 0.25)]


def kls(study, method, point, figure):
    return np.array([getattr(o, figure) for o in study.outcomes if (o.method, o.point) == (method, point)])


def test_files_are_read_as_they_were_written(tmp_path):
    study = make_linear([*ONE, Point(50, 3, 0.4, 0.1), Point(50, "1,3", 0.4, 0.1)])
    path = tmp_path / "words/first.json"
    path.parent.mkdir()
    study.save(path)
    assert read_linear(tmp_path) == {"words/first": study}
    assert len(path.read_text().splitlines()) == len(study.outcomes) + len(study.comparisons) + 3


def test_the_call_is_kept(tmp_path):
    (tmp_path / "words").mkdir()
    make_linear(ONE)._replace(command="python linear_judges.py vader").save(tmp_path / "words/first.json")
    assert read_linear(tmp_path)["words/first"].command == "python linear_judges.py vader"


def test_the_prior_of_each_question_stands_beside_where_there_are_several(tmp_path):
    (tmp_path / "words").mkdir()
    make_linear(ONE, about={**ABOUT, "question_prior_kl": 0.25}).save(tmp_path / "words/first.json")
    make_linear(ONE).save(tmp_path / "words/second.json")
    table = linear_tables(read_linear(tmp_path), {})["linear-yardstick"]
    assert table.header[4:6] == ["training prior", "prior of each question"]
    assert [row[4:6] for row in table.rows] == [["0.300", "0.200"], ["0.300", "-"]]
    alone = linear_tables({"words/second": make_linear(ONE)}, {})["linear-yardstick"]
    assert "prior of each question" not in alone.header


def test_two_stars_are_for_seeds_that_agree():
    study = make_linear(ONE)
    compared = [c._replace(plain=Estimate(-0.02, -0.03, -0.01)) for c in study.comparisons]
    alike = [o._replace(kl=0.1 + o.seed * 0.01 - 0.02 * (o.method == "distribution")) for o in study.outcomes]
    noisy = [o._replace(kl=o.kl + 0.05 * o.seed * (o.method == "distribution") * (-1) ** o.seed) for o in alike]
    for outcomes, stars in ((alike, "] **"), (noisy, "] *")):
        text = study._replace(outcomes=outcomes, comparisons=compared).difference("distribution", ONE[0], "kl")
        assert text.endswith(stars)


@pytest.mark.parametrize("text", ["", "[]", '{"title": "a"}', '{"columns": ["method"], "rows": []}'])
def test_other_files_are_named(tmp_path, text):
    (tmp_path / "words").mkdir()
    (tmp_path / "words/other.json").write_text(text)
    with pytest.raises(UserInputError, match=r"other\.json: was not written by"):
        read_linear(tmp_path)


def test_a_file_in_the_folder_of_other_features_is_named(tmp_path):
    (tmp_path / "model").mkdir()
    make_linear(ONE).save(tmp_path / "model/first.json")
    with pytest.raises(UserInputError, match=r"model/first\.json: its features are words"):
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
    assert table.rows[-1][6] == f"{own.mean() - FLOOR:.4f} ± {own.std(ddof=1):.4f}"
    spread = (own - other).std(ddof=1)
    assert table.rows[-1][7] == f"{(own - other).mean():+.4f} ± {spread:.4f} [-0.0050, +0.0150]"
    assert table.rows[-1][8:] == ["0.25 ± 0.00", "50.0 ± 0.0"] and "is 0.3000 above it" in table.notes[0]


def test_a_star_says_that_the_interval_excludes_zero():
    study = make_linear(ONE)
    assert study.difference("distribution", ONE[0], "kl").endswith("[-0.0225, -0.0025] *")
    assert study.difference("distribution", ONE[0], "scaled_kl").endswith("[-0.0050, +0.0150]")
    assert study.difference("no-adversary", ONE[0], "kl") == "-"
    without = study._replace(comparisons=[])
    assert without.difference("distribution", ONE[0], "kl") == study.difference("distribution", ONE[0], "kl")[:16]
    assert "interval" in str(points_table(study).notes) and "interval" not in str(points_table(without).notes)


def test_features_stand_beside_the_language_model_on_the_same_items(tmp_path):
    content = {
        "data": {"first": {"task": "snli"}},
        "runs": {"main": {"data": ["first"], "methods": ["no-adversary", "distribution"], "seeds": [0, 1]}},
    }
    data = group_results(make_study(tmp_path, content)[1])
    metrics = data["first"]["distribution"].results[0].results["metrics"]
    same = {**ABOUT, "test_items": metrics["num_items"], "noise_floor": metrics["noise_floor"]}
    studies = {
        "both/third": make_linear(ONE, features="both"),
        "words/first": make_linear(ONE, about=same),
        "model/first": make_linear(ONE, about=same, features="model"),
        "words/second": make_linear(ONE),
    }
    tables = linear_tables(studies, data)
    table = tables["linear-yardstick"]
    rows = dict(zip(["third", "first", "second"], table.rows, strict=True))
    own = data["first"]["distribution"].text("excess_kl", "temperature")
    assert rows["first"][-1] == own and rows["second"][-2:] == ["-", "-"]
    words = kls(studies["words/second"], "no-adversary", ONE[0], "scaled_kl") - FLOOR
    assert rows["second"][5:8] == [f"{words.mean():.3f} ± {words.std(ddof=1):.3f}", "-", "-"]
    assert rows["second"][4] == "0.300" and "-" not in rows["first"][5:7] and rows["third"][5:7] == ["-", "-"]
    assert "(2 layers of tiny)" in table.notes[1]
    with pytest.raises(UserInputError, match="first: its judges of different features have different items"):
        linear_tables({**studies, "model/first": make_linear(ONE, features="model")}, data)
    others = {"words/first": make_linear(ONE, about={**same, "test_items": 41})}
    assert linear_tables(others, data)["linear-yardstick"].rows[0][-1] == "-", "other items"
    plain = tables["linear-words-gains-plain"]
    assert plain.header == ["data", "single-point", "distribution"] and len(plain.rows) == 2
    assert plain.rows[1][2] == studies["words/second"].difference("distribution", ONE[0], "kl")
    assert len(tables["linear-model-gains-temperature"].rows) == 1


def test_methods_that_few_data_sets_have_stand_apart():
    usual = make_linear(ONE)
    whole = make_linear(ONE, methods=("minimax", "no-kl", "no-adversary", "distribution", "single-point"))
    tables = linear_tables({"words/first": usual, "words/second": whole, "words/third": usual}, {})
    assert tables["linear-words-gains-plain"].header == ["data", "single-point", "distribution"]
    rare = tables["linear-words-rare-plain"]
    # In the order of the recipes' methods.
    assert rare.header == ["data", "minimax", "no-kl"]
    assert rare.rows == [["A title", *(whole.difference(name, ONE[0], "kl") for name in ("minimax", "no-kl"))]]
    assert rare.title != tables["linear-words-gains-plain"].title
    assert "linear-words-rare-plain" not in linear_tables({"words/first": usual, "words/second": whole}, {}), "half"


def test_the_best_in_hindsight_bounds_every_choice():
    study, own = make_linear(ONE), make_linear(ONE, methods=["kl-only"])
    table = linear_tables({"words/first": study, "words/second": own}, {})["linear-words-hindsight"]
    (row,) = table.rows  # the other has no judges of the paper's loss
    means = {m: kls(study, m, ONE[0], "scaled_kl").mean() - FLOOR for m in study.methods()}
    best = min(means, key=means.get)
    assert row[:2] == ["A title", "3"] and row[4] == best
    assert row[2].startswith(f"{means['distribution']:.4f} ±") and row[3].startswith(f"{means[best]:.4f} ±")
    assert row[5] == f"{100 * (means[best] / means['distribution'] - 1):+.1f} %"
    assert "linear-words-hindsight" not in linear_tables({"words/second": own}, {})


def test_a_curve_over_items_and_annotators():
    points = [Point(items, m, 0.8, 0.25) for items in (100, 1000) for m in ("1,3", 0)]
    study = make_linear(points)
    table = linear_tables({"words/few-first": study}, {})["linear-words-few-first"]
    assert [row[:2] for row in table.rows] == [["100", "1 / 3"], ["100", "all"], ["1,000", "1 / 3"], ["1,000", "all"]]
    assert "each item drew one of them" in str(table.notes)
    assert table.rows[3][2].startswith(f"{kls(study, 'no-adversary', points[3], 'scaled_kl').mean() - FLOOR:.3f}")
    assert table.rows[3][4] == study.difference("distribution", points[3], "scaled_kl")


def test_alpha_times_epsilon():
    points = [Point(100, 0, alpha, radius) for alpha in (0.0, 0.8) for radius in (0.1, 0.25)]
    study = make_linear(points, methods=["distribution"])
    table = linear_tables({"model/grid-first": study}, {})["linear-model-grid-first"]
    plain, scaled = (
        {point: kls(study, "distribution", point, figure).mean() - FLOOR for point in points}
        for figure in ("kl", "scaled_kl")
    )
    assert table.header == ["alpha", "epsilon 0.1", "epsilon 0.25"]
    assert table.rows[1] == ["0.8", *(f"{plain[p]:.4f} / {scaled[p]:.4f}" for p in points[2:])]
    best = min(scaled, key=scaled.get)
    assert f"the lowest is alpha {best.alpha:g}, epsilon {best.radius:g}" in table.notes[2]
    noise = Noise.of(np.array([kls(study, "distribution", point, "scaled_kl") for point in points]))
    assert table.notes[2].endswith(noise.text(".4f"))
    assert f"means: {np.std(list(scaled.values()), ddof=1):.4f}; of one seed" in table.notes[2]
    close = sum(mean < scaled[best] + noise.apart for mean in scaled.values()) - 1
    assert f"; {close} of the others within {noise.apart:.4f} of it. " in table.notes[2]
    one = linear_tables({"model/grid-first": make_linear(points, methods=["distribution"], seeds=1)}, {})
    assert not any("nan" in note or "of the others" in note for note in one["linear-model-grid-first"].notes)


def test_files_that_are_no_grid_or_curve_are_named():
    points = [Point(100, 0, 0.8, 0.1), Point(200, 0, 0.8, 0.1)]
    for key, study in (
        ("words/grid-first", make_linear(points)),
        ("words/grid-first", make_linear([ONE[0], ONE[0]._replace(alpha=0.4)], methods=["no-adversary"])),
        ("words/few-first", make_linear([ONE[0], ONE[0]._replace(alpha=0.4)])),
    ):
        with pytest.raises(UserInputError, match=f"{key.replace('/', '-')}: (a grid needs|has several alphas)"):
            linear_tables({key: study}, {})


def test_judges_that_were_cut_off_are_counted():
    study = make_linear(ONE)
    assert not any("the limit" in note for note in points_table(study).notes)
    steps = (LIMIT, LIMIT - PATIENCE + 5, LIMIT - PATIENCE)
    outcomes = [outcome._replace(steps=n) for outcome, n in zip(study.outcomes, steps, strict=False)]
    late = study._replace(outcomes=[*outcomes, *study.outcomes[3:]])
    assert points_table(late).notes[-1] == f"2 of these 9 judges were stopped by the limit of {LIMIT:,} steps."
    assert linear_tables({"words/first": late}, {})["linear-yardstick"].notes[-1].startswith("1 of these 3 judges")
