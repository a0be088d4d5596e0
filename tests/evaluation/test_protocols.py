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


@pytest.mark.parametrize("p", [INNER, EDGE])
def test_two_judges_differ_by_their_cross_entropy_to_the_mean_of_the_moved_targets(p):
    """docs/paper.md: so such a test says nothing about a judge beyond what it says about one fixed target."""
    sharp, soft = (np.log((1 - share) * p + share / 4) for share in (0.05, 0.4))
    radius, num_draws = 0.1, 20
    kls = [robustness(p, log_q, radii=[radius], num_draws=num_draws)[0].kl for log_q in (sharp, soft)]
    rng = np.random.default_rng(0)
    mean = np.mean([perturb_targets(p, radius, rng) for _ in range(num_draws)], axis=0)
    assert kls[0] - kls[1] == pytest.approx((mean * (soft - sharp)).sum(-1).mean(), abs=1e-9)
    # Inside the simplex the mean target is the target: the two lose the same.
    plain = [item_kl(p, log_q).mean() for log_q in (sharp, soft)]
    lost_alike = (kls[0] - plain[0]) - (kls[1] - plain[1])
    assert abs(lost_alike) < 0.01 if p is INNER else lost_alike > 0.05


def test_what_leaves_the_simplex_moves_less():
    assert robustness(EDGE, np.log(INNER), radii=[0.2])[0].moved < 0.19


@pytest.mark.parametrize("options", [{"radii": [-0.1]}, {"num_draws": 0}])
def test_impossible_options(options):
    with pytest.raises(ValueError, match="at least"):
        robustness(INNER, np.log(INNER), **options)
