"""The grid of alpha times epsilon, from judges of several methods."""

import numpy as np
import pytest
from small_study import make_study

from distjudge_trl.errors import UserInputError
from distjudge_trl.study.grids import Noise, grid_points
from distjudge_trl.study.groups import group_results
from distjudge_trl.study.plots import study_plots
from distjudge_trl.study.tables import all_tables


CONTENT = {
    "data": {"nli": {"task": "snli", "title": "NLI"}, "other": {"task": "snli"}},
    "runs": {
        "main": {
            "data": ["nli", "other"],
            "methods": ["raw", "single-point", "label-smoothing", "kl-only", "no-adversary", "distribution"],
            "seeds": [0, 1],
        },
        "ends": {"data": ["nli"], "methods": ["no-kl"]},
        "grid": {
            "data": ["nli"],
            "methods": ["distribution"],
            "vary": {"alpha": [0.0, None], "perturbation_radius": [0.1, None]},
        },
        "steps": {"data": ["nli"], "methods": ["distribution"], "vary": {"perturbation_steps": [1]}},
    },
}
ALPHA = {"single-point": 0.0, "label-smoothing": 0.0, "no-kl": 0.0, "kl-only": 1.0}
WITHOUT = ("single-point", "label-smoothing", "kl-only", "no-adversary")


def changes_of(run):
    settings = {
        "alpha": ALPHA.get(run.method, 0.8),
        "adversary": "none" if run.method in WITHOUT else "pgd",
        **run.vary,
    }
    return {"settings": settings} if run.is_trained else {}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return make_study(tmp_path_factory.mktemp("study"), CONTENT, changes_of)


def test_methods_are_points(study):
    _, results = study
    names = {
        point: [f"{r.about['method']} {r.about['seed']}" for r in group.results]
        for point, group in grid_points(results, "nli").items()
    }
    assert names == {
        (0.0, 0.0): ["single-point 0", "single-point 1"],
        (0.0, 0.1): ["distribution 0"],
        (0.0, 0.25): ["distribution 0"],  # as no-kl
        (0.8, 0.0): ["no-adversary 0", "no-adversary 1"],
        (0.8, 0.1): ["distribution 0"],
        (0.8, 0.25): ["distribution 0", "distribution 1"],
        (1.0, 0.0): ["kl-only 0", "kl-only 1"],
    }


def test_the_table_says_what_the_seeds_make_of_it(study):
    plan, results = study
    table = all_tables(plan, results, ["grid-nli"])["grid-nli"]
    points = {point: group.values("kl") for point, group in grid_points(results, "nli").items()}
    assert table.header == ["alpha", "ε = 0", "ε = 0.1", "ε = 0.25"]
    assert [row[0] for row in table.rows] == ["0", "0.8", "1"]
    both = points[0.8, 0.25]
    assert table.rows[1][2:] == [f"{points[0.8, 0.1][0]:.3f}", f"{np.mean(both):.3f} ± {np.std(both, ddof=1):.3f}"]
    assert table.rows[2][2:] == ["-", "-"]
    means = [np.mean(kls) for kls in points.values()]
    assert f"between {min(means):.3f} and {max(means):.3f}" in table.notes[0]
    several = np.array([kls for kls in points.values() if len(kls) > 1])
    noise = Noise.of(several)
    assert f"means (4 points with 2 seeds): {np.std(several.mean(1), ddof=1):.3f}" in table.notes[1]
    assert f"in common: {noise.noise:.3f}." in table.notes[1]


def test_what_all_points_of_a_seed_have_in_common_is_no_noise():
    rng = np.random.default_rng(0)
    points, seeds = np.arange(200.0)[:, None], 5 * rng.normal(size=(1, 40))
    noise = Noise.of(points + seeds + 0.3 * rng.normal(size=(200, 40)))
    assert noise.noise == pytest.approx(0.3, rel=0.03)
    assert noise.spread == pytest.approx(np.std(points, ddof=1), rel=0.01)
    assert noise.apart == pytest.approx(2 * 0.3 * np.sqrt(2 / 40), rel=0.03)
    one = Noise.of(points[:, [0]])
    assert np.isnan(one.noise) and "in common" not in one.text(".3f")


def test_a_plot_has_a_panel_for_each_grid(study):
    plan, results = study
    (plot,) = (plot for plot in study_plots(plan, results, group_results(results)) if plot.name == "grid")
    (panel,) = plot.panels  # the other data set has two values of epsilon
    assert panel.title == "NLI" and [line.name for line in panel.lines] == ["ε = 0", "ε = 0.1", "ε = 0.25"]
    assert panel.lines[0].x == [0.0, 0.8, 1.0] and panel.lines[1].x == [0.0, 0.8]
    assert panel.lines[1].y[1] == pytest.approx(grid_points(results, "nli")[0.8, 0.1].values("kl")[0])
    assert not all_tables(plan, results, ["grid-other"])


def test_points_of_other_test_items_are_no_grid(tmp_path):
    content = {**CONTENT, "runs": {"grid": CONTENT["runs"]["grid"]}}
    made = make_study(tmp_path, content, lambda run: {**changes_of(run), "count": 40 - 10 * ("alpha" in run.vary)})
    with pytest.raises(UserInputError, match="was tested on other items than .*, so that no table can compare them"):
        grid_points(made[1], "nli")
