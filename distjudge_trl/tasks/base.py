"""What a task is: labels, a prompt template, and a way to load judgment records."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from datasets import Dataset

from distjudge_trl.data.template import PromptTemplate
from distjudge_trl.labels import LabelSpace


@dataclass(frozen=True)
class JudgmentTask:
    """A judgment task.

    Args:
        name (`str`): how commands and files call it.
        description (`str`): one line on what is judged and by whom.
        labels (`tuple[str, ...]`): in their fixed order.
        template ([`PromptTemplate`]): renders an item's fields into a prompt that ends where the answer begins.
        load_records (`Callable[[Path | None], Dataset]`): all records of the task from the given path, or from the
            task's own source. Raises [`JudgmentDataError`] on malformed sources.
        synonyms (`dict[str, tuple[str, ...]]`, *optional*): further spellings of labels.
        ordinal (`bool`): whether the labels' order means something.
        size (`str`): for `distjudge-trl tasks`.
    """

    name: str
    description: str
    labels: tuple[str, ...]
    template: PromptTemplate
    load_records: Callable[[Path | None], Dataset]
    synonyms: dict[str, tuple[str, ...]] | None = None
    ordinal: bool = False
    size: str = ""

    def label_space(self) -> LabelSpace:
        """A fresh, unbound label space of this task."""
        return LabelSpace(self.labels, self.synonyms, self.ordinal)

    def load(self, data_path: str | Path | None = None) -> Dataset:
        """Validated records; see `load_records`."""
        return self.load_records(Path(data_path) if data_path is not None else None)
