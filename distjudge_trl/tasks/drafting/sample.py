"""The rows that a draft is made from, and how their files have to be read."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import yaml

from distjudge_trl.data.inner_items import are_items
from distjudge_trl.data.joining import Join
from distjudge_trl.data.reading import FILE_COLUMN, Reading
from distjudge_trl.data.rows import own_fields, read_rows
from distjudge_trl.data.source_files import DataFile, find_files
from distjudge_trl.errors import UserInputError, listing
from distjudge_trl.labels.spelling import spelling
from distjudge_trl.tasks.drafting.columns import step


# So many rows are looked at for the form. The labels are taken from all rows.
MOST_ROWS = 20_000
# The line that an error of a reader says to write.
_ADVICE = re.compile(r"`source: (\{.*?\})`")
# A file may need an encoding, a way of quoting and a sheet.
_ATTEMPTS = 4


@dataclass
class Sample:
    """The first rows of the files at a path.

    `source` are the keys of a task file's `source` besides the path, `remarks` why they are needed, `complete` says
    whether `rows` are all rows.
    """

    path: Path
    files: list[DataFile]
    rows: list[dict[str, Any]]
    complete: bool
    source: dict[str, Any] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)

    @property
    def has_several_files(self) -> bool:
        return len(self.files) > 1

    def all_rows(self) -> Iterator[dict[str, Any]]:
        """The rows of all files, read again unless all are held."""
        if self.complete:
            yield from self.rows
            return
        for file in self.files:
            for _, row in read_rows(file):
                yield row


def take_sample(path: Path) -> Sample:
    """Read the first rows of a file, folder or archive; what a reader says about encoding, quote marks and sheets is
    followed.

    Raises:
        [`UserInputError`]: it cannot be read, or holds no rows.
    """
    files = find_files(path, ("*",))
    source: dict[str, Any] = {}
    remarks: list[str] = []
    if path.is_dir():
        files, pattern = _of_one_kind(files)
        source["files"] = [pattern]
    for attempt in range(_ATTEMPTS):
        reading = Reading(**{key: value for key, value in source.items() if key != "files"})
        read = [replace(file, reading=reading) for file in files]
        try:
            rows, complete = _read(read)
        except UserInputError as error:
            advice = _advice(error)
            if not advice.items() - source.items() or attempt == _ATTEMPTS - 1:
                raise
            if advice.get("quoting") == "none" and files[0].format == "csv" and _can_read(files, source, "standard"):
                advice["quoting"] = "standard"
            new = {key: value for key, value in advice.items() if source.get(key) != value}
            remarks += [_remark(key, value) for key, value in new.items()]
            source.update(new)
        else:
            if not rows:
                raise UserInputError(f"{path}: holds no rows.")
            if "items" not in source and len(rows) == 1 and (found := _items(rows[0])) is not None:
                source["items"] = found
                remarks.append("the file is one object, which holds the list of items")
                continue
            sample = Sample(path, read, rows, complete, source, remarks)
            return with_texts(sample) if path.is_dir() and len(read) > 1 else sample
    raise AssertionError("the last attempt returns or raises")


def with_texts(sample: Sample) -> Sample:
    """The sample of a folder; of two different tables, of which one has the texts for the votes in the other, the
    rows of both together.

    Raises:
        [`UserInputError`]: the files have different columns in another way.
    """
    columns: dict[str, set[str]] = {}
    for row in sample.rows:
        columns.setdefault(row[FILE_COLUMN], set()).update(map(str, own_fields(row)))
    kinds = list({frozenset(names) for names in columns.values()})
    if not any(2 * len(a & b) < len(a | b) for a in kinds for b in kinds):
        return sample
    for texts in sample.files:
        votes = [file for file in sample.files if file is not texts]
        if len({frozenset(columns.get(file.stem, ())) for file in votes}) == 1:
            for shared in sorted(columns.get(texts.stem, set()) & columns[votes[0].stem]):
                values = [spelling(row.get(shared)) for row in sample.rows if row[FILE_COLUMN] == texts.stem]
                wanted = {spelling(row.get(shared)) for row in sample.rows if row[FILE_COLUMN] != texts.stem}
                if len(set(values)) == len(values) and wanted <= set(values):
                    return _together(sample, votes, texts, shared)
    names = listing(file.base_name for file in sample.files)
    raise UserInputError(
        f"{sample.path}: the files have different columns: {names}. Name one"
        " of them, or a folder of files that are alike. docs/data.md says how two tables come together (`join`)."
    )


def _together(sample: Sample, votes: list[DataFile], texts: DataFile, column: str) -> Sample:
    keys = {key: value for key, value in sample.source.items() if key != "files"}
    join = Join((texts,), {column: column})
    files = [replace(file, reading=replace(file.reading, join=join)) for file in votes]
    rows, complete = _read(files)
    source = {**keys, "join": {"path": f"{sample.path.name}/{texts.base_name}", "by": column, **keys}}
    remark = f"the votes and what they are about are in different files; both have `{column}`"
    if len(files) == 1:
        return Sample(sample.path / files[0].base_name, files, rows, complete, source, [*sample.remarks, remark])
    source = {"files": [file.base_name for file in files], **source}
    return Sample(sample.path, files, rows, complete, source, [*sample.remarks, remark])


def _items(row: dict[str, Any]) -> str | None:
    """The path to the longest list of items in a file that is one object."""
    lists = {name: value for name, value in row.items() if are_items(value)}
    if not lists:
        return None
    name = max(lists, key=lambda name: len(lists[name]))
    # The hub's server wraps each row: {"row_idx": 0, "row": {...}}.
    wrapped = all(isinstance(entry.get("row"), dict) for entry in lists[name])
    return f"{step(name)}[].row" if wrapped else step(name)


def _read(files: list[DataFile]) -> tuple[list[dict[str, Any]], bool]:
    """The first rows of the files, and whether they are all rows. Every file has its part in them."""
    rows: list[dict[str, Any]] = []
    complete = True
    share = max(MOST_ROWS // len(files), 100)
    for file in files:
        found = [row for _, row in islice(read_rows(file), share + 1)]
        complete = complete and len(found) <= share
        rows += found[:share]
    return rows, complete


def _of_one_kind(files: list[DataFile]) -> tuple[list[DataFile], str]:
    """The files of a folder that have its most frequent ending, and the pattern of their names."""
    endings = [re.sub(r"(?i)\.gz$", "", file.base_name).rpartition(".")[2] for file in files]
    most = max(dict.fromkeys(endings), key=endings.count)
    return [file for file, ending in zip(files, endings, strict=True) if ending == most], f"*.{most}"


def _advice(error: UserInputError) -> dict[str, Any]:
    found = _ADVICE.search(str(error))
    keys = yaml.safe_load(found[1]) if found is not None else {}
    return {key: value for key, value in keys.items() if key not in ("path", "files")}


def _can_read(files: list[DataFile], source: dict[str, Any], quoting: Any) -> bool:
    reading = Reading(**{key: value for key, value in source.items() if key != "files"} | {"quoting": quoting})
    try:
        for file in files:
            for _ in read_rows(replace(file, reading=reading)):
                pass
    except UserInputError:
        return False
    return True


def _remark(key: str, value: Any) -> str:
    if key == "quoting":
        kinds = {"none": "are part of the texts", "standard": "enclose cells"}
        return f"CHECK: quote marks can be read in two ways; here they {kinds[value]}"
    if key == "sheet":
        return "CHECK: the workbook has several sheets; this is the first"
    if key == "header":
        return "CHECK: the row with the names of the columns; what stands above it is left out"
    return f"the {key} that the file seems to have"
