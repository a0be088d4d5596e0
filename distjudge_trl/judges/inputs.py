"""The rows of a file that is to be judged: a stream that is read as often as needed, and known again."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from distjudge_trl.data.reading import Reading, check_used
from distjudge_trl.data.rows import own_fields, read_rows
from distjudge_trl.data.saved_datasets import saved_dataset
from distjudge_trl.data.source_files import DataFile, find_files
from distjudge_trl.errors import UserInputError


class InputRow(NamedTuple):
    """A row to judge: its file, its number in the file, and its content."""

    source: str
    number: int
    content: dict[str, Any]

    @property
    def own(self) -> dict[str, Any]:
        """The fields that the file has, and so has the output."""
        return own_fields(self.content)


class InputFile:
    """A file of items, an archive of such files, or the folder of a saved data set. Nothing of it is held.

    Args:
        path (`str` or `Path`): as for [`~distjudge_trl.data.source_files.find_files`].
        reading ([`Reading`], *optional*): delimiter, encoding, quoting and sheet, where they cannot be seen.

    Raises:
        [`UserInputError`]: there is no such file, or it is of an unknown format.
    """

    def __init__(self, path: str | Path, reading: Reading | None = None) -> None:
        self.path = Path(path)
        if self.path.is_dir() and saved_dataset(self.path) is None:
            raise UserInputError(f"{path}: is a folder; name the file to judge.")
        if self.path.exists() and not self.path.is_dir() and not self.path.is_file():
            raise UserInputError(f"{path}: is not a regular file. It is read twice: save it as a file first.")
        self.files: list[DataFile] = [
            replace(file, reading=reading or file.reading) for file in find_files(path, ("*",))
        ]
        if reading is not None:
            check_used(reading, {file.name: file.format for file in self.files})

    def rows(self, notes: Counter[str] | None = None) -> Iterator[InputRow]:
        """The rows, one by one.

        Args:
            notes (`Counter[str]`, *optional*): counts of what a reader should know of the input.

        Raises:
            [`UserInputError`]: the file cannot be read.
            [`JudgmentDataError`]: a broken row; the message names file, row and field.
        """
        for file in self.files:
            for number, content in read_rows(file, notes=notes):
                yield InputRow(file.name, number, content)

    def windows(self, size: int, start: int = 0) -> Iterator[list[InputRow]]:
        """The rows from `start` on (counted from 0), `size` at a time."""
        rows = islice(self.rows(), start, None)
        while window := list(islice(rows, size)):
            yield window

    def fingerprint(self) -> str:
        """A hash of the content, wherever the file is and whatever it is called.

        Raises:
            [`UserInputError`]: the file cannot be read.
        """
        found = hashlib.sha256()
        for path in [self.path] if self.path.is_file() else [Path(file.name) for file in self.files]:
            try:
                with path.open("rb") as stream:
                    found.update(hashlib.file_digest(stream, "sha256").digest())
            except OSError as error:
                raise UserInputError(f"{path}: cannot be read ({error.strerror or error}).") from None
        return found.hexdigest()
