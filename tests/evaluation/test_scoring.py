"""Rows of a result file: the judge, its calibrated forms, the constants."""

import numpy as np
import pytest
from conftest import make_records

from distjudge_trl.errors import UserInputError
from distjudge_trl.evaluation import TestItems, evaluate_judgments, human_side, item_kl, row_log_q


RECORDS = make_records(80)
P, N = human_side(RECORDS)
ITEMS = TestItems.of(RECORDS, ordinal=True)


def judge(sharpness, records=RECORDS):
    p, _ = human_side(records)
    logits = sharpness * p + 0.2 * np.random.default_rng(0).standard_normal(p.shape)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def test_scores_are_those_of_evaluate_judgments():
    log_q = judge(2.0)
    alone = evaluate_judgments(P, log_q, N, RECORDS["group"][:], ids=RECORDS["id"][:], ordinal=True)
    scored = ITEMS.score(log_q)
    assert scored["metrics"] == alone
    assert [point["radius"] for point in scored["robustness"]] == [0.0, 0.05, 0.1, 0.15, 0.2, 0.25]
    assert scored["robustness"][0]["kl"] == pytest.approx(alone["kl"]["value"])


def test_constants_need_training_items_but_for_the_uniform_one():
    rows = {row["method"]: row for row in ITEMS.score_constants(P)}
    assert list(rows) == ["uniform", "training-prior", "training-majority"]
    assert rows["uniform"]["constant"] == pytest.approx([0.2] * 5)
    # On its own items the prior is the best constant.
    assert rows["training-prior"]["metrics"]["kl"]["value"] < rows["uniform"]["metrics"]["kl"]["value"]
    assert [row["method"] for row in ITEMS.score_constants()] == ["uniform"]


def test_calibration_is_fitted_on_the_held_out_items_and_can_be_redrawn():
    held_out = make_records(300, seed=1)
    held_out_p, _ = human_side(held_out)
    log_q = judge(40.0)
    rows = ITEMS.score_calibrated("raw", log_q, held_out_p, judge(40.0, held_out))
    assert [row["method"] for row in rows] == ["raw + temperature", "raw + vector"]
    assert rows[0]["scaling"]["temperature"] > 1.5 and rows[0]["scaling"]["num_items"] == 300
    raw = item_kl(P, log_q).mean()
    for row in rows:
        assert row["metrics"]["kl"]["value"] < raw
        assert item_kl(P, row_log_q(row, log_q)).mean() == pytest.approx(row["metrics"]["kl"]["value"])
    again = ITEMS.score_scaled("raw", log_q, rows[1]["scaling"])
    assert again == rows[1]
    np.testing.assert_array_equal(row_log_q({"method": "raw"}, log_q), log_q)


def test_too_few_held_out_items_are_refused():
    with pytest.raises(UserInputError, match="at least 10 items"):
        ITEMS.score_calibrated("raw", judge(1.0), P[:9], judge(1.0)[:9])
