"""Which items a judge was trained on, kept beside it, so that a later evaluation can leave them out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from datasets import Dataset

from distjudge_trl.atomic import write_json
from distjudge_trl.errors import UserInputError


SEEN_ITEMS_NAME = "training_items.json"


@dataclass(frozen=True)
class SeenItems:
    """Hashes of the ids and the groups of training records: not the names, which may be texts of the data set."""

    ids: frozenset[str]
    groups: frozenset[str]

    @classmethod
    def of(cls, records: Dataset) -> SeenItems:
        """Of judgment records."""
        return cls(_hashes(records["id"]), _hashes(records["group"]))

    def unseen(self, records: Dataset, by: Literal["group", "id"] = "group") -> Dataset:
        """The records of which neither this id nor (by `"group"`) any other of the group was seen."""
        names, seen = (records["group"], self.groups) if by == "group" else (records["id"], self.ids)
        keep = [i for i, name in enumerate(names) if _hash(name) not in seen]
        return records if len(keep) == len(records) else records.select(keep)

    def write(self, folder: str | Path) -> None:
        """Into `training_items.json`, whole or not at all."""
        write_json(Path(folder) / SEEN_ITEMS_NAME, {"ids": sorted(self.ids), "groups": sorted(self.groups)})

    @classmethod
    def read(cls, folder: str | Path) -> SeenItems | None:
        """From a judge's folder; `None` if it keeps no such file.

        Raises:
            [`UserInputError`]: the file is damaged.
        """
        path = Path(folder) / SEEN_ITEMS_NAME
        if not path.is_file():
            return None
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            return cls(*(frozenset(map(str, content[name])) for name in ("ids", "groups")))
        except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
            raise UserInputError(
                f"{path}: is damaged ({error!r}): which items this judge has seen cannot be told. Train it again, or"
                " delete the file if you know that the test items are new."
            ) from None


def _hash(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:16]


def _hashes(names: Iterable[str]) -> frozenset[str]:
    return frozenset(_hash(name) for name in names)
