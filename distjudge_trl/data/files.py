"""Rows out of the files that people have: folders, archives, .jsonl, .json, .csv, .tsv, .parquet, each also as .gz.

Archives are read as streams and never unpacked. Every error names file, row and field.
"""

from __future__ import annotations

import csv
import fnmatch
import gzip
import io
import json
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from distjudge_trl.data.values import has_classes, name_classes, plain_value
from distjudge_trl.errors import JudgmentDataError, UserInputError, first_line


# Longest text of a single value, in characters. A judge reads some thousands; a million is a broken export.
MAX_FIELD_LENGTH = 1_000_000

FORMATS = ("jsonl", "json", "csv", "tsv", "parquet")
_DELIMITERS = ",;\t|"
_ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz")

Row = dict[str, Any]


@dataclass(frozen=True)
class DataFile:
    """One file of rows, on disk or inside an archive.

    `name` is what errors call it (`archive!member` inside one), `base_name` its name without folders, `open` gives its
    bytes (decompressed), `role` what a task takes it for.
    """

    name: str
    base_name: str
    format: str
    open: Callable[[], Any]
    role: str = ""


def is_archive(path: Path) -> bool:
    """Whether the name is that of an archive."""
    return path.name.lower().endswith(_ARCHIVES)


def find_files(path: str | Path, patterns: Sequence[str], *, none_is_fine: bool = False) -> list[DataFile]:
    """The files of rows at `path`, sorted by name.

    Args:
        path (`str` or `Path`): a file of rows (taken as it is, whatever its name); an archive (.zip, .tar, .tar.gz) or
            a folder, searched for names that match; a folder without such a file is searched for archives that hold
            them.
        patterns (`Sequence[str]`): glob patterns of file names, without regard to case, such as `"snli_1.0_*"`; a
            `.gz` behind file or pattern does not matter. Hidden files and folders and `__MACOSX` never match.
        none_is_fine (`bool`): return an empty list instead of raising when nothing matches.

    Raises:
        [`UserInputError`]: no such path, nothing in it that matches, an unknown format, an unreadable or damaged
            archive, an archive with a member that climbs out of its folder or stands in it twice, or the same file
            both compressed and not.
    """
    path = Path(path)
    try:
        if path.is_dir():
            inside = [file for file in sorted(path.rglob("*")) if not _is_hidden(file.relative_to(path).parts)]
            files = [
                _on_disk(file)
                for file in inside
                if _matches(file.name, patterns) and _format_of(file.name) and file.is_file()
            ]
            if not files:
                archives = [file for file in inside if is_archive(file) and file.is_file()]
                files = [member for archive in archives for member in _members(archive, patterns)]
            names = [file.name for file in inside]
        elif not path.exists():
            raise UserInputError(f"{path}: no such file or folder.")
        elif is_archive(path):
            files = _members(path, patterns)
            names = [file.base_name for file in _members(path, ("*",))] if not files else []
        else:
            return [_on_disk(path)]
    except OSError as error:
        raise UserInputError(f"{path}: cannot be read ({error.strerror or error}).") from None
    _refuse_copies(files)
    if not files and not none_is_fine:
        raise UserInputError(
            f"{path}: holds no file of rows named like {' or '.join(patterns)}; it holds"
            f" {', '.join(names[:8]) or 'nothing'}."
        )
    return files


def _is_hidden(parts: Sequence[str]) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in parts)


def _matches(name: str, patterns: Sequence[str]) -> bool:
    plain = _plain_name(name).lower()
    return any(fnmatch.fnmatchcase(plain, pattern.lower().removesuffix(".gz")) for pattern in patterns)


def _plain_name(name: str) -> str:
    return name[: -len(".gz")] if name.lower().endswith(".gz") else name


def _format_of(name: str) -> str | None:
    extension = _plain_name(name).lower().rpartition(".")[2]
    return extension if extension in FORMATS else None


def _refuse_copies(files: Sequence[DataFile]) -> None:
    """Every row would be read twice."""
    seen: dict[str, str] = {}
    for file in files:
        other = seen.setdefault(_plain_name(file.name), file.name)
        if other != file.name:
            raise UserInputError(f"{file.name}: is there without compression, too ({other}). Remove one of them.")


def _on_disk(path: Path) -> DataFile:
    format = _format_of(path.name)
    if format is None:
        raise UserInputError(
            f"{path}: has none of the known formats {', '.join('.' + f for f in FORMATS)} (each also with .gz), .zip,"
            " .tar, .tar.gz. Rename it if only the ending is missing."
        )

    @contextmanager
    def open_bytes() -> Iterator[IO[bytes]]:
        with path.open("rb") as raw:
            yield from _decompressed(raw, path.name)

    return DataFile(str(path), path.name, format, open_bytes)


def _decompressed(raw: IO[bytes], name: str) -> Iterator[IO[bytes]]:
    if name.lower().endswith(".gz"):
        with gzip.open(raw, "rb") as unpacked:
            yield unpacked  # type: ignore[misc]
    else:
        yield raw


def _members(path: Path, patterns: Sequence[str]) -> list[DataFile]:
    """Files of rows in an archive. Nothing is unpacked, so no member can be written anywhere; one that tries to climb
    out means that the archive is not what it says, and is refused.
    """
    found: dict[str, zipfile.ZipInfo | tarfile.TarInfo] = {}
    try:
        entries: list[tuple[str, Any]]
        if path.name.lower().endswith(".zip"):
            with zipfile.ZipFile(path) as archive:
                entries = [(info.filename, info) for info in archive.infolist() if not info.is_dir()]
        else:
            with tarfile.open(path) as tar:
                entries = [(info.name, info) for info in tar if info.isreg() or info.islnk()]
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserInputError(f"{path}: is a damaged or incomplete archive ({error}). Fetch it again.") from None
    for name, info in entries:
        parts = PurePosixPath(name.replace("\\", "/"))
        if parts.is_absolute() or ".." in parts.parts or ":" in (parts.parts or ("",))[0]:
            raise UserInputError(
                f"{path}: holds the member {name!r}, whose path leads out of the archive. It is refused: get the"
                " archive from its official source."
            )
        if name in found:
            raise UserInputError(f"{path}: holds the member {name!r} twice. Pack it anew, with one of them.")
        found[name] = info
    files = []
    for name, info in sorted(found.items(), key=lambda entry: entry[0]):
        parts = PurePosixPath(name)
        format = _format_of(parts.name)
        if format is not None and not _is_hidden(parts.parts) and _matches(parts.name, patterns):
            files.append(DataFile(f"{path}!{name}", parts.name, format, _member_opener(path, info)))
    return files


def _member_opener(path: Path, info: zipfile.ZipInfo | tarfile.TarInfo) -> Callable[[], Any]:
    @contextmanager
    def open_bytes() -> Iterator[IO[bytes]]:
        if isinstance(info, zipfile.ZipInfo):
            with zipfile.ZipFile(path) as archive, archive.open(info) as raw:
                yield from _decompressed(raw, info.filename)
        else:
            with tarfile.open(path) as tar:
                raw_member = tar.extractfile(info)
                assert raw_member is not None  # only regular files and links to them are listed
                with raw_member as raw:
                    yield from _decompressed(raw, info.name)

    return open_bytes


def read_rows(file: DataFile, *, delimiter: str | None = None) -> Iterator[tuple[int, Row]]:
    """Rows of a file with their numbers: lines of a .jsonl, .csv or .tsv file (the header is line 1), list entries of
    a .json, rows of a .parquet, counted from 1. The file is read as a stream, except .json and .parquet inside
    archives.

    Args:
        file ([`DataFile`]): from [`find_files`].
        delimiter (`str`, *optional*): of a .csv file; by default the one of `,` `;` tab and `|` that the header holds
            most of.

    Raises:
        [`JudgmentDataError`]: truncated or damaged compression, a line that is not UTF-8 or not JSON, a row that is no
            object, a CSV row whose cells do not fit the header, a field longer than a million characters. The message
            names file and row.
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
        # zipfile's words for members that are encrypted or compressed in a way it does not know.
        raise UserInputError(f"{file.name}: cannot be read ({error}). Unpack the archive yourself.") from None
    except OSError as error:
        raise UserInputError(f"{file.name}: cannot be read ({error.strerror or error}).") from None


def _check_text(value: Any, source: str, number: int, field: str) -> None:
    """Refuse texts, however deep in a field, that are too long or that cannot be written as UTF-8."""
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
                f"holds half a character ({value[error.start : error.end]!r}), as a cut through an emoji leaves it",
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
            f"is no valid JSON ({error.msg} at character {error.pos + 1})",
            source=source,
            row=number,
            fix=f"{whole}{cut}",
        ) from None
    except (RecursionError, ValueError) as error:
        raise JudgmentDataError(f"cannot be read ({error})", source=source, row=number) from None


class _KeyTwiceError(Exception):
    """An object has a key twice. `json` would keep the last value and say nothing."""


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
        # JSON lines under the name .json, as the hub often has them.
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
            elif cells:  # a blank line has no cells at all
                raise JudgmentDataError(
                    f"has {len(cells)} cells, the header has {len(header)}",
                    source=file.name,
                    row=number,
                    fix=f"Quote cells that hold the delimiter {delimiter!r}, or name another one.",
                )
    except csv.Error as error:
        raise JudgmentDataError(
            f"is no valid CSV ({error})", source=file.name, row=start, fix="Look for a quote that never closes."
        ) from None


def _chain(first: str, rest: Iterator[str]) -> Iterator[str]:
    yield first
    yield from rest


def _check_header(cells: list[str], source: str) -> list[str]:
    # Spreadsheets leave columns without a name at the end.
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
            f"is no readable Parquet ({str(error).splitlines()[0]})",
            source=file.name,
            row=number + 1,
            fix="The file is damaged or incomplete: fetch or write it again.",
        ) from None


# What values raise that Arrow can hold and Python cannot: a map with a key twice, or a list for a key, a text that is
# not UTF-8, a day in the year 2,000,000.
_VALUE_FAILURES = (KeyError, TypeError, ValueError, OverflowError)


def _rows_of_batch(batch: Any, source: str, before: int) -> list[Row]:
    """Rows of a batch that follows `before` others. It is turned into Python's values as a whole; if that fails, each
    value by itself, to name the one.
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
    """What is wrong with a value, and what to do about it."""
    if isinstance(error, KeyError):  # whose text is quoted once more
        key = str(error.args[0]).rstrip(".)").rpartition("duplicate key was ")[2]
        return f"holds a map with the key {key} twice", "Keep one of them, or add up their values."
    return (
        f"holds a value that cannot be read ({first_line(error)})",
        "Correct it, or write the file without the column.",
    )


def _classes_of(schema: Any) -> Any:
    """Features of a file that the hub's library wrote, if there are classes among them: numbers, whose names are in
    the file's metadata alone.
    """
    if b"ClassLabel" not in (schema.metadata or {}).get(b"huggingface", b""):
        return None
    from datasets import Features

    features = Features.from_arrow_schema(schema)
    return features if has_classes(features) else None
