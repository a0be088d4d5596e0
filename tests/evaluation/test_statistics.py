"""Tests and summaries: error rates in simulation, libraries' results, literal examples."""

import numpy as np
import pytest
from scipy.stats import ttest_rel

from distjudge_trl.evaluation import statistics
from distjudge_trl.evaluation.statistics import (
    bootstrap_mean,
    holm,
    over_seeds,
    paired_test,
    seed_difference,
    seed_test,
)


def simulate(rng, effect=0.0, num_groups=40):
    """Two judges' values on 4 items a group, with difficulties and preferences common to a group."""
    groups = np.repeat(np.arange(num_groups), 4)
    hard = rng.gamma(2.0, size=num_groups)[groups]
    lean = 0.3 * rng.normal(size=num_groups)[groups]
    a = hard + lean + 0.3 * rng.normal(size=len(groups))
    b = hard + 0.3 * rng.normal(size=len(groups)) + effect
    return a, b, groups.astype(str)


def test_the_paired_test_errs_as_often_as_it_says():
    rng = np.random.default_rng(0)
    rejected = items_alone = 0
    for _ in range(1000):
        a, b, groups = simulate(rng)
        rejected += paired_test(a, b, groups, num_resamples=399) < 0.05
        items_alone += ttest_rel(a, b).pvalue < 0.05
    assert 0.03 <= rejected / 1000 <= 0.07
    assert items_alone / 1000 > 0.1  # what a test that takes items for independent would do


def test_the_paired_test_finds_a_real_difference():
    rng = np.random.default_rng(1)
    assert np.mean([paired_test(*simulate(rng, effect=0.25), num_resamples=399) < 0.05 for _ in range(60)]) > 0.9


def test_intervals_cover_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(2)
    covered = 0
    for _ in range(1000):
        a, b, groups = simulate(rng, effect=-0.5, num_groups=60)
        estimate = bootstrap_mean(a - b, groups, num_resamples=500)
        covered += estimate.low <= 0.5 <= estimate.high
    assert 0.92 <= covered / 1000 <= 0.98


@pytest.mark.parametrize("num_groups", [10, 20, 60])
@pytest.mark.parametrize("shape", [None, 2.0])
def test_intervals_of_few_groups_and_skewed_values_cover_the_truth(num_groups, shape):
    """Normal values, and gamma ones, as KLs are."""
    rng = np.random.default_rng(3)
    groups = np.repeat(np.arange(num_groups), 4).astype(str)
    covered = 0
    for _ in range(500):
        draw = rng.normal if shape is None else lambda size: rng.gamma(shape, size=size)
        values = (draw(size=num_groups)[:, None] + draw(size=(num_groups, 4))).ravel()
        estimate = bootstrap_mean(values, groups, num_resamples=1000)
        covered += estimate.low <= (0 if shape is None else 2 * shape) <= estimate.high
    assert 0.92 <= covered / 500 <= 0.98


def test_the_paired_test_is_exact_for_few_groups():
    # Of 2^3 sign patterns, two are as extreme as the observed one.
    assert paired_test(np.array([1.0, 2.0, 4.0]), np.zeros(3), ["a", "b", "c"]) == pytest.approx(2 / 8)


@pytest.mark.parametrize(("a", "groups"), [([1.0, 2.0], ["g", "g"]), ([0.0, 0.0], ["g", "h"])])
def test_nothing_follows_from_one_group_or_no_difference(a, groups):
    assert paired_test(np.array(a), np.zeros(2), groups) == 1.0


def test_over_seeds():
    summary = over_seeds([0.2, 0.3, 0.4])
    assert (summary.mean, summary.std, summary.num_runs) == (pytest.approx(0.3), pytest.approx(0.1), 3)
    assert np.isnan(over_seeds([0.2]).std)
    with pytest.raises(ValueError, match="at least one"):
        over_seeds([])


def test_the_seed_test_is_the_paired_t_test():
    a, b = [0.20, 0.25, 0.22, 0.21, 0.23], [0.30, 0.33, 0.31, 0.35, 0.29]
    assert seed_test(a, b) == pytest.approx(ttest_rel(a, b).pvalue) and seed_test(a, b) < 0.01
    assert seed_test([0.2], [0.3]) is None and seed_test(a, a) == 1.0
    interval = ttest_rel(a, b).confidence_interval()
    difference = seed_difference(a, b)
    assert (difference.low, difference.high) == pytest.approx((interval.low, interval.high))
    assert np.isinf(seed_difference([0.2], [0.3]).high)
    with pytest.raises(ValueError, match="same seeds"):
        seed_test(a, b[:2])


def test_holm_on_its_textbook_example():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0] and holm([0.03]) == [0.03]


@pytest.mark.parametrize("kept", [30 * 1000, 0])
def test_large_test_sets_are_drawn_in_slices_as_they_would_be_at_once(monkeypatch, kept):
    values = np.random.default_rng(0).normal(size=60)
    groups = [str(i % 30) for i in range(60)]
    at_once = bootstrap_mean(values, groups, num_resamples=1000)
    assert bootstrap_mean(values, groups, num_resamples=1000, seed=1) != at_once
    monkeypatch.setattr(statistics, "_MOST_DRAWN", 30 * 300)
    monkeypatch.setattr(statistics, "_MOST_KEPT", kept)
    statistics._kept_draws.cache_clear()
    assert bootstrap_mean(values, groups, num_resamples=1000) == at_once
