"""Training files for OpenAI: votes become rows, and what does not fit the documented format is one line."""

import json

import pytest
from conftest import LABELS, make_records

from distjudge_trl.data.openai_chat import check_chat_file, choose_rows, share_rows, write_rows
from distjudge_trl.errors import UserInputError
from distjudge_trl.labels import LabelSpace


@pytest.mark.parametrize(
    ("distribution", "rows", "counts"),
    [
        ([0.6, 0.4, 0.0], 5, [3, 2, 0]),
        ([1 / 3, 1 / 3, 1 / 3], 3, [1, 1, 1]),
        ([0.5, 0.26, 0.24], 2, [1, 1, 0]),  # quotas 1, 0.52, 0.48
        ([0.25, 0.75], 1, [0, 1]),
        ([1 / 6, 5 / 6], 6, [1, 5]),  # in floating point 5/6 * 6 may be less than 5
        ([0.3, 0.61, 0.09], 10, [3, 6, 1]),
    ],
)
def test_rows_are_shared_by_largest_remainder(distribution, rows, counts):
    assert share_rows(distribution, rows, name="x") == counts


def test_equal_remainders_prefer_no_label():
    first = [share_rows([0.5, 0.5], 1, name=f"item-{i}")[0] for i in range(400)]
    assert 150 < sum(first) < 250
    assert first == [share_rows([0.5, 0.5], 1, name=f"item-{i}")[0] for i in range(400)]


def counts_of(rows, records):
    counts = [[0] * len(LABELS) for _ in range(len(records))]
    for record, label in rows:
        counts[record][label] += 1
    return counts


def test_every_vote_is_a_row_and_the_rows_are_shuffled():
    records = make_records(40)
    rows = choose_rows(records, LabelSpace(LABELS), "soft")
    for record, counts in zip(records, counts_of(rows, records), strict=True):
        assert counts == [round(p * record["num_annotators"]) for p in record["label_distribution"]]
    assert rows != sorted(rows) and rows == choose_rows(records, LabelSpace(LABELS), "soft")


def test_a_fixed_number_of_rows_and_one_row():
    records = make_records(40)
    space = LabelSpace(LABELS)
    fixed = counts_of(choose_rows(records, space, "soft", rows_per_item=8), records)
    assert {sum(counts) for counts in fixed} == {8}
    for record, counts in zip(records, fixed, strict=True):
        assert all(abs(c - 8 * p) < 1 for c, p in zip(counts, record["label_distribution"], strict=True))
    single = choose_rows(records, space, "single-point")
    assert {row.record: space.answer(row.label) for row in single} == {
        i: record["completion"][0]["content"] for i, record in enumerate(records)
    }


def test_a_limit_takes_complete_items():
    records = make_records(40)
    every = counts_of(choose_rows(records, LabelSpace(LABELS), "soft"), records)
    rows = choose_rows(records, LabelSpace(LABELS), "soft", max_rows=30)
    some = counts_of(rows, records)
    assert 20 < len(rows) <= 30 and all(counts in ([0] * 5, full) for counts, full in zip(some, every, strict=True))
    more = {row.record for row in choose_rows(records, LabelSpace(LABELS), "soft", max_rows=60)}
    assert {row.record for row in rows} < more, "a larger limit contains a smaller one's items"
    with pytest.raises(UserInputError, match="--max-rows 1: one item has more rows"):
        choose_rows(records, LabelSpace(LABELS), "soft", rows_per_item=2, max_rows=1)


def test_what_is_written_passes_the_check_and_reads_back(tmp_path):
    records = make_records(12)
    space = LabelSpace(LABELS, answers=dict(zip(LABELS, "ABCDE", strict=True)))
    rows = choose_rows(make_records(12), LabelSpace(LABELS), "soft")
    write_rows(tmp_path / "t.jsonl", records, rows, space)
    assert check_chat_file(tmp_path / "t.jsonl") == len(rows)
    written = [json.loads(line) for line in (tmp_path / "t.jsonl").read_text("utf-8").splitlines()]
    for (record, label), example in zip(rows, written, strict=True):
        answer = {"role": "assistant", "content": "ABCDE"[label]}
        assert example == {"messages": [*records[record]["prompt"], answer]}


ASKED = {"role": "user", "content": "Rate it."}
GOOD = {"messages": [ASKED, {"role": "assistant", "content": "4"}]}


def example(*messages):
    return json.dumps({"messages": list(messages)}).encode()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{", "row 11: is not JSON"),
        (b'"text"', "row 11: is a str, not an object"),
        (b"", "row 11: is a blank line"),
        (b'\xef\xbb\xbf{"messages": []}', "row 11: is not JSON"),
        (b'{"messages": [{"role": "user", "content": "\xe9"}]}', "row 11: is not UTF-8"),
        (b"{}", "row 11, field `messages`: must be a non-empty list of messages"),
        (b'{"messages": []}', "must be a non-empty list of messages"),
        (b'{"messages": "text"}', "must be a non-empty list of messages"),
        (example({"content": "4"}), "holds a message without `role` and `content`"),
        (example("4"), "holds a message without `role` and `content`"),
        (example({"role": "judge", "content": "4"}), "holds the unknown role 'judge'"),
        (example({**ASKED, "label": 3}), "holds a message with the unknown key 'label'"),
        (example({"role": "user", "content": " "}), "holds a message of the user without text"),
        (example(ASKED, {"role": "assistant", "content": None}), "holds a message of the assistant without text"),
        (example(ASKED, {"role": "assistant", "content": 4}), "holds a message of the assistant without text"),
        (example(ASKED, {"role": "assistant", "content": "4", "weight": 0.5}), "holds the weight 0.5"),
        (example(ASKED), "ends without a message of the assistant"),
        (example({"role": "user", "content": "x" * 70_000}), "has 70,047 bytes, and so perhaps more than the 65,536"),
    ],
)
def test_a_malformed_row_is_named(tmp_path, line, message):
    path = tmp_path / "rows.jsonl"
    path.write_bytes((json.dumps(GOOD) + "\n").encode() * 10 + line + b"\n" + json.dumps(GOOD).encode() + b"\n")
    with pytest.raises(UserInputError) as error:
        check_chat_file(path)
    assert str(error.value).startswith(f"{path}, row 11") and message in str(error.value)


def test_too_few_examples_and_too_large_a_file(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(9 * (json.dumps(GOOD) + "\n"))
    with pytest.raises(UserInputError, match="rows.jsonl: holds 9 examples; fine-tuning needs at least 10"):
        check_chat_file(path)
    assert check_chat_file(path, min_examples=1) == 9
    with pytest.raises(UserInputError, match="more than the 100 that one uploaded file may have"):
        check_chat_file(path, max_file_bytes=100)
