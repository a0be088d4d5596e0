"""Metrics over all items together: agreement with the majority, whether the judge knows where people disagree, and
position bias.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import rankdata, spearmanr
from sklearn.metrics import cohen_kappa_score, f1_score

from distjudge_trl.data.splits import SWAPPED
from distjudge_trl.errors import UserInputError
from distjudge_trl.evaluation.distances import as_array, item_entropy
from distjudge_trl.evaluation.statistics import bootstrap_interval
from distjudge_trl.judges.swapping import compare_orders


# How many rows of the distance matrices are in memory at once.
_CHUNK = 512


def macro_f1(p: Any, log_q: Any) -> float:
    """F1 of each label against the majority label, averaged over the labels that occur on either side; in [0, 1]
    (scikit-learn's `f1_score`). Of tied labels the first counts.
    """
    return float(f1_score(as_array(p).argmax(-1), as_array(log_q).argmax(-1), average="macro", zero_division=0))


def cohen_kappa(p: Any, log_q: Any) -> float | None:
    """Cohen's kappa between the likeliest and the majority label; at most 1, 0 is chance (scikit-learn). `None` if
    both always name the same single label, for which kappa is undefined.
    """
    majority, judged = as_array(p).argmax(-1), as_array(log_q).argmax(-1)
    if len(np.union1d(majority, judged)) < 2:
        return None
    return float(cohen_kappa_score(majority, judged))


def agreement_interval(
    p: Any, log_q: Any, groups: Sequence[str], *, seed: int = 0
) -> tuple[tuple[float, float], tuple[float, float]]:
    """95 % bootstrap intervals, clustered by `groups` `(N,)`, of [`macro_f1`] and [`cohen_kappa`]."""
    p, log_q = as_array(p), as_array(log_q)
    num_labels = p.shape[-1]
    # Every item adds one to its cell of the confusion matrix.
    parts = np.eye(num_labels**2)[num_labels * p.argmax(-1) + log_q.argmax(-1)]

    def f1(sums: np.ndarray) -> np.ndarray:
        table = sums.reshape(-1, num_labels, num_labels)
        occurs = table.sum(1) + table.sum(2)
        scores = 2 * np.diagonal(table, axis1=1, axis2=2) / np.maximum(occurs, 1)
        return scores.sum(-1) / (occurs > 0).sum(-1)

    def kappa(sums: np.ndarray) -> np.ndarray:
        table = sums.reshape(-1, num_labels, num_labels) / sums.sum(-1)[:, None, None]
        observed = np.trace(table, axis1=1, axis2=2)
        chance = (table.sum(1) * table.sum(2)).sum(-1)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(chance < 1, (observed - chance) / (1 - chance), np.nan)

    return bootstrap_interval(parts, groups, f1, seed=seed), bootstrap_interval(parts, groups, kappa, seed=seed)


def entropy_correlation_interval(p: Any, log_q: Any, groups: Sequence[str], *, seed: int = 0) -> tuple[float, float]:
    """95 % bootstrap interval of [`entropy_correlation`], clustered by `groups` `(N,)`. Ranks are computed once, among
    all items.
    """
    x, y = (rankdata(values) - (len(values) + 1) / 2 for values in _entropies(p, log_q))

    def correlation(sums: np.ndarray) -> np.ndarray:
        count, sx, sy, sxx, syy, sxy = sums.T
        with np.errstate(invalid="ignore", divide="ignore"):
            return (sxy - sx * sy / count) / np.sqrt((sxx - sx**2 / count) * (syy - sy**2 / count))

    parts = np.stack([np.ones(len(x)), x, y, x * x, y * y, x * y], axis=-1)
    return bootstrap_interval(parts, groups, correlation, seed=seed)


def _entropies(p: Any, log_q: Any) -> tuple[np.ndarray, np.ndarray]:
    with np.errstate(divide="ignore"):
        return item_entropy(np.log(as_array(p))), item_entropy(log_q)


def entropy_correlation(p: Any, log_q: Any) -> float | None:
    """Spearman's rank correlation of the annotators' and the judge's entropy over items: does the judge know where
    people disagree? In [-1, 1]; `None` if one of them is the same for all items.
    """
    human, judge = _entropies(p, log_q)
    if np.ptp(human) < 1e-9 or np.ptp(judge) < 1e-9:
        return None
    return float(spearmanr(human, judge).statistic)


def distance_correlation(p: Any, log_q: Any) -> float | None:
    """Distance correlation (Székely, Rizzo and Bakirov 2007) of the two distributions over items: 0 only for
    independence, 1 if one is a rotated, scaled copy of the other. In [0, 1]; `None` if either is constant.
    """
    a, b = as_array(p), np.exp(as_array(log_q))
    count = len(a)

    def distances(x: np.ndarray, start: int) -> np.ndarray:
        return np.sqrt(((x[start : start + _CHUNK, None] - x[None]) ** 2).sum(-1))

    starts = range(0, count, _CHUNK)
    a_means = np.concatenate([distances(a, start).mean(-1) for start in starts])
    b_means = np.concatenate([distances(b, start).mean(-1) for start in starts])
    products = np.zeros(3)
    for start in starts:
        rows = slice(start, start + _CHUNK)
        a_centered = distances(a, start) - a_means[rows, None] - a_means[None] + a_means.mean()
        b_centered = distances(b, start) - b_means[rows, None] - b_means[None] + b_means.mean()
        products += [(a_centered * b_centered).sum(), (a_centered**2).sum(), (b_centered**2).sum()]
    covariance, a_variance, b_variance = products / count**2
    if min(a_variance, b_variance) < 1e-18:
        return None
    return float(np.sqrt(max(covariance, 0.0) / np.sqrt(a_variance * b_variance)))


@dataclass(frozen=True)
class PositionMetrics:
    """How a judge of pairs treats the two orders of the same pair.

    `swap_consistency`: share of pairs whose likeliest answer names the same response (or a tie) in both orders, in [0,
    1], where any of equally likely answers may be meant; `position_bias`: how much probability a response gains on
    average by standing first, in [-1, 1], 0 is fair; `num_pairs`: pairs that are present in both orders.
    """

    swap_consistency: float
    position_bias: float
    num_pairs: int


def position_metrics(log_q: Any, ids: Sequence[str]) -> PositionMetrics | None:
    """Position metrics of preferences with labels A, B and possibly others without a side (tie).

    Args:
        log_q (array `(N, K)`): the judge's label log-probabilities; column 0 is A, column 1 is B.
        ids (`Sequence[str]` of length N): the id of a pair's swapped order is that of the canonical order followed by
            `/swapped`.

    Returns:
        [`PositionMetrics`], or `None` if no pair is present in both orders.
    """
    q = np.exp(as_array(log_q))
    rows, swapped = _rows_of_pairs(ids)
    if not rows:
        return None
    counts = compare_orders(q[rows], q[swapped], _mirror(q))
    return PositionMetrics(counts.consistent / counts.pairs, counts.gains / counts.pairs, counts.pairs)


def average_orders(log_q: Any, ids: Sequence[str]) -> np.ndarray:
    """Log-probabilities `(N, K)` in which the two records of a pair have the mean of both orders, each with its own
    labels. Records without the other order are as before. Arguments as in [`position_metrics`].
    """
    averaged = as_array(log_q).copy()
    rows, swapped = _rows_of_pairs(ids)
    mirror = _mirror(averaged)
    averaged[rows] = np.logaddexp(averaged[rows], averaged[swapped][:, mirror]) - np.log(2)
    averaged[swapped] = averaged[rows][:, mirror]
    return averaged


def in_both_orders(log_q: Any, ids: Sequence[str], notes: Counter[str]) -> np.ndarray:
    """[`average_orders`], and notes on how consistent the orders were before.

    Raises:
        [`UserInputError`]: no pair is there in both orders.
    """
    before = position_metrics(log_q, ids)
    if before is None:
        raise UserInputError(
            "--average-orders: no test item is there in both orders. Tasks of pairs make both with --swap both, their"
            " default."
        )
    notes["pairs in both orders, averaged"] += before.num_pairs
    same = round(before.swap_consistency * before.num_pairs)
    notes["pairs with the same answer in both orders before (all of them after)"] += same
    return average_orders(log_q, ids)


def _rows_of_pairs(ids: Sequence[str]) -> tuple[list[int], list[int]]:
    """The rows of pairs that are there in both orders: canonical, and swapped."""
    row_of = {name: row for row, name in enumerate(ids)}
    both = [(row, row_of[name + SWAPPED]) for name, row in row_of.items() if name + SWAPPED in row_of]
    return [row for row, _ in both], [row for _, row in both]


def _mirror(q: np.ndarray) -> list[int]:
    """Response A of the canonical order is response B of the swapped one."""
    return [1, 0, *range(2, q.shape[-1])]
