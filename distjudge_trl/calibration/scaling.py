"""Temperature and vector scaling: a judge's log-probabilities made to match the distributions of held-out items.

Scaling is fitted on items held out of training, never on test items, and is then part of the judge. It is the cheapest
alternative to training on distributions: a difference that remains after scaling is not due to sharpness alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax, xlogy

from distjudge_trl.calibration.arrays import as_array


ScalingKind = Literal["temperature", "vector"]
# Fewer items are not enough to fit a temperature.
MIN_CALIBRATION_ITEMS = 10
_NUM_FOLDS = 5
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

    def to_dict(self, kind: str, num_items: int) -> dict[str, Any]:
        """The form of result files and of `judge.json`, with the `kind` of the scaling and the number of items that it
        was fitted on.
        """
        return {
            "kind": kind,
            "temperature": self.temperature,
            "weight": self.weight.tolist(),
            "bias": self.bias.tolist(),
            "num_items": num_items,
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Scaling:
        """The inverse of [`to_dict`]."""
        return cls(as_array(content["weight"]), as_array(content["bias"]))


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


# The order is that of preference where two do equally well.
FITS: dict[ScalingKind, Callable[[Any, Any], Scaling]] = {"temperature": fit_temperature, "vector": fit_vector}


def cross_validate(p: Any, log_q: Any, groups: Sequence[str]) -> dict[ScalingKind, float]:
    """Mean KL(p ‖ q), nats, of every kind of scaling on items that it was not fitted on: five folds, a group in one of
    them. `p` and `log_q` `(N, K)`, `groups` `(N,)`. Empty if all items are of one group.
    """
    p, log_q = _checked(p, log_q)
    names, member = np.unique(np.asarray(groups), return_inverse=True)
    if len(names) < 2:
        return {}
    fold = np.random.default_rng(0).permutation(len(names))[member] % _NUM_FOLDS
    losses = {}
    for kind, fit in FITS.items():
        total = 0.0
        for number in range(min(_NUM_FOLDS, len(names))):
            out = fold == number
            log_r = fit(p[~out], log_q[~out])(log_q[out])
            total += float((xlogy(p[out], p[out]) - p[out] * log_r).sum())
        losses[kind] = total / len(p)
    return losses
