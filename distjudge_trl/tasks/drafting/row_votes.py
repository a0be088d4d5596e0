"""Finding votes in files with a row an annotator: the label varies between rows of one item."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from distjudge_trl.data.reading import FILE_COLUMN
from distjudge_trl.data.values import parse_structure
from distjudge_trl.labels.spelling import comparison_key
from distjudge_trl.tasks.drafting.candidate import Candidate, follow
from distjudge_trl.tasks.drafting.columns import (
    ABOUT,
    ANNOTATOR,
    ID,
    LABEL,
    MOST_LABELS,
    PERSON,
    REASON,
    SYSTEM,
    Column,
    are_label_like,
    is_missing_code,
    step,
)
from distjudge_trl.tasks.drafting.own_splits import find_part_files
from distjudge_trl.tasks.drafting.row_marks import find_marks
from distjudge_trl.tasks.drafting.sample import Sample
from distjudge_trl.tasks.drafting.texts import find_texts


# Rows an item, on average: fewer are a few texts that occur twice by chance.
_FEWEST_ROWS = 1.2
_MOST_ID_PARTS = 4
# So many labels of so many characters people choose from, at most.
_LONG_LABEL, _MOST_LONG = 15, 7
# So many paths to the label the cells of a column may have.
_MOST_PATHS = 3
# Columns that say which question about an item a row answers.
QUESTION = re.compile(r"(?i)^(question|aspect|dimension|criterion|criteria|attribute|metric|task|scale|item_type)$")
_VOTE = re.compile(r"(?i)label|vote|rating|score|verdict|answer|choice|grade|winner")


def find_in_rows(columns: list[Column], sample: Sample) -> Iterator[Candidate]:
    """Candidates with a row an annotator, of all columns that may hold the label."""
    files = Column((FILE_COLUMN,), [str(row[FILE_COLUMN]) for row in sample.rows])
    people = [column for column in columns if column.is_scalar and ANNOTATOR.search(column.name)]
    people = [column for column in people if not ABOUT.search(column.name)]
    people = [column for column in people if len(set(map(str, column.filled))) > 1]
    people.sort(key=lambda column: (len(column.filled) < len(column.values), bool(LABEL.search(column.name))))
    if sample.has_several_files and not people and not find_part_files(sample.files):
        people = [files]
    labels = [column for column in columns if _may_hold_labels(column) and column not in people]
    labels = [column for column in labels if PERSON.fullmatch(column.name) is None]
    texts, _ = find_texts(columns, [*labels, *people])
    for annotator in (*people, None):
        found = _find_id(columns, labels, texts, annotator)
        if found is None:
            continue
        found = _with_question(found, columns, labels, texts, annotator)
        candidates = list(_candidates(labels, found, annotator, sample.rows))
        if annotator is not None and (marks := find_marks(columns, found, annotator, sample.rows)) is not None:
            used = {column.steps for column in marks.hidden}
            candidates = [marks, *(one for one in candidates if one.hidden[0].steps not in used)]
        yield from candidates
        if candidates:
            return


def _may_hold_labels(column: Column) -> bool:
    values = [label_of(value) for value in column.filled]
    flat = [part for value in values for part in (value if isinstance(value, list) else [value])]
    if not flat or len(column.steps) > 2 or not are_label_like(flat):
        return False
    if len({_inside(value) for value in column.filled}) > _MOST_PATHS:
        return False
    if column.mean_length > _LONG_LABEL and len(column.keys) > _MOST_LONG and not LABEL.search(column.name):
        return False  # the texts of a few items
    if any(pattern.search(column.name) for pattern in (ABOUT, REASON, SYSTEM)):
        return False
    if ANNOTATOR.search(column.name) and not _VOTE.search(column.name):
        return False
    return 2 <= len({comparison_key(part) for part in flat if not is_missing_code(part)}) <= MOST_LABELS


def label_of(value: Any) -> Any:
    """The label in a cell: itself, or the choices or rating of Label Studio, which CSV has as a text."""
    value = parse_structure(value)
    if isinstance(value, dict) and len(value) == 1:
        return label_of(next(iter(value.values())))
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], dict):
        return label_of(value[0])
    return value


def _inside(value: Any) -> str:
    """The path to the label in a cell, such as `.choices` in {"choices": [...]}; "" if the cell is the label."""
    value = parse_structure(value)
    if isinstance(value, dict) and len(value) == 1:
        name, part = next(iter(value.items()))
        return f".{step(str(name))}{_inside(part)}"
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], dict):
        return f"[]{_inside(value[0])}"
    return ""


def _find_id(
    columns: list[Column], labels: list[Column], texts: list[Column], annotator: Column | None
) -> list[Column] | None:
    """The columns that name an item: rows with equal values show the same texts."""
    others = [
        column
        for column in columns
        if column.is_scalar and column is not annotator and column not in texts and not ABOUT.search(column.name)
    ]
    named = [column for column in others if ID.search(column.name) and not ANNOTATOR.search(column.name)]
    named = [column for column in named if _rows_each([column]) >= _FEWEST_ROWS]
    named.sort(key=lambda column: _rows_each([column]))
    for column in named:
        if _agree(texts, [column]) and _names_item(texts, [column]):
            return [column]
    # With annotators known, texts that differ within an item are what each of them wrote.
    if annotator is not None:
        for column in named:
            same = [text for text in texts if _agree([text], [column])]
            if same and _unique([column], annotator):
                return [column]
    parts = [column for column in others if ID.search(column.name) or SYSTEM.search(column.name)]
    parts = [column for column in parts if column not in labels or SYSTEM.search(column.name)]
    if annotator is not None and named:
        chosen = [named[-1]]
        while len(chosen) < _MOST_ID_PARTS and not _agree(texts, chosen):
            rest = [column for column in parts if column not in chosen]
            rest = [column for column in rest if _rows_each([*chosen, column]) >= _FEWEST_ROWS]
            if not rest:
                break
            chosen.append(min(rest, key=lambda column: _conflicts(texts, [*chosen, column])))
        if _agree(texts, chosen) and _rows_each(chosen) >= _FEWEST_ROWS:
            return chosen
    if texts and all(text.is_scalar for text in texts) and _rows_each(texts) >= _FEWEST_ROWS:
        return list(texts)
    return None


def _with_question(
    item: list[Column], columns: list[Column], labels: list[Column], texts: list[Column], annotator: Column | None
) -> list[Column]:
    """The columns that name an item, with one more where each annotator has several rows an item: a turn, or which
    question the row answers.
    """
    if annotator is None or _unique(item, annotator):
        return item
    for column in columns:
        is_part = SYSTEM.search(column.name) or QUESTION.search(column.name)
        if column in (*item, *texts, annotator) or not column.is_scalar or not is_part:
            continue
        more = [*item, column]
        if _unique(more, annotator) and _rows_each(more) >= _FEWEST_ROWS:
            return more
    return item


def _unique(item: Sequence[Column], annotator: Column) -> bool:
    pairs = _names([*item, annotator])
    return len(set(pairs)) >= 0.95 * len(pairs)


def _names(columns: Sequence[Column]) -> list[tuple[str, ...]]:
    return list(zip(*(map(str, column.values) for column in columns), strict=True))


def _rows_each(columns: Sequence[Column]) -> float:
    names = _names(columns)
    return len(names) / len(set(names))


def _conflicts(texts: Sequence[Column], columns: Sequence[Column]) -> int:
    """How many items show different texts."""
    shown = dict.fromkeys(zip(_names(columns), _names(texts), strict=True)) if texts else {}
    return sum(count > 1 for count in Counter(name for name, _ in shown).values())


def _agree(texts: Sequence[Column], columns: Sequence[Column]) -> bool:
    return not _conflicts(texts, columns)


def _names_item(texts: Sequence[Column], columns: Sequence[Column]) -> bool:
    """Whether the columns tell apart about as many items as the texts do."""
    return not texts or len(set(_names(columns))) >= 0.5 * len(set(_names(texts)))


def _candidates(
    labels: list[Column], item: list[Column], annotator: Column | None, rows: list[dict[str, Any]]
) -> Iterator[Candidate]:
    names = _names(item)
    each = len(names) / len(set(names))
    for place, column in enumerate(labels):
        if column in item or ID.search(column.name) or any(column.steps[:-1] == other.steps for other in labels):
            continue
        per_name: dict[Any, set[str]] = {}
        per_person: dict[Any, set[str]] = {}
        people = map(str, annotator.values) if annotator is not None else ["?"] * len(rows)
        for name, person, value in zip(names, people, column.values, strict=True):
            key = str(label_of(value))
            per_name.setdefault(name, set()).add(key)
            per_person.setdefault(person, set()).add(key)
        varies = any(len(keys) > 1 for keys in per_name.values())
        several = annotator is not None and 1 < len(per_person) <= 0.7 * len(rows)
        is_about_person = several and all(len(keys) == 1 for keys in per_person.values())
        if is_about_person or (not varies and not LABEL.search(column.name)):
            continue
        if annotator is None and not LABEL.search(column.name):
            continue
        yield _candidate(column, item, annotator, each, rank=place - 500 * bool(LABEL.search(column.name)))


def _candidate(column: Column, item: list[Column], annotator: Column | None, each: float, rank: int) -> Candidate:
    path, checks = column.path, []
    inside = {_inside(value) for value in column.filled}
    if inside != {""}:
        start = step(column.steps[0]) if len(column.steps) == 1 else path
        path = " || ".join(f"{start}{part}" for part in sorted(inside, reverse=True))
    votes: dict[str, Any] = {"rows": path}
    if annotator is not None:
        pairs = _names([*item, annotator])
        if len(set(pairs)) == len(pairs):
            votes["annotator"] = annotator.path
        else:
            twice = len(pairs) - len(set(pairs))
            checks.append(
                f"`annotator: {annotator.path}` is left out, because someone votes twice on an item ({twice:,} rows):"
                " every row counts"
            )

    def read(row: dict[str, Any], steps: tuple[str, ...] = column.steps) -> list[Any]:
        return [label_of(follow(row, steps))]

    who = f", annotator in `{annotator.path}`" if annotator is not None else ""
    return Candidate(
        votes,
        read,
        each,
        rank,
        f"a row is one annotator's vote: label in `{column.path}`{who}",
        [column, *([annotator] if annotator is not None else [])],
        checks=checks,
        keys={"id": [part.path for part in item]},
        per_row=True,
        sure=annotator is not None,
    )
