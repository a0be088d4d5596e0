"""`training_items.json` lists the items that a judge was trained, chosen or calibrated on, so that a later evaluation
can leave them out.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Literal

from datasets import Dataset

from distjudge_trl.errors import UserInputError
from distjudge_trl.files.atomic import write_json


SEEN_ITEMS_NAME = "training_items.json"
# The name of an item that says only which row of a file, or of a part, it is.
_BARE_NUMBER = re.compile(r"((train|validation|dev|test)\W)?[\d\W_]+")


@dataclass(frozen=True)
class SeenItems:
    """Hashes of the ids and groups of records. The names themselves are not kept, because they may be texts of the
    data set.

    `ids` and `groups` are those of the training records, `held_out_ids` and `held_out_groups` of the records that were
    held out of training to stop early, to choose a setting or to fit a scaling. `earlier_ids` and `earlier_groups` are
    those of other tasks, on which the judge was trained before: there a bare number names a row of another file.
    """

    ids: frozenset[str]
    groups: frozenset[str]
    held_out_ids: frozenset[str] = frozenset()
    held_out_groups: frozenset[str] = frozenset()
    earlier_ids: frozenset[str] = frozenset()
    earlier_groups: frozenset[str] = frozenset()

    @classmethod
    def of(cls, train: Dataset, *held_out: Dataset | None) -> SeenItems:
        """Make it from judgment records."""
        ids, groups = (
            frozenset[str]().union(*(_hashes(part[name]) for part in held_out if part is not None))
            for name in ("id", "group")
        )
        return cls(_hashes(train["id"]), _hashes(train["group"]), ids, groups)

    def unseen(self, records: Dataset, by: Literal["group", "id"] = "group", *, held_out_too: bool = True) -> Dataset:
        """The records that are new to the judge: neither their id nor (by `"group"`) any id of their group was trained
        on or, with `held_out_too`, held out. Those of earlier tasks count, unless they are bare numbers.
        """
        seen, earlier = (self.groups, self.earlier_groups) if by == "group" else (self.ids, self.earlier_ids)
        if held_out_too:
            seen |= self.held_out_groups if by == "group" else self.held_out_ids
        names = [(name, _hash(name)) for name in records[by]]
        keep = [
            i
            for i, (name, digest) in enumerate(names)
            if digest not in seen and (digest not in earlier or _BARE_NUMBER.fullmatch(name))
        ]
        return records if len(keep) == len(records) else records.select(keep)

    def of_another_task(self) -> SeenItems:
        """The same items, for a task that is not theirs."""
        return SeenItems(
            frozenset(),
            frozenset(),
            earlier_ids=self.ids | self.held_out_ids | self.earlier_ids,
            earlier_groups=self.groups | self.held_out_groups | self.earlier_groups,
        )

    def after(self, start: SeenItems) -> SeenItems:
        """With the items of the judge from which the training started."""
        return SeenItems(**{name: names | getattr(start, name) for name, names in vars(self).items()})

    def and_held_out(self, records: Dataset) -> SeenItems:
        """With further records among the held-out ones."""
        return replace(
            self,
            held_out_ids=self.held_out_ids | _hashes(records["id"]),
            held_out_groups=self.held_out_groups | _hashes(records["group"]),
        )

    def trained_on(self, records: Dataset) -> Dataset:
        """The records that the judge was trained on."""
        keep = [i for i, name in enumerate(records["id"]) if _hash(name) in self.ids]
        return records if len(keep) == len(records) else records.select(keep)

    def write(self, folder: str | Path) -> None:
        """Write `training_items.json` into `folder`, atomically."""
        write_json(Path(folder) / SEEN_ITEMS_NAME, {name: sorted(hashes) for name, hashes in vars(self).items()})

    @classmethod
    def read(cls, folder: str | Path) -> SeenItems | None:
        """Read `training_items.json` from a judge's folder; `None` if there is no such file.

        Raises:
            [`UserInputError`]: the file is damaged.
        """
        path = Path(folder) / SEEN_ITEMS_NAME
        if not path.is_file():
            return None
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            # Judges of earlier versions do not say what their start had seen.
            content = {"earlier_ids": [], "earlier_groups": [], **content}
            return cls(*(frozenset(map(str, content[field.name])) for field in fields(cls)))
        except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, RecursionError) as error:
            raise UserInputError(
                f"{path}: is damaged ({error!r}): which items this judge has seen is not known. Train it again, or"
                " delete the file if you know that the test items are new."
            ) from None


def _hash(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:16]


def _hashes(names: Iterable[str]) -> frozenset[str]:
    return frozenset(_hash(name) for name in names)
