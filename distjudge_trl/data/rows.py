"""Reading rows from the files that [`find_files`] finds, in any of their formats. Errors name file, row and field."""

from __future__ import annotations

import gzip
import tarfile
import unicodedata
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from typing import IO, Any

from distjudge_trl.data.arrow_rows import read_arrow
from distjudge_trl.data.delimited import read_delimited
from distjudge_trl.data.inner_items import items_in
from distjudge_trl.data.joining import joined
from distjudge_trl.data.json_rows import Key, read_json, read_json_lines
from distjudge_trl.data.reading import FILE_COLUMN, KEY_COLUMN
from distjudge_trl.data.source_files import DataFile
from distjudge_trl.data.workbooks import read_workbook
from distjudge_trl.errors import JudgmentDataError, UserInputError


# Longest text of a single value, in characters. A judge reads some thousands; a million means a broken export.
MAX_FIELD_LENGTH = 1_000_000
Row = dict[str, Any]

_READERS: dict[str, Callable[[IO[bytes], DataFile, Counter[str]], Iterator[tuple[int, Row]]]] = {
    "jsonl": read_json_lines,
    "json": read_json,
    "csv": read_delimited,
    "tsv": read_delimited,
    "txt": read_delimited,
    "xlsx": read_workbook,
    "parquet": read_arrow,
    "arrow": read_arrow,
}


class _FileName(str):
    """The value of the pseudo-column `_file`, which is none of the row's own."""


def read_rows(file: DataFile, *, notes: Counter[str] | None = None) -> Iterator[tuple[int, Row]]:
    """Rows of a file with their numbers, counted from 1: lines of .jsonl and delimited text (the header is line 1),
    rows of a sheet as Excel counts them, entries of a .json file, rows of a .parquet or .arrow file. The file is read
    as a stream, except workbooks, and .parquet and .arrow inside archives.

    Every row also has the pseudo-columns `_file` (the file's name without folders and endings) and, in a .json file
    that is one object of objects, `_key`, unless the file has columns of that name. [`own_fields`] drops them.

    Args:
        file ([`DataFile`]): from [`find_files`]; its `reading` says how it is read.
        notes (`Counter[str]`, *optional*): counts of what a reader should know, for the report.

    Raises:
        [`JudgmentDataError`]: truncated or damaged compression, text in another encoding, a line that is not JSON, a
            row that is not an object, a row whose cells do not fit the header, quote marks that can be understood in
            two ways, a field longer than a million characters. The message names file and row.
        [`UserInputError`]: the file cannot be read.
    """
    number = 0
    name = _FileName(file.stem)
    try:
        with file.open() as stream:
            rows = _READERS[file.format](stream, file, notes if notes is not None else Counter())
            if file.reading.items is not None:
                rows = items_in(rows, file)
            if file.reading.join is not None:
                rows = joined(rows, file, file.reading.join, _rows_to_join)
            for number, row in rows:
                for field, value in row.items():
                    _check_text(value, file.name, number, str(field))
                if not all(map(_is_normal, row)):
                    row = _normalised(row, file.name, number)
                row.setdefault(FILE_COLUMN, name)
                yield number, row
    except (EOFError, zlib.error, gzip.BadGzipFile, zipfile.BadZipFile, tarfile.TarError) as error:
        raise JudgmentDataError(
            f"the compressed data ends early or is damaged here ({error})",
            source=file.name,
            row=number + 1,
            fix=(
                "The file is incomplete: fetch or copy it again."
                if _begins_well(file) or not isinstance(error, gzip.BadGzipFile)
                else "It is not compressed: take .gz off its name."
            ),
        ) from None
    except (RuntimeError, NotImplementedError) as error:
        # zipfile raises these for members that are encrypted or use an unknown compression.
        raise UserInputError(f"{file.name}: cannot be read ({error}). Unpack the archive yourself.") from None
    except OSError as error:
        # Arrow's messages have several lines.
        raise UserInputError(
            f"{file.name}: cannot be read ({' '.join(str(error.strerror or error).split())})."
        ) from None


def _begins_well(file: DataFile) -> bool:
    """Whether a compressed file is one from its first byte on."""
    try:
        with file.open() as stream:
            stream.read(1)
    except gzip.BadGzipFile as error:
        return "Not a gzipped" not in str(error)
    except (OSError, EOFError, zlib.error):
        return True
    return True


def _rows_to_join(file: DataFile) -> Iterator[tuple[int, Row]]:
    for number, row in read_rows(file):
        yield number, own_fields(row)


def own_fields(row: Row) -> Row:
    """A row of [`read_rows`] without pseudo-columns."""
    added = {FILE_COLUMN: _FileName, KEY_COLUMN: Key}
    return {field: value for field, value in row.items() if not isinstance(value, added.get(field, ()))}


def _is_normal(field: Any) -> bool:
    return not isinstance(field, str) or field.isascii() or unicodedata.is_normalized("NFC", field)


def _normalised(row: Row, source: str, number: int) -> Row:
    """A row with its fields' names in Unicode NFC, in which task files are compared with them."""
    normalised: Row = {}
    for field, value in row.items():
        name = unicodedata.normalize("NFC", field) if isinstance(field, str) else field
        if name in normalised:
            raise JudgmentDataError(
                "occurs twice, in two spellings that look the same",
                source=source,
                row=number,
                field=name,
                fix="Rename one of them.",
            )
        normalised[name] = value
    return normalised


def _check_text(value: Any, source: str, number: int, field: str) -> None:
    """Refuse texts at any depth of a field that are too long or cannot be written as UTF-8."""
    if isinstance(value, str):
        if len(value) > MAX_FIELD_LENGTH:
            raise JudgmentDataError(
                f"holds {len(value):,} characters; at most {MAX_FIELD_LENGTH:,} are read",
                source=source,
                row=number,
                field=field,
                fix="Check the export: a quote that never closes, or a whole file in one cell.",
            )
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise JudgmentDataError(
                f"holds half a character ({value[error.start : error.end]!r}), as after cutting an emoji in two",
                source=source,
                row=number,
                field=field,
                fix="Export it again, or remove it.",
            ) from None
    elif isinstance(value, dict):
        for name, part in value.items():
            _check_text(name, source, number, field)
            _check_text(part, source, number, field)
    elif isinstance(value, list):
        for part in value:
            _check_text(part, source, number, field)
