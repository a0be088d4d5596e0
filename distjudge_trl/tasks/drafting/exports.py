"""Exports of annotation tools, by the names that these tools write."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from distjudge_trl.data.reading import FILE_COLUMN
from distjudge_trl.tasks.drafting.candidate import Candidate, entries_of, follow, mapping_of, per_item
from distjudge_trl.tasks.drafting.columns import Column, step
from distjudge_trl.tasks.drafting.sample import Sample


def find_export(columns: list[Column], sample: Sample) -> list[Candidate]:
    """Candidates of the tool whose export this is, one a question; none if it is no known export."""
    names = {column.steps[0]: column for column in columns if len(column.steps) == 1}
    rows = sample.rows
    annotations = names.get("annotations")
    if annotations is not None and any("result" in entry for entry in _entries(annotations)):
        return list(_label_studio(annotations, rows))
    if "responses" in names and "fields" in names and all(isinstance(v, dict) for v in names["responses"].filled):
        return list(_argilla(names["responses"], rows))
    if "_input_hash" in names and "answer" in names:
        return [_prodigy(names, rows)]
    if {"id", "text", "label"} <= set(names) and "Comments" in names and sample.has_several_files:
        return [_doccano(names["label"], rows)]
    return []


def _entries(column: Column) -> list[dict[str, Any]]:
    return [entry for value in column.filled for entry in entries_of(value)]


def _label_studio(column: Column, rows: list[dict[str, Any]]) -> Iterator[Candidate]:
    """A question is a `from_name`; its labels are in `value.choices`, or its number in `value.rating`."""
    questions: dict[tuple[str, str], None] = {}
    results = [result for entry in _entries(column) for result in entries_of(entry.get("result"))]
    names = list(dict.fromkeys(str(result.get("from_name")) for result in results))
    for result in results:
        kind = str(result.get("type"))
        if kind in mapping_of(result.get("value")) and kind in ("choices", "rating", "number"):
            questions[(str(result.get("from_name")), kind)] = None
    for place, (name, kind) in enumerate(questions):

        def read(row: dict[str, Any], name: str = name, kind: str = kind) -> Iterator[Any]:
            for entry in entries_of(row.get("annotations")):
                if not entry.get("was_cancelled"):
                    for result in entries_of(entry.get("result")):
                        if result.get("from_name") == name and kind in mapping_of(result.get("value")):
                            yield result["value"][kind]

        path = f"annotations[?!was_cancelled].result[].value.{kind}"
        if len(names) > 1:
            path = f"annotations[?!was_cancelled].result[] | [?from_name=='{name}'].value.{kind}"
        yield Candidate(
            {"list": path},
            read,
            per_item(read, rows),
            place,
            f"Label Studio's JSON export; the question `{name}`, without cancelled annotations",
            [column, *([Column(("predictions",), [])])],
        )


def _argilla(column: Column, rows: list[dict[str, Any]]) -> Iterator[Candidate]:
    """A question is a key of `responses`, which holds the answers."""
    names = list(dict.fromkeys(str(name) for value in column.filled for name in value))
    for place, name in enumerate(names):
        steps = ("responses", name)
        entries = [entry for row in rows for entry in entries_of(follow(row, steps))]
        if any(isinstance(entry.get("value"), dict) for entry in entries):
            continue
        states = {entry.get("status") for entry in entries if entry.get("status") is not None}
        kept = "[?status=='submitted']" if states - {"submitted"} else "[]"

        def read(row: dict[str, Any], steps: tuple[str, str] = steps, kept: str = kept) -> Iterator[Any]:
            for entry in entries_of(follow(row, steps)):
                if kept == "[]" or entry.get("status") == "submitted":
                    yield entry.get("value")

        yield Candidate(
            {"list": f"responses.{step(name)}{kept}.value"},
            read,
            per_item(read, rows),
            place,
            f"Argilla's records; the answers to the question `{name}`",
            [column, Column(("suggestions",), []), Column(("vectors",), [])],
        )


def _prodigy(names: dict[str, Column], rows: list[dict[str, Any]]) -> Candidate:
    """Choices are in `accept`; without them `answer` itself is the vote."""
    annotator = next((name for name in ("_annotator_id", "_session_id") if name in names), None)
    choices = "accept" in names
    field = "accept" if choices else "answer"
    votes: dict[str, Any] = {"rows": field}
    checks = []
    if annotator is not None:
        pairs = [(str(row.get("_input_hash")), str(row.get(annotator))) for row in rows]
        if len(set(pairs)) == len(pairs):
            votes["annotator"] = annotator
        else:
            checks.append(f"`annotator: {annotator}` is left out, because someone votes twice on a text: all count")
    keys: dict[str, Any] = {"id": ["_input_hash"]}
    labels: list[Any] | None = ["accept", "reject"]
    if choices:
        keys["skip"] = "answer != 'accept'"
        options = [option for row in rows for option in entries_of(row.get("options"))]
        labels = list(dict.fromkeys(str(option["id"]) for option in options if "id" in option)) or None
    else:
        keys["missing"] = ["ignore"]
        checks.append("the votes are accept and reject; the prompt must name what was accepted")

    def read(row: dict[str, Any]) -> list[Any]:
        if choices and row.get("answer") != "accept":
            return []
        return [None if row.get(field) == "ignore" else row.get(field)]

    hidden = [names[name] for name in ("accept", "answer", "options", "_session_id", "_annotator_id") if name in names]
    return Candidate(
        votes,
        read,
        len(rows) / max(len({str(row.get("_input_hash")) for row in rows}), 1),
        0,
        f"Prodigy's db-out; the votes are in `{field}`",
        hidden,
        labels,
        checks,
        keys,
        per_row=True,
    )


def _doccano(column: Column, rows: list[dict[str, Any]]) -> Candidate:
    """A file a member of the project."""
    hidden = [column, Column((FILE_COLUMN,), []), Column(("Comments",), [])]
    return Candidate(
        {"rows": "label", "annotator": FILE_COLUMN},
        lambda row: [row.get("label")],
        len(rows) / max(len({str(row.get("id")) for row in rows}), 1),
        0,
        "doccano's export, a file for each member of the project",
        hidden,
        keys={"id": ["id"]},
        per_row=True,
    )
