"""The ranked probability score: values by hand, what it adds to a score of votes, its gradient and its minimum."""

import itertools

import numpy as np
import pytest
import torch

from distjudge_trl.objective import kl_divergence, ranked_probability_score


def draw(concentration, *shape):
    torch.manual_seed(0)
    return torch.distributions.Dirichlet(torch.full((5,), concentration, dtype=torch.float64)).sample(shape)


@pytest.mark.parametrize(
    ("p", "q", "expected"),
    [
        ([0.5, 0.5, 0.0], [0.25, 0.25, 0.5], (0.25**2 + 0.5**2) / 2),
        ([0.2, 0.0, 0.3, 0.5], [0.1, 0.4, 0.4, 0.1], (0.1**2 + 0.3**2 + 0.4**2) / 3),
        ([0.0, 0.0, 1.0], [0.2, 0.3, 0.5], (0.2**2 + 0.5**2) / 2),  # a single vote: the discrete CRPS
        ([0.3, 0.7], [0.6, 0.4], 0.3**2),
        ([1.0, 0.0, 0.0], [0.0, 0.0, 1.0], 1.0),
        ([0.1, 0.9, 0.0], [0.1, 0.9, 0.0], 0.0),
    ],
)
def test_values_by_hand(p, q, expected):
    p, q = torch.tensor(p, dtype=torch.float64), torch.tensor(q, dtype=torch.float64)
    assert ranked_probability_score(p, q.log()).item() == pytest.approx(expected, abs=1e-12)
    # A falling scale is as good as a rising one.
    assert ranked_probability_score(p.flip(-1), q.log().flip(-1)).item() == pytest.approx(expected, abs=1e-12)


def test_four_is_nearer_to_five_than_one_is_and_kl_does_not_know():
    five = torch.tensor([0.0, 0.0, 0.0, 0.0, 1.0])
    near, far = torch.tensor([[0.1, 0.1, 0.1, 0.6, 0.1], [0.6, 0.1, 0.1, 0.1, 0.1]]).log()
    assert kl_divergence(five, near) == kl_divergence(five, far)
    assert ranked_probability_score(five, near).item() == pytest.approx(0.95 / 4)
    assert ranked_probability_score(five, far).item() == pytest.approx(2.3 / 4)


def test_leading_dimensions_and_the_range():
    p, q = draw(0.1, 40, 7), draw(0.1, 40, 7).flip(0)
    found = ranked_probability_score(p, q.log())
    expected = (np.cumsum((p - q).numpy(), -1)[..., :-1] ** 2).sum(-1) / 4
    assert found.shape == (40, 7) and 0 <= found.min() and 0.5 < found.max() <= 1
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_mass_on_other_tokens_has_no_place_on_the_scale():
    p, log_q = draw(0.5, 8), draw(0.5, 8).flip(0).log()
    torch.testing.assert_close(ranked_probability_score(p, log_q - 3.0), ranked_probability_score(p, log_q))


def test_the_mean_over_votes_is_the_distance_to_their_distribution_and_a_constant():
    p, votes = torch.tensor([0.1, 0.0, 0.2, 0.3, 0.4], dtype=torch.float64), torch.eye(5, dtype=torch.float64)
    cumulative = p.cumsum(-1)[:-1]
    constant = (cumulative * (1 - cumulative)).sum() / 4
    for q in draw(0.7, 6):
        over_votes = (p * ranked_probability_score(votes, q.log())).sum()
        torch.testing.assert_close(over_votes, ranked_probability_score(p, q.log()) + constant)


def test_the_gradient_is_that_of_finite_differences():
    p = draw(0.4, 3)
    logits = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    ranked_probability_score(p, logits.log_softmax(-1)).sum().backward()
    step = 1e-6
    for row, label in itertools.product(range(3), range(5)):
        change = torch.zeros(3, 5, dtype=torch.float64)
        change[row, label] = step
        up, down = (ranked_probability_score(p, (logits.detach() + s * change).log_softmax(-1)) for s in (1, -1))
        assert logits.grad[row, label].item() == pytest.approx((up - down).sum().item() / (2 * step), abs=1e-8)
    assert logits.grad.abs().max() > 1e-2


def test_a_label_without_probability_has_a_finite_gradient():
    log_q = torch.tensor([0.0, float("-inf"), float("-inf")], requires_grad=True)
    ranked_probability_score(torch.tensor([0.0, 0.0, 1.0]), log_q).backward()
    assert torch.isfinite(log_q.grad).all()


def test_votes_lead_to_their_own_shares():
    """Strictly proper: of all distributions the votes' own is best."""
    votes = torch.eye(4, dtype=torch.float64)[[0, 0, 1, 2, 3, 3, 3, 3]]
    for start in ([0.0, 0.0, 0.0, 0.0], [2.0, -2.0, 0.0, -2.0], [-1.0, -2.0, 2.0, 1.0]):
        logits = torch.tensor(start, dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.Adam([logits], lr=0.05)
        for _ in range(1500):
            optimizer.zero_grad()
            ranked_probability_score(votes, logits.log_softmax(-1)).mean().backward()
            optimizer.step()
        torch.testing.assert_close(logits.detach().softmax(-1), votes.mean(0), atol=1e-3, rtol=0)


def test_a_judge_that_is_sure_of_the_wrong_label_learns_from_kl_and_hardly_from_the_score():
    """Why the score is added to KL and does not replace it."""
    p, logits = torch.tensor([1.0, 0.0, 0.0]), torch.tensor([-10.0, -10.0, 10.0], requires_grad=True)
    (from_kl,) = torch.autograd.grad(kl_divergence(p, logits.log_softmax(-1)), logits)
    (from_score,) = torch.autograd.grad(ranked_probability_score(p, logits.log_softmax(-1)), logits)
    assert from_kl.norm() > 1 and from_score.norm() < 1e-6
