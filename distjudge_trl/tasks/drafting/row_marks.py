"""Finding marks for each label in files with a row an annotator: columns of 0 and 1, of which some are 1."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from distjudge_trl.labels.spelling import spelling
from distjudge_trl.tasks.drafting.candidate import Candidate, follow
from distjudge_trl.tasks.drafting.columns import ABOUT, Column, label_names


_FEWEST_LABELS = 3
# Of 100 rows so many have a mark, and so many marks a row has on average: more are properties, and no labels.
_MARKED = 85
_MOST_MARKS = 2.5
_MARKS = ({"0", "1"}, {"false", "true"})


def find_marks(
    columns: Sequence[Column], item: list[Column], annotator: Column, rows: list[dict[str, Any]]
) -> Candidate | None:
    """The candidate that reads a column of marks for each label, in rows of one annotator each."""
    for marks in _MARKS:
        for own in _runs(columns, marks):
            if len(own) >= _FEWEST_LABELS and not set(map(id, own)) & set(map(id, item)) and _are_labels(own):
                return _candidate(own, item, annotator, rows)
    return None


def _runs(columns: Sequence[Column], marks: set[str]) -> Iterator[list[Column]]:
    """Columns that hold nothing but marks and stand side by side, the longest run first. Some may have no mark."""
    runs: list[list[Column]] = [[]]
    for column in columns:
        if len(column.steps) == 1 and column.is_scalar and column.keys <= marks and not ABOUT.search(column.name):
            runs[-1].append(column)
        elif len(column.steps) == 1:
            runs.append([])
    yield from sorted(runs, key=len, reverse=True)


def _are_labels(columns: Sequence[Column]) -> bool:
    sums = [sum(map(_is_mark, cells)) for cells in zip(*(column.values for column in columns), strict=True)]
    marked = sum(map(bool, sums))
    return 100 * marked >= _MARKED * len(sums) and sum(sums) <= _MOST_MARKS * marked


def _is_mark(cell: Any) -> bool:
    return spelling(cell).casefold() in ("1", "true")


def _candidate(
    columns: Sequence[Column], item: list[Column], annotator: Column, rows: list[dict[str, Any]]
) -> Candidate:
    labels = dict(zip(label_names([column.name for column in columns]), columns, strict=True))
    pairs = list(zip(*(map(str, column.values) for column in (*item, annotator)), strict=True))
    names = set(zip(*(map(str, column.values) for column in item), strict=True))
    checks = ["the labels are the names of columns, or parts of them"]
    if len(set(pairs)) < len(pairs):
        checks.append(f"someone in `{annotator.path}` votes twice on an item: leave out one of the rows with `skip`")

    def read(row: dict[str, Any]) -> list[list[str]]:
        return [[label for label, column in labels.items() if _is_mark(follow(row, column.steps))]]

    return Candidate(
        {"label_columns": {label: column.path for label, column in labels.items()}, "annotator": annotator.path},
        read,
        len(rows) / len(names),
        -1_000,
        f"a row is one annotator's, with a mark for each of {len(labels)} labels; annotator in `{annotator.path}`",
        [*columns, annotator],
        list(labels),
        checks,
        {"id": [part.path for part in item]},
        per_row=True,
        sure=True,
    )
