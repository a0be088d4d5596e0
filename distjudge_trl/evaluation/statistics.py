"""Confidence intervals, paired comparisons and tests; items by the groups they come in, runs by their seeds.

Items of one group (an article, a word family) are alike, so groups are drawn, not items: an interval over items would
be too narrow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import permutation_test, ttest_rel


@dataclass(frozen=True)
class Estimate:
    """A mean over items with its 95 % interval."""

    value: float
    low: float
    high: float


def bootstrap_mean(
    values: np.ndarray, groups: Sequence[str], *, level: float = 0.95, num_resamples: int = 10_000, seed: int = 0
) -> Estimate:
    """Mean of per-item `values` `(N,)` and its percentile bootstrap interval, clustered by `groups` `(N,)`.

    With a single group there is nothing to draw from, and the interval is the whole real line.

    Raises:
        `ValueError`: no items, or lengths that differ.
    """
    values = np.asarray(values, dtype=float)
    if not len(values) or len(values) != len(groups):
        raise ValueError(
            f"Need one group per value and at least one value, got {len(values)} values and {len(groups)} groups."
        )
    names, member = np.unique(np.asarray(groups), return_inverse=True)
    mean = float(values.mean())
    if len(names) == 1:
        return Estimate(mean, -np.inf, np.inf)
    sums = np.bincount(member, weights=values)
    sizes = np.bincount(member).astype(float)
    rng = np.random.default_rng(seed)
    means = np.empty(num_resamples)
    # In slices: draws x groups numbers at once would be gigabytes for large test sets.
    chunk = max(1, 2_000_000 // len(names))
    for start in range(0, num_resamples, chunk):
        draws = rng.multinomial(
            len(names), np.full(len(names), 1 / len(names)), size=min(chunk, num_resamples - start)
        )
        means[start : start + len(draws)] = (draws @ sums) / (draws @ sizes)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(mean, float(low), float(high))


def paired_difference(a: np.ndarray, b: np.ndarray, groups: Sequence[str], **kwargs) -> Estimate:
    """Mean of `a - b` over the same items, with its interval: a difference is real where 0 lies outside. See
    [`bootstrap_mean`].
    """
    return bootstrap_mean(np.asarray(a, dtype=float) - np.asarray(b, dtype=float), groups, **kwargs)


def paired_test(
    a: np.ndarray, b: np.ndarray, groups: Sequence[str], *, num_resamples: int = 9_999, seed: int = 0
) -> float:
    """Two-sided p-value of the paired permutation test that `a` and `b` `(N,)`, values of two judges on the same
    items, have the same mean.

    Under the null hypothesis the two judges' names can be exchanged, for all items of a group at once: SciPy's
    `permutation_test` flips the signs of the groups' summed differences.

    Returns:
        `float` in (0, 1]. 1 for a single group, from which nothing follows, and where no item differs.
    """
    difference = np.asarray(a, dtype=float) - np.asarray(b, dtype=float)
    if not len(difference) or len(difference) != len(groups):
        raise ValueError(f"Need one group per value, got {len(difference)} values and {len(groups)} groups.")
    names, member = np.unique(np.asarray(groups), return_inverse=True)
    sums = np.bincount(member, weights=difference)
    if len(names) == 1 or not np.any(sums):
        return 1.0
    test = permutation_test(
        (sums,),
        lambda values, axis: values.sum(axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=num_resamples,
        batch=max(1, 2_000_000 // len(names)),
        rng=np.random.default_rng(seed),
    )
    return float(test.pvalue)


@dataclass(frozen=True)
class SeedSummary:
    """A figure over runs that differ in their seed alone: mean and standard deviation (of a sample; NaN for one
    run)."""

    mean: float
    std: float
    num_runs: int


def over_seeds(values: Sequence[float]) -> SeedSummary:
    """Mean and standard deviation of one figure per run, as the paper reports its five."""
    array = np.asarray(values, dtype=float)
    if not len(array):
        raise ValueError("Need at least one run.")
    return SeedSummary(float(array.mean()), float(array.std(ddof=1)) if len(array) > 1 else float("nan"), len(array))


def seed_test(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Two-sided p-value of the paired t-test over seeds: `a` and `b` are one figure per seed, in the same order of
    seeds (same split, same initialisation). The paper does not name its test. `None` for fewer than two seeds.
    """
    if len(a) != len(b):
        raise ValueError(f"Need the same seeds on both sides, got {len(a)} and {len(b)} runs.")
    if len(a) < 2:
        return None
    if np.allclose(np.asarray(a) - np.asarray(b), 0):
        return 1.0
    return float(ttest_rel(a, b).pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values adjusted for comparing several at once (Holm 1979): below the level, the family-wise error is, too."""
    order = np.argsort(p_values)
    adjusted = np.empty(len(order))
    largest = 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * p_values[i]))
        adjusted[i] = largest
    return adjusted.tolist()
