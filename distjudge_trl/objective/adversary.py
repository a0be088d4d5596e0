"""The inner maximisation: the worst label distribution near the human one (eqs. 7-8).

Both adversaries treat q as a constant (no gradient flows into the model) and return a point of

    E = simplex ∩ {p' : |p' - p| <= radius}.

**The gradient at the border.** ∇_p KL = log(p_i / q_i) + 1 falls to minus infinity where p_i = 0, and annotators leave
zeros in most rows. We take the gradient at max(p_i, `gradient_floor`), 1e-6 by default. Where the floor is below q_i
the label is pushed further down; the projection puts it back to exactly 0, and a clipped label's value does not enter
the solution for the others (see `projection.py`), so any smaller floor, minus infinity included, gives the same point.
Where the judge gives a label less than the floor, the floored gradient is positive and PGD may raise a label that
nobody chose. The worst case asks for this, and an unbounded gradient could never do it.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

from distjudge_trl.objective._checks import check_radius, check_rows
from distjudge_trl.objective.projection import furthest_feasible, project_simplex_ball_cvxpy, working_dtype


# There are 2^K - 2 subsets of K labels and K (K - 1) ordered pairs. Up to these sizes they are starting points of the
# worst case.
MAX_LABELS_FOR_SUBSETS = 6
MAX_LABELS_FOR_PAIRS = 12

# Any log-probability below this is a probability of zero in float64; the bound keeps gradients and objectives finite.
MIN_LOG_PROB = -700.0


class PGDAdversary:
    """Projected gradient ascent on KL(p' ‖ q), the paper's Algorithm (eqs. 8-9).

    Args:
        radius (`float` or `Tensor` of shape `(B,)`): ε, the L2 radius of the ball around p; 0 leaves p as it is.
        step_size (`float`, defaults to 0.05): η of eq. 8.
        num_steps (`int`, defaults to 5): ascent steps.
        projection (`"torch"` or `"cvxpy"`, defaults to `"torch"`): our exact batched projection, or the paper's solver
            row by row.
        gradient_floor (`float`, defaults to 1e-6): smallest p_i at which the gradient is taken, see the module's
            docstring.

    Raises:
        `ValueError`: a negative radius, step size or number of steps, an unknown projection, a floor outside (0, 1).

    Example:
        >>> p, q = torch.tensor([[0.6, 0.4, 0.0]]), torch.tensor([[0.5, 0.25, 0.25]])
        >>> PGDAdversary(radius=0.2)(p, q.log())
        tensor([[0.5207, 0.4793, 0.0000]])
    """

    def __init__(
        self,
        radius: float | Tensor,
        step_size: float = 0.05,
        num_steps: int = 5,
        projection: Literal["torch", "cvxpy"] = "torch",
        gradient_floor: float = 1e-6,
    ) -> None:
        check_radius(radius, torch.float64, torch.device("cpu"))
        if not step_size > 0:
            raise ValueError(f"`step_size` must be positive, got {step_size}.")
        if num_steps < 0:
            raise ValueError(f"`num_steps` must be at least 0, got {num_steps}.")
        if projection not in ("torch", "cvxpy"):
            raise ValueError(f"`projection` must be 'torch' or 'cvxpy', got {projection!r}.")
        if not 0 < gradient_floor < 1:
            raise ValueError(f"`gradient_floor` must lie between 0 and 1, got {gradient_floor}.")
        self.radius = radius
        self.step_size = step_size
        self.num_steps = num_steps
        self.projection = projection
        self.gradient_floor = gradient_floor

    @torch.no_grad()
    def __call__(self, p: Tensor, log_q: Tensor) -> Tensor:
        """Perturb `p` `(B, K)` against `log_q` `(B, K)`; returns `(B, K)` in p's dtype, detached."""
        center, log_q, radius = _prepare(p, log_q, self.radius)
        if not p.numel():
            return p.clone()
        current = center
        # eq. 8 adds η (log(p/q) + 1); the constant +1 moves every label alike and drops out in the projection.
        offset = log_q * self.step_size
        for _ in range(self.num_steps):
            ascent = current.clamp(min=self.gradient_floor).log_().mul_(self.step_size).sub_(offset)
            if self.projection == "cvxpy":
                squeezed = radius.squeeze(-1) if isinstance(radius, Tensor) else radius
                current = project_simplex_ball_cvxpy(current + ascent, center, squeezed)
            else:
                direction = ascent.add_(current).sub_(center)
                current = furthest_feasible(center, direction, radius, 1.0)
        return current.to(p.dtype)


class WorstCaseAdversary:
    """A global maximiser of KL(p' ‖ q) over E, without a step size.

    KL is convex in p', so its maximum lies at an extreme point of E, and replacing p' by the point of E furthest along
    the gradient at p' never lowers it. Plain linearised steps crawl where the objective is nearly a sphere, so each
    step first takes out the curvature that all directions share: on the ball's surface |p' - p| is constant, and there
    KL - m/2 |p' - p|^2 has the same maximisers as KL; with m = 1 / max p'_i, the least curvature at the current point,
    it is still convex nearby.

    There are many local maxima. The starts are the points of E furthest towards every subset of the labels, towards
    every ordered pair (mostly one label, somewhat another) and along the gradient at p; for more than six labels,
    towards and away from each label, ordered pairs and the gradient. After two steps the best `num_survivors`
    different ones per row go on, each also with its smallest label set to zero; the best point ever seen is returned.
    Measured against a dense brute force (`scripts/benchmarks/adversary.py`): for up to five labels it reaches at least
    99.9 % on every row, at nine labels 98 % on the worst row and 99.9 % on average.

    Args:
        radius (`float` or `Tensor` of shape `(B,)`): ε, the L2 radius of the ball around p.
        num_steps (`int`, defaults to 6): linearised steps after the start.
        num_survivors (`int`, defaults to 8): starts per row that go on after two steps.
        gradient_floor (`float`, defaults to 1e-6): as in [`PGDAdversary`].

    Raises:
        `ValueError`: a negative radius or number of steps, no survivors, a floor outside (0, 1).

    Example:
        >>> p, q = torch.tensor([[0.6, 0.4, 0.0]]), torch.tensor([[0.5, 0.25, 0.25]])
        >>> WorstCaseAdversary(radius=0.2)(p, q.log())
        tensor([[0.4586, 0.5414, 0.0000]])
    """

    def __init__(
        self, radius: float | Tensor, num_steps: int = 6, num_survivors: int = 8, gradient_floor: float = 1e-6
    ) -> None:
        check_radius(radius, torch.float64, torch.device("cpu"))
        if num_steps < 0:
            raise ValueError(f"`num_steps` must be at least 0, got {num_steps}.")
        if num_survivors < 1:
            raise ValueError(f"`num_survivors` must be at least 1, got {num_survivors}.")
        if not 0 < gradient_floor < 1:
            raise ValueError(f"`gradient_floor` must lie between 0 and 1, got {gradient_floor}.")
        self.radius = radius
        self.num_steps = num_steps
        self.num_survivors = num_survivors
        self.gradient_floor = gradient_floor

    @torch.no_grad()
    def __call__(self, p: Tensor, log_q: Tensor) -> Tensor:
        """Perturb `p` `(B, K)` against `log_q` `(B, K)`; returns `(B, K)` in p's dtype, detached."""
        center, log_q, radius = _prepare(p, log_q, self.radius)
        if not p.numel():
            return p.clone()
        log_ratio = center.clamp(min=self.gradient_floor).log_() - log_q
        best, best_value = center, (center * log_ratio).sum(-1)
        starts = _start_directions(center.shape[-1]).to(center)
        direction_SBK = torch.cat((starts.unsqueeze(1).expand(-1, center.shape[0], -1), log_ratio.unsqueeze(0)))
        for step in range(self.num_steps + 1):
            points_SBK = _extreme_points(center, direction_SBK, radius)
            log_ratio = points_SBK.clamp(min=self.gradient_floor).log_() - log_q
            values_SB = (points_SBK * log_ratio).sum(-1)
            value, index = values_SB.max(0)
            candidate = points_SBK.gather(0, index[None, :, None].expand(1, *center.shape)).squeeze(0)
            better = value > best_value
            best = torch.where(better.unsqueeze(-1), candidate, best)
            best_value = torch.where(better, value, best_value)
            if step == _PRUNE_AT and points_SBK.shape[0] > self.num_survivors:
                chosen = _distinct_best(values_SB, self.num_survivors).unsqueeze(-1).expand(-1, *center.shape)
                points_SBK, log_ratio = points_SBK.gather(0, chosen), log_ratio.gather(0, chosen)
            shared_curvature = 1 / points_SBK.amax(-1, keepdim=True)
            direction_SBK = log_ratio - shared_curvature * (points_SBK - center)
            if step == _PRUNE_AT:
                # The ascent approaches a label's zero only slowly, so also try setting the smallest label to zero.
                smallest = points_SBK.masked_fill(points_SBK <= 0, math.inf).argmin(-1, keepdim=True)
                without = direction_SBK.scatter(-1, smallest, -1e3)
                direction_SBK = torch.cat((direction_SBK, without))
        return best.to(p.dtype)


def _extreme_points(center: Tensor, direction: Tensor, radius: Tensor | float) -> Tensor:
    """The point of E furthest along each direction `(S, B, K)`. Shifting the best label to 0 makes exact ties stay
    exact.
    """
    far = 1e30  # a step that only the ball or the simplex can stop
    return furthest_feasible(center.expand_as(direction), direction - direction.amax(-1, keepdim=True), radius, far)


# After this many steps, starts that lead to the same maximum have nearly the same value, by which they are recognised.
_PRUNE_AT = 2


def _distinct_best(values: Tensor, count: int) -> Tensor:
    """Indices `(count, B)` of the largest values `(S, B)` of each column, near-equal ones (the same maximum) only
    once.
    """
    ordered, index = values.sort(0, descending=True)
    repeated = torch.zeros_like(ordered, dtype=torch.bool)
    repeated[1:] = ordered[:-1] - ordered[1:] < 1e-4 * ordered[:1].abs()
    first = ordered.masked_fill(repeated, -math.inf).topk(count, dim=0).indices
    return index.gather(0, first)


@lru_cache(maxsize=32)
def _start_directions(num_labels: int) -> Tensor:
    """Start directions `(S, K)` of `WorstCaseAdversary`, float64, on the CPU."""
    eye = torch.eye(num_labels, dtype=torch.float64)
    off_diagonal = ~torch.eye(num_labels, dtype=torch.bool).reshape(-1)
    pairs = (eye.unsqueeze(0) + 0.6 * eye.unsqueeze(1)).reshape(-1, num_labels)[off_diagonal]
    if num_labels <= MAX_LABELS_FOR_SUBSETS:
        subsets = [[(code >> i) & 1 for i in range(num_labels)] for code in range(1, 2**num_labels - 1)]
        directions = torch.cat((torch.tensor(subsets, dtype=torch.float64), pairs))
    elif num_labels <= MAX_LABELS_FOR_PAIRS:
        directions = torch.cat((eye, 1 - eye, pairs))
    else:
        directions = torch.cat((eye, 1 - eye))
    # A small fixed irregularity (fractional parts of the golden ratio's multiples): from a symmetric start the
    # gradient keeps the symmetry, and the ascent would stay on a ridge between two maxima.
    index = torch.arange(directions.numel(), dtype=torch.float64).reshape(directions.shape)
    return directions + 0.1 * (torch.frac(index * 0.6180339887498949) - 0.5)


def _prepare(p: Tensor, log_q: Tensor, radius: float | Tensor) -> tuple[Tensor, Tensor, Tensor | float]:
    """Centre, bounded log q and radius (with a trailing axis) in the working dtype.

    Raises:
        `ValueError`: p is not a float32 or float64 tensor `(B, K)` without NaN, or the shapes do not fit together.
    """
    check_rows(p, "p")
    if p.shape != log_q.shape or p.dim() != 2:
        raise ValueError(
            f"`p` and `log_q` must both have shape (B, K), got {tuple(p.shape)} and {tuple(log_q.shape)}."
        )
    dtype = working_dtype(p)
    center = p.to(dtype)
    center = center / center.sum(-1, keepdim=True)
    radius = check_radius(radius, dtype, p.device, p.shape[:-1])
    return center, log_q.detach().to(dtype).clamp(min=MIN_LOG_PROB), radius
