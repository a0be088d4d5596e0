"""Two tables of one data set: rows of votes, and a file with the texts that they are about."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from distjudge_trl.data.columns import missing_column
from distjudge_trl.data.source_files import DataFile
from distjudge_trl.errors import JudgmentDataError
from distjudge_trl.labels.spelling import spelling


Rows = Iterable[tuple[int, dict[str, Any]]]


@dataclass(frozen=True)
class Join:
    """What a row gets from another file: the columns of the row there that has the same values.

    Args:
        files (`tuple[DataFile]`): where these rows are.
        by (`dict[str, str]`): the columns by which rows are found: name here to name there.
    """

    files: tuple[DataFile, ...]
    by: dict[str, str]


def joined(
    rows: Rows, file: DataFile, join: Join, read: Callable[[DataFile], Rows]
) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows with the columns of the other file, as far as they have no columns of these names.

    Args:
        rows (iterable): rows of `file` with their numbers.
        file ([`DataFile`]): where they are, for messages.
        join ([`Join`]): the other file.
        read (`Callable`): reads the rows of a file, without pseudo-columns.

    Raises:
        [`JudgmentDataError`]: a column is missing, the other file has none or several rows for a row.
    """
    there: dict[tuple[str, ...], dict[str, Any]] = {}
    for other in join.files:
        for number, row in read(other):
            key = _key(row, join.by.values(), other.name, number)
            if key in there:
                raise JudgmentDataError(
                    f"{' / '.join(key)!r} occurs twice, and `join` needs one row for each",
                    source=other.name,
                    row=number,
                    field=", ".join(join.by.values()),
                )
            there[key] = row
    for number, row in rows:
        key = _key(row, join.by, file.name, number)
        if key not in there:
            raise JudgmentDataError(
                f"{' / '.join(key)!r} is in no row of {join.files[0].name}"
                + (f" or the {len(join.files) - 1:,} files beside it" if len(join.files) > 1 else ""),
                source=file.name,
                row=number,
                field=", ".join(join.by),
                fix="Add the row there, or name other columns under `join: {by: ...}`.",
            )
        yield number, {**row, **{name: value for name, value in there[key].items() if name not in row}}


def _key(row: dict[str, Any], columns: Iterable[str], source: str, number: int) -> tuple[str, ...]:
    for column in columns:
        if column not in row:
            raise JudgmentDataError(
                "is missing, and `join` names it",
                source=source,
                row=number,
                field=column,
                fix=missing_column(column, row),
            )
    return tuple(spelling(row[column]) for column in columns)
