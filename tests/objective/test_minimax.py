"""The saddle point of the robust objective: closed forms, a dense numerical saddle point, and what must not matter."""

import math

import numpy as np
import pytest
import torch

from distjudge_trl.objective import WorstCaseAdversary, hybrid_loss, minimax_target


def solve(p, radius, alpha, reference=None, **kwargs):
    p = torch.tensor([p], dtype=torch.float64)
    label = p.argmax(-1) if reference is None else torch.tensor([reference])
    return minimax_target(p, label, radius, alpha, **kwargs)[0].numpy()


def entropy(x):
    return -sum(v * math.log(v) for v in (x, 1 - x) if v > 0)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.2, 0.45, 0.5])
@pytest.mark.parametrize("alpha", [1.0, 0.8, 0.3])
def test_two_labels_in_closed_form(share, alpha):
    """E is an interval [a, b] of the first label's probability. Both ends cost the same at the logit
    (h(a) - h(b)) / (b - a), if the judge can reach it: alpha x <= q <= alpha x for an x in [a, b].
    """
    a, b = max(share - 0.25 / math.sqrt(2), 0), min(share + 0.25 / math.sqrt(2), 1)
    even = 1 / (1 + math.exp((entropy(b) - entropy(a)) / (b - a)))
    expected = min(max(even, alpha * a), alpha * b)
    assert solve([share, 1 - share], 0.25, alpha, reference=1)[0] == pytest.approx(expected, abs=2e-4)


@pytest.mark.parametrize(
    ("p", "radius", "alpha"),
    [
        ([0.8, 0.2, 0.0], 0.25, 0.8),
        ([0.6, 0.2, 0.2], 0.25, 1.0),
        ([0.4, 0.4, 0.2], 0.4, 0.8),
        ([1.0, 0.0, 0.0], 0.1, 0.5),
    ],
)
def test_three_labels_against_a_dense_grid(p, radius, alpha):
    """The least largest value over some thousand points of E's border, by a search over finer and finer grids of q."""
    angles = np.linspace(0, 2 * np.pi, 2000, endpoint=False)
    plane = np.array([[1, -1, 0], [1, 1, -2]]) / np.sqrt([[2], [6]])
    directions = np.stack((np.cos(angles), np.sin(angles)), -1) @ plane
    steps = np.min(np.where(directions < 0, -np.array(p) / np.minimum(directions, -1e-15), np.inf), -1)
    border = np.array(p) + np.minimum(radius, steps)[:, None] * directions
    edge = np.linspace(0, 1, 700)
    edges = np.concatenate([np.roll(np.stack((edge, 1 - edge, 0 * edge), -1), k, -1) for k in range(3)])
    points = np.clip(np.concatenate((border, edges[np.linalg.norm(edges - p, axis=-1) <= radius])), 0, 1)
    hard = np.eye(3)[0]
    costs = alpha * np.where(points > 0, points * np.log(np.maximum(points, 1e-300)), 0).sum(-1)

    def worst(q):
        return np.max(costs - np.log(q) @ (alpha * points + (1 - alpha) * hard).T, -1)

    middle, width = np.zeros(2), 6.0
    for _ in range(9):
        grid = middle + width * np.stack(np.meshgrid(*[np.linspace(-1, 1, 17)] * 2), -1).reshape(-1, 2)
        logits = np.concatenate((np.zeros((len(grid), 1)), grid), -1)
        candidates = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
        values = worst(candidates)
        best = values.argmin()
        middle, width = grid[best], width / 3
    found = solve(p, radius, alpha, reference=0)
    np.testing.assert_allclose(found, candidates[best], atol=3e-3)
    assert worst(found[None])[0] == pytest.approx(values[best], abs=2e-4)


def test_no_judge_does_better_against_the_worst_case():
    """Every other distribution has a larger worst-case loss; a Dirichlet-smoothed p among them."""
    generator = torch.Generator().manual_seed(0)
    votes = torch.distributions.Multinomial(5, torch.tensor([0.5, 0.3, 0.1, 0.1], dtype=torch.float64))
    torch.manual_seed(0)
    p = votes.sample((8,)) / 5
    reference = p.argmax(-1)

    def worst(q):
        log_q = q.log()
        return hybrid_loss(log_q, WorstCaseAdversary(0.25)(p, log_q), reference, 0.8)

    target = minimax_target(p, reference, 0.25, 0.8)
    least = worst(target)
    torch.testing.assert_close(target.sum(-1), torch.ones(8, dtype=torch.float64))
    for size in (0.3, 0.03):
        noise = torch.randn(20, *p.shape, generator=generator, dtype=torch.float64)
        for move in noise:
            assert (worst((target.log() + size * move).softmax(-1)) >= least - 1e-4).all()
    assert (worst((5 * p + 1) / 9) > least + 1e-3).any()


def test_without_a_ball_or_without_kl_there_is_nothing_to_play_for():
    np.testing.assert_allclose(solve([0.6, 0.4, 0.0], 0.0, 0.8), [0.68, 0.32, 0.0], atol=1e-12)
    np.testing.assert_allclose(solve([0.6, 0.4, 0.0], 0.25, 0.0), [1.0, 0.0, 0.0], atol=1e-12)
    np.testing.assert_allclose(solve([0.5, 0.5], 0.0, 0.5, label_smoothing=0.2), [0.7, 0.3], atol=1e-12)


def test_a_ball_that_holds_the_simplex_forgets_the_votes():
    np.testing.assert_allclose(solve([0.7, 0.2, 0.1], 2.0, 1.0), np.full(3, 1 / 3), atol=1e-4)


def test_labels_may_come_in_any_order_and_rows_keep_their_radius():
    p = torch.tensor([[0.0, 0.2, 0.8], [0.8, 0.0, 0.2], [0.8, 0.0, 0.2]])
    found = minimax_target(p, p.argmax(-1), torch.tensor([0.25, 0.25, 0.1]), 0.8)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found[1], found[0][[2, 0, 1]])
    assert (found[2] - p[2]).abs().max() < (found[1] - p[1]).abs().max()
    assert found[0][0] > 0.03, "the adversary can move votes to a label that nobody chose"


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ((torch.ones(2, 2) / 2, torch.zeros(3, dtype=torch.long), 0.1, 0.8), "shape"),
        ((torch.ones(2, 2) / 2, torch.zeros(2, dtype=torch.long), -0.1, 0.8), "radius"),
        ((torch.ones(2, 2) / 2, torch.zeros(2, dtype=torch.long), 0.1, 1.8), "alpha"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, match):
    with pytest.raises(ValueError, match=match):
        minimax_target(*arguments)
    with pytest.raises(ValueError, match="label_smoothing"):
        minimax_target(torch.ones(2, 2) / 2, torch.zeros(2, dtype=torch.long), 0.1, 0.8, label_smoothing=1.0)
