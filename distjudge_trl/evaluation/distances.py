"""Distances between a judge's distribution and the annotators', item by item.

All functions take human distributions `p` `(N, K)` (rows sum to 1) and the judge's label log-probabilities `log_q`
`(N, K)` (rows of `exp(log_q)` sum to 1), as numpy arrays or torch tensors, and return float64 arrays `(N,)`. Natural
logarithms throughout.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import entr, rel_entr

from distjudge_trl.calibration.arrays import as_array


# If a judge gives a label that annotators chose a smaller probability, the KL describes the floor and not the judge.
# This holds for most items of the paper's raw judges, which are read from five tokens.
KL_FLOOR = 1e-6


def item_kl(p: Any, log_q: Any) -> np.ndarray:
    """KL(p ‖ q), the paper's metric before the mean (eq. 10); in [0, inf), nats. A label that nobody chose adds
    nothing.
    """
    p, log_q = as_array(p), as_array(log_q)
    return np.where(p > 0, rel_entr(p, 1.0) - p * np.where(p > 0, log_q, 0.0), 0.0).sum(-1)


def needs_floor(p: Any, log_q: Any, floored: Any = None, *, floor: float = KL_FLOOR) -> np.ndarray:
    """1 if a label that annotators chose has a probability of at most `floor`, or was not returned by the judge
    according to `floored` `(N, K)`, else 0.
    """
    p, log_q = as_array(p), as_array(log_q)
    low = log_q <= np.log(floor) + 1e-9
    return ((p > 0) & (low if floored is None else low | np.asarray(floored, dtype=bool))).any(-1).astype(float)


def item_jensen_shannon(p: Any, log_q: Any) -> np.ndarray:
    """Jensen-Shannon divergence, the mean KL of both to their middle (Lin 1991); in [0, log 2], nats. SciPy's
    `jensenshannon` is its root.
    """
    p, q = as_array(p), np.exp(as_array(log_q))
    middle = (p + q) / 2
    return (rel_entr(p, middle) + rel_entr(q, middle)).sum(-1) / 2


def item_total_variation(p: Any, log_q: Any) -> np.ndarray:
    """Half the sum of absolute differences, which is the largest difference in the probability of any set of labels;
    in [0, 1].
    """
    return np.abs(as_array(p) - np.exp(as_array(log_q))).sum(-1) / 2


def item_hellinger(p: Any, log_q: Any) -> np.ndarray:
    """Hellinger distance, the Euclidean one of the roots over sqrt(2); in [0, 1]."""
    return np.sqrt(((np.sqrt(as_array(p)) - np.exp(as_array(log_q) / 2)) ** 2).sum(-1) / 2)


def item_brier(p: Any, log_q: Any) -> np.ndarray:
    """Squared distance of the distributions (Brier 1950, with the annotators' shares instead of the outcome); in [0,
    2].
    """
    return ((as_array(p) - np.exp(as_array(log_q))) ** 2).sum(-1)


def item_wasserstein(p: Any, log_q: Any) -> np.ndarray:
    """Wasserstein-1 distance of ordinal labels at 0, 1, ..., K-1: the area between the cumulative distributions; in
    [0, K-1], in steps of the scale.
    """
    return np.abs(np.cumsum(as_array(p) - np.exp(as_array(log_q)), axis=-1)[..., :-1]).sum(-1)


def item_mean_error(p: Any, log_q: Any) -> np.ndarray:
    """Absolute difference of the mean ordinal labels; in [0, K-1], in steps of the scale."""
    p, q = as_array(p), np.exp(as_array(log_q))
    return np.abs((p - q) @ np.arange(p.shape[-1]))


def item_accuracy(p: Any, log_q: Any) -> np.ndarray:
    """1 if the judge's likeliest label is the annotators' most frequent one, else 0 (eq. 11). The first of tied labels
    counts, on both sides.
    """
    return (as_array(p).argmax(-1) == as_array(log_q).argmax(-1)).astype(float)


def item_entropy(log_q: Any) -> np.ndarray:
    """Entropy of the judge; in [0, log K], nats."""
    return entr(np.exp(as_array(log_q))).sum(-1)
