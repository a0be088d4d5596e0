"""Calibration after training: temperature and vector scaling, and how well confidence matches correctness.

Scaling is fitted on items held out of training, never on test items, and is then part of the judge. It is the cheapest
alternative to training on distributions: a difference that remains after scaling is not due to sharpness alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax

from distjudge_trl.evaluation.distances import as_array
from distjudge_trl.evaluation.statistics import bootstrap_interval


# A temperature beyond this range means that a judge's ranking is worthless or perfect. The bounds keep the fit finite.
_LARGEST_LOG_TEMPERATURE = np.log(100.0)
# Smaller log-probabilities (of less than 1e-26) are raised to this, because an infinity cannot be scaled.
_LOWEST_LOG_Q = -60.0


@dataclass(frozen=True)
class Scaling:
    """`log_q -> log_softmax(weight * log_q + bias)`: `weight` and `bias` `(K,)`. With equal weights and no bias, the
    temperature is `1 / weight`.
    """

    weight: np.ndarray
    bias: np.ndarray

    def __call__(self, log_q: Any) -> np.ndarray:
        """Scaled label log-probabilities `(N, K)`, float64."""
        return log_softmax(self.weight * np.maximum(as_array(log_q), _LOWEST_LOG_Q) + self.bias, axis=-1)

    @property
    def temperature(self) -> float | None:
        """The temperature of temperature scaling; `None` for vector scaling."""
        same = np.all(self.weight == self.weight[0]) and not self.bias.any()
        return float(1 / self.weight[0]) if same else None


def fit_temperature(p: Any, log_q: Any) -> Scaling:
    """Temperature scaling (Guo et al. 2017) to distributions: the one temperature in [0.01, 100] that minimises the
    mean KL(p ‖ q) of `p` `(N, K)` and `log_q` `(N, K)`.
    """
    p, log_q = _checked(p, log_q)

    def loss(log_temperature: np.ndarray) -> tuple[float, np.ndarray]:
        scaled = log_q * np.exp(-log_temperature[0])
        log_r = log_softmax(scaled, axis=-1)
        # d/ds of -sum p log softmax(x e^-s)
        gradient = (((p - np.exp(log_r)) * scaled).sum(-1)).mean()
        return float(-(p * log_r).sum(-1).mean()), np.array([gradient])

    # The loss is convex in 1/T and so has one minimum in log T. Starts on both sides avoid getting stuck where it is
    # flat.
    bounds = [(-_LARGEST_LOG_TEMPERATURE, _LARGEST_LOG_TEMPERATURE)]
    fits = [minimize(loss, [start], jac=True, bounds=bounds, method="L-BFGS-B") for start in (-1.0, 0.0, 1.5)]
    best = min(fits, key=lambda fit: fit.fun)
    num_labels = p.shape[-1]
    return Scaling(np.full(num_labels, np.exp(-best.x[0])), np.zeros(num_labels))


def fit_vector(p: Any, log_q: Any, *, penalty: float = 1e-3) -> Scaling:
    """Vector scaling (Guo et al. 2017) to distributions: a weight and a bias per label that minimise the mean KL(p ‖
    q) plus a small ridge penalty towards the identity, which keeps the bias of labels that nobody chose finite.
    """
    p, log_q = _checked(p, log_q)
    num_labels = p.shape[-1]

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        weight, bias = parameters[:num_labels], parameters[num_labels:]
        log_r = log_softmax(weight * log_q + bias, axis=-1)
        residual = np.exp(log_r) - p
        value = -(p * log_r).sum(-1).mean() + penalty * (((weight - 1) ** 2).sum() + (bias**2).sum())
        gradient = np.concatenate([(residual * log_q).mean(0), residual.mean(0)])
        gradient += 2 * penalty * np.concatenate([weight - 1, bias])
        return float(value), gradient

    start = np.concatenate([np.ones(num_labels), np.zeros(num_labels)])
    fit = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 1000})
    return Scaling(fit.x[:num_labels], fit.x[num_labels:])


def _checked(p: Any, log_q: Any) -> tuple[np.ndarray, np.ndarray]:
    p, log_q = as_array(p), np.maximum(as_array(log_q), _LOWEST_LOG_Q)
    if p.shape != log_q.shape or p.ndim != 2 or not len(p):
        raise ValueError(f"Need two arrays of shape (N, K) with N >= 1, got {p.shape} and {log_q.shape}.")
    return p, log_q


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
