"""The saddle point of the robust objective (eq. 7) for one item: what the adversary makes of p in the end.

For an item with human distribution p and hard label e_r the paper minimises, over the judge's q,

    g(q) = max { alpha KL(p' || q) + (1 - alpha) (-log q_r) : p' in E },     E = simplex cut with B_epsilon(p).

A judge that can give every distribution and is trained to the end gives the minimiser q*(p, r, epsilon, alpha).

**What q* is.** The objective is convex in q, and convex (not concave) in p', so the adversary's best play is a mixture
of extreme points of E. Let mu be a mixture with mean p_mu. Against it the best answer is
m_mu = alpha p_mu + (1 - alpha) e_r, and by the minimax theorem

    min_q g(q) = max_mu  -alpha E_mu[H(p')] + H(m_mu),     q* = m_mu at the maximising mu.

With alpha = 1 this is the capacity of the channel whose rows are the points of E, and q* is its output distribution
at capacity: the point whose largest KL from E is least (the redundancy-capacity theorem; Gallager 1979, Ryabko 1979).

**How it is computed.** With logits theta, q = softmax(theta), each p' gives one convex function of theta,

    logsumexp(theta) + c_p' - s_p' . theta,     c_p' = alpha sum p' log p',   s_p' = alpha p' + (1 - alpha) e_r.

We keep a list of points of E, minimise the largest of their functions exactly (by Newton steps), ask
`WorstCaseAdversary` for the point that is worst at the minimiser, add it, and stop when it gains less than the
tolerance. The weights mu of the list's points give the lower bound of the equation above, and the value at the new
point is the upper one. Their difference is a certificate, as good as the adversary is (at least 99.9 % of a brute
force for up to five labels).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from scipy.special import entr, xlogy
from torch import Tensor

from distjudge_trl.objective._checks import check_radius, check_rows
from distjudge_trl.objective.adversary import WorstCaseAdversary
from distjudge_trl.objective.projection import furthest_feasible


# Rows that agree to so many digits have the same target.
_DIGITS = 7
# More points than any row has needed (30 at nine labels); reaching it leaves a gap that the caller is told of.
_MAX_POINTS = 200
_NEWTON_STEPS = 50


def minimax_target(
    p: Tensor,
    reference: Tensor,
    radius: Tensor | float,
    alpha: float,
    *,
    label_smoothing: float = 0.0,
    tolerance: float = 1e-7,
) -> Tensor:
    """q* of the module's docstring: the target on which plain cross-entropy gives the robust objective's solution.

    Args:
        p (`Tensor` of shape `(B, K)`, float32 or float64): human distributions.
        reference (`Tensor` of shape `(B,)`, int64): index of the reference label (eq. 3).
        radius (`float` or `Tensor` of shape `(B,)`): ε, at least 0.
        alpha (`float`): weight of the KL term, in [0, 1].
        label_smoothing (`float`, defaults to 0): of the cross-entropy, in [0, 1), as in [`hybrid_loss`].
        tolerance (`float`, defaults to 1e-7): largest gap between the value of q* and the least possible one, in nats.

    Returns:
        `Tensor` of shape `(B, K)` in p's dtype, on its device; rows sum to 1. With radius 0 it is
        alpha p + (1 - alpha) e_r, with alpha 0 it is e_r.

    Raises:
        `ValueError`: arguments outside their ranges, or shapes that do not fit.
        `RuntimeError`: the gap does not fall below the tolerance.

    Example:
        >>> p = torch.tensor([[0.0, 1.0], [0.2, 0.8]])
        >>> minimax_target(p, torch.tensor([1, 1]), radius=0.25, alpha=1.0)
        tensor([[0.0667, 0.9333],
                [0.1734, 0.8266]])
    """
    check_rows(p, "p")
    if p.dim() != 2 or reference.shape != p.shape[:1]:
        raise ValueError(
            f"`p` must have shape (B, K) and `reference` (B,), got {tuple(p.shape)} and {tuple(reference.shape)}."
        )
    if not 0.0 <= alpha <= 1.0:
        raise ValueError(f"`alpha` must be between 0 and 1, got {alpha}.")
    if not 0.0 <= label_smoothing < 1.0:
        raise ValueError(f"`label_smoothing` must be at least 0 and less than 1, got {label_smoothing}.")
    radii = check_radius(radius, torch.float64, torch.device("cpu"), p.shape[:-1])
    rows = p.detach().cpu().double().numpy()
    rows = rows / rows.sum(-1, keepdims=True)
    references = reference.cpu().numpy()
    spread = np.broadcast_to(radii.numpy().reshape(-1) if isinstance(radii, Tensor) else radii, len(rows))
    targets = np.empty_like(rows)
    for i, (row, label, epsilon) in enumerate(zip(rows, references, spread, strict=True)):
        # The labels' order does not matter: with the reference first and the others sorted, few rows are different.
        others = np.delete(np.arange(len(row)), label)
        order = np.append(label, others[np.argsort(-row[others], kind="stable")])
        key = tuple(np.round(row[order], _DIGITS).tolist())
        targets[i, order] = _solve(key, round(float(epsilon), _DIGITS), alpha, label_smoothing, tolerance)
    return torch.from_numpy(targets).to(device=p.device, dtype=p.dtype)


@lru_cache(maxsize=100_000)
def _solve(
    row: tuple[float, ...], radius: float, alpha: float, label_smoothing: float, tolerance: float
) -> np.ndarray:
    """The target of a row whose reference label is its first."""
    p = np.asarray(row) / sum(row)
    hard = np.full(len(p), label_smoothing / len(p))
    hard[0] += 1 - label_smoothing
    if radius == 0.0 or alpha == 0.0:
        return alpha * p + (1 - alpha) * hard
    adversary = WorstCaseAdversary(radius)
    theta = np.log(0.99 * (alpha * p + (1 - alpha) * hard) + 0.01 / len(p))  # inside the simplex
    # The points of E furthest towards each label: with them every label has mass, and the least value is finite.
    center = torch.from_numpy(p).expand(len(p), -1)
    points = furthest_feasible(center, 2 * torch.eye(len(p), dtype=torch.float64), radius, 1e30).numpy()
    best, best_value, bound = theta, np.inf, -np.inf
    for _ in range(_MAX_POINTS):
        log_q = _log_softmax(theta)
        worst = adversary(torch.from_numpy(p)[None], torch.from_numpy(log_q)[None])[0].numpy()
        value = alpha * float(xlogy(worst, worst).sum()) - float((alpha * worst + (1 - alpha) * hard) @ log_q)
        if value < best_value:
            best, best_value = log_q, value
        if best_value - bound < tolerance:
            break
        points = np.vstack((points, worst))
        costs, slopes = alpha * xlogy(points, points).sum(-1), alpha * points + (1 - alpha) * hard
        theta, bound = _minimise_largest(costs, slopes, theta, max((best_value - bound) / 10, tolerance / 10))
    else:
        raise RuntimeError(
            f"No saddle point for p = {[round(x, 4) for x in row]}, radius {radius}, alpha {alpha}: after"
            f" {_MAX_POINTS} points the gap is {best_value - bound:.1e}."
        )
    q = np.exp(best)
    for share in set(row[1:]):  # labels with equal shares have equal q, which the tolerance leaves open
        same = np.append(False, np.asarray(row[1:]) == share)
        q[same] = q[same].mean()
    return q / q.sum()


def _minimise_largest(
    costs: np.ndarray, slopes: np.ndarray, start: np.ndarray, precision: float
) -> tuple[np.ndarray, float]:
    """The θ `(K,)` at which the largest of `logsumexp(θ) + costs[j] - slopes[j] · θ` is least up to `precision`, and a
    lower bound of that value.

    Newton's method on a smooth maximum, `temperature * logsumexp(heights / temperature)`, of which the temperature
    falls. Its weights are a mixture mu of the functions, and every mixture gives a lower bound, whatever the solver's
    precision: the minimum over θ of their mean is mu · costs plus the entropy of mu · slopes.
    """
    theta = _log_softmax(start)
    ones = np.ones((len(theta), len(theta)))  # takes out the direction in which nothing changes
    bound = -np.inf
    lowest = min(precision, 0.01) / (1 + np.log(len(costs)))
    for temperature in (100 * lowest, 10 * lowest, lowest):
        for _ in range(_NEWTON_STEPS):
            q = np.exp(_log_softmax(theta))
            weights = np.exp(_log_softmax((costs - slopes @ theta) / temperature))
            mean = weights @ slopes
            gradient = q - mean
            spread = (slopes - mean) * np.sqrt(weights)[:, None]
            hessian = np.diag(q) - np.outer(q, q) + spread.T @ spread / temperature + ones
            step = np.linalg.solve(hessian, gradient)
            decrement = float(gradient @ step)
            if decrement < 1e-3 * temperature**2:
                break
            value, length = _smooth_maximum(costs, slopes, theta, temperature), 1.0
            while (
                _smooth_maximum(costs, slopes, theta - length * step, temperature) > value - 0.25 * length * decrement
                and length > 1e-6
            ):
                length /= 2
            theta = theta - length * step
        bound = max(bound, float(weights @ costs + entr(mean).sum()))
    return _log_softmax(theta), bound


def _smooth_maximum(costs: np.ndarray, slopes: np.ndarray, theta: np.ndarray, temperature: float) -> float:
    return float(_logsumexp(theta) + temperature * _logsumexp((costs - slopes @ theta) / temperature))


def _logsumexp(x: np.ndarray) -> float:
    """As SciPy's, which takes longer to check its arguments than to compute on so few numbers."""
    largest = x.max()
    return float(largest + np.log(np.exp(x - largest).sum()))


def _log_softmax(x: np.ndarray) -> np.ndarray:
    return np.asarray(x - _logsumexp(x))
