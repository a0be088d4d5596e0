"""Where the rows of a task file are, and which part of a split each of them belongs to."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from distjudge_trl.data.paths import ColumnPath
from distjudge_trl.data.reading import check_used
from distjudge_trl.data.source_files import DataFile, find_files
from distjudge_trl.data.template import is_empty
from distjudge_trl.data.values import has_classes, holds_bytes, name_classes, plain_value
from distjudge_trl.errors import UserInputError, first_line, listing, nearest
from distjudge_trl.labels.spelling import comparison_key
from distjudge_trl.tasks.custom.cells import Place, in_yaml
from distjudge_trl.tasks.custom.schema import TaskFile
from distjudge_trl.tasks.custom.sources import HubSource, PartSources
from distjudge_trl.tasks.items import Source


# What people call the parts of a split.
_USUAL = {
    **dict.fromkeys(("train", "training", "trn", "tr", "fit"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev", "devel", "development", "eval"), "validation"),
    **dict.fromkeys(("test", "testing", "tst", "holdout", "held-out", "held_out"), "test"),
}
# train-00000-of-00002, test_ood, valid1.
_BEGINS = re.compile(r"(train|validation|valid|val|dev|test)(?![a-z])", re.IGNORECASE)
IGNORED = "ignore"


def usual_part(name: str) -> str | None:
    """The part of a split that is usually called so."""
    if (part := _USUAL.get(comparison_key(name))) is not None:
        return part
    start = _BEGINS.match(name)
    return _USUAL[start[1].casefold()] if start is not None else None


def find(file: TaskFile, folder: Path, data_path: Path | None) -> list[DataFile]:
    """Files of the source, or of `data_path` if it is given. The `role` of a file is its part of a split, if the
    source names parts.

    Raises:
        [`UserInputError`]: a file is not there, or is named for two parts.
    """
    source = file.source
    if isinstance(source, HubSource):
        if data_path is None:
            # The `datasets` library reads the rows; the "file" only has the name.
            shown = {
                part: f"hub:{source.hub}" + (f" ({split})" if part else "") for part, split in source.parts.items()
            }
            return [DataFile(name, source.hub, "hub", lambda: None, role=part) for part, name in shown.items()]
        if source.splits is None:
            return find_files(data_path, ("*",))
        patterns = {part: (f"{split}.*", f"{split}-*") for part, split in source.splits.named.items()}
        _check_folder(data_path, [f"{split}.*" for split in source.splits.named.values()])
        return [
            replace(found, role=part) for part, names in patterns.items() for found in find_files(data_path, names)
        ]
    if isinstance(source, PartSources):
        return _find_parts(source, folder, data_path)
    files = find_files(data_path or folder / source.path, source.files)
    reading = source.reading(folder)
    check_used(reading, {found.name: found.format for found in files})
    return [replace(found, reading=reading) for found in files]


def _find_parts(source: PartSources, folder: Path, data_path: Path | None) -> list[DataFile]:
    found: dict[tuple[str, str | None], str] = {}
    files = []
    names = [Path(own.path).name for own in source.named.values()]
    if data_path is not None:
        _check_folder(data_path, names)
        if len(set(names)) < len(names):
            raise UserInputError(
                f"--data_path {data_path}: two parts of `source` have files of the same name: write the new paths"
                " under `source` instead."
            )
    for part, own in source.named.items():
        path = folder / own.path if data_path is None else data_path / Path(own.path).name
        if data_path is not None and not path.exists():
            raise UserInputError(f"{path}: no such file or folder; `source` names one for the part `{part}`.")
        for file in find_files(path, own.files):
            key = os.path.realpath(file.name), own.sheet
            if (other := found.setdefault(key, part)) != part:
                raise UserInputError(
                    f"{file.name}: is the file of `{other}` and of `{part}` under `source`: a judge would be tested on"
                    " what it has seen."
                )
            files.append(replace(file, reading=own.reading(folder), role=part))
    return files


def _check_folder(data_path: Path, names: list[str]) -> None:
    """Raise unless `data_path` is a folder, for a source that has files for each part."""
    if not data_path.is_dir():
        what = "is no folder" if data_path.exists() else "no such folder"
        raise UserInputError(
            f"--data_path {data_path}: {what}, and the task reads a file for each part of its split: give a folder"
            f" that holds {listing(names, 'and')}, or write the new paths under `source`."
        )


def read_rows(file: TaskFile, source: Source) -> Iterator[tuple[DataFile, int, dict[str, Any]]]:
    """The rows of the files that [`find`] has found."""
    for data_file in source.files:
        if data_file.format == "hub":
            assert isinstance(file.source, HubSource)
            for number, row in _hub_rows(file.source, file.source.parts[data_file.role], data_file.name):
                yield data_file, number, row
        else:
            for _, number, row in source._replace(files=[data_file]).rows():
                yield data_file, number, row


def _hub_rows(source: HubSource, split: str, name: str) -> Iterator[tuple[int, dict[str, Any]]]:
    from datasets import load_dataset
    from datasets.exceptions import DatasetsError
    from huggingface_hub.errors import HfHubHTTPError

    try:
        dataset = load_dataset(source.hub, source.config, split=split, revision=source.revision)
    except (OSError, ValueError, DatasetsError, HfHubHTTPError) as error:
        raise UserInputError(
            f"The data set {source.hub!r} cannot be loaded: {first_line(error)} Check name, config and split; without"
            " network pass --data_path with a copy of its files."
        ) from None
    features = dataset.features if has_classes(dataset.features) else None
    for number, row in enumerate(dataset, start=1):
        plain = plain_value(row)
        yield number, name_classes(plain, features, source=name, number=number) if features else plain


class PartReader:
    """Tells which part of a split a row belongs to: that of its file, or of the column that `split` names."""

    def __init__(self, file: TaskFile, source: Source) -> None:
        self.split = file.split
        self.paths = [ColumnPath(self.split.column)] if self.split is not None else []
        self.expected: set[str] = {data_file.role for data_file in source.files if data_file.role}
        if self.split is not None and source.path is None:
            self.expected = set(self.split.named)
        self.seen: set[str] = set()

    def part(self, row: Mapping[str, Any], data_file: DataFile, number: int) -> str:
        """The part, "" without a split, "ignore" for a row to leave out.

        Raises:
            [`JudgmentDataError`]: the column says something that the task file does not list.
        """
        part = data_file.role if self.split is None else self._in_column(row, data_file.name, number)
        self.seen.add(part)
        return part

    def check_parts(self, name: str) -> None:
        """Raise [`UserInputError`] if a part is empty, when everything has been read. `name` is for the message."""
        for part in sorted(self.expected - self.seen):
            if self.split is None:
                raise UserInputError(f"`source`: what it names for the part `{part}` holds no rows.")
            values = listing(map(repr, self.split.named[part]), "or")
            others = listing(sorted(self.seen - {IGNORED}), "and") or "to be left out"
            raise UserInputError(
                f"{name}: `split`: no row has {values} in the column `{self.split.column}`, so that the part `{part}`"
                f" is empty; all rows are {others}. Correct the value, or drop the part."
            )

    def _in_column(self, row: Mapping[str, Any], name: str, number: int) -> str:
        assert self.split is not None
        value = self.paths[0].find(row, name, number)
        place = Place(name, number, self.split.column)
        if holds_bytes(value) or isinstance(value, (list, Mapping)):
            raise place.error(f"must name one part of the split, got {str(value)[:60]!r}")
        if is_empty(value):
            raise place.error(
                "is empty, and `split` reads there which part the row belongs to",
                "Fill it in, or leave such rows out with `skip`.",
            )
        part = self.split.part_of.get(comparison_key(value))
        if part is None:
            raise place.error(f"{value!r} is in none of the lists of `split`", self._fix(str(value)))
        return part

    def _fix(self, value: str) -> str:
        assert self.split is not None
        written = in_yaml(value)
        ignored = ", ".join([*map(in_yaml, self.split.ignore), written])
        leave_out = f"`ignore: [{ignored}]` to leave such rows out"
        named = self.split.named
        close = nearest(value, [known for values in named.values() for known in values])
        part = usual_part(value) or next((part for part, v in named.items() if close in v), None)
        if part is None:
            return f"In `split` list it under {listing(named, 'or')}, or write {leave_out}."
        values = ", ".join([*map(in_yaml, named.get(part, ())), written])
        return f"In `split` write `{part}: [{values}]`, or {leave_out}."
