"""A task file that fits a file of ratings, with comments that say what was seen and what to check."""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePath
from typing import Any

from distjudge_trl.data.reading import KEY_COLUMN
from distjudge_trl.errors import UserInputError, listing
from distjudge_trl.files.atomic import replacing
from distjudge_trl.tasks.drafting.candidate import Candidate
from distjudge_trl.tasks.drafting.columns import ID, Column, find_columns
from distjudge_trl.tasks.drafting.deep import find_deep
from distjudge_trl.tasks.drafting.drafted import Draft
from distjudge_trl.tasks.drafting.exports import find_export
from distjudge_trl.tasks.drafting.labels import DraftLabels, find_labels
from distjudge_trl.tasks.drafting.left_out import find_skip
from distjudge_trl.tasks.drafting.other_questions import find_questions
from distjudge_trl.tasks.drafting.own_splits import find_part_files, find_split, id_in_parts, part_sources
from distjudge_trl.tasks.drafting.row_votes import find_in_rows
from distjudge_trl.tasks.drafting.sample import Sample, take_sample
from distjudge_trl.tasks.drafting.single_cells import find_in_cells, find_single
from distjudge_trl.tasks.drafting.tables import find_in_columns
from distjudge_trl.tasks.drafting.texts import find_group, find_id, find_texts
from distjudge_trl.tasks.drafting.yaml_text import as_yaml


def write_draft(data: str | Path, path: str | Path) -> Draft:
    """Write a task file for the ratings at `data`.

    Args:
        data (`str` or `Path`): a file of rows, or a folder or archive of such files.
        path (`str` or `Path`): the task file, which must not exist yet.

    Raises:
        [`UserInputError`]: the file exists, the data cannot be read, or no votes are found in them.
    """
    data, path = Path(data), Path(path)
    if path.suffix not in (".yaml", ".yml"):
        raise UserInputError(f"--init {path}: a task file ends with .yaml.")
    if path.exists():
        raise UserInputError(f"{path}: is there already. Remove it, or give --init another name.")
    draft = make_draft(data, path)
    text = as_yaml(draft)
    try:
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserInputError(f"{path}: cannot be written ({error.strerror or error}).") from None
    return draft


def make_draft(data: Path, path: Path) -> Draft:
    """Look at the ratings and decide what the task file says."""
    sample = take_sample(data)
    columns = find_columns(sample.rows)
    candidates = _candidates(columns, sample)
    if not candidates:
        raise UserInputError(f"{data}: no votes were found. {_what_there_is(columns)}")
    votes, *others = candidates
    parts = find_part_files(sample.files) if sample.has_several_files else {}
    try:
        labels = _labels(votes, columns, sample)
    except UserInputError as error:
        raise UserInputError(f"{data}: {votes.seen}, but {error} {_what_there_is(columns)}") from None
    hidden = [column for candidate in candidates for column in candidate.hidden]
    items = _first_rows(columns, votes, sample) if votes.per_row else columns
    texts, reasons = find_texts(items, hidden)
    if not texts:
        turned = " If each row is a person and each column an item, turn the table: a row for each item."
        hint = turned if "annotator_columns" in votes.votes else ""
        raise UserInputError(f"{data}: {votes.seen}, but no texts for the prompt.{hint} {_what_there_is(columns)}")
    own_id = votes.keys.get("id")
    if own_id is None and KEY_COLUMN not in sample.rows[0]:
        own_id = find_id(items, hidden, texts)
    if own_id is None and parts:
        own_id = id_in_parts(items, sample.rows, [column for column in items if ID.search(column.name)])
    if "skip" not in votes.keys and (skip := find_skip(columns, hidden)) is not None:
        votes.keys["skip"] = skip
        votes.checks.append("rows that were not accepted are left out, see `skip`")
    if votes.per_item <= 1 and (sliders := _sliders(columns)):
        votes.checks.append(f"`{sliders[0]}` holds numbers with many different values: to use it, bin them first")
    source = {"path": _relative(sample.path, path), **sample.source}
    if "join" in source:
        other = data / PurePath(source["join"]["path"]).name
        source["join"] = {**source["join"], "path": _relative(other, path)}
    questions = find_questions(votes, labels, others, sample)
    named = [question["votes"] for question in questions.values()]
    group = find_group(items, hidden, texts, own_id or [])
    return Draft(
        name=_name(data),
        source=part_sources(parts, source) if parts else source,
        sample=sample,
        votes=votes,
        labels=labels,
        texts=texts,
        reasons=reasons,
        id=own_id,
        group=group.path if group is not None else None,
        others=[other for other in others if other.votes not in named],
        unvoted=_has_unvoted(votes, labels, sample),
        split=find_split([column for column in items if column not in hidden]) if not parts else None,
        questions=questions,
    )


def _candidates(columns: list[Column], sample: Sample) -> list[Candidate]:
    """All ways to read votes, the best first."""
    if export := find_export(columns, sample):
        return sorted(export, key=lambda candidate: candidate.order)
    cells = list(find_in_cells(columns, sample.rows))
    several = [candidate for candidate in cells if candidate.per_item > 1]
    in_rows = list(find_in_rows(columns, sample)) if not several else []
    # Where a column names the annotator, columns with labels in common are questions, and no people.
    if any(candidate.sure for candidate in in_rows):
        return sorted(in_rows, key=lambda candidate: candidate.order)
    found = [*cells, *find_in_columns(columns, sample.rows)]
    several = [candidate for candidate in found if candidate.per_item > 1]
    found = several or in_rows or list(find_deep(sample.rows)) or found or list(find_single(columns, sample.rows))
    return sorted(found, key=lambda candidate: candidate.order)


def _labels(votes: Candidate, columns: list[Column], sample: Sample) -> DraftLabels:
    lists = any(isinstance(vote, (list, tuple)) and len(vote) > 1 for row in sample.rows for vote in votes.read(row))
    labels = find_labels(votes.values(sample.all_rows()), votes.labels, lists)
    # Shares and counts beside the votes name labels that nobody chose.
    wanted = set(labels.labels)
    for column in columns:
        if all(isinstance(value, dict) for value in column.filled) and column.filled and votes.labels is None:
            names = {str(name) for value in column.filled for name in value}
            if wanted < names and len(names) <= 2 * len(wanted) + 2 and _are_numbers(column):
                return find_labels(votes.values(sample.all_rows()), sorted(names), lists)
    return labels


def _are_numbers(column: Column) -> bool:
    return all(isinstance(part, (int, float)) for value in column.filled for part in value.values())


def _first_rows(columns: list[Column], votes: Candidate, sample: Sample) -> list[Column]:
    """The columns with one row an item, and without those that differ between an item's rows."""
    parts = [column for column in columns if column.path in votes.keys["id"]]
    names = list(zip(*(map(str, column.values) for column in parts), strict=True)) if parts else []
    first: dict[Any, int] = {}
    for number, name in enumerate(names):
        first.setdefault(name, number)
    kept = []
    for column in columns:
        values = list(map(str, column.values))
        if all(values[number] == values[first[name]] for number, name in enumerate(names)):
            kept.append(Column(column.steps, [column.values[number] for number in first.values()]))
    return kept


def _has_unvoted(votes: Candidate, labels: DraftLabels, sample: Sample) -> bool:
    """Whether some items have no vote."""
    codes = set(labels.missing)
    counts: dict[Any, int] = {}
    for number, row in enumerate(sample.rows):
        name = tuple(str(row.get(path)) for path in votes.keys["id"]) if votes.per_row else number
        given = [vote for vote in votes.read(row) if vote not in (None, "", []) and str(vote).strip() not in codes]
        counts[name] = counts.get(name, 0) + len(given)
    return not all(counts.values()) and "shares" not in votes.votes


def _name(data: Path) -> str:
    stem = re.sub(r"(?i)\.gz$", "", data.name)
    stem = stem.rpartition(".")[0] or stem
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", stem).strip("-.") or "ratings"


def _relative(data: Path, path: Path) -> str:
    """The data's path as seen from the task file."""
    try:
        found = Path(os.path.relpath(data, path.parent)).as_posix()
    except ValueError:  # another drive
        return str(data.absolute())
    return str(data) if data.is_absolute() and found.startswith("../..") else found


def _what_there_is(columns: list[Column]) -> str:
    """What the rows hold, for a message about what could not be found."""
    nested = [
        column.path
        for column in columns
        if len(column.steps) == 1 and any(isinstance(v, list) and v and isinstance(v[0], dict) for v in column.filled)
    ]
    many = _sliders(columns)
    text = f"The rows have: {listing(column.path for column in columns if len(column.steps) == 1)}."
    if nested:
        text += f" If `{nested[0]}` holds several items, write `items: {nested[0]}` under `source`."
    if many:
        text += (
            f" `{many[0]}` holds numbers with many different values: a judge needs a few labels, so bin them first."
        )
    return f"{text} docs/data.md lists the forms that a task file can name."


def _sliders(columns: list[Column]) -> list[str]:
    """Columns with numbers of too many values for labels."""
    found = []
    for column in columns:
        flat = [part for value in column.filled for part in (value if isinstance(value, list) else [value])]
        if len(flat) > 100 and all(isinstance(part, float) for part in flat) and len(set(flat)) > 50:
            found.append(column.path)
    return found
