"""Files whose objects hold lists of items: `{"version": 1, "data": [...]}`, or a conversation with its turns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from distjudge_trl.data.paths import ColumnPath
from distjudge_trl.data.source_files import DataFile
from distjudge_trl.errors import JudgmentDataError, listing


def items_in(rows: Iterable[tuple[int, dict[str, Any]]], file: DataFile) -> Iterator[tuple[int, dict[str, Any]]]:
    """The items that are in the lists which `file.reading.items` names, counted from 1, each with the other columns of
    the object around it.

    Raises:
        [`JudgmentDataError`]: an object without such a list, or an entry that is no object.
    """
    assert file.reading.items is not None
    path = ColumnPath(file.reading.items)
    columns = {branch[0] for branch in path.branches if branch}
    count = 0
    for number, row in rows:
        found = path.find(row, file.name, number)
        if not isinstance(found, list):
            lists = [str(name) for name, value in row.items() if are_items(value)]
            raise JudgmentDataError(
                f"`items` must name a list of items, got {str(found)[:40]!r}",
                source=file.name,
                row=number,
                field=path.text,
                fix=f"Lists of items here: {listing(lists)}." if lists else None,
            )
        around = {name: value for name, value in row.items() if name not in columns}
        for place, item in enumerate(found, start=1):
            count += 1
            if not isinstance(item, Mapping):
                raise JudgmentDataError(
                    f"the {place}. entry is no object but {str(item)[:40]!r}",
                    source=file.name,
                    row=number,
                    field=path.text,
                )
            yield count, {**around, **item}


def are_items(value: Any) -> bool:
    """Whether a value is a list of several objects."""
    return isinstance(value, list) and len(value) > 1 and all(isinstance(entry, Mapping) for entry in value)
