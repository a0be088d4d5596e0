"""Metrics of a judge on held-out items. numpy in, floats out; natural logarithms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.special import rel_entr

from distjudge_trl.evaluation.noise_floor import noise_floor
from distjudge_trl.evaluation.statistics import Estimate, bootstrap_mean


def item_kl(p: np.ndarray, log_q: np.ndarray) -> np.ndarray:
    """KL(p ‖ q) per item (eq. 10 before the mean): human `(N, K)` and judge log-probabilities `(N, K)` to `(N,)`;
    nats, at least 0.
    """
    return np.where(p > 0, rel_entr(p, 1.0) - p * np.where(p > 0, log_q, 0.0), 0.0).sum(-1)


def item_accuracy(p: np.ndarray, log_q: np.ndarray) -> np.ndarray:
    """1 where the judge's likeliest label is the annotators' most frequent one, else 0 (eq. 11), `(N,)`. Ties go to
    the first label.
    """
    return (p.argmax(-1) == log_q.argmax(-1)).astype(float)


def evaluate_judgments(
    p: np.ndarray,
    log_q: np.ndarray,
    num_annotators: np.ndarray,
    groups: Sequence[str],
    *,
    mass: float | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """What a result file says about a judge.

    Args:
        p (`np.ndarray` of shape `(N, K)`): human distributions.
        log_q (`np.ndarray` of shape `(N, K)`): the judge's label log-probabilities, normalised over the labels.
        num_annotators (`np.ndarray` of shape `(N,)`): votes behind each row of p.
        groups (`Sequence[str]` of length N): clusters of the bootstrap.
        mass (`float`, *optional*): mean label mass.
        seed (`int`, defaults to 0): of the bootstrap and the floor's simulation.

    Returns:
        `dict`: `kl` and `accuracy` with `value`, `low`, `high` (95 %); `noise_floor` (see `noise_floor.py`; `None`
            where the rows of p are no shares of whole votes) and `excess_kl` = kl - floor, nats;
        `majority_ties` (share of items whose majority label is tied), `num_items`, `num_groups`, and `label_mass` if
        given.
    """
    counts = np.rint(p * num_annotators[:, None])
    whole = np.allclose(counts, p * num_annotators[:, None], atol=1e-3)
    floor = noise_floor(counts, seed=seed).value if whole else None
    kl = bootstrap_mean(item_kl(p, log_q), groups, seed=seed)
    accuracy = bootstrap_mean(item_accuracy(p, log_q), groups, seed=seed)
    ties = (np.isclose(p, p.max(-1, keepdims=True)).sum(-1) > 1).mean()
    metrics: dict[str, Any] = {
        "kl": _to_dict(kl),
        "accuracy": _to_dict(accuracy),
        "noise_floor": floor,
        "excess_kl": kl.value - floor if floor is not None else None,
        "majority_ties": float(ties),
        "num_items": len(p),
        "num_groups": len(set(groups)),
    }
    if mass is not None:
        metrics["label_mass"] = mass
    return metrics


def _to_dict(estimate: Estimate) -> dict[str, float | None]:
    """JSON has no infinity: an interval without an end is `null`."""
    finite = {name: value if np.isfinite(value) else None for name, value in vars(estimate).items()}
    return finite
