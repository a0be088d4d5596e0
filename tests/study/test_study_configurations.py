"""The table of configurations beside the paper's loss, computed again from the predictions."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import rel_entr
from small_study import make_study

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
    assert table.header[2:] == ["the first one", "second", "ahead by 10 % or more"]
    forms = ["one judge", "mean of its seeds"]
    names = ["kl-only", "kl-only", "distribution", "kl-only from third", "kl-only from third"]
    assert [row[0] for row in table.rows] == names, "neither one data set alone, nor one seed, nor the same judges"
    assert [row[1] for row in table.rows] == [*forms, forms[1], *forms]
    first = next(result for result in results if result.about["data"] == "first")
    floor, groups = first.results["metrics"]["noise_floor"], list(first.run.items["group"][:])
    before = kl_of(results, "first", "distribution", mean=False) - floor
    for row, mean in ((0, False), (1, True)):
        after = kl_of(results, "first", "kl-only", mean) - floor
        assert table.rows[row][2] == change_text(before, after, groups) != "-"
    related = kl_of(results, "fourth", "kl-only", mean=True) - floor
    assert table.rows[4][2] == change_text(before, related, groups)
    for row in table.rows:
        changes = [float(cell.split(" %")[0]) for cell in row[2:4]]
        assert row[-1] == f"{sum(change <= -10 for change in changes)} of 2"
    assert table.rows[-1][-1] == "2 of 2"


def test_where_the_paper_s_loss_is_at_the_floor_nothing_is_ahead(study, monkeypatch):
    monkeypatch.setattr("distjudge_trl.study.groups.value_of", lambda metrics, name: 9.0)
    table = all_tables(*study, ["configurations"])["configurations"]
    assert all(row[2:] == ["-", "-", "0 of 2"] for row in table.rows)


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
