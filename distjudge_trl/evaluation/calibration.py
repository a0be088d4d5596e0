"""How well a judge's confidence matches its correctness."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from distjudge_trl.evaluation.distances import as_array
from distjudge_trl.evaluation.statistics import bootstrap_interval


@dataclass(frozen=True)
class Reliability:
    """Items in `num_bins` bins of the judge's confidence (its largest probability): `confidence` and `accuracy` `(B,)`
    means per bin (NaN where empty), `counts` `(B,)`; `ece` the mean absolute difference of the two, weighted by
    counts.
    """

    confidence: np.ndarray
    accuracy: np.ndarray
    counts: np.ndarray
    ece: float


def reliability(p: Any, log_q: Any, *, num_bins: int = 15) -> Reliability:
    """Expected calibration error and reliability curve (Guo et al. 2017; bins of equal width) against the majority
    label.

    `p` `(N, K)`, `log_q` `(N, K)`; the error is in [0, 1]. The measure knows only the majority: a judge that predicts
    the disagreement of annotators counts as under-confident. Read it together with the KL.
    """
    p, q = as_array(p), np.exp(as_array(log_q))
    confidence, correct = q.max(-1), (p.argmax(-1) == q.argmax(-1)).astype(float)
    member = _bins(confidence, num_bins)
    counts = np.bincount(member, minlength=num_bins)
    with np.errstate(invalid="ignore"):
        mean_confidence = np.bincount(member, weights=confidence, minlength=num_bins) / counts
        mean_accuracy = np.bincount(member, weights=correct, minlength=num_bins) / counts
    filled = counts > 0
    gaps = np.abs(mean_confidence - mean_accuracy)[filled]
    return Reliability(mean_confidence, mean_accuracy, counts, float((gaps * counts[filled]).sum() / len(p)))


def ece_interval(
    p: Any, log_q: Any, groups: Sequence[str], *, num_bins: int = 15, seed: int = 0
) -> tuple[float, float]:
    """95 % bootstrap interval of the expected calibration error, clustered by `groups` `(N,)`. Chance biases the error
    upwards, in a resample even more than in the sample.
    """
    p, q = as_array(p), np.exp(as_array(log_q))
    gap = q.max(-1) - (p.argmax(-1) == q.argmax(-1))
    in_bin = np.eye(num_bins)[_bins(q.max(-1), num_bins)]
    parts = np.concatenate([in_bin * gap[:, None], np.ones((len(p), 1))], axis=-1)
    return bootstrap_interval(parts, groups, lambda sums: np.abs(sums[:, :-1]).sum(-1) / sums[:, -1], seed=seed)


def _bins(confidence: np.ndarray, num_bins: int) -> np.ndarray:
    """Index of the bin of each confidence; bins have equal width."""
    edges = np.linspace(0, 1, num_bins + 1)
    return np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, num_bins - 1)
