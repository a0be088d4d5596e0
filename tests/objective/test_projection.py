"""The exact projection against two independent solvers (CVXPY and a long bisection) and against its defining
properties.
"""

import math
import runpy

import pytest
import torch
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st

from distjudge_trl.objective import project_simplex, project_simplex_ball, project_simplex_ball_cvxpy


def sorted_simplex_projection(y):
    """Textbook projection onto the simplex by sorting (Held, Wolfe and Crowder 1974)."""
    ordered = y.sort(-1, descending=True).values
    excess = ordered.cumsum(-1) - 1
    k = torch.arange(1, y.shape[-1] + 1, dtype=y.dtype)
    size = (ordered - excess / k > 0).sum(-1, keepdim=True)
    return (y - excess.gather(-1, size - 1) / size).clamp(min=0)


def bisection_reference(v, center, radius, steps=200):
    """u(s) = P(c + s (v - c)) with the largest s in [0, 1] that stays in the ball, by bisection in float64."""
    v, center = v.double(), center.double()
    radius = torch.as_tensor(radius, dtype=torch.float64).expand(v.shape[:-1]).unsqueeze(-1)
    full = sorted_simplex_projection(v)
    low, high = torch.zeros_like(radius), torch.ones_like(radius)
    for _ in range(steps):
        middle = (low + high) / 2
        inside = (sorted_simplex_projection(center + middle * (v - center)) - center).norm(
            dim=-1, keepdim=True
        ) <= radius
        low, high = torch.where(inside, middle, low), torch.where(inside, high, middle)
    on_ball = sorted_simplex_projection(center + low * (v - center))
    return torch.where((full - center).norm(dim=-1, keepdim=True) <= radius, full, on_ball)


def random_rows(num_rows, num_labels, seed, dtype=torch.float64):
    """Centres as annotators make them (fractions with zeros), points near and far, radii from 0 to beyond the
    simplex.
    """
    generator = torch.Generator().manual_seed(seed)
    votes = torch.randint(0, num_labels, (num_rows, 5), generator=generator)
    center = torch.nn.functional.one_hot(votes, num_labels).double().mean(1)
    scale = 10.0 ** torch.randint(-3, 3, (num_rows, 1), generator=generator).double()
    v = center + scale * torch.randn(num_rows, num_labels, generator=generator, dtype=torch.float64)
    radius = torch.rand(num_rows, generator=generator, dtype=torch.float64) * 0.6
    radius[::9] = 0
    radius[4::9] = 2
    return v.to(dtype), center.to(dtype), radius.to(dtype)


NASTY = {
    "centre at a vertex": ([0.0, 1.0, 0.0], [1.0, 0.0, 0.0], 0.25),
    "v equal to the centre": ([0.2, 0.3, 0.5], [0.2, 0.3, 0.5], 0.1),
    "radius 0": ([5.0, -3.0, 0.1], [0.2, 0.3, 0.5], 0.0),
    "only the simplex binds": ([0.9, 0.6, -1.0], [0.2, 0.3, 0.5], 10.0),
    "infinite radius": ([0.9, 0.6, -1.0], [0.2, 0.3, 0.5], math.inf),
    "v far away": ([1e4, -1e4, 3e3], [0.2, 0.3, 0.5], 0.2),
    "exact ties": ([0.7, 0.7, 0.7], [1.0, 0.0, 0.0], 0.2),
    "ties at the border": ([0.5, 0.5, -7.0], [0.5, 0.5, 0.0], 0.3),
    "two labels": ([3.0, -1.0], [0.5, 0.5], 0.2),
    "two labels, vertex": ([-3.0, 1.0], [1.0, 0.0], 0.2),
    "labels leave one by one": ([2.0, -0.1, -0.5, -1.0, -3.0], [0.2, 0.2, 0.2, 0.2, 0.2], 0.85),
}


def test_the_benchmark_s_rebuilt_programs_project_every_row():
    """What docs/objective.md compares with must walk to the same points."""
    rebuilt = runpy.run_path(str(ROOT / "scripts/benchmarks/adversary.py"))["solve_rebuilt"]
    generator = torch.Generator().manual_seed(0)
    v, center = (torch.rand(3, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    center /= center.sum(-1, keepdim=True)
    solved = torch.from_numpy(rebuilt(v.numpy().copy(), center.numpy(), [0.25] * 3))
    torch.testing.assert_close(solved, project_simplex_ball(v, center, 0.25), atol=1e-5, rtol=0)


@pytest.mark.parametrize("num_labels", [2, 3, 5, 9])
def test_agrees_with_cvxpy(num_labels):
    v, center, radius = random_rows(36, num_labels, seed=num_labels)
    v = v.clamp(-10, 10)
    torch.testing.assert_close(
        project_simplex_ball(v, center, radius), project_simplex_ball_cvxpy(v, center, radius), atol=1e-7, rtol=0
    )


@pytest.mark.parametrize("name", NASTY)
def test_nasty_rows_agree_with_cvxpy(name):
    v, center, radius = NASTY[name]
    v, center = torch.tensor([v], dtype=torch.float64), torch.tensor([center], dtype=torch.float64)
    ours = project_simplex_ball(v, center, radius)
    torch.testing.assert_close(ours, project_simplex_ball_cvxpy(v, center, radius), atol=1e-7, rtol=0)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-10)])
@pytest.mark.parametrize("num_labels", [2, 3, 5, 9, 40, 100])
def test_agrees_with_a_long_bisection(num_labels, dtype, tolerance):
    v, center, radius = random_rows(500, num_labels, seed=num_labels, dtype=dtype)
    ours = project_simplex_ball(v, center, radius)
    assert ours.dtype == dtype
    center = center.double() / center.double().sum(-1, keepdim=True)
    reference = bisection_reference(v, center, radius.double())
    torch.testing.assert_close(ours.double(), reference, atol=tolerance, rtol=0)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-10)])
@pytest.mark.parametrize("name", NASTY)
def test_nasty_rows_agree_with_a_long_bisection(name, dtype, tolerance):
    v, center, radius = NASTY[name]
    v, center = torch.tensor([v], dtype=dtype), torch.tensor([center], dtype=dtype)
    normalized = center.double() / center.double().sum(-1, keepdim=True)
    ours = project_simplex_ball(v, center, radius).double()
    torch.testing.assert_close(ours, bisection_reference(v, normalized, radius), atol=tolerance, rtol=0)


def test_far_away_points_lose_no_digits():
    """v differs from a near point by a shift alone, to which the projection is blind."""
    near = torch.tensor([[0.25, 0.5, 0.125]], dtype=torch.float64)
    center = torch.tensor([[0.5, 0.25, 0.25]], dtype=torch.float64)
    far = near + 2.0**20
    torch.testing.assert_close(
        project_simplex_ball(far, center, 0.3), project_simplex_ball(near, center, 0.3), atol=1e-10, rtol=0
    )
    torch.testing.assert_close(project_simplex(far), sorted_simplex_projection(near), atol=1e-10, rtol=0)


def test_leading_dimensions_and_per_row_radius_broadcast():
    v, center, radius = random_rows(12, 4, seed=0)
    flat = project_simplex_ball(v, center, radius)
    shaped = project_simplex_ball(v.reshape(3, 4, 4), center.reshape(3, 4, 4), radius.reshape(3, 4))
    torch.testing.assert_close(shaped, flat.reshape(3, 4, 4))
    one_center = project_simplex_ball(v, center[0], 0.2)
    torch.testing.assert_close(one_center, project_simplex_ball(v, center[:1].expand(12, 4), torch.full((12,), 0.2)))


def test_large_and_small_batches_take_the_same_result():
    """Above a size, finished rows are sorted out between the rounds."""
    v, center, radius = random_rows(5000, 5, seed=3)
    together = project_simplex_ball(v, center, radius)
    apart = torch.cat(
        [project_simplex_ball(v[i : i + 50], center[i : i + 50], radius[i : i + 50]) for i in range(0, 5000, 50)]
    )
    torch.testing.assert_close(together, apart, atol=1e-14, rtol=0)


def test_infinite_entries():
    center = torch.tensor([0.25, 0.25, 0.5])
    inf = math.inf
    assert project_simplex(torch.tensor([inf, 0.0, -inf])).tolist() == [1.0, 0.0, 0.0]
    assert project_simplex(torch.tensor([inf, inf, 0.0])).tolist() == [0.5, 0.5, 0.0]
    result = project_simplex_ball(torch.tensor([inf, 0.0, -inf]), center, 0.1)
    assert torch.isfinite(result).all() and (result - center).norm().item() == pytest.approx(0.1, abs=1e-6)


@pytest.mark.parametrize(
    ("v", "center", "radius", "match"),
    [
        (torch.tensor([0.5, math.nan]), torch.tensor([0.5, 0.5]), 0.1, "NaN"),
        (torch.tensor([0.5, 0.5]), torch.tensor([math.nan, 0.5]), 0.1, "NaN"),
        (torch.tensor([0.5, 0.5]), torch.tensor([0.5, 0.5]), -0.1, "at least 0"),
        (torch.tensor([[0.5, 0.5]]), torch.tensor([0.5, 0.5]), torch.tensor([-0.1]), "at least 0"),
        (torch.tensor([0.5, 0.5]), torch.tensor([0.5, 0.5]), math.nan, "at least 0"),
        (torch.tensor([1.0]), torch.tensor([1.0]), 0.1, "K >= 2"),
        (torch.rand(3, 2), torch.full((2,), 0.5), torch.full((3, 1), 0.1), "does not fit"),
        (torch.tensor([1, 0]), torch.tensor([0.5, 0.5]), 0.1, "float32 or float64"),
    ],
)
def test_bad_arguments_are_refused(v, center, radius, match):
    with pytest.raises(ValueError, match=match):
        project_simplex_ball(v, center, radius)


def test_empty_batches_pass():
    empty, center = torch.zeros(0, 3), torch.full((3,), 1 / 3)
    assert project_simplex_ball(empty, center, 0.1).shape == project_simplex(empty).shape == (0, 3)


# Properties

entries = st.floats(-1e3, 1e3, allow_nan=False, width=32)


@st.composite
def rows(draw):
    num_labels = draw(st.integers(2, 12))
    v = draw(st.lists(entries, min_size=num_labels, max_size=num_labels))
    votes = draw(st.lists(st.integers(0, num_labels - 1), min_size=1, max_size=10))
    center = [votes.count(k) / len(votes) for k in range(num_labels)]
    radius = draw(st.one_of(st.just(0.0), st.floats(0, 2)))
    return torch.tensor(v, dtype=torch.float64), torch.tensor(center, dtype=torch.float64), radius


@settings(max_examples=300, deadline=None)
@given(rows())
def test_feasible_and_idempotent(row):
    v, center, radius = row
    u = project_simplex_ball(v, center, radius)
    assert torch.isfinite(u).all()
    assert (u >= 0).all()
    assert abs(u.sum().item() - 1) < 1e-9
    assert (u - center).norm().item() <= radius + 1e-9
    torch.testing.assert_close(project_simplex_ball(u, center, radius), u, atol=1e-9, rtol=0)


@settings(max_examples=300, deadline=None)
@given(rows(), st.integers(0, 2**31))
def test_no_feasible_point_is_nearer(row, seed):
    """Variational inequality: (v - u) . (x - u) <= 0 for every x of the set, here 50 random ones on the way to the
    centre.
    """
    v, center, radius = row
    u = project_simplex_ball(v, center, radius)
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(50, len(v), generator=generator, dtype=torch.float64)
    x = x / x.sum(-1, keepdim=True)
    shrink = (radius / (x - center).norm(dim=-1, keepdim=True).clamp(min=1e-12)).clamp(max=1)
    x = center + shrink * (x - center)
    violation = ((x - u) @ (v - u)).max().item()
    assert violation <= 1e-7 * (1 + v.abs().max().item())


@settings(max_examples=200, deadline=None)
@given(rows(), st.floats(0, 2))
def test_monotone_in_the_radius(row, other):
    v, center, radius = row
    small, large = sorted((radius, other))
    near = (project_simplex_ball(v, center, large) - v).norm()
    far = (project_simplex_ball(v, center, small) - v).norm()
    assert near <= far + 1e-9 * (1 + far)


@settings(max_examples=200, deadline=None)
@given(st.lists(entries, min_size=2, max_size=30))
def test_simplex_projection_equals_the_sorting_one(v):
    v = torch.tensor(v, dtype=torch.float64)
    torch.testing.assert_close(project_simplex(v), sorted_simplex_projection(v), atol=1e-10, rtol=0)
