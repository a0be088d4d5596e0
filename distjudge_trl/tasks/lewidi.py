"""What the files of the shared tasks on learning with disagreement (LeWiDi) have in common, and how they are read.

Each file is one JSON object, id to item, with the fields `text`, `annotations` (one label per annotator),
`soft_label`, `split` and, in the edition of 2023, `hard_label`. Files are called `MD-Agreement_train.json`, and so on;
test inputs may have no annotations.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from distjudge_trl.data.reading import KEY_COLUMN
from distjudge_trl.data.source_files import DataFile, find_files
from distjudge_trl.errors import JudgmentDataError, UserInputError
from distjudge_trl.tasks.items import Item, Source


HOMEPAGE = "https://le-wi-di.github.io"
# The organisers' names of the parts, and ours.
_PARTS = {"train": "train", "dev": "validation", "test": "test"}
# `soft_label` is rounded to two or three decimals.
_ROUNDING = 0.006
NO_TEXT = "(no text)"


@dataclass(frozen=True)
class SharedTask:
    """One of the eight data sets.

    Args:
        dataset (`str`): its official name, with which its files begin.
        edition (`int`): 2023 or 2025.
        metric (`"cross-entropy"`, `"manhattan"` or `"wasserstein"`): the official soft figure.
        parts (`tuple[str, ...]`): the questions about one item, in the order of a submission, if there are several.
    """

    dataset: str
    edition: Literal[2023, 2025]
    metric: Literal["cross-entropy", "manhattan", "wasserstein"]
    parts: tuple[str, ...] = ()


SHARED_TASKS = {
    "md_agreement": SharedTask("MD-Agreement", 2023, "cross-entropy"),
    "convabuse": SharedTask("ConvAbuse", 2023, "cross-entropy"),
    "hs_brexit": SharedTask("HS-Brexit", 2023, "cross-entropy"),
    "armis": SharedTask("ArMIS", 2023, "cross-entropy"),
    "csc": SharedTask("CSC", 2025, "wasserstein"),
    "mp": SharedTask("MP", 2025, "manhattan"),
    "par": SharedTask("Paraphrase", 2025, "wasserstein"),
    "ven": SharedTask("VariErrNLI", 2025, "manhattan", ("contradiction", "entailment", "neutral")),
}


def find_parts(task: str) -> Callable[[Path | None], list[DataFile]]:
    """The search for a task's files: one file, or all parts that are in a folder or an archive."""
    dataset = SHARED_TASKS[task].dataset

    def find(data_path: Path | None) -> list[DataFile]:
        if data_path is None:
            raise UserInputError(
                f"The task {task} has no files of its own: get {dataset}'s from the organisers ({HOMEPAGE}), and name"
                f" their folder, or one of them, with --data_path."
            )
        files = find_files(data_path, [f"{dataset}_{part}*.json" for part in _PARTS])
        for file in files:
            other = next((name for name, shared in SHARED_TASKS.items() if _is_of(file, shared.dataset)), task)
            if other != task:
                raise UserInputError(f"{file.name}: is named like a file of the task {other}, not of {task}.")
        return files

    return find


def _is_of(file: DataFile, dataset: str) -> bool:
    return file.stem.lower().startswith(f"{dataset.lower()}_")


class Entry(NamedTuple):
    """One item of a file: its key, the part that it belongs to (`""` if neither file nor item says), and its row."""

    source: str
    number: int
    key: str
    part: str
    row: Mapping[str, Any]

    def error(self, problem: str, field: str, fix: str | None = None) -> JudgmentDataError:
        """An error about one of its fields."""
        return JudgmentDataError(problem, source=self.source, row=self.number, field=field, fix=fix)

    def item(self, group: str, fields: Mapping[str, Any], counts: list[int], *, part: str = "") -> Item:
        """The item of this entry or, with `part`, one of several. Keys begin anew in each file, so that the part of
        the data belongs to the id.
        """
        reference = self._hard_label() if len(counts) == 2 and not part else None
        name = "/".join(filter(None, (self.part, self.key, part)))
        return Item(
            id=name,
            group=group,
            fields=fields,
            counts=counts,
            source=self.source,
            row=self.number,
            part=part,
            split=_PARTS.get(self.part, ""),
            reference=reference,
        )

    def _hard_label(self) -> int | None:
        """The organisers' own majority label, which they drew where votes are tied."""
        label = self.row.get("hard_label")
        if label is None or not str(label).strip():
            return None
        if str(label).strip() not in ("0", "1"):
            raise self.error(f"must be 0 or 1, got {label!r}", "hard_label")
        return int(label)


def key_of(item: Item) -> str:
    """The key under which an item is in its file."""
    names = {ours: official for official, ours in _PARTS.items()}
    key = item.id.removeprefix(f"{names[item.split]}/") if item.split else item.id
    return key.removesuffix(f"/{item.part}") if item.part else key


def entries(source: Source) -> Iterator[Entry]:
    """All items of the files, in their order.

    Raises:
        [`JudgmentDataError`]: as [`read_rows`], or a file is not one object of items.
    """
    for name, number, row in source.rows(("text",)):
        if KEY_COLUMN not in row:
            raise JudgmentDataError(
                "is not an object of items by their ids, as the organisers publish it",
                source=name,
                fix='Expected {"1": {"text": ...}, "2": ...}.',
            )
        stated = str(row.get("split") or "").strip().lower()
        named = re.search(rf"(?:^|[_.-])({'|'.join(_PARTS)})(?=$|[_.-])", str(row.get("_file", "")).lower())
        part = named[1] if named else stated
        if part and part not in _PARTS:
            raise JudgmentDataError(
                f"must be one of {', '.join(_PARTS)}, got {stated!r}", source=name, row=number, field="split"
            )
        if stated and stated != part:
            # All of CSC's training file says "dev".
            source.report.notes[
                f"items of {Path(name).name} whose `split` says {stated!r}: the file's name counts"
            ] += 1
        yield Entry(name, number, str(row[KEY_COLUMN]), part, row)


def given_labels(entry: Entry, source: Source) -> list[str]:
    """The annotators' labels, one per annotator; none for a test input. Text with commas, a list, and an object of
    annotators are understood; empty labels do not count.
    """
    value = entry.row.get("annotations")
    if value is None:
        return []
    labels: list[Any]
    if isinstance(value, Mapping):
        labels = list(value.values())
    elif isinstance(value, str):
        labels = value.split(",")
    elif isinstance(value, list):
        labels = value
    else:
        raise entry.error(f"must hold the annotators' labels, got {value!r}", "annotations")
    given = [str(label).strip() for label in labels if label is not None and str(label).strip()]
    if given and len(given) < len(labels):
        source.report.notes["annotators' empty labels left out"] += len(labels) - len(given)
    return given


def check_shares(entry: Entry, source: Source, shares: Mapping[str, float], soft_label: Any) -> None:
    """Count in the report items whose `soft_label` is not the shares of their annotations; the annotations are what
    is used. Keys may be `0`, `0.0` or `"0"`.
    """
    if not shares or not isinstance(soft_label, Mapping) or not soft_label:
        return
    try:
        stated = {_number(key): float(share) for key, share in soft_label.items()}
    except (TypeError, ValueError):
        raise entry.error(f"must map labels to shares, got {soft_label!r}", "soft_label") from None
    own = {_number(key): share for key, share in shares.items()}
    if any(abs(own.get(key, 0.0) - stated.get(key, 0.0)) > _ROUNDING for key in own | stated):
        source.report.notes["items whose soft_label differs from their annotations, which are used"] += 1


def _number(key: Any) -> float:
    return float(str(key))


def text_in(entry: Entry, name: str) -> str:
    """One of the texts of an item whose `text` is an object."""
    texts = entry.row["text"]
    if not isinstance(texts, Mapping) or not isinstance(texts.get(name), str):
        raise entry.error(f"must be an object with the text `{name}`, got {str(texts)[:60]!r}", "text")
    return texts[name].strip() or NO_TEXT


def joined(explanations: Any) -> str:
    """The annotators' explanations as lines."""
    texts = explanations if isinstance(explanations, list) else []
    return "\n".join(f"- {str(text).strip()}" for text in texts if str(text).strip())
