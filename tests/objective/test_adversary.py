"""PGD against a CVXPY-projected run of the same bound; the worst case against a dense brute force."""

import math

import pytest
import torch

from distjudge_trl.objective import PGDAdversary, WorstCaseAdversary, kl_divergence, project_simplex_ball_cvxpy
from distjudge_trl.objective.projection import furthest_feasible


def nasty_rows(num_rows, num_labels, seed):
    """Human rows with zeros, unanimous and uniform ones; judges that are near, far, certain and equal; radii of 0.05
    to 1.
    """
    generator = torch.Generator().manual_seed(seed)

    def rand(*shape):
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    def dirichlet(concentration):
        # Generator-seeded gamma draws: torch's Dirichlet takes no generator.
        gamma = torch._standard_gamma(
            torch.full((num_rows, num_labels), concentration, dtype=torch.float64), generator
        )
        return gamma.clamp(min=1e-12) / gamma.clamp(min=1e-12).sum(-1, keepdim=True)

    votes = torch.multinomial(dirichlet(0.5), 10, replacement=True, generator=generator)
    p = torch.nn.functional.one_hot(votes, num_labels).double().mean(1)
    quarter = num_rows // 4
    p[:quarter] = dirichlet(0.5)[:quarter]
    p[quarter : quarter + quarter // 2] = torch.eye(num_labels, dtype=torch.float64)[
        torch.randint(0, num_labels, (quarter // 2,), generator=generator)
    ]
    p[quarter + quarter // 2 : 2 * quarter] = 1 / num_labels
    q = dirichlet(0.7)
    q[::7] = p[::7].clamp(min=1e-4)
    certain = torch.randint(0, num_labels, (len(q[::11]),), generator=generator)
    q[::11] = torch.eye(num_labels, dtype=torch.float64)[certain].clamp(min=1e-8)
    q = q / q.sum(-1, keepdim=True)
    radii = torch.tensor([0.05, 0.1, 0.25, 0.5, 1.0], dtype=torch.float64)
    return p, q.log(), radii[torch.randint(0, 5, (num_rows,), generator=generator)]


def naive_pgd(p, log_q, radius, step_size, num_steps, floor):
    """The paper's loop, row by row projected by CVXPY, with the gradient bounded at `floor`."""
    current = p.clone()
    for _ in range(num_steps):
        gradient = current.clamp(min=floor).log() - log_q + 1
        current = project_simplex_ball_cvxpy(current + step_size * gradient, p, radius).clamp(min=0)
    return current


def test_pgd_equals_the_cvxpy_projected_run_with_the_same_bound():
    p, log_q, radius = nasty_rows(60, 5, seed=0)
    ours = PGDAdversary(radius)(p, log_q)
    torch.testing.assert_close(ours, naive_pgd(p, log_q, radius, 0.05, 5, 1e-6), atol=1e-7, rtol=0)
    solver = PGDAdversary(radius, projection="cvxpy")(p, log_q)
    torch.testing.assert_close(ours, solver, atol=1e-7, rtol=0)


def test_the_gradient_bound_does_not_change_the_result_where_the_judge_gives_more_than_the_bound():
    p, log_q, radius = nasty_rows(400, 5, seed=1)
    log_q = log_q.clamp(min=math.log(2e-6)).log_softmax(-1)
    reference = PGDAdversary(radius)(p, log_q)
    assert (p == 0).any()
    for floor in (1e-9, 1e-12, 1e-300):
        torch.testing.assert_close(PGDAdversary(radius, gradient_floor=floor)(p, log_q), reference, atol=1e-9, rtol=0)


def test_pgd_may_raise_a_label_that_the_judge_holds_for_impossible():
    p = torch.tensor([[0.5, 0.5, 0.0]], dtype=torch.float64)
    log_q = torch.tensor([[0.5, 0.5, 1e-30]], dtype=torch.float64).log()
    assert PGDAdversary(0.25)(p, log_q)[0, 2] > 0.1


@pytest.mark.parametrize("adversary", [PGDAdversary, WorstCaseAdversary])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("num_labels", [2, 3, 9, 30])
def test_result_is_feasible_and_no_easier_than_the_start(adversary, dtype, num_labels):
    p, log_q, radius = (x.to(dtype) for x in nasty_rows(120, num_labels, seed=num_labels))
    perturbed = adversary(radius)(p, log_q)
    assert perturbed.dtype == dtype and not perturbed.requires_grad
    assert (perturbed >= 0).all()
    torch.testing.assert_close(perturbed.sum(-1), torch.ones_like(radius), atol=2e-6, rtol=0)
    assert ((perturbed - p).norm(dim=-1) <= radius + 2e-6).all()
    if adversary is WorstCaseAdversary:
        assert (kl_divergence(perturbed, log_q) >= kl_divergence(p, log_q) - 1e-5).all()


@pytest.mark.parametrize("adversary", [PGDAdversary, WorstCaseAdversary])
def test_radius_zero_returns_the_human_distribution(adversary):
    p, log_q, _ = nasty_rows(20, 4, seed=2)
    torch.testing.assert_close(adversary(0.0)(p, log_q), p, atol=1e-12, rtol=0)


@pytest.mark.parametrize("adversary", [PGDAdversary, WorstCaseAdversary])
def test_impossible_labels_and_per_item_radii_stay_finite(adversary):
    p = torch.tensor([[1.0, 0.0, 0.0], [0.2, 0.3, 0.5]])
    log_q = torch.tensor([[-math.inf, 0.0, -math.inf], [-math.inf, -math.inf, 0.0]])
    perturbed = adversary(torch.tensor([0.1, 0.4]))(p, log_q)
    assert torch.isfinite(perturbed).all()
    assert ((perturbed - p).norm(dim=-1) <= torch.tensor([0.1, 0.4]) + 1e-6).all()


def brute_force_kl(p, log_q, radius, num_directions, refinements, seed):
    """Largest KL over the points of the set furthest along dense random directions, each refined by linearised
    steps.
    """
    generator = torch.Generator().manual_seed(seed)
    best = kl_divergence(p, log_q)
    for _ in range(num_directions // 500):
        direction = torch.randn(500, 1, p.shape[-1], generator=generator, dtype=torch.float64).expand(-1, *p.shape)
        for _ in range(refinements + 1):
            points = furthest_feasible(
                p.expand_as(direction), direction - direction.amax(-1, keepdim=True), radius.unsqueeze(-1), 1e30
            )
            direction = points.clamp(min=1e-6).log() - log_q
        best = torch.maximum(best, kl_divergence(points, log_q.expand_as(points)).amax(0))
    return best


@pytest.mark.parametrize(("num_labels", "num_directions", "refinements"), [(3, 2000, 0), (5, 3000, 3)])
def test_worst_case_reaches_the_brute_force_maximum(num_labels, num_directions, refinements):
    p, log_q, radius = nasty_rows(1000, num_labels, seed=num_labels)
    best = brute_force_kl(p, log_q, radius, num_directions, refinements, seed=0)
    found = kl_divergence(WorstCaseAdversary(radius)(p, log_q), log_q)
    # Every row, not the mean; rows where nothing is to be gained count by their absolute shortfall.
    assert (found >= 0.999 * best - 1e-9).all(), (found / best).min()


def test_worst_case_is_at_least_as_bad_as_pgd():
    p, log_q, radius = nasty_rows(300, 9, seed=5)
    pgd = kl_divergence(PGDAdversary(radius)(p, log_q), log_q)
    worst = kl_divergence(WorstCaseAdversary(radius)(p, log_q), log_q)
    assert (worst >= 0.999 * pgd - 1e-9).all()
    assert worst.mean() > pgd.mean()


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"radius": -0.1}, "at least 0"),
        ({"radius": 0.1, "step_size": 0.0}, "step_size"),
        ({"radius": 0.1, "num_steps": -1}, "num_steps"),
        ({"radius": 0.1, "projection": "magic"}, "projection"),
        ({"radius": 0.1, "gradient_floor": 0.0}, "gradient_floor"),
    ],
)
def test_bad_pgd_settings_are_refused(arguments, match):
    with pytest.raises(ValueError, match=match):
        PGDAdversary(**arguments)


def test_shapes_must_agree():
    with pytest.raises(ValueError, match=r"\(B, K\)"):
        PGDAdversary(0.1)(torch.full((2, 3), 1 / 3), torch.zeros(3))


@pytest.mark.gpu
@pytest.mark.parametrize("adversary", [PGDAdversary, WorstCaseAdversary])
def test_the_gpu_gives_the_same_points(adversary):
    p, log_q, radius = nasty_rows(500, 5, seed=9)
    on_gpu = adversary(radius.cuda())(p.cuda(), log_q.cuda())
    assert on_gpu.is_cuda
    reached, expected = (kl_divergence(x, log_q) for x in (on_gpu.cpu(), adversary(radius)(p, log_q)))
    torch.testing.assert_close(reached, expected, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("adversary", [PGDAdversary, WorstCaseAdversary])
def test_an_empty_batch_passes(adversary):
    assert adversary(0.1)(torch.zeros(0, 4), torch.zeros(0, 4)).shape == (0, 4)
