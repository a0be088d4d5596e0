"""Whether quote marks in delimited text enclose cells or belong to the texts.

Standard CSV encloses cells in quote marks, which lets them hold delimiters and line ends. Many programs write
tab-separated text without any quoting. If such a text begins with a quote mark, a reader of standard CSV would join
the rows up to the next quote mark into one, and nobody would notice. So the file is looked through before it is read.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from distjudge_trl.data.source_files import DataFile
from distjudge_trl.errors import JudgmentDataError


@dataclass
class _Evidence:
    """What the lines of a file say about its quoting. Rows are line numbers."""

    # Every line has as many cells as the header if quote marks mean nothing.
    lines_fit: bool = True
    # There is a cell that only standard quoting explains: it holds a delimiter, a doubled quote mark, or it is in the
    # header.
    is_quoted: bool = False
    # Lines with a cell that begins with a quote mark and does not end with one.
    open_lines: int = 0
    first_open: int | None = None
    # The first record that could also be several rows, and its last line.
    ambiguous: tuple[int, int] | None = None
    # How many cells the header has.
    width: int = 0


def is_quoted(file: DataFile, lines: Iterable[str], delimiter: str, before: int) -> tuple[bool, int]:
    """Whether quote marks enclose cells, and in how many lines they are read as text although a cell begins with one.

    Args:
        file ([`DataFile`]): for errors.
        lines (iterable of `str`): header and rows, from the beginning.
        delimiter (`str`): of the cells.
        before (`int`): how many lines precede them in the file.

    Raises:
        [`JudgmentDataError`]: the quote marks can be understood in two ways that give different rows.
    """
    tabs = delimiter == "\t"
    seen = _examine(lines, delimiter, before)
    if tabs and seen.lines_fit and seen.first_open is not None:
        if seen.is_quoted:
            raise _unclear(file, seen.first_open, "begins a cell with a quote mark that the line does not close")
        if seen.ambiguous is None or seen.width > 1:
            return False, seen.open_lines
    if seen.ambiguous is not None and (tabs or not seen.is_quoted):
        first, last = seen.ambiguous
        raise _unclear(
            file, first, f"goes on to line {last} if its quote mark encloses a cell, and ends before if not"
        )
    return True, 0


def hint(file: DataFile, problem: str) -> str:
    """What to do about a file that breaks the rules of standard quoting."""
    advice = file.reading.advice(file.base_name, "quoting", "none")
    return f"{problem} If quote marks are part of the texts, {advice}."


def _unclear(file: DataFile, row: int, problem: str) -> JudgmentDataError:
    literal = file.reading.advice(file.base_name, "quoting", "none")
    return JudgmentDataError(
        problem,
        source=file.name,
        row=row,
        fix=f"If quote marks are part of the texts, {literal}. If they enclose cells, it is `standard`.",
    )


def _examine(lines: Iterable[str], delimiter: str, before: int) -> _Evidence:
    seen = _Evidence()
    physical: list[str] = []

    def remember(lines: Iterator[str]) -> Iterator[str]:
        for line in lines:
            physical.append(line)
            yield line

    source = iter(lines)
    reader = csv.reader(remember(source), delimiter=delimiter, strict=True)
    width, number = 0, before
    while True:
        first = number + 1
        try:
            cells = next(reader, None)
        except csv.Error:
            # The rest is looked through line by line. A file may break the rules because they are not its own.
            for line in (*physical, *source):
                seen.lines_fit &= not line.strip() or line.count(delimiter) + 1 == width
                number += 1
                _look_at_cells(seen, line, number, delimiter)
            return seen
        if cells is None:
            return seen
        number += len(physical)
        if not width:
            width = seen.width = len(cells)
            seen.is_quoted = any(map(_encloses, physical[0].rstrip("\r\n").split(delimiter))) or len(physical) > 1
            seen.lines_fit = not seen.is_quoted or physical[0].count(delimiter) + 1 == width
        elif len(physical) > 1:
            fitting = sum(line.count(delimiter) + 1 == width for line in physical)
            seen.lines_fit &= fitting == len(physical)
            inside = sum(line.count(delimiter) for line in physical) - (len(cells) - 1)
            tabs = delimiter == "\t"
            if (width > 1 and fitting > 1) or (tabs and (width == 1 or inside > 0)):
                seen.ambiguous = seen.ambiguous or (first, number)
            elif not tabs:
                seen.is_quoted = True
            for at, line in enumerate(physical, start=first):
                _look_at_cells(seen, line, at, delimiter)
        elif cells:
            line = physical[0]
            fits = line.count(delimiter) + 1 == width
            seen.lines_fit &= fits
            if '"' in line:
                seen.is_quoted |= not fits and len(cells) == width
                _look_at_cells(seen, line, number, delimiter)
        physical.clear()


def _look_at_cells(seen: _Evidence, line: str, number: int, delimiter: str) -> None:
    if '"' not in line:
        return
    quoted = [cell for cell in line.rstrip("\r\n").split(delimiter) if cell.startswith('"')]
    seen.is_quoted |= any(_encloses(cell) and '""' in cell[1:-1] for cell in quoted)
    if not all(map(_encloses, quoted)):
        seen.open_lines += 1
        seen.first_open = seen.first_open or number


def _encloses(cell: str) -> bool:
    """Whether quote marks enclose the cell by the rules: marks inside are doubled."""
    return len(cell) > 1 and cell[0] == cell[-1] == '"' and '"' not in cell[1:-1].replace('""', "")
