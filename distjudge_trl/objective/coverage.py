"""The radius that the votes ask for: how far the true distribution of an item may be from its votes' shares.

After n votes with shares p, and under a symmetric Dirichlet prior with λ per label, the true distribution has the
posterior Dirichlet(n p + λ). The radius of an item is the quantile of |π - p| (L2) under it: the ball around p holds
the true distribution with that probability, on average over items whose distributions are drawn from the prior.

ε sqrt(5 / n) (`radius_scaling="annotators"`) has the same order in n. The quantile also knows that disputed items are
known less well than clear ones: the mean of |p - π|^2 is (1 - |π|^2) / n.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from distjudge_trl.objective._checks import check_rows


# Jeffreys' prior.
PSEUDO_COUNT = 0.5
# Draws from the posterior. At coverage 0.9 the radius is exact to about 1 %.
_NUM_DRAWS = 20_000
# Counts that agree to so many digits have the same radius.
_DIGITS = 4


def coverage_radius(
    p: Tensor, num_annotators: Tensor, coverage: float, *, pseudo_count: float = PSEUDO_COUNT
) -> Tensor:
    """The L2 radius around each item's shares that holds its true distribution with a given probability.

    Args:
        p (`Tensor` of shape `(B, K)`, float32 or float64): shares of the votes.
        num_annotators (`Tensor` of shape `(B,)`): n, at least 1.
        coverage (`float`): the probability, in (0, 1).
        pseudo_count (`float`, defaults to 0.5): λ of the prior, above 0.

    Returns:
        `Tensor` of shape `(B,)` in p's dtype, on its device. The draws have a fixed seed, so the same votes always get
        the same radius.

    Raises:
        `ValueError`: arguments outside their ranges, or shapes that do not fit.

    Example:
        >>> p = torch.tensor([[1.0, 0.0], [0.5, 0.5]])
        >>> coverage_radius(p, torch.tensor([10, 10]), coverage=0.9)
        tensor([0.1720, 0.3365])
    """
    check_rows(p, "p")
    if p.dim() != 2 or num_annotators.shape != p.shape[:1]:
        raise ValueError(
            f"`p` must have shape (B, K) and `num_annotators` (B,), got {tuple(p.shape)} and"
            f" {tuple(num_annotators.shape)}."
        )
    if not 0.0 < coverage < 1.0:
        raise ValueError(f"`coverage` must lie between 0 and 1, got {coverage}.")
    if not pseudo_count > 0.0:
        raise ValueError(f"`pseudo_count` must be above 0, got {pseudo_count}.")
    counts = (p.detach().cpu().double() * num_annotators.detach().cpu().double().unsqueeze(-1)).numpy()
    if (num_annotators < 1).any():
        raise ValueError("`num_annotators` must be at least 1.")
    # The labels' order does not matter.
    keys = [tuple(row) for row in np.round(np.sort(counts, axis=-1), _DIGITS).tolist()]
    radii = [_radius(key, coverage, pseudo_count) for key in keys]
    return torch.tensor(radii, dtype=p.dtype, device=p.device)


@lru_cache(maxsize=100_000)
def _radius(counts: tuple[float, ...], coverage: float, pseudo_count: float) -> float:
    votes = np.asarray(counts)
    draws = np.random.default_rng(0).dirichlet(votes + pseudo_count, size=_NUM_DRAWS)
    distances = np.linalg.norm(draws - votes / votes.sum(), axis=-1)
    return float(np.quantile(distances, coverage))
