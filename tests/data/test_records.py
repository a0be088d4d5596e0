"""Records: building, and every violation named by file, row and field."""

import copy
import math

import pytest
from conftest import make_records
from datasets import Dataset

from distjudge_trl.data import build_dataset, fingerprint, make_record, validate_records, votes_to_counts
from distjudge_trl.errors import JudgmentDataError
from distjudge_trl.labels import LabelSpace


SPACE = LabelSpace(["A", "B", "tie"], {"tie": ["draw"]})


def record(**changes):
    base = make_record(
        id="x", group="g", prompt=[{"role": "user", "content": "A or B?"}], counts=[1, 3, 0], label_space=SPACE
    )
    return {**base, **changes}


def test_record_holds_distribution_reference_and_number_of_annotators():
    assert record()["label_distribution"] == [0.25, 0.75, 0.0]
    assert record()["completion"] == [{"role": "assistant", "content": "B"}]
    assert record()["num_annotators"] == 4


def test_majority_ties_go_to_the_first_label():
    tied = make_record(
        id="x", group="g", prompt=[{"role": "user", "content": "?"}], counts=[0, 2, 2], label_space=SPACE
    )
    assert tied["completion"][0]["content"] == "B"


def test_dataset_has_exactly_the_documented_columns():
    dataset = build_dataset([record()], SPACE)
    assert dataset.column_names == ["id", "group", "prompt", "completion", "label_distribution", "num_annotators"]


@pytest.mark.parametrize(
    ("changes", "field", "problem"),
    [
        ({"id": ""}, "id", "non-empty"),
        ({"id": 7}, "id", "non-empty string"),
        ({"group": ""}, "group", "non-empty"),
        ({"prompt": []}, "prompt", "messages"),
        ({"prompt": "A or B?"}, "prompt", "messages"),
        ({"prompt": [{"role": "user"}]}, "prompt", "messages"),
        ({"completion": [{"role": "assistant", "content": "C"}]}, "completion", "unknown label 'C'"),
        ({"completion": [{"role": "user", "content": "A"}]}, "completion", "assistant"),
        ({"completion": [{"role": "assistant", "content": "A"}]}, "completion", "not a label that most"),
        ({"label_distribution": [0.5, 0.5]}, "label_distribution", "2 entries for 3 labels"),
        ({"label_distribution": [0.5, 0.4, 0.0]}, "label_distribution", "sums to 0.9"),
        ({"label_distribution": [0.5, 0.5 + 3e-6, 0.0]}, "label_distribution", "sums to"),
        ({"label_distribution": [math.nan, 0.5, 0.5]}, "label_distribution", "NaN"),
        ({"label_distribution": [math.inf, 0.5, 0.5]}, "label_distribution", "infinite"),
        ({"label_distribution": [-0.5, 1.0, 0.5]}, "label_distribution", "negative"),
        ({"label_distribution": ["a", 1.0, 0.0]}, "label_distribution", "not a number"),
        ({"label_distribution": 1.0}, "label_distribution", "must be a list"),
        ({"num_annotators": 0}, "num_annotators", "at least 1"),
        ({"num_annotators": 2.5}, "num_annotators", "whole number"),
    ],
)
def test_each_violation_names_source_row_and_field(changes, field, problem):
    rows = [record(id="first"), record(**changes)]
    with pytest.raises(JudgmentDataError, match=problem) as error:
        build_dataset(rows, SPACE, source="votes.jsonl")
    assert error.value.source == "votes.jsonl" and error.value.field == field
    assert str(error.value).startswith("votes.jsonl, row 2")


def test_missing_column():
    row = record()
    del row["group"]
    with pytest.raises(JudgmentDataError, match="row 1, field `group`: is missing"):
        build_dataset([row], SPACE)


def test_duplicate_id():
    with pytest.raises(JudgmentDataError, match="'x' occurs twice"):
        build_dataset([record(), record()], SPACE, source="f")


def test_no_records():
    with pytest.raises(JudgmentDataError, match="holds no records"):
        build_dataset([], SPACE, source="f")


def test_sum_within_tolerance_is_accepted():
    third = 0.3333333
    build_dataset([record(label_distribution=[third, third, third])], SPACE)


def test_votes_are_counted_from_lists_and_mappings():
    assert votes_to_counts(["a", "B", "DRAW", "tie "], SPACE) == [1, 1, 2]
    assert votes_to_counts({"A": 2, "draw": 3.0}, SPACE) == [2, 0, 3]


@pytest.mark.parametrize(
    ("votes", "problem"),
    [
        (["A", "Bee"], "unknown label 'Bee'"),
        ({"A": -1}, "not a whole number"),
        ({"A": math.nan}, "not a whole number"),
        ({"A": 1.5}, "not a whole number"),
        ({"A": "2"}, "not a whole number"),
    ],
)
def test_bad_votes(votes, problem):
    with pytest.raises(JudgmentDataError, match=problem) as error:
        votes_to_counts(votes, SPACE, source="votes.csv", row=3, field="labels")
    assert "votes.csv, row 3, field `labels`" in str(error.value)


def test_fingerprint_follows_content_not_order():
    dataset = make_records(12)
    shuffled = dataset.shuffle(seed=1)
    assert fingerprint(shuffled) == fingerprint(dataset)
    changed = [copy.deepcopy(row) for row in dataset]
    changed[0]["num_annotators"] += 1
    assert fingerprint(Dataset.from_list(changed, features=dataset.features)) != fingerprint(dataset)
    # A value that must not move between machines and versions: results name it.
    assert fingerprint(build_dataset([record()], SPACE)) == "45841164c439c53c"


def test_divided_votes_are_shares_of_the_annotators():
    space = LabelSpace(["A", "B", "C"])
    prompt = [{"role": "user", "content": "?"}]
    record = make_record(id="1", group="1", prompt=prompt, counts=[1.5, 1 / 3 + 1, 1 / 6], label_space=space)
    assert record["num_annotators"] == 3 and record["label_distribution"][0] == 0.5
    validate_records([record], space)
    for broken in ([0.5, 0.25, 0.0], [float("nan"), 1, 0], [float("inf"), 1, 0]):
        with pytest.raises(JudgmentDataError, match="field `counts`"):
            make_record(id="1", group="1", prompt=prompt, counts=broken, label_space=space)


def test_the_completion_is_the_answer_and_not_the_label():
    space = LabelSpace(["1", "10"], answers={"1": "B", "10": "A"})
    record = make_record(
        id="1", group="1", prompt=[{"role": "user", "content": "?"}], counts=[0, 3], label_space=space
    )
    assert record["completion"] == [{"role": "assistant", "content": "A"}]
    validate_records([record], space)
    with pytest.raises(JudgmentDataError, match="'B' is not a label that most annotators chose"):
        validate_records([{**record, "completion": [{"role": "assistant", "content": "B"}]}], space)
    with pytest.raises(JudgmentDataError, match="unknown answer '10'; the judge answers B, A"):
        validate_records([{**record, "completion": [{"role": "assistant", "content": "10"}]}], space)
