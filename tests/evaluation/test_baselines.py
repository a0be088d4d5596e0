"""Human ceiling and constant judges, against brute force and known truths."""

import itertools

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import log_softmax, rel_entr

from distjudge_trl.evaluation.baselines import human_ceiling, training_majority, training_prior, uniform
from distjudge_trl.evaluation.distances import item_kl


def test_the_ceiling_of_one_item_by_all_of_its_halves():
    """Votes a a b: three ways to take one of them against the other two, who get a vote like the other item's."""
    counts = np.array([[2, 1], [1, 0]])
    shares, kls = np.array([1.5 / 2, 0.5 / 2]), []
    for chosen in itertools.combinations([0, 0, 1], 1):
        half = np.array([chosen.count(0), chosen.count(1)])
        q = (counts[0] - half + shares) / 3
        kls.append(rel_entr(half, q).sum())
    assert human_ceiling(counts, num_splits=4000).kl == pytest.approx(np.mean(kls), rel=0.02)


def test_halves_of_people_who_agree_agree():
    ceiling = human_ceiling(np.array([[10, 0, 0], [0, 10, 0], [0, 0, 10]] * 30))
    assert ceiling.accuracy == 1 and ceiling.kl < 0.2 and ceiling.total_variation < 0.15


def test_the_true_distribution_is_a_better_judge_than_half_of_the_people():
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(4), 800)
    counts = rng.multinomial(10, p)
    ceiling = human_ceiling(counts, np.log(p))
    assert ceiling.num_items == 800 and ceiling.judge_kl < ceiling.kl
    # Five votes against the truth score the noise floor of five annotators.
    five = rng.multinomial(5, p) / 5
    assert ceiling.judge_kl == pytest.approx(item_kl(five, np.log(p)).mean(), rel=0.1)


def test_items_with_one_annotator_do_not_count():
    assert human_ceiling(np.array([[1, 0], [0, 1]])) is None
    assert human_ceiling(np.array([[1, 0], [2, 2]])).num_items == 1


def test_the_prior_is_the_best_constant():
    p = np.random.default_rng(1).dirichlet(np.ones(3), 200)
    best = minimize(lambda x: item_kl(p, np.broadcast_to(log_softmax(x), p.shape)).mean(), np.zeros(3))
    np.testing.assert_allclose(training_prior(p), log_softmax(best.x), atol=1e-3)
    assert np.exp(training_prior(np.array([[1.0, 0.0]]))).tolist() == pytest.approx([1 - 1e-5, 1e-5], rel=1e-3)


def test_majority_and_uniform():
    p = np.array([[0.6, 0.4, 0], [0.9, 0, 0.1], [0.2, 0.7, 0.1], [1, 0, 0]])
    np.testing.assert_allclose(np.exp(training_majority(p)), [0.75, 0.125, 0.125])
    np.testing.assert_allclose(np.exp(training_majority(p[3:])), [1 - 1e-5, 5e-6, 5e-6])
    np.testing.assert_allclose(np.exp(uniform(4)), 0.25)
