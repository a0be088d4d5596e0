"""The CVXPY program behind `project_simplex_ball_cvxpy`. It is a separate module so that `objective` needs nothing but
torch.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np


# SCS converges linearly on these tiny programs and reaches 1e-12; Clarabel, an interior-point method, stalls near 1e-6
# (a solution is only as exact as the square root of its objective gap) but is CVXPY's default and the faster of the
# two.
SETTINGS: dict[str, dict[str, float]] = {
    "SCS": {"eps_abs": 1e-12, "eps_rel": 1e-12, "max_iters": 200_000},
    "CLARABEL": {},
}


@lru_cache(maxsize=16)
def _program(num_labels: int) -> tuple[Any, ...]:
    """Compile the projection for K labels once; v, centre and radius stay parameters (DPP)."""
    try:
        import cvxpy as cp
    except ImportError as error:
        raise ImportError(
            "The CVXPY projection needs cvxpy: run `pip install 'distjudge-trl[cvxpy]'`, or use the exact one"
            " (`project_simplex_ball`)."
        ) from error
    u = cp.Variable(num_labels)
    v, center, radius = cp.Parameter(num_labels), cp.Parameter(num_labels), cp.Parameter(nonneg=True)
    constraints = [u >= 0, cp.sum(u) == 1, cp.norm(u - center) <= radius]
    return cp.Problem(cp.Minimize(cp.sum_squares(u - v)), constraints), u, v, center, radius


def solve_rows(rows: np.ndarray, centers: np.ndarray, radii: list[float], solver: str) -> np.ndarray:
    """Project row by row; all arrays float64 of shape `(N, K)`."""
    problem, u, v, center, radius = _program(rows.shape[1])
    settings = SETTINGS[solver]
    solved = np.empty_like(rows)
    for i, r in enumerate(radii):
        # The objective is shift-invariant on the simplex; subtracting the mean keeps the solver's numbers small. No
        # two points of the simplex are further apart than sqrt(2), so an infinite radius need not reach the solver.
        v.value, center.value, radius.value = rows[i] - rows[i].mean(), centers[i] / centers[i].sum(), min(r, 2.0)
        problem.solve(solver=solver, **settings)
        if problem.status not in ("optimal", "optimal_inaccurate"):
            raise RuntimeError(f"CVXPY could not project row {i} (status {problem.status}).")
        solved[i] = u.value
    return solved
