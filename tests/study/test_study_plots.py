"""Plots of a study: their points are computed again from the predictions."""

import numpy as np
import pytest
from conftest import ROOT
from small_study import CONTENT, make_study

from distjudge_trl.study import read_plan
from distjudge_trl.study.groups import group_results
from distjudge_trl.study.plots import amount, study_plots
from distjudge_trl.study.tables import all_tables, could_be_table


SIZES = {"data": ["first"], "methods": ["no-adversary", "wide"], "vary": {"max_train_samples": [20, None]}}
RUNS = {
    "main": {"data": ["first", "second"], "methods": ["raw", "no-adversary", "wide"], "seeds": [0, 1]},
    "size": {**SIZES, "seeds": [0, 1]},
}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """The plan and its results; those of the second data set's wide ball are missing."""

    def changes_of(run):
        return None if run.full_name.startswith("second/wide") else {"calibrate": False}

    return make_study(tmp_path_factory.mktemp("study"), {**CONTENT, "runs": RUNS}, changes_of)


def mean_kl(results, method, **vary):
    found = [r for r in results if r.about["data"] == "first" and r.about["method"] == method]
    return np.mean([r.rows["plain"].metrics["kl"]["value"] for r in found if r.about["vary"] == vary])


def test_gains(study):
    plan, results = study
    plot = next(plot for plot in study_plots(plan, results, group_results(results)) if plot.name == "gains")
    (panel,) = plot.panels  # of the second data set only the reference is there
    (line,) = panel.lines
    assert panel.ticks == ["a wide ball (2)"] and panel.title == "first" and panel.reference == 0
    assert line.x == [pytest.approx(mean_kl(results, "wide") - mean_kl(results, "no-adversary"), abs=1e-5)]
    assert line.low[0] < line.x[0] < line.high[0]


def test_a_curve(study):
    plan, results = study
    plot = next(plot for plot in study_plots(plan, results, group_results(results)) if plot.name == "train-samples")
    (panel,) = plot.panels
    assert [line.name for line in panel.lines] == ["no-adversary", "a wide ball"]
    assert panel.lines[1].x == [20, 100]  # where the option is unset, the items that there were
    expected = [mean_kl(results, "wide", max_train_samples=20), mean_kl(results, "wide")]
    assert panel.lines[1].y == pytest.approx(expected, abs=1e-5)
    assert panel.reference == results[0].results["metrics"]["noise_floor"]


def test_nothing_to_plot(study):
    plan, results = study
    others = [result for result in results if result.about["method"] == "raw"]
    assert study_plots(plan, others, group_results(others)) == []


def test_what_there_was_counts_where_an_option_is_unset(study):
    plan, results = study
    table = all_tables(plan, results, ["curve-first-max_train_samples-plain"])["curve-first-max_train_samples-plain"]
    assert table.header == ["method", "20", "100"]
    group = group_results(results)["first"]["wide"]
    settings = group.results[0].results["settings"]
    assert amount(None, group, "max_annotators") == settings["num_train_votes"] / settings["num_train_items"] == 5


def test_a_value_whose_judges_were_not_read_so_has_no_place_in_a_curve(tmp_path):
    def changes_of(run):
        return {"calibrate": not run.vary}

    plan, results = make_study(tmp_path, {**CONTENT, "runs": RUNS}, changes_of)
    assert "curve-first-max_train_samples-temperature" not in all_tables(plan, results)
    assert "curve-first-max_train_samples-plain" in all_tables(plan, results)


def test_the_number_of_seeds_is_said_where_it_is_smaller(tmp_path):
    plan, results = make_study(tmp_path, {**CONTENT, "runs": RUNS}, lambda run: {"calibrate": run.seed == 0})
    row = next(row for row in all_tables(plan, results, ["data-first"])["data-first"].rows if "wide" in row[0])
    assert row[0] == "a wide ball (2 seeds)" and " ± " in row[1] and row[3].endswith(" (1 seed)")


def test_names_of_tables():
    plan = read_plan(ROOT / "recipes/studies/quick.yaml")
    assert could_be_table(plan, "curve-vader-max_annotators-plain") and could_be_table(plan, "table6")
    assert not could_be_table(plan, "curve-vader-alpha-plain") and not could_be_table(plan, "data-snli")
