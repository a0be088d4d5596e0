"""The table of configurations beside the paper's loss, computed again from the predictions."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import rel_entr
from small_study import make_study

from distjudge_trl.study import Plan
from distjudge_trl.study.groups import DAGGER, change_text
from distjudge_trl.study.tables import all_tables


# `third` has one seed of the paper's loss, so that nothing is compared there.
CONTENT = {
    "data": {
        "first": {"task": "snli", "title": "the first one"},
        "second": {"task": "vader"},
        "third": {"task": "par"},
        "fourth": {"task": "snli", "start_from": "third/kl-only"},
        "fifth": {"task": "vader", "start_from": "third/kl-only"},
    },
    "runs": {
        "main": {"data": ["first", "second"], "methods": ["raw", "kl-only", "distribution"], "seeds": [0, 1]},
        "one": {"data": ["third"], "methods": ["kl-only", "distribution"]},
        "two": {"data": ["third"], "methods": ["kl-only"], "seeds": [1]},
        "few": {"data": ["first"], "methods": ["no-adversary"], "seeds": [0, 1]},
        "further": {"data": ["fourth", "fifth"], "methods": ["kl-only"], "seeds": [0, 1]},
    },
}
SKILLS = {"distribution": 0.4, "kl-only": 0.6, "no-adversary": 0.5, "raw": 0.2}


def changes_of(run):
    return {"skill": 1.0 if run.data in ("fourth", "fifth") else SKILLS[run.method]}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return make_study(tmp_path_factory.mktemp("study"), CONTENT, changes_of)


def kl_of(results, data, method, mean):
    judges = [r for r in results if (r.about["data"], r.about["method"]) == (data, method)]
    answers = np.exp([judge.rows["temperature"].log_q for judge in judges])
    kl = rel_entr(judges[0].run.p, answers.mean(0) if mean else answers).sum(-1)
    return kl if mean else kl.mean(0)


def test_every_configuration_that_two_data_sets_have(study):
    plan, results = study
    table = all_tables(plan, results, ["configurations"])["configurations"]
    assert table.header[2:] == ["the first one", "second", "ahead by 10 % or more", "surely"]
    names = ["kl-only", "kl-only", "kl-only from third", "kl-only from third"]
    assert [row[0] for row in table.rows] == names, "neither one data set alone, nor one seed, nor the paper's loss"
    assert [row[1] for row in table.rows] == ["one judge", "mean of its seeds"] * 2
    first = next(result for result in results if result.about["data"] == "first")
    floor, groups = first.results["metrics"]["noise_floor"], list(first.run.items["group"][:])
    for row, (data, mean) in enumerate((("first", False), ("first", True), ("fourth", False), ("fourth", True))):
        # The mean of several judges is compared with the mean of as many.
        before, after = kl_of(results, "first", "distribution", mean), kl_of(results, data, "kl-only", mean)
        assert table.rows[row][2] == change_text(before - floor, after - floor, groups) != "-"
    for row in table.rows:
        changes = [float(cell.split(" %")[0]) for cell in row[2:4]]
        assert row[4] == f"{sum(change <= -10 for change in changes)} of 2"
        assert (row[5] == "-") == (row[1] != "one judge") and (row[5] == "-" or int(row[5]) <= int(row[4][0]))
    assert table.rows[-2][4:] == ["2 of 2", "2"]


def test_seeds_that_disagree_are_not_surely_ahead(study, monkeypatch):
    monkeypatch.setattr("distjudge_trl.study.groups.seed_test", lambda *kls: 0.2)
    table = all_tables(*study, ["configurations"])["configurations"]
    assert table.rows[-2][4:] == ["2 of 2", "0"]


def test_where_the_paper_s_loss_is_at_the_floor_nothing_is_ahead(study, monkeypatch):
    monkeypatch.setattr("distjudge_trl.study.configurations.value_of", lambda metrics, name: 9.0)
    table = all_tables(*study, ["configurations"])["configurations"]
    assert all(row[2:5] == ["-", "-", "0 of 2"] for row in table.rows)


def test_one_test_set_is_counted_once(study):
    """Another training on the same test items is no further data set."""
    plan, results = study
    content = plan.content.model_copy(update={"data": {**plan.content.data, "again": plan.content.data["first"]}})
    others = [
        replace(result, about={**result.about, "data": "again"})
        for result in results
        if result.about["data"] == "first"
    ]
    table = all_tables(Plan(content, plan.folder, {}), [*results, *others], ["configurations"])["configurations"]
    assert table.header[2:4] == ["the first one", "second"]


def test_other_precision_is_marked_and_one_seed_is_no_configuration(study):
    plan, results = study
    others = [
        replace(result, about={**result.about, "machine": {"dtype": "bfloat16"}})
        if (result.about["method"], result.about["data"]) == ("kl-only", "first")
        else result
        for result in results
    ]
    table = all_tables(plan, others, ["configurations"])["configurations"]
    assert table.rows[0][2].endswith(DAGGER) and not table.rows[0][3].endswith(DAGGER) and DAGGER in table.notes[-1]
    assert not all_tables(plan, [result for result in results if result.about["seed"] == 0], ["configurations"])
