"""Votes: counting, drawing annotators, majority."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from distjudge_trl.data import choose_pseudo_count, draw_votes, majority_label, votes_to_counts
from distjudge_trl.errors import JudgmentDataError
from distjudge_trl.labels import LabelSpace


NUMBERS = LabelSpace(["0", "1", "2"])


@pytest.mark.parametrize(
    "votes", [[1, 1, 2], ["1", " 1 ", "2"], [1.0, "1.0", "2.0"], {"1": 2, "2": 1}, {1.0: 2, 2: 1}]
)
def test_numbers_in_any_spelling_are_labels(votes):
    assert votes_to_counts(votes, NUMBERS) == [0, 2, 1]


@pytest.mark.parametrize("vote", ["1.5", "one", "inf", "nan", "", "1e0", None, True, False, "1_0", float("inf")])
def test_what_is_no_label_is_refused(vote):
    with pytest.raises(JudgmentDataError, match="unknown label"):
        votes_to_counts([vote], NUMBERS, source="f", row=3)


@pytest.mark.parametrize("count", [float("nan"), float("inf"), -1, 1.5, "2", None, True])
def test_counts_must_be_whole_numbers(count):
    with pytest.raises(JudgmentDataError, match="the count of '1' is .* not a whole number") as caught:
        votes_to_counts({"1": count}, NUMBERS, source="f", row=3, field="votes")
    assert (caught.value.source, caught.value.row, caught.value.field) == ("f", 3, "votes")


@pytest.mark.parametrize("count", [10**9 + 1, 1e30, 10**400])
def test_a_count_that_nobody_has_is_a_broken_cell(count):
    with pytest.raises(JudgmentDataError, match="row 3, .*the count of '1' is more than 1,000,000,000"):
        votes_to_counts({"1": count}, NUMBERS, source="f", row=3)
    assert votes_to_counts({"1": 10**9}, NUMBERS) == [0, 10**9, 0]


@pytest.mark.parametrize("votes", [[], {}, {"1": 0}])
def test_without_votes_all_counts_are_zero(votes):
    assert votes_to_counts(votes, NUMBERS) == [0, 0, 0]


def test_drawn_votes_are_a_part_of_the_votes():
    for seed in range(20):
        drawn = draw_votes([3, 0, 7], 4, item_id="x", seed=seed)
        assert sum(drawn) == 4 and drawn[1] == 0 and drawn[0] <= 3


def test_a_larger_draw_contains_a_smaller_one():
    draws = [draw_votes([5, 5, 5], m, item_id="x", seed=1) for m in range(1, 16)]
    for small, large in pairwise(draws):
        assert all(a <= b for a, b in zip(small, large, strict=True))
    assert draws[-1] == [5, 5, 5]


def test_draws_follow_the_votes_and_depend_on_id_and_seed_alone():
    first = Counter(draw_votes([30, 70, 0], 1, item_id=f"item {i}", seed=0).index(1) for i in range(4000))
    assert 0.27 < first[0] / 4000 < 0.33
    assert draw_votes([5, 5, 5], 5, item_id="x", seed=3) == [2, 1, 2]  # frozen: the same on every machine
    assert len({tuple(draw_votes([5, 5, 5], 5, item_id="x", seed=seed)) for seed in range(9)}) > 2


def test_majority_ties():
    assert majority_label([1, 3, 2]) == 1
    assert majority_label([2, 0, 2], "first") == 0
    assert majority_label([2, 0, 2], "exclude") is None
    assert majority_label([1, 3, 2], "exclude") == 1
    drawn = Counter(majority_label([2, 0, 2], "random", item_id=f"{i}", seed=0) for i in range(2000))
    assert set(drawn) == {0, 2} and 900 < drawn[0] < 1100


@pytest.mark.parametrize("pseudo_count", [0.1, 0.5, 2.0])
def test_the_pseudo_count_of_simulated_votes_is_found(pseudo_count):
    rng = np.random.default_rng(0)
    counts = rng.multinomial(6, rng.dirichlet(np.full(4, pseudo_count), 4000))
    assert choose_pseudo_count(counts.tolist()) == pytest.approx(pseudo_count, rel=0.1)


def test_single_votes_say_nothing_about_a_pseudo_count():
    assert choose_pseudo_count([[1, 0], [0, 1]]) is None
    assert choose_pseudo_count([[1, 0], [5, 0], [0, 5]]) == pytest.approx(1e-3, rel=0.1)
