"""`data FILE --init`: exports of crowdsourcing platforms, shares, splits and several questions in one file."""

import json
import re

import pytest
import yaml
from test_drafting import TEXTS, draft, init, json_lines, table

from distjudge_trl.tasks import get_task


PEOPLE = ["p1", "p2", "p3"]
TONES = ["Kind", "Neutral", "Rude"]


def vote(item, person, labels=TONES):
    return labels[(item * item + person * (item % 3)) % len(labels)]


def long(number=12, **columns):
    """A row for each of three people and item."""
    return [
        {"HITId": f"h{i}", "Input.text": f"{TEXTS[i % 4]} Number {i}.", "WorkerId": person}
        | {name: value(i, k) for name, value in columns.items()}
        for i in range(number)
        for k, person in enumerate(PEOPLE)
    ]


def count(rows, labels, read):
    found = [read(row) for row in rows]
    return [found.count(label) for label in labels]


def test_questions_in_rows_of_annotators_are_no_people(tmp_path):
    """Columns with labels in common are taken for people only if no column names these."""
    rows = long(tone=vote, respect=lambda i, k: vote(i + 1, k), seconds=lambda i, k: 20 + k)
    found, votes = draft(table(tmp_path, rows, "batch.csv"))
    assert (found["id"], found["votes"]) == ("HITId", {"rows": "tone", "annotator": "WorkerId"})
    assert votes == count(rows, TONES, lambda row: row["tone"])
    text = (tmp_path / "task.yaml").read_text()
    assert "2 ratings of an item: tone, respect" in text
    # The comment is the key `questions` once its marks are gone.
    block = re.sub(r"(?m)^# (questions:|  \w+: \{votes)", r"\1", text).replace("Which label fits", "{{ question }}")
    (tmp_path / "questions.yaml").write_text(block)
    task = get_task(str(tmp_path / "questions.yaml"))
    assert len(task.load(None, task.options())) == 24


def test_questions_with_other_labels(tmp_path):
    rows = long(tone=vote, grade=lambda i, k: vote(i, k, [1, 2, 3, 4, 5]))
    draft(table(tmp_path, rows, "batch.csv"))
    text = (tmp_path / "task.yaml").read_text()
    assert "grade: {votes: {rows: grade, annotator: WorkerId}, labels:" in text and "ordinal: true}" in text
    block = re.sub(r"(?m)^# (questions:|  \w+: \{votes)", r"\1", text)
    (tmp_path / "questions.yaml").write_text(block)
    task = get_task(str(tmp_path / "questions.yaml")).choose("grade")
    assert task.labels == ("1", "2", "3", "4", "5") and len(task.load(None, task.options())) == 12


@pytest.mark.parametrize("name", ["Answer.{}.on", "{}"])
def test_a_row_an_annotator_with_marks(tmp_path, name):
    marks = {name.format(label): lambda i, k, label=label: str(vote(i, k) == label).lower() for label in TONES}
    rows = long(**marks, **{"Answer.none": lambda i, k: ""})
    found, votes = draft(table(tmp_path, rows, "batch.csv"))
    assert found["votes"]["annotator"] == "WorkerId" and list(found["votes"]["label_columns"]) == TONES
    assert votes == [sum(vote(i, k) == label for i in range(12) for k in range(3)) for label in TONES]


@pytest.mark.parametrize(
    ("cell", "path"),
    [
        (lambda label: json.dumps([{"tone": {"label": label}}]), '"Answer.x"[].tone.label'),
        (
            lambda label: json.dumps({"choices": [label]}) if label == "Rude" else label,
            '"Answer.x".choices || "Answer.x"',
        ),
    ],
)
def test_json_in_the_cells_of_a_row_an_annotator(tmp_path, cell, path):
    rows = long(**{"Answer.x": lambda i, k: cell(vote(i, k))})
    found, votes = draft(table(tmp_path, rows, "batch.csv"))
    assert found["votes"] == {"rows": path, "annotator": "WorkerId"}
    assert votes == [sum(vote(i, k) == label for i in range(12) for k in range(3)) for label in TONES]


@pytest.mark.parametrize("part", ["turn", "question"])
def test_an_annotator_has_several_rows_an_item(tmp_path, part):
    rows = [row | {part: n, "score": vote(i + n, 1)} for i, row in enumerate(long()) for n in (1, 2)]
    found, votes = draft(table(tmp_path, rows, "batch.csv"))
    assert found["id"] == ["HITId", part] and found["votes"] == {"rows": "score", "annotator": "WorkerId"}
    assert sum(votes) == 72


@pytest.mark.parametrize("percent", [False, True])
def test_a_column_of_shares_for_each_label(tmp_path, percent):
    rows, total = [], [0, 0, 0]
    for i in range(12):
        counts = [i % 5, (5 - i % 5) // 2, 5 - i % 5 - (5 - i % 5) // 2]
        total = [a + b for a, b in zip(total, counts, strict=True)]
        cells = [f"{20 * n}%" if percent else n / 5 for n in counts]
        named = {f"{label} (share)": cell for label, cell in zip(TONES, cells, strict=True)}
        rows.append({"id": f"r{i}", "text": f"{TEXTS[i % 4]} Number {i}.", "annotators": 5, **named})
    found, _ = draft(table(tmp_path, rows))
    columns = {label: f"{label} (share)" for label in TONES}
    assert found["votes"] == {"shares": columns, "num_annotators": "annotators"}
    task = get_task(str(tmp_path / "task.yaml"))
    rows = task.load(None, task.options())
    assert [round(sum(5 * row["label_distribution"][k] for row in rows)) for k in range(3)] == total


def test_the_share_of_one_label(tmp_path):
    rows = [
        {
            "id": 1000 + i,
            "target": i % (4 + i % 7) / (4 + i % 7),
            "comment_text": f"{TEXTS[i % 4]} {i}",
            "likes": i % 4,
        }
        | {"annotator_count": 4 + i % 7}
        for i in range(20)
    ]
    found, votes = draft(table(tmp_path, rows))
    assert found["votes"] == {"shares": {"target": "target"}, "num_annotators": "annotator_count"}
    assert "{{ comment_text }}" in found["template"] and "likes" not in found["template"]
    assert votes == [sum(4 + i % 7 - i % (4 + i % 7) for i in range(20)), sum(i % (4 + i % 7) for i in range(20))]


def test_states_beside_the_votes(tmp_path):
    states = ["submitted", "submitted", "draft", "discarded"]
    rows = [
        {
            "id": f"r{i}",
            "text": f"{TEXTS[i % 4]} Number {i}.",
            "tone.responses": [vote(i, k) for k in range(3)],
            "tone.responses.users": PEOPLE,
            "tone.responses.status": ["submitted", *(states[(i + k) % 4] for k in (0, 1))],
        }
        for i in range(16)
    ]
    found, votes = draft(json_lines(tmp_path, rows))
    assert found["votes"] == {"list": "tone.responses", "only": {"tone.responses.status": "submitted"}}
    kept = [
        v for r in rows for v, s in zip(r["tone.responses"], r["tone.responses.status"], strict=True) if s == states[0]
    ]
    assert votes == [kept.count(label) for label in TONES] and len(kept) < 48


@pytest.mark.parametrize(
    ("nested", "path"),
    [
        (
            lambda own: {"annotations": [{"by": {"name": "a"}, "answer": {"label": v}} for v in own]},
            "annotations[].answer.label",
        ),
        (
            lambda own: {"annotations": {p: {"Rating": v} for p, v in zip(PEOPLE, own, strict=True)}},
            "annotations.*.Rating",
        ),
        (
            lambda own: {"projects": {"p1": {"labels": [{"made": {"radio": {"value": v}}} for v in own]}}},
            "projects.p1.labels[].made.radio.value",
        ),
    ],
)
def test_votes_deep_inside(tmp_path, nested, path):
    rows = [{"id": f"r{i}", "text": f"{TEXTS[i % 4]} Number {i}."} for i in range(12)]
    rows = [row | nested([vote(i, k) for k in range(3)]) for i, row in enumerate(rows)]
    found, votes = draft(json_lines(tmp_path, rows))
    assert found["votes"] == {"list": path} and sum(votes) == 36


# Splits


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["train", "train", "dev", "test"], {"train": ["train"], "validation": ["dev"], "test": ["test"]}),
        (["train", "valid1", "train", "unused"], {"train": ["train"], "validation": ["valid1"], "ignore": ["unused"]}),
    ],
)
def test_a_column_that_names_the_parts(tmp_path, values, expected):
    rows = [
        {
            "id": f"r{i}",
            "part of": values[i % 4],
            "text": f"{TEXTS[i % 3]} Number {i}.",
            "votes": [vote(i, k) for k in range(3)],
        }
        for i in range(16)
    ]
    found, votes = draft(json_lines(tmp_path, rows))
    assert found["split"] == {"column": "part of", **expected} and sum(votes) == (36 if "ignore" in expected else 48)


def test_a_column_that_may_name_parts_is_only_mentioned(tmp_path):
    rows = [
        {"id": f"r{i}", "fold": i % 4, "text": f"{TEXTS[i % 3]} Number {i}.", "votes": [vote(i, k) for k in range(3)]}
        for i in range(16)
    ]
    found, _ = draft(json_lines(tmp_path, rows))
    assert "split" not in found and "# `fold` (0, 1, 2, 3) may say which part" in (tmp_path / "task.yaml").read_text()


def test_a_file_that_is_one_part(tmp_path):
    rows = [
        {"id": i, "split": "dev", "text": f"{TEXTS[i % 4]} {i}.", "votes": [vote(i, k) for k in range(3)]}
        for i in range(12)
    ]
    found, _ = draft(json_lines(tmp_path, rows))
    text = (tmp_path / "task.yaml").read_text()
    assert "split" not in found and "`split` is dev in every row" in text and "{train: FILE, validation: FILE}" in text


def test_a_file_for_each_part(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    for name in ("train-00000-of-00002", "train-00001-of-00002", "dev"):
        rows = [
            {"id": i, "text": f"{TEXTS[i % 4]} {name} {i}.", "votes": [vote(i, k) for k in range(3)]} for i in range(8)
        ]
        json_lines(folder, rows).rename(folder / f"{name}.jsonl")
    found, votes = draft(folder)
    assert found["source"] == {"train": {"path": "data", "files": ["train*"]}, "validation": "data/dev.jsonl"}
    assert sum(votes) == 72


# Prompts


def test_both_of_a_pair_are_shown(tmp_path):
    rows = [
        {
            "id": f"r{i}",
            "info": {"post": f"{TEXTS[i % 4]} Number {i}."},
            "summaries": [{"text": f"{TEXTS[n]} It is {i}.", "policy": "p"} for n in (0, 1)],
            "votes": [vote(i, k) for k in range(3)],
        }
        for i in range(12)
    ]
    found, _ = draft(json_lines(tmp_path, rows))
    assert "{{ summaries[0].text }}" in found["template"] and "{{ summaries[1].text }}" in found["template"]


def test_short_texts_beside_long_ones_are_shown(tmp_path):
    rows = [
        {
            "id": i,
            "text": {"post": f"{TEXTS[i % 4]} Number {i}.", "reply": f"No, {i}."},
            "votes": [vote(i, k) for k in range(3)],
        }
        for i in range(12)
    ]
    found, _ = draft(json_lines(tmp_path, rows))
    assert "{{ text.post }}" in found["template"] and "{{ text.reply }}" in found["template"]


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["Strongly disagree", "Disagree", "Neither agree nor disagree", "Agree", "Strongly agree"], None),
        (["★", "★★", "★★★"], None),
        (["1/5", "2/5", "3/5"], ["1", "2", "3"]),
    ],
)
def test_scales_are_in_order(tmp_path, labels, expected):
    rows = [
        {"id": i, "text": f"{TEXTS[i % 4]} Number {i}.", **{f"rater_{k}": vote(i, k, labels) for k in range(3)}}
        for i in range(30)
    ]
    found, _ = draft(table(tmp_path, rows))
    assert found["labels"] == (expected or labels) and found["ordinal"] is True
    assert found["votes"] == {"annotator_columns": ["rater_0", "rater_1", "rater_2"]}


def test_more_labels_than_letters_are_drafted_where_columns_name_them(tmp_path):
    words = [f"{chr(97 + i // 2)}{'xy'[i % 2]}" for i in range(28)]
    rows = long(30, **{word: lambda i, k, n=n: int((i + k * k) % 28 == n) for n, word in enumerate(words)})
    path = tmp_path / "task.yaml"
    done = init(table(tmp_path, rows, "batch.csv"), path)
    assert done.exit_code == 0, done.output
    found = yaml.safe_load(path.read_text())
    assert found["labels"] == words and "answers" not in found and "more labels than letters" in path.read_text()


def test_rows_that_were_not_accepted_are_left_out(tmp_path):
    states = ["Approved", "Approved", "Rejected", "Approved"]
    rows = long(tone=vote, AssignmentStatus=lambda i, k: states[(i + k) % 4])
    found, votes = draft(table(tmp_path, rows, "batch.csv"))
    assert found["skip"] == "AssignmentStatus == 'Rejected'"
    kept = [row["tone"] for row in rows if row["AssignmentStatus"] == "Approved"]
    assert votes == [kept.count(label) for label in TONES] and len(kept) == 27


def test_a_text_called_source_is_shown_where_nothing_else_is(tmp_path):
    rows = [{"source": f"{TEXTS[i % 4]} Number {i}.", "votes": [vote(i, k) for k in range(3)]} for i in range(12)]
    found, _ = draft(json_lines(tmp_path, rows))
    assert "{{ source }}" in found["template"]


def test_names_and_codes_of_a_label_are_one_question(tmp_path):
    rows = [
        {
            "id": i,
            "text": f"{TEXTS[i % 4]} Number {i}.",
            "votes": [{"radio": {"name": v, "value": v[:2].lower()}} for v in (vote(i, k) for k in range(3))],
        }
        for i in range(12)
    ]
    found, _ = draft(json_lines(tmp_path, rows))
    text = (tmp_path / "task.yaml").read_text()
    assert found["votes"] == {"list": "votes[].radio.name"} and "questions" not in text and "radio.value" in text


def test_an_object_with_a_list_of_items(tmp_path):
    rows = [{"id": i, "text": f"{TEXTS[i % 4]} {i}.", "votes": [vote(i, k) for k in range(3)]} for i in range(12)]
    path = tmp_path / "ratings.json"
    path.write_text(json.dumps({"version": 1, "data": rows}))
    found, votes = draft(path)
    assert found["source"] == {"path": "ratings.json", "items": "data"} and sum(votes) == 36


def test_a_title_above_the_table(tmp_path):
    rows = [{"nr": i, "text": f"{TEXTS[i % 4]} {i}.", **{f"p{k}": vote(i, k) for k in range(3)}} for i in range(12)]
    path = table(tmp_path, rows)
    path.write_text("Ratings of May\n\n" + path.read_text())
    found, votes = draft(path)
    assert found["source"] == {"path": "ratings.csv", "header": 3} and sum(votes) == 36


def test_a_table_with_a_row_a_person_says_so(tmp_path):
    rows = [{f"Rate: {TEXTS[i]}": (i + k) % 3 for i in range(4)} for k in range(9)]
    done = init(table(tmp_path, rows), tmp_path / "task.yaml")
    assert done.exit_code == 2 and "turn the table: a row for each item" in done.output
