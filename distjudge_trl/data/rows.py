"""Reading rows from .jsonl, .json, .csv, .tsv and .parquet files, each also as .gz. Errors name file, row and
field.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import IO, Any

from distjudge_trl.data.source_files import DataFile
from distjudge_trl.data.values import has_classes, name_classes, plain_value
from distjudge_trl.errors import JudgmentDataError, UserInputError, first_line


# Longest text of a single value, in characters. A judge reads some thousands; a million means a broken export.
MAX_FIELD_LENGTH = 1_000_000
_DELIMITERS = ",;\t|"
Row = dict[str, Any]


def read_rows(file: DataFile, *, delimiter: str | None = None) -> Iterator[tuple[int, Row]]:
    """Rows of a file with their numbers, counted from 1: lines of a .jsonl, .csv or .tsv file (the header is line 1),
    list entries of a .json file, rows of a .parquet file. The file is read as a stream, except .json and .parquet
    inside archives.

    Args:
        file ([`DataFile`]): from [`find_files`].
        delimiter (`str`, *optional*): of a .csv file; by default the most frequent of `,` `;` tab and `|` in the
            header.

    Raises:
        [`JudgmentDataError`]: truncated or damaged compression, a line that is not UTF-8 or not JSON, a row that is
            not an object, a CSV row whose cells do not fit the header, a field longer than a million characters. The
            message names file and row.
        [`UserInputError`]: the file cannot be read.
    """
    readers: dict[str, Callable[[IO[bytes], DataFile, str | None], Iterator[tuple[int, Row]]]] = {
        "jsonl": _read_jsonl,
        "json": _read_json,
        "csv": _read_csv,
        "tsv": _read_csv,
        "parquet": _read_parquet,
    }
    number = 0
    try:
        with file.open() as stream:
            for number, row in readers[file.format](stream, file, delimiter):
                for field, value in row.items():
                    _check_text(value, file.name, number, str(field))
                yield number, row
    except (EOFError, zlib.error, gzip.BadGzipFile, zipfile.BadZipFile, tarfile.TarError) as error:
        raise JudgmentDataError(
            f"the compressed data ends early or is damaged here ({error})",
            source=file.name,
            row=number + 1,
            fix="The file is incomplete: fetch or copy it again.",
        ) from None
    except (RuntimeError, NotImplementedError) as error:
        # zipfile raises these for members that are encrypted or use an unknown compression.
        raise UserInputError(f"{file.name}: cannot be read ({error}). Unpack the archive yourself.") from None
    except OSError as error:
        raise UserInputError(f"{file.name}: cannot be read ({error.strerror or error}).") from None


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


def _decode(line: bytes, source: str, number: int) -> str:
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise JudgmentDataError(
            f"is not UTF-8 (byte 0x{line[error.start]:02x} at position {error.start + 1})",
            source=source,
            row=number,
            fix="Save the file as UTF-8.",
        ) from None


def _parse_json(text: str, source: str, number: int, whole: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_pairs)
    except _KeyTwiceError as error:
        raise JudgmentDataError(
            "occurs twice in an object", source=source, row=number, field=str(error), fix="Keep one of them."
        ) from None
    except json.JSONDecodeError as error:
        ends_early = error.pos >= len(text.rstrip()) - 1 or error.msg.startswith("Unterminated")
        cut = " The line seems cut off." if ends_early else ""
        raise JudgmentDataError(
            f"is not valid JSON ({error.msg} at character {error.pos + 1})",
            source=source,
            row=number,
            fix=f"{whole}{cut}",
        ) from None
    except (RecursionError, ValueError) as error:
        raise JudgmentDataError(f"cannot be read ({error})", source=source, row=number) from None


class _KeyTwiceError(Exception):
    """An object has a key twice. `json` would silently keep the last value."""


def _pairs(pairs: list[tuple[str, Any]]) -> Row:
    row = dict(pairs)
    if len(row) < len(pairs):
        keys = [key for key, _ in pairs]
        raise _KeyTwiceError(next(key for key in keys if keys.count(key) > 1))
    return row


def _object(value: Any, source: str, number: int) -> Row:
    if not isinstance(value, dict):
        raise JudgmentDataError(
            f"is a JSON {type(value).__name__}, not an object",
            source=source,
            row=number,
            fix="A row has named fields.",
        )
    return value


def _read_jsonl(stream: IO[bytes], file: DataFile, _: str | None = None) -> Iterator[tuple[int, Row]]:
    for number, line in enumerate(stream, start=1):
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        if line.strip():
            value = _parse_json(_decode(line, file.name, number), file.name, number, "Every line holds one object.")
            yield number, _object(value, file.name, number)


def _read_json(stream: IO[bytes], file: DataFile, _: str | None = None) -> Iterator[tuple[int, Row]]:
    content = stream.read().removeprefix(b"\xef\xbb\xbf")
    first_line = content.lstrip().split(b"\n", 1)[0].strip()
    if first_line.startswith(b"{") and first_line.endswith(b"}") and b"\n" in content.strip():
        # JSON lines in a file called .json, which is common on the hub.
        yield from _read_jsonl(io.BytesIO(content), file)
        return
    value = _parse_json(_decode(content, file.name, 1), file.name, 1, "The file must hold one list of objects.")
    rows = value if isinstance(value, list) else [value]
    for number, row in enumerate(rows, start=1):
        yield number, _object(row, file.name, number)


def _read_csv(stream: IO[bytes], file: DataFile, delimiter: str | None) -> Iterator[tuple[int, Row]]:
    def lines() -> Iterator[str]:
        for number, line in enumerate(stream, start=1):
            yield _decode(line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line, file.name, number)

    text = lines()
    first = next(text, "")
    if delimiter is None:
        delimiter = "\t" if file.format == "tsv" else max(_DELIMITERS, key=first.count)
    csv.field_size_limit(max(csv.field_size_limit(), 64 * MAX_FIELD_LENGTH))
    reader = csv.reader(_chain(first, text), delimiter=delimiter, strict=True)
    header: list[str] | None = None
    start = 1
    try:
        for cells in reader:
            number, start = start, reader.line_num + 1
            if header is None:
                header = _check_header(cells, file.name)
            elif len(cells) == len(header):
                yield number, dict(zip(header, cells, strict=True))
            elif cells:  # a blank line has no cells
                raise JudgmentDataError(
                    f"has {len(cells)} cells, the header has {len(header)}",
                    source=file.name,
                    row=number,
                    fix=f"Quote cells that hold the delimiter {delimiter!r}, or name another one.",
                )
    except csv.Error as error:
        raise JudgmentDataError(
            f"is not valid CSV ({error})", source=file.name, row=start, fix="Look for a quote that never closes."
        ) from None


def _chain(first: str, rest: Iterator[str]) -> Iterator[str]:
    yield first
    yield from rest


def _check_header(cells: list[str], source: str) -> list[str]:
    # Spreadsheets may write columns without a name at the end.
    header = [cell.strip() or f"column {number}" for number, cell in enumerate(cells, start=1)]
    twice = next((name for i, name in enumerate(header) if name in header[:i]), None)
    if twice is not None:
        raise JudgmentDataError(
            f"the column {twice!r} occurs twice", source=source, row=1, field=twice, fix="Rename one of them."
        )
    return header


def _read_parquet(stream: IO[bytes], file: DataFile, _: str | None = None) -> Iterator[tuple[int, Row]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    seekable = stream if stream.seekable() and not file.name.lower().endswith(".gz") else io.BytesIO(stream.read())
    number = 0
    try:
        content = pq.ParquetFile(seekable)
        features = _classes_of(content.schema_arrow)
        for batch in content.iter_batches(batch_size=1024):
            for row in _rows_of_batch(batch, file.name, number):
                number += 1
                plain = plain_value(row)
                yield number, name_classes(plain, features, source=file.name, number=number) if features else plain
    except JudgmentDataError:
        raise
    except (pa.ArrowException, ValueError, KeyError) as error:
        raise JudgmentDataError(
            f"is not a readable Parquet file ({str(error).splitlines()[0]})",
            source=file.name,
            row=number + 1,
            fix="The file is damaged or incomplete: fetch or write it again.",
        ) from None


# Exceptions for values that Arrow can hold and Python cannot: a map with a repeated key or a list as a key, a text
# that is not UTF-8, a day in the year 2,000,000.
_VALUE_FAILURES = (KeyError, TypeError, ValueError, OverflowError)


def _rows_of_batch(batch: Any, source: str, before: int) -> list[Row]:
    """Rows of a batch that follows `before` other rows. The batch is converted to Python values at once. If that
    fails, each value is converted alone, so that the error can name it.
    """
    try:
        rows: list[Row] = batch.to_pylist(maps_as_pydicts="strict")
    except _VALUE_FAILURES:
        for i in range(batch.num_rows):
            for field, column in zip(batch.schema.names, batch.columns, strict=True):
                try:
                    column.slice(i, 1).to_pylist(maps_as_pydicts="strict")
                except _VALUE_FAILURES as error:
                    problem, fix = _value_failure(error)
                    raise JudgmentDataError(problem, source=source, row=before + i + 1, field=field, fix=fix) from None
        raise
    return rows


def _value_failure(error: Exception) -> tuple[str, str]:
    """The error for a value, with a fix."""
    if isinstance(error, KeyError):  # its text is quoted twice
        key = str(error.args[0]).rstrip(".)").rpartition("duplicate key was ")[2]
        return f"holds a map with the key {key} twice", "Keep one of them, or add up their values."
    return (
        f"holds a value that cannot be read ({first_line(error)})",
        "Correct it, or write the file without the column.",
    )


def _classes_of(schema: Any) -> Any:
    """Features of a file that the `datasets` library wrote, if it has class labels. They are stored as numbers, and
    their names only in the file's metadata.
    """
    if b"ClassLabel" not in (schema.metadata or {}).get(b"huggingface", b""):
        return None
    from datasets import Features

    features = Features.from_arrow_schema(schema)
    return features if has_classes(features) else None
