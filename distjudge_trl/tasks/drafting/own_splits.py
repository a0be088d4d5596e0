"""The split that the data themselves have: a column that names the parts, or files named after them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

from distjudge_trl.data.reading import FILE_COLUMN
from distjudge_trl.data.source_files import DataFile
from distjudge_trl.data.splits import OFFICIAL_PARTS
from distjudge_trl.errors import listing
from distjudge_trl.labels.spelling import spelling
from distjudge_trl.tasks.custom.finding import usual_part
from distjudge_trl.tasks.drafting.columns import SPLIT, Column


_MOST_VALUES = 12


@dataclass
class DraftSplit:
    """The key `split` of a draft, and its comments. Without keys there are only comments."""

    keys: dict[str, Any]
    seen: str
    checks: list[str] = field(default_factory=list)


def find_split(columns: Sequence[Column]) -> DraftSplit | None:
    """The split that a column names, if several of its values are the usual names of parts."""
    for column in columns:
        values = list(dict.fromkeys(spelling(value) for value in column.filled)) if column.is_scalar else []
        if not 1 <= len(values) <= _MOST_VALUES:
            continue
        parts: dict[str, list[str]] = {}
        for value in values:
            parts.setdefault(usual_part(value) or "ignore", []).append(value)
        named = [part for part in OFFICIAL_PARTS if part in parts]
        if "train" in named and len(named) > 1:
            split = DraftSplit(
                {"column": column.path, **{part: parts[part] for part in (*named, "ignore") if part in parts}},
                f"`{column.path}` says which part of a split a row belongs to",
            )
            if len(column.filled) < len(column.values):
                split.checks.append(f"some rows have no `{column.path}`: fill it in, or leave them out with `skip`")
            if "ignore" in parts:
                split.checks.append(f"rows of {listing(parts['ignore'])} are left out: or name a part for them")
            return split
        if SPLIT.search(column.name) and named and len(values) == 1:
            return DraftSplit(
                {},
                f"`{column.path}` is {values[0]} in every row. If other parts of the split are in other files, write"
                f" `source: {{train: FILE, {'test' if named == ['train'] else named[0]}: FILE}}`",
            )
        if SPLIT.search(column.name) and (named or len(values) > 1):
            values_seen = listing(values)
            return DraftSplit(
                {},
                f"`{column.path}` ({values_seen}) may say which part of a split a row belongs to. If so, write"
                f" `split: {{column: {column.path}, train: [VALUE], test: [VALUE]}}`; docs/data.md tells more",
            )
    return None


def find_part_files(files: Sequence[DataFile]) -> dict[str, list[DataFile]]:
    """The files of each part, if all of several files are named after the parts of a split."""
    parts: dict[str, list[DataFile]] = {}
    for file in files:
        part = usual_part(file.stem)
        if part is None:
            return {}
        parts.setdefault(part, []).append(file)
    return (
        {part: parts[part] for part in OFFICIAL_PARTS if part in parts} if "train" in parts and len(parts) > 1 else {}
    )


def part_sources(parts: dict[str, list[DataFile]], source: dict[str, Any]) -> dict[str, Any]:
    """The key `source` with a file, or files, for each part."""
    rest = {key: value for key, value in source.items() if key not in ("path", "files")}
    found = {}
    for part, files in parts.items():
        folder = PurePath(source["path"])
        if len(files) == 1:
            found[part] = {"path": (folder / files[0].base_name).as_posix(), **rest}
        else:
            names = sorted({re.sub(r"[-_.]?\d.*$|\..*$", "", file.base_name) + "*" for file in files})
            found[part] = {"path": folder.as_posix(), "files": names, **rest}
    return found


def id_in_parts(
    columns: Sequence[Column], rows: Sequence[dict[str, Any]], named: Sequence[Column]
) -> list[str] | None:
    """The column that names the items of each part, where it names none of all parts together."""
    files = [usual_part(str(row[FILE_COLUMN])) for row in rows]
    for column in named:
        if column in columns and column.is_scalar and len(column.filled) == len(column.values) == len(files):
            pairs = set(zip(files, map(str, column.values), strict=True))
            if len(pairs) == len(files):
                return [column.path]
    return None
