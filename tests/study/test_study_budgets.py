"""The table of one number of annotations, spent on many items or on many annotators."""

import numpy as np
import pytest
from small_study import make_study

from distjudge_trl.errors import UserInputError
from distjudge_trl.evaluation import item_kl
from distjudge_trl.study.budgets import budgets_table
from distjudge_trl.study.tables import all_tables


WORDS = {3: (3200, 9600), 5: (1920, 9600), 10: (1600, 16000)}
CONTENT = {
    "data": {"words": {"task": "snli", "title": "Words"}},
    "runs": {
        "many": {"data": ["words"], "methods": ["distribution"], "vary": {"max_annotators": [3, 5, 10]}},
        "seed": {"data": ["words"], "methods": ["distribution"], "seeds": [1], "vary": {"max_annotators": [5]}},
        "rest": {"data": ["words"], "methods": ["no-adversary"], "vary": {"max_annotators": [3]}},
    },
}


def changes_of(run):
    most = run.vary["max_annotators"]
    items, votes = WORDS[most]
    settings = {"max_annotators": most, "num_train_items": items, "num_train_votes": votes}
    return {"settings": {**settings, "num_train_epochs": 3200 / items}}


def test_judges_of_equally_many_annotations_stand_together(tmp_path):
    plan, results = make_study(tmp_path, CONTENT, changes_of)
    table = all_tables(plan, results, ["budgets"])["budgets"]
    first, second = (dict(zip(table.header, row, strict=True)) for row in table.rows)  # not 16,000; not one alone
    shown = ("data", "method", "items", "annotators an item", "annotations", "epochs")
    assert [first[name] for name in shown] == ["Words", "distribution", "3,200", "3", "9,600", "1"]
    assert [second[name] for name in shown] == ["Words", "distribution (2 seeds)", "1,920", "5", "9,600", "1.67"]
    assert first["KL minus that of the first"] == "-"
    three, *five = (
        r for r in results if r.about["method"] == "distribution" and r.about["vary"]["max_annotators"] < 10
    )
    kls = [item_kl(result.run.p, result.run.log_q).mean() for result in five]
    assert second["KL"] == f"{np.mean(kls):.3f} ± {np.std(kls, ddof=1):.3f}"
    gain = kls[0] - item_kl(three.run.p, three.run.log_q).mean()  # of the seed that both have
    assert second["KL minus that of the first"].startswith(f"{gain:+.3f} [")


def test_judges_of_other_test_items_are_not_compared(tmp_path):
    plan, results = make_study(tmp_path, CONTENT, lambda run: {**changes_of(run), "count": 30 + 10 * run.seed})
    with pytest.raises(UserInputError, match="was tested on other items than .*, so that no table can compare them"):
        budgets_table(plan, results)


def test_without_equal_numbers_there_is_no_table(tmp_path):
    plan, results = make_study(
        tmp_path, CONTENT, lambda run: changes_of(run) if run.method == "no-adversary" else None
    )
    assert not all_tables(plan, results, ["budgets"])
