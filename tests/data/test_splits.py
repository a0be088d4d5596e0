"""Splits: no leaks, stable under reordering, exact sizes."""

import pytest
from conftest import make_records

from distjudge_trl.data import (
    SplitPlan,
    build_dataset,
    make_record,
    num_votes,
    partition,
    split_records,
    subsample,
    within_budget,
)
from distjudge_trl.data.splits import SWAPPED
from distjudge_trl.errors import UserInputError
from distjudge_trl.labels import LabelSpace


def test_group_split_shares_no_group():
    train, test = split_records(make_records(200), "group")
    assert not set(train["group"]) & set(test["group"])
    assert len(train) + len(test) == 200
    assert 40 <= len(test) <= 41


def test_paper_split_is_eight_to_two_over_records_and_does_straddle_groups():
    train, test = split_records(make_records(200), "paper")
    assert (len(train), len(test)) == (160, 40)
    assert set(train["group"]) & set(test["group"])


@pytest.mark.parametrize("kind", ["group", "paper"])
def test_split_depends_on_the_seed_and_not_on_row_order(kind):
    dataset = make_records(100)
    test_ids = set(split_records(dataset, kind)[1]["id"])
    assert set(split_records(dataset.shuffle(seed=3), kind)[1]["id"]) == test_ids
    assert set(split_records(dataset, kind, seed=1)[1]["id"]) != test_ids


def test_split_is_the_same_on_every_machine():
    """Literal ids: SHA-256 of seed and name, not Python's salted hash."""
    _, test = split_records(make_records(20), "paper")
    assert sorted(test["id"]) == ["item-13", "item-16", "item-7", "item-9"]


def test_larger_subsamples_contain_smaller_ones():
    dataset = make_records(50)
    small, large = subsample(dataset, 10), subsample(dataset, 25)
    assert (len(small), len(large)) == (10, 25) and set(small["id"]) <= set(large["id"])
    assert len(subsample(dataset, None)) == len(subsample(dataset, 99)) == 50


def test_bad_splits_are_refused():
    dataset = make_records(10)
    with pytest.raises(UserInputError, match="Unknown split"):
        split_records(dataset, "random")
    with pytest.raises(UserInputError, match="between 0 and 1"):
        split_records(dataset, test_fraction=1.0)
    with pytest.raises(UserInputError, match="one side empty"):
        split_records(dataset.select([0, 1]), "group")
    with pytest.raises(UserInputError, match="at least one record"):
        subsample(dataset, 0)


def test_a_partition_is_two_splits_without_overlap():
    records = make_records(200)
    parts = partition(records, "group", validation_fraction=0.25, seed=3)
    train, test = split_records(records, "group", seed=3)
    assert parts.test["id"][:] == test["id"][:]
    ids = [set(part["id"]) for part in parts]
    assert not ids[0] & ids[1] and ids[0] | ids[1] == set(train["id"])
    assert not set(parts.train["group"]) & set(parts.validation["group"])
    assert 38 <= len(parts.validation) <= 42


def test_a_budget_buys_records_in_the_order_of_the_hash():
    records = make_records(100)
    spent = {}
    for budget in (10, 50, 150):
        bought = within_budget(records, budget)
        votes = sum(bought["num_annotators"])
        assert budget - 7 < votes <= budget
        spent[budget] = set(bought["id"])
        # The same records as a sample of that size.
        assert spent[budget] == set(subsample(records, len(bought))["id"])
    assert spent[10] < spent[50] < spent[150]
    assert len(within_budget(records, 10_000)) == 100
    with pytest.raises(UserInputError, match="budget of 1 votes"):
        within_budget(records.filter(lambda row: row["num_annotators"] > 1), 1)


def test_a_pair_in_both_orders_is_paid_once():
    records = make_records(10).map(
        lambda row, i: {"id": f"pair-{i // 2}" + SWAPPED * (i % 2), "num_annotators": 3}, with_indices=True
    )
    assert num_votes(records) == 15
    bought = within_budget(records, 7)
    assert len(bought) == 4 and num_votes(bought) == 6
    assert len({name.removesuffix(SWAPPED) for name in bought["id"]}) == 2


def with_parts(*names):
    """Records of which each is in the part of that name; those of one letter share a group."""
    records = [
        make_record(
            id=f"{number}",
            group=f"group {number // 2}",
            prompt=[{"role": "user", "content": "?"}],
            counts=[1, 2],
            label_space=LabelSpace(["a", "b"]),
            split=name,
        )
        for number, name in enumerate(names)
    ]
    return build_dataset(records, LabelSpace(["a", "b"]))


def ids(parts):
    return [part["id"][:] if part is not None else None for part in parts]


def test_an_official_split_is_used_as_it_is():
    records = with_parts("train", "test", "train", "validation", "test", "train")
    plan = SplitPlan("official", seed=7)
    parts = plan.partition(records)
    assert ids(parts) == [["0", "2", "5"], ["3"], ["1", "4"]]
    assert all("split" not in part.column_names for part in parts)
    # Nothing is ever trained on the validation part, and items of one group may be on both sides.
    assert ids(plan.partition(records, hold_out=False)) == [["0", "2", "5"], None, ["1", "4"]]
    assert plan.match_by == "id" and SplitPlan("group").match_by == "group"


def test_without_a_test_part_the_validation_part_is_tested_on():
    records = with_parts(*["train"] * 8, "validation", "validation")
    train, validation, test = SplitPlan("official").partition(records)
    assert test["id"][:] == ["8", "9"] and len(train) == 6 and len(validation) == 2
    assert not set(train["group"]) & set(validation["group"]), "drawn by group"
    assert ids(SplitPlan("official").partition(records, hold_out=False))[0] == [str(i) for i in range(8)]


def test_other_splits_of_records_with_official_parts():
    records = with_parts(*["train"] * 6, *["test"] * 4)
    train, _, test = SplitPlan("group").partition(records)
    assert len(train) + len(test) <= 10 and "split" not in train.column_names
    assert "split" not in SplitPlan("all").partition(records).test.column_names


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["train", "train"], "2 train, 0 validation, 0 test"),
        (["test", "validation"], "0 train, 1 validation, 1 test"),
        (["", ""], "the source of the data names no parts. Use --split group"),
    ],
)
def test_an_official_split_that_is_none_is_refused(names, message):
    with pytest.raises(UserInputError, match=message):
        SplitPlan("official").partition(with_parts(*names))
