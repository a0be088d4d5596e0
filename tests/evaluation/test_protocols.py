"""Robustness: what the perturbation is, and what it does to a KL."""

from itertools import pairwise

import numpy as np
import pytest

from distjudge_trl.evaluation.distances import item_kl
from distjudge_trl.evaluation.protocols import ROBUSTNESS_RADII, perturb_targets, robustness


RNG = np.random.default_rng(0)
INNER = RNG.dirichlet(np.full(4, 30.0), 500)
EDGE = np.eye(4)[RNG.integers(0, 4, 500)]


def test_targets_move_by_the_radius_and_stay_distributions():
    moved = perturb_targets(INNER, 0.05, np.random.default_rng(1))
    np.testing.assert_allclose(np.linalg.norm(moved - INNER, axis=-1), 0.05, atol=1e-9)
    for p in (INNER, EDGE):
        moved = perturb_targets(p, 0.25, np.random.default_rng(1))
        np.testing.assert_allclose(moved.sum(-1), 1, atol=1e-12)
        assert (moved >= 0).all() and np.linalg.norm(moved - p, axis=-1).max() <= 0.25 + 1e-9


def test_directions_prefer_no_label():
    steps = perturb_targets(np.full((20_000, 3), 1 / 3), 0.1, np.random.default_rng(2)) - 1 / 3
    np.testing.assert_allclose(steps.mean(0), 0, atol=2e-3)
    covariance = steps.T @ steps / len(steps)
    # Uniform on a circle of radius 0.1 in the plane: 0.01 / 2 times the projection onto it.
    np.testing.assert_allclose(covariance, 0.005 * (np.eye(3) - 1 / 3), atol=2e-4)


def test_robustness_grows_with_the_radius_and_is_plain_at_zero():
    log_q = np.log(INNER)
    points = robustness(INNER, log_q)
    assert [point.radius for point in points] == list(ROBUSTNESS_RADII)
    assert points[0].kl == pytest.approx(item_kl(INNER, log_q).mean(), abs=1e-12)
    assert points[0].std == pytest.approx(0, abs=1e-12)
    assert all(a.kl < b.kl for a, b in pairwise(points))
    assert robustness(INNER, log_q) == points


def test_what_leaves_the_simplex_moves_less():
    assert robustness(EDGE, np.log(INNER), radii=[0.2])[0].moved < 0.19


@pytest.mark.parametrize("options", [{"radii": [-0.1]}, {"num_draws": 0}])
def test_impossible_options(options):
    with pytest.raises(ValueError, match="at least"):
        robustness(INNER, np.log(INNER), **options)
