"""Losses against literal numbers, naive loops, and their behaviour at the border of the simplex."""

import math

import pytest
import torch

from distjudge_trl.objective import dirichlet_smoothing, hybrid_loss, kl_divergence, reference_nll


def naive_kl(p, q):
    return sum(pi * math.log(pi / qi) for pi, qi in zip(p, q, strict=True) if pi > 0)


def test_kl_literal_values():
    p = torch.tensor([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0], [0.2, 0.3, 0.5]], dtype=torch.float64)
    q = torch.tensor([[0.5, 0.25, 0.25], [0.5, 0.25, 0.25], [0.2, 0.3, 0.5]], dtype=torch.float64)
    expected = torch.tensor([0.5 * math.log(2), math.log(2), 0.0], dtype=torch.float64)
    torch.testing.assert_close(kl_divergence(p, q.log()), expected)


def test_kl_equals_naive_loop():
    torch.manual_seed(0)
    p = torch.distributions.Dirichlet(torch.full((5,), 0.3, dtype=torch.float64)).sample((4, 7))
    q = torch.distributions.Dirichlet(torch.full((5,), 0.5, dtype=torch.float64)).sample((4, 7))
    result = kl_divergence(p, q.log())
    assert result.shape == (4, 7)
    for i in range(4):
        for j in range(7):
            assert result[i, j].item() == pytest.approx(naive_kl(p[i, j].tolist(), q[i, j].tolist()), abs=1e-12)


def test_kl_zero_times_minus_infinity_is_zero_and_has_zero_gradient():
    log_q = torch.tensor([0.0, float("-inf")], requires_grad=True)
    kl = kl_divergence(torch.tensor([1.0, 0.0]), log_q)
    kl.backward()
    assert kl.item() == 0
    assert log_q.grad.tolist() == [-1.0, 0.0]


def test_kl_is_infinite_where_q_misses_mass():
    assert kl_divergence(torch.tensor([0.5, 0.5]), torch.tensor([0.0, float("-inf")])).item() == math.inf


def test_hybrid_loss_mixes_kl_and_cross_entropy():
    log_q = torch.tensor([[0.2, 0.3, 0.5]], dtype=torch.float64).log()
    target = torch.tensor([[0.6, 0.4, 0.0]], dtype=torch.float64)
    loss = hybrid_loss(log_q, target, torch.tensor([1]), alpha=0.8)
    expected = 0.8 * naive_kl([0.6, 0.4, 0.0], [0.2, 0.3, 0.5]) + 0.2 * -math.log(0.3)
    assert loss.shape == (1,)
    assert loss.item() == pytest.approx(expected, abs=1e-12)


def test_hybrid_loss_at_alpha_zero_ignores_an_infinite_kl():
    log_q = torch.tensor([[0.0, float("-inf")]])
    loss = hybrid_loss(log_q, torch.tensor([[0.5, 0.5]]), torch.tensor([0]), alpha=0.0)
    assert loss.item() == 0


@pytest.mark.parametrize("alpha", [-0.1, 1.1, float("nan")])
def test_hybrid_loss_refuses_alpha_outside_the_unit_interval(alpha):
    with pytest.raises(ValueError, match="between 0 and 1"):
        hybrid_loss(torch.zeros(1, 2), torch.full((1, 2), 0.5), torch.tensor([0]), alpha)


def test_label_smoothing_is_torch_s():
    torch.manual_seed(0)
    logits = torch.randn(6, 5, dtype=torch.float64)
    reference = torch.tensor([0, 1, 2, 3, 4, 0])
    expected = torch.nn.functional.cross_entropy(logits, reference, reduction="none", label_smoothing=0.2)
    log_q = logits.log_softmax(-1)
    torch.testing.assert_close(reference_nll(log_q, reference, 0.2), expected)
    target = torch.softmax(torch.randn(6, 5, dtype=torch.float64), -1)
    mixed = hybrid_loss(log_q, target, reference, 0.3, label_smoothing=0.2)
    torch.testing.assert_close(mixed, 0.3 * kl_divergence(target, log_q) + 0.7 * expected)
    with pytest.raises(ValueError, match="label_smoothing"):
        reference_nll(log_q, reference, 1.0)


def test_dirichlet_smoothing_is_the_posterior_mean():
    p = torch.tensor([[0.6, 0.4, 0.0], [0.0, 0.0, 1.0]])
    smoothed = dirichlet_smoothing(p, torch.tensor([5, 1]), 0.5)
    torch.testing.assert_close(
        smoothed, torch.tensor([[3.5, 2.5, 0.5], [0.5, 0.5, 1.5]]) / torch.tensor([[6.5], [2.5]])
    )
    torch.testing.assert_close(dirichlet_smoothing(p, torch.tensor([5, 1]), 0.0), p)
    with pytest.raises(ValueError, match="pseudo_count"):
        dirichlet_smoothing(p, torch.tensor([5, 1]), -0.1)
