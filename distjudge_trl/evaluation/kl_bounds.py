"""The lowest and the highest KL of a judge of whose labels some probabilities are known within bounds only."""

from __future__ import annotations

from itertools import product

import numpy as np
from scipy.special import rel_entr

from distjudge_trl.evaluation.distances import as_array


# All combinations of ends are tried up to here; with more unknown labels that people chose, the highest KL is a little
# too low.
_MOST_EXHAUSTIVE = 8


def kl_bounds(p: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bounds of KL(p || q) over all q that are proportional to probabilities between `lower` and `upper`.

    With θ = log of the label's probability, KL(p || q) = const - p·θ + logsumexp(θ) is convex in θ. So its maximum
    lies at a corner of the box, and moving one coordinate after the other to its best value finds the minimum: that
    of label k is p_k / (1 - p_k) times the sum of the others, cut to the bounds.

    Args:
        p (array `(N, K)`): human distributions.
        lower, upper (arrays `(N, K)`): bounds of the label's probabilities, greater than 0, before normalisation.

    Returns:
        the lowest and the highest KL, each `(N,)`, in nats.
    """
    p, lower, upper = as_array(p), as_array(lower), as_array(upper)
    pairs = [_bounds_of_item(*item) for item in zip(p, lower, upper, strict=True)]
    low, high = np.array(pairs).reshape(-1, 2).T
    return low, high


def _bounds_of_item(p: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> tuple[float, float]:
    free = np.flatnonzero(upper > lower)
    if not free.size:
        kl = _kl(p, lower)
        return kl, kl
    return _lowest(p, lower, upper, free), _highest(p, lower, upper, free)


def _lowest(p: np.ndarray, lower: np.ndarray, upper: np.ndarray, free: np.ndarray) -> float:
    values = lower.copy()
    for _ in range(200):
        before = values.copy()
        for k in free:
            others = values.sum() - values[k]
            best = upper[k] if p[k] >= 1 else p[k] / (1 - p[k]) * others
            values[k] = min(max(best, lower[k]), upper[k])
        if np.abs(np.log(values) - np.log(before)).max() < 1e-10:
            break
    return _kl(p, values)


def _highest(p: np.ndarray, lower: np.ndarray, upper: np.ndarray, free: np.ndarray) -> float:
    values = lower.copy()
    # What nobody chose only takes probability away from the rest.
    unchosen = free[p[free] == 0]
    values[unchosen] = upper[unchosen]
    chosen = free[p[free] > 0]
    # Where there are many, the less likely ones stay low.
    tried = chosen[np.argsort(-p[chosen], kind="stable")][:_MOST_EXHAUSTIVE]
    highest = -np.inf
    for ends in product(*((lower[k], upper[k]) for k in tried)):
        values[tried] = ends
        highest = max(highest, _kl(p, values))
    return highest


def _kl(p: np.ndarray, values: np.ndarray) -> float:
    return float(rel_entr(p, values / values.sum()).sum())
