"""The radius from the votes holds the true distribution as often as it says."""

import numpy as np
import pytest
import torch

from distjudge_trl.objective import coverage_radius


@pytest.mark.parametrize(("n", "num_labels", "coverage"), [(3, 3, 0.9), (10, 2, 0.8), (40, 5, 0.9)])
def test_the_ball_holds_the_true_distribution_as_often_as_it_says(n, num_labels, coverage):
    rng = np.random.default_rng(0)
    true = rng.dirichlet(np.full(num_labels, 0.5), size=2000)
    shares = np.stack([rng.multinomial(n, row) for row in true]) / n
    radius = coverage_radius(torch.tensor(shares), torch.full((2000,), n), coverage).numpy()
    inside = np.linalg.norm(true - shares, axis=-1) <= radius
    assert inside.mean() == pytest.approx(coverage, abs=0.025)  # three standard deviations of 2,000 items


def test_more_votes_and_clearer_ones_leave_less_open():
    p = torch.tensor([[0.5, 0.5], [0.5, 0.5], [0.0, 1.0], [1.0, 0.0]])
    few, many, clear, mirrored = coverage_radius(p, torch.tensor([4, 40, 4, 4]), 0.9).tolist()
    assert many < few / 2 and clear < few and clear == mirrored
    assert coverage_radius(p[:1], torch.tensor([4]), 0.5).item() < few


def test_arguments_out_of_range_are_refused():
    p, n = torch.ones(2, 2) / 2, torch.tensor([5, 5])
    for arguments, match in (
        ((p, n[:1], 0.9), "shape"),
        ((p, n, 1.0), "coverage"),
        ((p, torch.tensor([5, 0]), 0.9), "num_annotators"),
    ):
        with pytest.raises(ValueError, match=match):
            coverage_radius(*arguments)
    with pytest.raises(ValueError, match="pseudo_count"):
        coverage_radius(p, n, 0.9, pseudo_count=0.0)
