"""Rows of Parquet and Arrow files. Errors name the row and the field of a value that Python cannot hold."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator
from typing import IO, Any

from distjudge_trl.data.columns import column_names
from distjudge_trl.data.source_files import DataFile
from distjudge_trl.data.values import has_classes, name_classes, plain_value
from distjudge_trl.errors import JudgmentDataError, first_line


Row = dict[str, Any]
_BATCH = 1024


def read_arrow(stream: IO[bytes], file: DataFile, _: Counter[str]) -> Iterator[tuple[int, Row]]:
    """Rows of a Parquet file, or of an Arrow file (.arrow, .feather) in either of its two forms."""
    import pyarrow as pa

    name = "Parquet file" if file.format == "parquet" else "Arrow file"
    number = 0
    try:
        schema, batches = _open_parquet(stream, file) if file.format == "parquet" else _open_arrow(stream, file)
        features = _classes_of(schema)
        names = column_names(schema.names) if len(set(schema.names)) < len(schema.names) else None
        for batch in batches:
            if names is not None:
                batch = batch.rename_columns(names)
            for row in _rows_of_batch(batch, file.name, number):
                number += 1
                plain = plain_value(row)
                yield number, name_classes(plain, features, source=file.name, number=number) if features else plain
    except JudgmentDataError:
        raise
    except (pa.ArrowException, ValueError, KeyError) as error:
        raise JudgmentDataError(
            f"is not a readable {name} ({first_line(error)})",
            source=file.name,
            row=number + 1,
            fix="The file is damaged or incomplete: fetch or write it again.",
        ) from None


def _open_parquet(stream: IO[bytes], file: DataFile) -> tuple[Any, Iterator[Any]]:
    import pyarrow.parquet as pq

    content = pq.ParquetFile(_seekable(stream, file))
    return content.schema_arrow, content.iter_batches(batch_size=_BATCH)


def _open_arrow(stream: IO[bytes], file: DataFile) -> tuple[Any, Iterator[Any]]:
    import pyarrow as pa

    seekable = _seekable(stream, file)
    is_file = seekable.read(6) == b"ARROW1"
    seekable.seek(0)
    if is_file:
        content = pa.ipc.open_file(seekable)
        batches = (content.get_batch(i) for i in range(content.num_record_batches))
    else:
        content = pa.ipc.open_stream(seekable)
        batches = iter(content)
    return content.schema, (
        batch.slice(start, _BATCH) for batch in batches for start in range(0, batch.num_rows, _BATCH)
    )


def _seekable(stream: IO[bytes], file: DataFile) -> IO[bytes]:
    in_place = stream.seekable() and not file.name.lower().endswith(".gz")
    return stream if in_place else io.BytesIO(stream.read())


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
