"""Tests of a judge beyond the plain mean over test items."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from distjudge_trl.evaluation.distances import as_array, item_kl
from distjudge_trl.objective import project_simplex


# Those of the paper's Table 3.
ROBUSTNESS_RADII = (0.0, 0.05, 0.10, 0.15, 0.20, 0.25)


@dataclass(frozen=True)
class RobustnessPoint:
    """KL against targets moved by `radius`: mean over items, then mean and standard deviation over draws; `moved` is
    the average distance that the targets really moved (less than the radius if they would have left the simplex).
    """

    radius: float
    kl: float
    std: float
    moved: float


def perturb_targets(p: Any, radius: float, rng: np.random.Generator) -> np.ndarray:
    """Human distributions `(N, K)` moved at random: a direction uniform on the sphere of the tangent space of the
    simplex (entries sum to 0), of L2 length `radius`, then the Euclidean projection back onto the simplex.

    The paper does not say how it draws its perturbation. This one does not prefer any label or item.
    """
    p = as_array(p)
    direction = rng.standard_normal(p.shape)
    direction -= direction.mean(-1, keepdims=True)
    direction /= np.linalg.norm(direction, axis=-1, keepdims=True)
    return project_simplex(torch.from_numpy(p + radius * direction)).numpy()


def robustness(
    p: Any, log_q: Any, *, radii: Sequence[float] = ROBUSTNESS_RADII, num_draws: int = 20, seed: int = 0
) -> list[RobustnessPoint]:
    """KL of a judge when the test items' targets are moved at random (the paper's Table 3).

    Args:
        p (array `(N, K)`): human distributions.
        log_q (array `(N, K)`): the judge's label log-probabilities.
        radii (`Sequence[float]`): L2 lengths of the perturbation, at least 0.
        num_draws (`int`, defaults to 20): draws per radius; the same directions for every radius and every judge.
        seed (`int`, defaults to 0): of the draws.
    """
    if any(radius < 0 for radius in radii) or num_draws < 1:
        raise ValueError(f"Need radii of at least 0 and at least one draw, got {list(radii)} and {num_draws}.")
    p = as_array(p)
    points = []
    for radius in radii:
        rng = np.random.default_rng(seed)
        kls, moved = [], []
        for _ in range(num_draws):
            target = perturb_targets(p, radius, rng)
            kls.append(item_kl(target, log_q).mean())
            moved.append(np.linalg.norm(target - p, axis=-1).mean())
        std = float(np.std(kls, ddof=1)) if num_draws > 1 else 0.0
        points.append(RobustnessPoint(float(radius), float(np.mean(kls)), std, float(np.mean(moved))))
    return points
