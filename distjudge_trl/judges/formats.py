"""The formats in which judged rows are written: JSON lines, CSV and Parquet, by the ending of the file's name."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from distjudge_trl.errors import UserInputError, first_line


Format = Literal["jsonl", "csv", "parquet"]
Row = dict[str, Any]

# Rows of a group of a Parquet file, and those whose types are found together.
_GROUP = 8192
# Formats that are read and not written.
_OTHERS = (".tsv", ".xlsx", ".xlsm", ".xls", ".arrow", ".feather", ".gz", ".zip", ".tar", ".tgz")


def format_of(path: str | Path) -> Format:
    """The format that a file's name stands for: CSV or Parquet by the ending, else JSON lines.

    Raises:
        [`UserInputError`]: the ending is that of another format.
    """
    ending = Path(path).suffix.lower()
    if ending in _OTHERS:
        raise UserInputError(f"{path}: is written as JSON lines, CSV or Parquet; name it .jsonl, .csv or .parquet.")
    return "csv" if ending == ".csv" else "parquet" if ending == ".parquet" else "jsonl"


class ArrowTypes:
    """The types of columns in which rows can be written to a Parquet file, found from all of the rows.

    Args:
        path (`str` or `Path`): the file to write, for messages.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = path
        self._schema: Any = None
        self._held: list[Row] = []

    def add(self, row: Row) -> None:
        """Take a row into account.

        Raises:
            [`UserInputError`]: a column holds values of several types.
        """
        self._held.append(row)
        if len(self._held) == _GROUP:
            self._take()

    def schema(self) -> Any:
        """The `pyarrow.Schema` of all rows.

        Raises:
            [`UserInputError`]: as [`add`], or Parquet has no type for a column.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        self._take()
        for field in self._schema:
            try:
                pq.write_table(pa.schema([field]).empty_table(), io.BytesIO())
            except pa.ArrowException as error:
                raise self._error(field.name, error) from None
        return self._schema

    def array(self, field: Any, values: list[Any]) -> Any:
        """Values of a column in its type.

        Raises:
            [`UserInputError`]: the type cannot hold a value: decimal fractions cannot hold all integers.
        """
        import pyarrow as pa

        try:
            return pa.array(values, type=field.type)
        except (pa.ArrowException, OverflowError) as error:
            raise self._error(field.name, error) from None

    def _take(self) -> None:
        import pyarrow as pa

        rows, self._held = self._held, []
        columns = dict.fromkeys(name for row in rows for name in row)
        fields = {}
        for name in columns:
            try:
                fields[name] = pa.field(name, pa.array([row.get(name) for row in rows]).type)
                if self._schema is not None and name in self._schema.names:
                    both = [pa.schema([self._schema.field(name)]), pa.schema([fields[name]])]
                    fields[name] = pa.unify_schemas(both, promote_options="permissive").field(0)
            except (pa.ArrowException, OverflowError) as error:
                raise self._error(name, error) from None
        before = {field.name: field for field in self._schema or ()}
        self._schema = pa.schema([*{**before, **fields}.values()])

    def _error(self, name: str, error: Exception) -> UserInputError:
        return UserInputError(
            f"{self.path}: the column {name!r} does not fit one type of Parquet ({first_line(error)}). Write JSON"
            " lines (--out NAME.jsonl), or make its values alike."
        )


def write_csv(rows: Path, target: Path) -> None:
    """Write a file of JSON lines as CSV. Lists and mappings become their JSON; null is an empty cell."""
    columns = list(dict.fromkeys(name for row in read_lines(rows) for name in row))
    with target.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows([_cell(row.get(name)) for name in columns] for row in read_lines(rows))


def write_parquet(rows: Path, target: Path, shown: Path) -> None:
    """Write a file of JSON lines as Parquet. Keys that only some mappings of a column have are null in the others.

    Raises:
        [`UserInputError`]: a column does not fit one type; the message names the file `shown`.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = ArrowTypes(shown)
    for row in read_lines(rows):
        types.add(row)
    schema = types.schema()
    with pq.ParquetWriter(target, schema) as writer:
        stream = read_lines(rows)
        while group := list(islice(stream, _GROUP)):
            columns = [types.array(field, [row.get(field.name) for row in group]) for field in schema]
            writer.write_batch(pa.record_batch(columns, schema=schema))


def read_lines(path: Path) -> Iterator[Row]:
    """Rows of a file of JSON lines.

    Raises:
        [`UserInputError`]: the file is damaged.
    """
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                yield json.loads(line)
            except ValueError as error:
                raise UserInputError(
                    f"{path}, line {number}: is damaged ({first_line(error)}). Give --overwrite to begin anew."
                ) from None


def write_lines(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """Rows as JSON lines, in UTF-8."""
    return "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows).encode()


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
