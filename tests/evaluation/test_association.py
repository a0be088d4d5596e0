"""Metrics over all items, against libraries and by hand."""

import numpy as np
import pytest
from scipy.special import log_softmax
from scipy.stats import entropy, spearmanr
from statsmodels.stats import dist_dependence_measures
from torchmetrics.functional.classification import multiclass_cohen_kappa, multiclass_f1_score

from distjudge_trl.evaluation import association


RNG = np.random.default_rng(0)
TRUE = RNG.dirichlet(np.ones(3), 700)
P = RNG.multinomial(5, TRUE) / 5
LOG_Q = log_softmax(np.log(TRUE) + RNG.normal(size=TRUE.shape), axis=-1)


def test_f1_and_kappa_equal_torchmetrics():
    import torch

    judged, majority = torch.tensor(LOG_Q.argmax(-1)), torch.tensor(P.argmax(-1))
    f1 = multiclass_f1_score(judged, majority, num_classes=3, average="macro").item()
    assert association.macro_f1(P, LOG_Q) == pytest.approx(f1, abs=1e-6)
    kappa = multiclass_cohen_kappa(judged, majority, num_classes=3).item()
    assert association.cohen_kappa(P, LOG_Q) == pytest.approx(kappa, abs=1e-6)


def test_kappa_is_undefined_for_a_single_label():
    assert association.cohen_kappa(np.array([[1.0, 0]] * 3), np.log([[0.9, 0.1]] * 3)) is None


def test_entropy_correlation():
    expected = spearmanr(entropy(P, axis=-1), entropy(np.exp(LOG_Q), axis=-1)).statistic
    assert association.entropy_correlation(P, LOG_Q) == pytest.approx(expected)
    assert association.entropy_correlation(P, np.log(np.full(P.shape, 1 / 3))) is None
    assert association.entropy_correlation(np.eye(3), np.log(TRUE[:3])) is None


@pytest.mark.parametrize("chunk", [100, 512, 10_000])
def test_distance_correlation_equals_that_of_statsmodels(chunk, monkeypatch):
    monkeypatch.setattr(association, "_CHUNK", chunk)
    expected = dist_dependence_measures.distance_correlation(P, np.exp(LOG_Q))
    assert association.distance_correlation(P, LOG_Q) == pytest.approx(expected, abs=1e-10)


def test_distance_correlation_at_its_ends():
    assert association.distance_correlation(TRUE, np.log(TRUE)) == pytest.approx(1)
    assert association.distance_correlation(P, np.log(RNG.permutation(TRUE))) < 0.15
    assert association.distance_correlation(P, np.log(np.full(P.shape, 1 / 3))) is None


IDS = ["a", "a/swapped", "b", "b/swapped", "c"]


def test_a_fair_judge_has_no_position_bias():
    q = np.array([[0.7, 0.2, 0.1], [0.2, 0.7, 0.1], [0.1, 0.1, 0.8], [0.1, 0.1, 0.8], [0.5, 0.3, 0.2]])
    metrics = association.position_metrics(np.log(q), IDS)
    assert (metrics.swap_consistency, metrics.num_pairs) == (1, 2)
    assert metrics.position_bias == pytest.approx(0)


def test_a_judge_that_knows_nothing_is_fair_to_positions():
    metrics = association.position_metrics(np.log(np.full((5, 3), 1 / 3)), IDS)
    assert (metrics.swap_consistency, metrics.position_bias) == (1, 0)


def test_a_judge_that_prefers_the_first_place():
    q = np.array([[0.8, 0.1, 0.1], [0.7, 0.2, 0.1], [0.3, 0.5, 0.2], [0.6, 0.3, 0.1], [0.5, 0.3, 0.2]])
    metrics = association.position_metrics(np.log(q), IDS)
    assert metrics.swap_consistency == 0.5
    # Item a: its first response has 0.8 as A and 0.2 as B, its second 0.7 and 0.1. Item b: 0.3, 0.3; 0.6, 0.5.
    assert metrics.position_bias == pytest.approx(((0.6 + 0.6) / 2 + (0.0 + 0.1) / 2) / 2)


def test_without_both_orders_there_is_nothing_to_say():
    assert association.position_metrics(np.log(TRUE[:2]), ["a", "b"]) is None


def test_both_orders_are_averaged_each_with_its_own_labels():
    ids = ["a", "b/swapped", "a/swapped", "c", "b"]
    q = np.array([[0.8, 0.1, 0.1], [0.6, 0.3, 0.1], [0.7, 0.2, 0.1], [0.5, 0.3, 0.2], [0.2, 0.4, 0.4]])
    averaged = association.average_orders(np.log(q), ids)
    expected = [[0.5, 0.4, 0.1], [0.5, 0.25, 0.25], [0.4, 0.5, 0.1], [0.5, 0.3, 0.2], [0.25, 0.5, 0.25]]
    np.testing.assert_allclose(np.exp(averaged), expected)
    after = association.position_metrics(averaged, ids)
    assert (after.swap_consistency, after.num_pairs) == (1, 2) and after.position_bias == pytest.approx(0)
