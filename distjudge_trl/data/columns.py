"""Names of the columns of tables (delimited text and workbooks), and rows of cells under them."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from distjudge_trl.data.reading import FILE_COLUMN, KEY_COLUMN
from distjudge_trl.errors import JudgmentDataError, listing


# Characters that nobody sees: zero-width ones, soft hyphens, byte order marks, directions.
_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff]")

EMPTY_ROWS = "empty rows left out"


def clean_name(name: str) -> str:
    """A column's name in Unicode NFC, without characters that nobody sees and blanks around it."""
    return unicodedata.normalize("NFC", _INVISIBLE.sub("", name)).strip()


def column_names(cells: Sequence[Any]) -> list[str]:
    """Names of columns from the cells of a header. A column without a name is called by its number. If a name occurs
    twice, each of its columns gets a number: which one a task means cannot be known, and under the plain name it finds
    none.
    """
    names = [clean_name(str(cell)) or f"column {number}" for number, cell in enumerate(cells, start=1)]
    times = Counter(names)
    taken = set(names)
    unique: list[str] = []
    for name in names:
        if times[name] > 1:
            number = 1
            while (numbered := f"{name} ({number})") in taken:
                number += 1
            name = numbered
            taken.add(name)
        unique.append(name)
    return unique


def missing_column(column: str, row: Mapping[str, Any]) -> str:
    """What to do about a column that a row does not have, as a sentence."""
    numbered = [name for name in row if name.startswith(f"{column} (") and name[len(column) + 2 : -1].isdecimal()]
    if len(numbered) > 1:
        return f"{len(numbered)} columns of the file have this name: write {listing(numbered, 'or')}."
    named = [str(name) for name in row if name not in (FILE_COLUMN, KEY_COLUMN)]
    parts = [part.strip() for mark in ",;\t|" for part in (named[0].split(mark) if len(named) == 1 else ())]
    if column != named[0] and column in parts:
        return f"The row has one column, {named[0]!r}: the cells of this file have another delimiter."
    return f"The row has: {listing(named)}."


def table_rows(
    records: Iterable[tuple[int, list[Any]]], source: str, notes: Counter[str], *, fix: str
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rows of a table whose first record is the header. Empty records are no rows; those that stand between others are
    counted in `notes`. Cells beyond the header and columns without a name at its end are no columns while empty.

    Args:
        records (iterable of `(int, list)`): number and cells of each record.
        source (`str`): name of the file.
        notes (`Counter[str]`): counts for the report.
        fix (`str`): what to do about a record with too many or too few cells.

    Raises:
        [`JudgmentDataError`]: a record has more or fewer cells than the header.
    """
    header: list[str] | None = None
    width = named = empty = 0
    for number, cells in records:
        if not cells or (_is_blank(cells[0]) and all(map(_is_blank, cells))):
            empty += bool(cells) and header is not None  # a blank line has no cells
            continue
        if header is None:
            header = column_names(cells)
            width = len(header)
            named = max((i for i, cell in enumerate(cells, start=1) if clean_name(str(cell))), default=width)
            continue
        if empty:
            notes[EMPTY_ROWS] += empty
            empty = 0
        if len(cells) > width and all(map(_is_blank, cells[width:])):
            cells = cells[:width]
        if not named <= len(cells) <= width:
            raise JudgmentDataError(
                f"has {len(cells)} cells, the header has {width}", source=source, row=number, fix=fix
            )
        while len(cells) > named and _is_blank(cells[-1]):
            cells = cells[:-1]
        yield number, dict(zip(header, cells, strict=False))


def _is_blank(cell: Any) -> bool:
    return cell is None or (isinstance(cell, str) and not cell.strip())
