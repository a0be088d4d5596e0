"""Rows of delimited text (.csv, .tsv, .txt) as spreadsheets and programs write it."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import IO, Any

from distjudge_trl.data.columns import table_rows
from distjudge_trl.data.encodings import read_head, text_encoding, text_lines
from distjudge_trl.data.quoting import hint, is_quoted
from distjudge_trl.data.source_files import DataFile
from distjudge_trl.errors import JudgmentDataError, UserInputError


_DELIMITERS = ",;\t|"
# So many lines of a file are looked at for its delimiter.
_SAMPLE = 100
_LONGEST_TITLE = 5
# The csv module's limit is for all of a process, so it is raised and never lowered.
_LONGEST_CELL = 64_000_000
# The first line by which Excel is told the delimiter.
_SEPARATOR_LINE = re.compile(r'"?sep=(.)"?[\r\n]*', re.IGNORECASE)

SPANNING_CELLS = "cells that span lines"
LITERAL_QUOTES = "lines in which a quote mark was read as part of a text"


@dataclass(frozen=True)
class _Layout:
    """How the lines of a file are made up."""

    encoding: str
    # Whether a carriage return alone ends a line.
    universal: bool
    delimiter: str
    # Lines before the header.
    before: int


def read_delimited(stream: IO[bytes], file: DataFile, notes: Counter[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rows of delimited text; their numbers are lines. `notes` counts cells that span lines, empty rows, and lines in
    which quote marks were read as text.
    """
    csv.field_size_limit(max(csv.field_size_limit(), _LONGEST_CELL))
    layout = _find_layout(file)
    enclosing, literal = file.reading.quoting == "standard", 0
    if file.reading.quoting == "auto" and _has_quotes(file):
        with file.open() as other:
            enclosing, literal = is_quoted(file, _lines(other, file, layout), layout.delimiter, layout.before)
    if literal:
        notes[LITERAL_QUOTES] += literal
    lines = _lines(stream, file, layout)
    records = _quoted_records(lines, file, layout, notes) if enclosing else _plain_records(lines, layout)
    fix = f"Quote cells that hold the delimiter {layout.delimiter!r}, or name another one."
    if not enclosing and file.reading.quoting == "none":
        fix = f"Without quoting, no cell may hold the delimiter {layout.delimiter!r}."
    yield from table_rows(records, file, notes, fix=fix)


def _lines(stream: IO[bytes], file: DataFile, layout: _Layout) -> Iterator[str]:
    lines = text_lines(stream, file, layout.encoding, universal=layout.universal)
    return islice(lines, layout.before, None)


def _plain_records(lines: Iterator[str], layout: _Layout) -> Iterator[tuple[int, list[str]]]:
    for number, line in enumerate(lines, start=layout.before + 1):
        line = line.removesuffix("\n").removesuffix("\r")
        yield number, line.split(layout.delimiter) if line else []


def _quoted_records(
    lines: Iterator[str], file: DataFile, layout: _Layout, notes: Counter[str]
) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(lines, delimiter=layout.delimiter, strict=True)
    start = layout.before + 1
    try:
        for cells in reader:
            number, start = start, layout.before + reader.line_num + 1
            if start - number > 1:
                notes[SPANNING_CELLS] += sum("\n" in cell or "\r" in cell for cell in cells)
            yield number, cells
    except csv.Error as error:
        raise JudgmentDataError(
            f"is not valid CSV ({error})",
            source=file.name,
            row=start,
            fix=hint(file, "Look for a quote that never closes."),
        ) from None


def _has_quotes(file: DataFile) -> bool:
    with file.open() as stream:
        return any(b'"' in chunk for chunk in iter(lambda: stream.read(1 << 20), b""))


def _find_layout(file: DataFile) -> _Layout:
    head = read_head(file)
    encoding = text_encoding(file, head)
    text = head.decode(encoding, errors="ignore").removeprefix("\ufeff")
    universal = _ends_lines_with_returns(text)
    first, *_ = text.replace("\r", "\n").partition("\n") if universal else text.partition("\n")
    named = _SEPARATOR_LINE.fullmatch(first)
    if first.startswith("#FORMAT=WebAnno"):
        raise UserInputError(
            f"{file.name}: is an export of INCEpTION or WebAnno, which has a line for each token: write a table with a"
            " row for each label that someone gave a text."
        )
    delimiter = file.reading.delimiter
    if delimiter is None and named is not None:
        delimiter = named[1]
    if delimiter is None:
        delimiter = "\t" if file.format == "tsv" else _guess_delimiter(text, universal, file)
    return _Layout(encoding, universal, delimiter, before=0 if named is None else 1)


def _ends_lines_with_returns(text: str) -> bool:
    """Whether the first line ends with a carriage return alone. Line ends in quote marks belong to a cell."""
    quoted = False
    for found in re.finditer(r'"|\r\n?|\n', text):
        if found[0] == '"':
            quoted = not quoted
        elif not quoted:
            return found[0] == "\r" and found.end() < len(text)
    return False


def _guess_delimiter(text: str, universal: bool, file: DataFile) -> str:
    """The delimiter by which most of the first rows have as many cells as the header; the one that gives most cells of
    several. Decimal commas are fewer and not in the header.
    """
    lines = text.replace("\r", "\n").split("\n") if universal else text.split("\n")
    if len(lines) > 2:
        lines.pop()  # may be cut off
    usual = "\t" if file.format == "txt" else ","
    lines = lines[(file.reading.header or 1) - 1 :]
    best, _ = _best_delimiter(lines)
    if best is not None or file.reading.header is not None:
        return best or usual
    # Below a title of several words a table may begin: an error says so when its rows are read.
    for start in range(1, min(_LONGEST_TITLE, len(lines)) if " " in lines[0].strip() else 0):
        best, (fitting, width) = _best_delimiter(lines[start:])
        if best is not None and fitting == 1 and width > 2:
            return best
    return usual


def _best_delimiter(lines: list[str]) -> tuple[str | None, tuple[float, int]]:
    """The best delimiter, if any fits, the share of rows that it fits, and the cells of the first row."""
    best: str | None = None
    best_score = (0.0, 1)
    for delimiter in _DELIMITERS:
        reader = csv.reader((f"{line}\n" for line in lines), delimiter=delimiter)
        try:
            rows = [row for row in islice(reader, _SAMPLE) if any(row)]
        except csv.Error:
            continue
        width = len(rows[0]) if rows else 0
        if width < 2:
            continue
        fitting = sum(len(row) >= width and not any(row[width:]) for row in rows[1:])
        score = (round(fitting / max(len(rows) - 1, 1), 1), width)
        if score > best_score:
            best, best_score = delimiter, score
    return best, best_score
