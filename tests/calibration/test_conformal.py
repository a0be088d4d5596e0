"""Label sets cover as many votes as they promise, on made-up items of which thousands cost nothing."""

import numpy as np
import pytest

from distjudge_trl.calibration.conformal import fit_label_sets, item_coverage, needed_items, scores


LEVEL = 0.9


def make_items(rng, count, num_labels=5, *, votes=5, noise=1.0, group_size=1):
    """Shares of votes, and a judge that is off by `noise`, about the same in a group: `p`, `q`, ids and groups."""
    groups = np.arange(count) // group_size
    shift = rng.normal(size=(groups[-1] + 1, num_labels))[groups] if group_size > 1 else 0.0
    logits = 1.5 * rng.normal(size=(count, num_labels))
    truth = np.exp(logits + shift)
    truth /= truth.sum(-1, keepdims=True)
    if votes is None:
        p = truth
    else:
        p = np.stack([rng.multinomial(votes, row) for row in truth]) / votes
    q = np.exp(2 * (logits + noise * rng.normal(size=logits.shape)))
    return p, q / q.sum(-1, keepdims=True), [str(i) for i in range(count)], [str(group) for group in groups]


def mean_coverage(kind, *, repeats, fitted_on=100, tested_on=200, level=LEVEL, **form):
    """Mean over repeated draws, and its standard error."""
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(repeats):
        p, q, ids, groups = make_items(rng, fitted_on + tested_on, **form)
        sets = fit_label_sets(
            p[:fitted_on], q[:fitted_on], ids[:fitted_on], groups[:fitted_on], level=level, kind=kind
        )
        covered.append(item_coverage(p[fitted_on:], sets(q[fitted_on:])).mean())
    return np.mean(covered), np.std(covered) / np.sqrt(repeats)


@pytest.mark.parametrize("kind", ["sets", "intervals"])
@pytest.mark.parametrize("votes", [1, 5, None])
@pytest.mark.parametrize("fitted_on", [20, 100])
def test_coverage_is_the_level(kind, votes, fitted_on):
    """At least the level, and at most 2 / (n + 1) more (Angelopoulos et al. 2024, theorem 2)."""
    mean, error = mean_coverage(kind, repeats=400, votes=votes, fitted_on=fitted_on)
    assert LEVEL - 3 * error < mean < LEVEL + 2 / (fitted_on + 1) + 3 * error


@pytest.mark.parametrize("level", [0.5, 0.8, 0.95])
def test_any_level(level):
    mean, error = mean_coverage("sets", repeats=300, level=level, num_labels=9, noise=2.0)
    assert level - 3 * error < mean < level + 2 / 101 + 3 * error


@pytest.mark.parametrize("group_size", [2, 10])
def test_groups_move_the_coverage_by_less_than_their_size_over_the_items(group_size):
    mean, error = mean_coverage("sets", repeats=400, fitted_on=200, group_size=group_size)
    assert LEVEL - group_size / 200 - 3 * error < mean < LEVEL + 2 / 201 + 3 * error


def test_one_vote_an_item_is_the_usual_quantile():
    p, q, ids, groups = make_items(np.random.default_rng(1), 57, votes=1)
    sets = fit_label_sets(p, q, ids, groups, level=LEVEL, kind="sets")
    own = np.sort(scores(q, "sets")[p.astype(bool)])
    assert sets.threshold == own[int(np.ceil(LEVEL * 58)) - 1]
    assert (sets.num_items, sets.num_groups) == (57, 57)


def test_scores_by_hand():
    q = [[0.1, 0.5, 0.15, 0.25]]
    np.testing.assert_allclose(scores(q, "sets"), [[0.9, 0.0, 0.75, 0.5]])
    # 0.5, then its neighbour 0.15, then 0.25 behind that, then 0.1.
    np.testing.assert_allclose(scores(q, "intervals"), [[0.9, 0.0, 0.5, 0.65]])
    np.testing.assert_allclose(scores([[0.6, 0.3, 0.1], [0.1, 0.3, 0.6]], "intervals"), [[0, 0.6, 0.9], [0.9, 0.6, 0]])


@pytest.mark.parametrize("num_labels", [2, 3, 9])
def test_intervals_are_contiguous_grow_with_the_threshold_and_are_never_empty(num_labels):
    rng = np.random.default_rng(2)
    q = rng.dirichlet(np.full(num_labels, 0.3), 500)
    found = scores(q, "intervals")
    before = np.zeros(q.shape, dtype=bool)
    for threshold in (0.0, 0.2, 0.5, 0.9, 1.0):
        inside = found <= threshold
        first, last = inside.argmax(-1), num_labels - 1 - inside[:, ::-1].argmax(-1)
        assert (inside.sum(-1) == last - first + 1).all() and (inside | ~before).all()
        assert inside[np.arange(500), q.argmax(-1)].all()
        before = inside
    assert before.all()


def test_extreme_probabilities():
    q = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [1 / 3, 1 / 3, 1 / 3]])
    for kind in ("sets", "intervals"):
        found = scores(q, kind)
        assert ((found >= 0) & (found <= 1)).all() and (found.min(-1) == 0).all()


def test_a_confident_judge_needs_more_than_its_likeliest_label_only_if_it_is_wrong():
    q = np.tile([0.98, 0.01, 0.01], (40, 1))
    ids = [str(i) for i in range(40)]
    right, wrong = np.tile([1.0, 0, 0], (40, 1)), np.tile([0.5, 0.5, 0], (40, 1))
    assert fit_label_sets(right, q, ids, ids, level=LEVEL, kind="sets").threshold == 0
    assert fit_label_sets(wrong, q, ids, ids, level=LEVEL, kind="sets")(q).sum(-1).min() == 2


def test_both_orders_of_a_pair_are_one_item():
    rng = np.random.default_rng(3)
    p, q, ids, groups = make_items(rng, 60, num_labels=3)
    once = fit_label_sets(p, q, ids, groups, level=LEVEL, kind="sets")
    both = fit_label_sets(
        np.concatenate([p, p[:, ::-1]]), np.concatenate([q, q[:, ::-1]]), ids * 2, groups * 2, level=LEVEL, kind="sets"
    )
    assert both == once


@pytest.mark.parametrize(("level", "needed"), [(0.9, 9), (0.5, 1), (0.99, 99), (0.95, 19), (0.8, 4), (0.999, 999)])
def test_a_level_needs_items(level, needed):
    assert needed_items(level) == needed
    p, q, ids, groups = make_items(np.random.default_rng(4), needed)
    assert fit_label_sets(p, q, ids, groups, level=level, kind="sets").num_items == needed
    with pytest.raises(ValueError, match=f"need {needed} items"):
        fit_label_sets(p[1:], q[1:], ids[1:], groups[1:], level=level, kind="sets")
