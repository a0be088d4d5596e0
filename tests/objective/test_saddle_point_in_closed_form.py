"""The claims of docs/adversary.md on the saddle point q*: where it is a smoothing, and where none gives it."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.special import entr, logit

from distjudge_trl.objective import dirichlet_smoothing, minimax_target


def saddle_point(p, radius, alpha=1.0, tolerance=1e-9):
    p = torch.tensor([p], dtype=torch.float64)
    return minimax_target(p, p.argmax(-1), radius, alpha, tolerance=tolerance)[0].numpy()


def entropy(p):
    return float(entr(np.asarray(p)).sum())


def odds(reach):
    """exp(-h(d) / d), which the page calls omega."""
    return math.exp(-entropy([reach, 1 - reach]) / reach)


def other_labels(num_labels, radius, alpha):
    """What a unanimous item's other labels get together."""
    reach = radius / math.sqrt(2)
    fair = (num_labels - 1) * odds(reach)
    return min(fair / (1 + fair), alpha * reach)


@pytest.mark.parametrize(("share", "radius"), [(0.0, 0.25), (0.1, 0.25), (0.2, 0.25), (0.3, 0.1), (0.45, 0.6)])
def test_the_logit_is_the_mean_logit_over_the_interval(share, radius):
    a, b = max(share - radius / math.sqrt(2), 0), min(share + radius / math.sqrt(2), 1)
    mean = quad(logit, a, b)[0] / (b - a)
    assert logit(saddle_point([share, 1 - share], radius)[0]) == pytest.approx(mean, abs=2e-4)


@pytest.mark.parametrize("share", [0.05, 0.2, 0.35, 0.49])
@pytest.mark.parametrize("part", [0.1, 0.5, 1.0])
def test_two_labels_with_room_on_both_sides_get_sharper(share, part):
    q = saddle_point([share, 1 - share], part * share * math.sqrt(2), tolerance=1e-11)
    assert q[0] < share


@pytest.mark.parametrize("share", [0.1, 0.3, 0.7])
def test_sharper_by_the_square_of_a_small_radius(share):
    radius = 0.02
    moved = saddle_point([share, 1 - share], radius, tolerance=1e-13)[0] - share
    assert moved == pytest.approx(radius**2 / 12 * (2 * share - 1) / (share * (1 - share)), rel=0.02)


@pytest.mark.parametrize("radius", [0.01, 0.05, 0.25])
def test_what_nobody_chose_gets_a_share_of_the_order_of_the_radius(radius):
    reach = radius / math.sqrt(2)
    q = saddle_point([0.0, 1.0], radius)[0]
    assert q == pytest.approx(reach / math.e * (1 + (1 / 2 - 1 / math.e) * reach), abs=0.1 * reach**3 + 1e-8)


@pytest.mark.parametrize(("times", "flatter"), [(0.53, True), (0.63, False)])
def test_a_minority_below_two_fifths_of_the_radius_grows_and_a_larger_one_shrinks(times, flatter):
    """The border is at 1 / (e - 1) = 0.582 times the reach, which is 0.41 times the radius."""
    radius = 0.02
    share = times * radius / math.sqrt(2)
    assert (saddle_point([share, 1 - share], radius, tolerance=1e-11)[0] > share) == flatter


def test_of_few_votes_only_unanimous_ones_get_flatter():
    """At radius 0.25 and up to nine votes, as the page says."""
    for n in range(2, 10):
        for k in range(n // 2 + 1):
            q = saddle_point([k / n, 1 - k / n], 0.25)[0]
            if k == 0:
                assert q > 0.06
            elif 2 * k < n:
                assert q < k / n, (k, n)


@pytest.mark.parametrize("num_labels", [2, 3, 4, 5, 9, 11, 30])
@pytest.mark.parametrize("radius", [0.05, 0.15, 0.25])
@pytest.mark.parametrize("alpha", [1.0, 0.8, 0.5])
def test_unanimous_items(num_labels, radius, alpha):
    q = saddle_point(np.eye(num_labels)[0].tolist(), radius, alpha)
    total = other_labels(num_labels, radius, alpha)
    np.testing.assert_allclose(q[1:], total / (num_labels - 1), rtol=2e-3)
    s = num_labels / (num_labels - 1) * total
    np.testing.assert_allclose(q, (1 - s) * np.eye(num_labels)[0] + s / num_labels, atol=2e-4)


@pytest.mark.parametrize(("num_labels", "alpha"), [(2, 1.0), (2, 0.5), (3, 1.0), (3, 0.8)])
@pytest.mark.parametrize("votes", [1, 5, 100])
def test_the_prior_that_matches_a_unanimous_item_grows_with_its_votes(num_labels, alpha, votes):
    """lambda = n omega / (1 - omega), for two labels as for three."""
    p = torch.eye(num_labels, dtype=torch.float64)[:1]
    omega = odds(0.25 / math.sqrt(2))
    smoothed = dirichlet_smoothing(p, torch.tensor([votes]), votes * omega / (1 - omega))[0]
    np.testing.assert_allclose(saddle_point(p[0].tolist(), 0.25, alpha), smoothed.numpy(), atol=1e-4)


@pytest.mark.parametrize("num_labels", [3, 5, 11])
@pytest.mark.parametrize("radius", [0.1, 0.5, 0.98])
def test_single_labels_are_the_adversary_s_cheapest_way_out_of_a_unanimous_item(num_labels, radius):
    """H(p') / (1 - p'_r) is least, over the sphere's points, where one label has all that was moved."""
    reach = radius / math.sqrt(2)
    rng = np.random.default_rng(0)
    mixes = np.concatenate([rng.dirichlet(np.full(num_labels - 1, size), 2000) for size in (0.1, 0.5, 2.0)])
    moved = radius / np.sqrt(1 + (mixes**2).sum(-1))
    points = np.concatenate((1 - moved[:, None], moved[:, None] * mixes), -1)
    np.testing.assert_allclose(np.linalg.norm(points - np.eye(num_labels)[0], axis=-1), radius)
    assert (entr(points).sum(-1) / moved >= entropy([reach, 1 - reach]) / reach - 1e-12).all()


@pytest.mark.parametrize(
    "p", [[0.4, 0.6, 0.0], [0.2, 0.8, 0.0], [0.4, 0.6, 0.0, 0.0], [0.2, 0.3, 0.5, 0.0], [0.4, 0.6, 0.0, 0.0, 0.0]]
)
def test_labels_without_votes_get_a_share_that_depends_on_how_many_have_some(p):
    radius, chosen = 0.002, sum(share > 0 for share in p)
    others = len(p) - chosen
    expected = radius * math.sqrt(chosen / (chosen + 1)) * min(1 / math.e, 1 / others)
    np.testing.assert_allclose(saddle_point(p, radius, tolerance=1e-10)[chosen:], expected, rtol=0.01)


def test_no_prior_and_no_label_smoothing_give_q_star_of_two_items():
    """A unanimous item asks for s = 0.13, one of 1 to 4 votes for s = -0.09."""
    wanted = []
    for p in ([0.0, 1.0], [0.2, 0.8]):
        q = saddle_point(p, 0.25)[0]
        wanted.append((q - p[0]) / (0.5 - p[0]))
    assert wanted == pytest.approx([0.1334, -0.0885], abs=5e-4)


def test_distributions_with_room_on_all_sides_get_sharper():
    rng = np.random.default_rng(0)
    for num_labels in (3, 4, 5):
        for p in 0.97 * rng.dirichlet(np.ones(num_labels), 10) + 0.03 / num_labels:
            q = saddle_point(p.tolist(), 0.95 * p.min(), tolerance=1e-10)
            assert entropy(q) < entropy(p) and q[p.argmin()] < p.min()
