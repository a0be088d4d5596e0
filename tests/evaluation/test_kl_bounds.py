"""Bounds of the KL against a search over a fine grid."""

import numpy as np
import pytest
from scipy.special import rel_entr

from distjudge_trl.evaluation.kl_bounds import kl_bounds


def test_bounds_are_those_of_a_grid():
    rng = np.random.default_rng(0)
    for _ in range(20):
        p = rng.dirichlet(np.ones(4))
        p[rng.integers(4)] = 0
        p /= p.sum()
        lower, upper = np.array([0.5, 0.1, 1e-6, 1e-6]), np.array([0.5, 0.1, 0.3, 0.05])
        grid = [
            rel_entr(p, q / q.sum()).sum()
            for a in np.geomspace(1e-6, 0.3, 400)
            for b in np.geomspace(1e-6, 0.05, 100)
            for q in [np.array([0.5, 0.1, a, b])]
        ]
        low, high = kl_bounds(p[None], lower[None], upper[None])
        assert low[0] <= min(grid) + 1e-9 and low[0] == pytest.approx(min(grid), abs=2e-3)
        assert high[0] == pytest.approx(max(grid), abs=1e-9)


def test_without_unknown_labels_both_are_the_kl():
    p, q = np.array([[0.7, 0.3]]), np.array([[0.2, 0.2]])
    low, high = kl_bounds(p, q, q)
    assert low == high == pytest.approx([0.7 * np.log(1.4) + 0.3 * np.log(0.6)])
