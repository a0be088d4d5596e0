"""Finding files of rows, on disk or in archives. Archives are read as streams and never unpacked."""

from __future__ import annotations

import fnmatch
import gzip
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Any

from distjudge_trl.data.reading import Reading
from distjudge_trl.data.saved_datasets import saved_dataset
from distjudge_trl.errors import UserInputError, listing


# Endings of files of rows and their formats. A .txt file is one only where it is named: a README is none.
_FORMATS = {
    "jsonl": "jsonl",
    "ndjson": "jsonl",
    "manifest": "jsonl",  # SageMaker Ground Truth
    "json": "json",
    "csv": "csv",
    "tsv": "tsv",
    "txt": "txt",
    "xlsx": "xlsx",
    "xlsm": "xlsx",
    "parquet": "parquet",
    "arrow": "arrow",
    "feather": "arrow",
}
# Files that people have and that must be saved in another form first.
_OTHER_PROGRAMS = {
    **dict.fromkeys(("xls", "xlsb"), "an old Excel workbook"),
    "ods": "a LibreOffice workbook",
    "numbers": "a Numbers workbook",
}
_PICKLES = ("pkl", "pickle", "npy", "pt")
_ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz")


@dataclass(frozen=True)
class DataFile:
    """One file of rows, on disk or inside an archive.

    `name` is its name in errors (`archive!member` inside an archive), `base_name` its name without folders. `open`
    opens its decompressed bytes. `role` says what a task uses it for, and `reading` how its rows are read.
    """

    name: str
    base_name: str
    format: str
    open: Callable[[], Any]
    role: str = ""
    reading: Reading = field(default_factory=Reading)

    @property
    def stem(self) -> str:
        """Its name without folders and endings."""
        return _plain_name(self.base_name).rpartition(".")[0] or self.base_name


def is_archive(path: Path) -> bool:
    """Whether the name is that of an archive."""
    return path.name.lower().endswith(_ARCHIVES)


def find_files(path: str | Path, patterns: Sequence[str], *, none_is_fine: bool = False) -> list[DataFile]:
    """The files of rows at `path`, sorted by name.

    Args:
        path (`str` or `Path`): a file of rows, which is used whatever its name; or an archive (.zip, .tar, .tar.gz) or
            a folder, which is searched for matching names. If a folder has no such file, it is searched for archives
            that hold some.
        patterns (`Sequence[str]`): glob patterns of file names, without regard to case, such as `"snli_1.0_*"`; a
            `.gz` at the end of a file's name or a pattern does not matter. Hidden files and folders and `__MACOSX`
            never match.
        none_is_fine (`bool`): return an empty list instead of raising when nothing matches.

    Raises:
        [`UserInputError`]: the path does not exist, nothing in it matches, a format is unknown, an archive is
            unreadable or damaged, a member of an archive has a path outside it or occurs twice, or the same file is
            present both compressed and not.
    """
    path = Path(path)
    try:
        if path.is_dir():
            if (saved := saved_dataset(path)) is not None:
                return [_on_disk(file) for file in saved]
            inside = [file for file in sorted(path.rglob("*")) if not _is_hidden(file.relative_to(path).parts)]
            files = [
                _on_disk(file)
                for file in inside
                if _matches(file.name, patterns) and _format_of(file.name, patterns) and file.is_file()
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
            f" {listing(names) or 'nothing'}."
        )
    return files


def _is_hidden(parts: Sequence[str]) -> bool:
    return any(part.startswith((".", "~$")) or part == "__MACOSX" for part in parts)


def _matches(name: str, patterns: Sequence[str]) -> bool:
    plain = _plain_name(name).lower()
    return any(fnmatch.fnmatchcase(plain, pattern.lower().removesuffix(".gz")) for pattern in patterns)


def _plain_name(name: str) -> str:
    return name[: -len(".gz")] if name.lower().endswith(".gz") else name


def _format_of(name: str, patterns: Sequence[str] = ("*.txt",)) -> str | None:
    format = _FORMATS.get(_ending(name))
    if format == "txt" and not any(_ending(pattern) == "txt" for pattern in patterns):
        return None
    return format


def _ending(name: str) -> str:
    return _plain_name(name).lower().rpartition(".")[2]


def _refuse_copies(files: Sequence[DataFile]) -> None:
    """Refuse a file that is present both compressed and not: every row would be read twice."""
    seen: dict[str, str] = {}
    for file in files:
        other = seen.setdefault(_plain_name(file.name), file.name)
        if other != file.name:
            raise UserInputError(f"{file.name}: is there without compression, too ({other}). Remove one of them.")


def _on_disk(path: Path) -> DataFile:
    format = _format_of(path.name)
    if format is None:
        ending = _ending(path.name)
        if ending in _OTHER_PROGRAMS:
            raise UserInputError(f"{path}: is {_OTHER_PROGRAMS[ending]}. Save it as .xlsx or as CSV.")
        if ending in _PICKLES:
            raise UserInputError(f"{path}: may run code when it is read. Save its rows as JSON lines or Parquet.")
        raise UserInputError(
            f"{path}: has none of the known formats .jsonl, .json, .csv, .tsv, .txt, .xlsx, .parquet and .arrow (or"
            " archives of them). Rename it if only the ending is missing."
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
    """Files of rows in an archive. Nothing is unpacked, so a member cannot be written anywhere. A member with a path
    outside the archive means that the archive is suspicious, and is refused.
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
            raise UserInputError(f"{path}: holds the member {name!r} twice. Pack the archive again with one of them.")
        found[name] = info
    files = []
    for name, info in sorted(found.items(), key=lambda entry: entry[0]):
        parts = PurePosixPath(name)
        format = _format_of(parts.name, patterns)
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
