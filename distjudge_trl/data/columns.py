"""Names of the columns of tables (delimited text and workbooks), and rows of cells under them."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from distjudge_trl.data.reading import FILE_COLUMN, KEY_COLUMN
from distjudge_trl.data.source_files import DataFile
from distjudge_trl.errors import JudgmentDataError, listing


# Characters that nobody sees: zero-width ones, soft hyphens, byte order marks, directions.
_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff]")

QUALTRICS = "lines of Qualtrics between header and data left out"
# A title above the names of the columns has so many rows that are not empty, at most.
_LONGEST_TITLE = 5
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
    inside = [
        str(name)
        for name, value in row.items()
        if isinstance(value, list) and value and all(isinstance(entry, Mapping) and column in entry for entry in value)
    ]
    hint = f" To read the items in `{inside[0]}` write `items: {inside[0]}` under `source`." if inside else ""
    return f"The row has: {listing(named)}.{hint}"


def table_rows(
    records: Iterable[tuple[int, list[Any]]], file: DataFile, notes: Counter[str], *, fix: str
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rows of a table whose first record is the header, or the one that the file's reading names. Empty records are no
    rows; those that stand between others are counted in `notes`. Cells beyond the header and columns without a name at
    its end are no columns while empty.

    Args:
        records (iterable of `(int, list)`): number and cells of each record.
        file ([`DataFile`]): the file.
        notes (`Counter[str]`): counts for the report.
        fix (`str`): what to do about a record with too many or too few cells.

    Raises:
        [`JudgmentDataError`]: a record has more or fewer cells than the header, or the first record is a title above
            it.
    """
    header: list[str] | None = None
    width = named = empty = 0
    source, first = file.name, file.reading.header
    if first is not None:
        records = (record for record in records if record[0] >= first)
    else:
        records = _without_title(records, file)
    for number, cells in _without_import_ids(records, notes):
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


def _without_title(records: Iterable[tuple[int, list[Any]]], file: DataFile) -> Iterator[tuple[int, list[Any]]]:
    """The records, unless the first that is not empty is a title above the header."""
    rest = iter(records)
    start: list[tuple[int, list[Any]]] = []
    filled: list[tuple[int, list[Any]]] = []
    for record in rest:
        start.append(record)
        if cells := [cell for cell in record[1] if not _is_blank(cell)]:
            filled.append((record[0], cells))
        if len(filled) > _LONGEST_TITLE or len(start) > 3 * _LONGEST_TITLE or (filled and len(filled[0][1]) > 1):
            break
    widest = max((len(cells) for _, cells in filled), default=0)
    for number, cells in filled:
        # Names of columns are words; a table of one column has no wider record.
        title = str(filled[0][1][0]).strip()
        if len(filled[0][1]) == 1 < len(cells) == widest and " " in title and all(map(_is_word, cells)):
            advice = file.reading.advice(file.base_name, "header", str(number))
            raise JudgmentDataError(
                f"has one cell, {title[:40]!r}, and row {number} has {len(cells)}",
                source=file.name,
                row=filled[0][0],
                fix=f"If it is a title above the names of the columns, {advice}.",
            )
        if len(cells) == widest > 1:
            break
    yield from start
    yield from rest


def _is_word(cell: Any) -> bool:
    return isinstance(cell, str) and re.fullmatch(r"\s*[-+]?[\d.,]+\s*%?", cell) is None


def _without_import_ids(
    records: Iterable[tuple[int, list[Any]]], notes: Counter[str]
) -> Iterator[tuple[int, list[Any]]]:
    """The records without the second and third line of Qualtrics: the texts of the questions, and where they come
    from.
    """
    rest = iter(records)
    start = list(islice(rest, 3))
    if len(start) == 3:
        filled = [str(cell) for cell in start[2][1] if not _is_blank(cell)]
        if filled and all('"ImportId"' in cell for cell in filled):
            notes[QUALTRICS] += 2
            del start[1:]
    yield from start
    yield from rest


def _is_blank(cell: Any) -> bool:
    return cell is None or (isinstance(cell, str) and not cell.strip())
