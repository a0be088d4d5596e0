"""Euclidean projection onto the simplex and onto the simplex cut with a ball (eq. 9 of the paper).

The paper hands the projection to CVXPY, one row at a time. It has a one-dimensional dual and a piecewise linear path,
so it can be solved exactly, for a whole batch, in at most K rounds of elementwise tensor operations.

Derivation. For a centre c in the simplex D, with d = v - c, the KKT conditions of

    min_u  1/2 |u - v|^2    subject to   u in D,  |u - c| <= r

say that u(s) = P_D(c + s d) for a step s = 1 / (1 + multiplier of the ball) in (0, 1]. So one number is left to find:
the largest s <= 1 with |u(s) - c| <= r. On a fixed support A of size n, with `lost` the mass that c has outside A,

    u_i(s) = c_i + lost / n + s w_i,   w_i = d_i - mean_A(d)      (i in A; zero elsewhere)
    |u(s) - c|^2 = sum_{i not in A} c_i^2 + lost^2 / n + s^2 |w|^2

and the second line is solved for s in closed form. Starting from A = all labels we alternate: take that s, drop the
labels whose u_i came out negative. This never drops a label that the solution keeps: while A contains the solution's
support, the second line bounds the true distance from above, so s never passes the solution's step; and a label that
is out at some step stays out at every later one, because its height over the threshold is concave in s and not
negative at s = 0. When nothing is left to drop, the KKT conditions hold. Every round but the last drops a label, hence
at most K rounds.

Setting the cap on s to a very large number instead of 1 gives the point of the set furthest along d: the linear
maximisation that `WorstCaseAdversary` is built on.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from distjudge_trl.objective._checks import check_radius, check_rows


def working_dtype(*tensors: Tensor) -> torch.dtype:
    """float64 wherever the device has it (rows are tiny, and it keeps far-away `v` exact), else float32."""
    on_mps = any(t.device.type == "mps" for t in tensors)
    return torch.float32 if on_mps else torch.float64


def furthest_feasible(center: Tensor, direction: Tensor, radius: Tensor | float, max_step: float) -> Tensor:
    """Follow `direction` from `center`, projecting onto the simplex, until the ball or `max_step` stops the way.

    Args:
        center (`Tensor` of shape `(..., K)`): points of the simplex, in the working dtype.
        direction (`Tensor` of shape `(..., K)`): finite; only its differences between labels matter.
        radius (`Tensor` broadcastable to `(..., 1)`, or `float`): L2 radius, at least 0; may be infinite.
        max_step (`float`): 1.0 projects `center + direction`; a huge one maximises the inner product with it.

    Returns:
        `Tensor` of shape `(..., K)`: u(s) of the module's docstring at the largest admissible s.
    """
    if not direction.numel():
        return direction
    # First round: every label is in the support and no mass is lost.
    w = direction - direction.mean(-1, keepdim=True)
    u = torch.addcmul(center, w, (radius / _norm(w)).clamp_(max=max_step))
    if u.amin() >= 0:  # the common case away from the border
        return u
    if u.numel() > LARGE_BATCH:
        return _finish_rows(center, direction, radius, max_step, u)
    support = (u > 0).to(u.dtype)
    for _ in range(center.shape[-1] - 1):
        u = _round(center, direction, radius, max_step, support)
        if u.amin() >= 0:
            break
        support = support * (u > 0)
    return u.clamp_(min=0)


# Above this many numbers, it costs more to carry finished rows through further rounds than to sort them out (measured
# on two cores).
LARGE_BATCH = 16_384


def _norm(w: Tensor) -> Tensor:
    """L2 norm over the labels, kept away from 0, `(..., 1)`."""
    return torch.linalg.vector_norm(w, dim=-1, keepdim=True).clamp_(min=torch.finfo(w.dtype).tiny)


def _round(center: Tensor, direction: Tensor, radius: Tensor | float, max_step: float, support: Tensor) -> Tensor:
    """u(s) at the largest admissible s, on a fixed support `(..., K)` of zeros and ones; entries may come out
    negative.
    """
    size = support.sum(-1, keepdim=True)
    kept = center * support
    dropped = center - kept
    lost = dropped.sum(-1, keepdim=True)
    share = lost / size
    w = (direction - (direction * support).sum(-1, keepdim=True) / size) * support
    room = radius * radius - torch.addcmul((dropped * dropped).sum(-1, keepdim=True), lost, share)
    step = (room.clamp_(min=0).sqrt_() / _norm(w)).clamp_(max=max_step)
    return torch.addcmul(torch.addcmul(kept, share, support), w, step)


def _finish_rows(center: Tensor, direction: Tensor, radius: Tensor | float, max_step: float, u: Tensor) -> Tensor:
    """The rounds of `furthest_feasible` for a large batch: only rows whose support still changes are computed
    again.
    """
    shape, K = u.shape, u.shape[-1]
    out = u.reshape(-1, K)
    rows = (out.amin(-1) < 0).nonzero().squeeze(-1)
    center = center.expand(shape).reshape(-1, K)[rows]
    direction = direction.expand(shape).reshape(-1, K)[rows]
    if isinstance(radius, Tensor):
        radius = radius.expand(*shape[:-1], 1).reshape(-1, 1)[rows]
    support = (out[rows] > 0).to(u.dtype)
    for _ in range(K - 1):
        solved = _round(center, direction, radius, max_step, support)
        out[rows] = solved
        changed = (solved.amin(-1) < 0).nonzero().squeeze(-1)
        if not changed.numel():
            break
        support = (support * (solved > 0))[changed]
        center, direction, rows = center[changed], direction[changed], rows[changed]
        if isinstance(radius, Tensor):
            radius = radius[changed]
    return out.clamp_(min=0).reshape(shape)


def project_simplex(v: Tensor) -> Tensor:
    """Euclidean projection of every row of `v` onto the probability simplex.

    Args:
        v (`Tensor` of shape `(..., K)`, K >= 2, float32 or float64): finite or infinite values; equal infinities tie.

    Returns:
        `Tensor` of shape `(..., K)` and `v`'s dtype: rows are non-negative and sum to 1.

    Raises:
        `ValueError`: `v` is not a floating tensor with K >= 2, or holds NaN.

    Example:
        >>> project_simplex(torch.tensor([0.9, 0.6, -1.0]))
        tensor([0.6500, 0.3500, 0.0000])
    """
    check_rows(v, "v")
    uniform = torch.full((v.shape[-1],), 1.0 / v.shape[-1], dtype=working_dtype(v), device=v.device)
    return _project(v, uniform.expand(v.shape), math.inf)


def project_simplex_ball(v: Tensor, center: Tensor, radius: Tensor | float) -> Tensor:
    """Euclidean projection onto E = simplex ∩ {u : |u - center| <= radius} (eq. 9), exact and batched.

    Args:
        v (`Tensor` of shape `(..., K)`, K >= 2, float32 or float64): points to project; finite or infinite.
        center (`Tensor` broadcastable with `v`): points of the simplex (non-negative, sum 1; renormalised here, so
            rounding in the last digits does no harm).
        radius (`float` or `Tensor` broadcastable to the leading dimensions): L2 radius, at least 0. 0 returns the
            centre; from sqrt(2) on, only the simplex binds.

    Returns:
        `Tensor` of shape `(..., K)` and `v`'s dtype. Exact to 1e-6 in float32 and 1e-10 in float64.

    Raises:
        `ValueError`: wrong shapes or dtypes, K < 2, NaN anywhere, a negative radius.

    Example:
        >>> c = torch.tensor([1.0, 0.0, 0.0])
        >>> project_simplex_ball(torch.tensor([0.0, 1.0, 0.0]), c, 0.25)
        tensor([0.8232, 0.1768, 0.0000])
    """
    check_rows(v, "v")
    check_rows(center, "center")
    dtype = working_dtype(v, center)
    shape = torch.broadcast_shapes(v.shape, center.shape)
    radius = check_radius(radius, dtype, v.device, shape[:-1])
    center = center.to(dtype)
    center = center / center.sum(-1, keepdim=True)
    return _project(v.expand(shape), center.expand(shape), radius)


def _project(v: Tensor, center: Tensor, radius: Tensor | float) -> Tensor:
    """Shift each row by its maximum, so that far-away rows lose no digits against the centre, and follow the path."""
    if not v.numel():
        return v.clone()
    work = v.to(center.dtype)
    limit = torch.finfo(center.dtype).max
    work = torch.nan_to_num(work, posinf=limit / 4, neginf=-limit / 4)
    # Coordinates this far below the maximum are out of any support; the bound keeps squares finite.
    work = (work - work.amax(-1, keepdim=True)).clamp_(min=-(limit**0.4))
    return furthest_feasible(center, work - center, radius, 1.0).to(v.dtype)


def project_simplex_ball_cvxpy(
    v: Tensor, center: Tensor, radius: Tensor | float, *, solver: Literal["SCS", "CLARABEL"] = "SCS"
) -> Tensor:
    """Solve eq. 9 as the paper does, with one CVXPY program per row. It is slow and serves as the reference in tests
    and benchmarks.

    Same arguments, result and errors as [`project_simplex_ball`]. The program is compiled once per K (parametrised,
    DPP). `solver="SCS"` converges to about 1e-12; `"CLARABEL"`, CVXPY's default for this program, is faster and good
    to about 4e-5.

    Raises:
        `ImportError`: CVXPY is not installed (`pip install 'distjudge-trl[cvxpy]'`).
        `RuntimeError`: the solver found no optimum.
    """
    from distjudge_trl.objective._cvxpy import solve_rows

    check_rows(v, "v")
    check_rows(center, "center")
    shape = torch.broadcast_shapes(v.shape, center.shape)
    radius = check_radius(radius, torch.float64, v.device, shape[:-1])
    rows = v.expand(shape).reshape(-1, shape[-1])
    centers = center.expand(shape).reshape(-1, shape[-1])
    if isinstance(radius, Tensor):
        radii = radius.squeeze(-1).expand(shape[:-1]).reshape(-1).tolist()
    else:
        radii = [radius] * rows.shape[0]
    solved = solve_rows(rows.double().cpu().numpy(), centers.double().cpu().numpy(), radii, solver)
    return torch.from_numpy(solved).to(dtype=v.dtype, device=v.device).reshape(shape)
