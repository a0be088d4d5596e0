"""The mathematics of distribution alignment on plain tensors. It depends on torch and SciPy alone."""

from distjudge_trl.objective.adversary import PGDAdversary, WorstCaseAdversary
from distjudge_trl.objective.coverage import coverage_radius
from distjudge_trl.objective.losses import (
    dirichlet_smoothing,
    hybrid_loss,
    kl_divergence,
    ranked_probability_score,
    reference_nll,
)
from distjudge_trl.objective.minimax import minimax_target
from distjudge_trl.objective.projection import project_simplex, project_simplex_ball, project_simplex_ball_cvxpy


__all__ = [
    "PGDAdversary",
    "WorstCaseAdversary",
    "coverage_radius",
    "dirichlet_smoothing",
    "hybrid_loss",
    "kl_divergence",
    "minimax_target",
    "project_simplex",
    "project_simplex_ball",
    "project_simplex_ball_cvxpy",
    "ranked_probability_score",
    "reference_nll",
]
