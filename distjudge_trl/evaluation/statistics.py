"""Confidence intervals and paired comparisons, by bootstrap over groups.

Items of one group (an article, a word family) are alike, so groups are drawn, not items: an interval over items would
be too narrow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


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
