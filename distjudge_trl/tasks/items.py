"""Items with their votes, as a task reads them from its files, before they become judgment records."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from distjudge_trl.data.columns import missing_column
from distjudge_trl.data.rows import read_rows
from distjudge_trl.data.source_files import DataFile
from distjudge_trl.errors import JudgmentDataError, UserInputError
from distjudge_trl.tasks.repeats import Repeats


@dataclass
class TaskOptions:
    """How votes become records. Every task has these options; some have more."""

    min_annotators: int = field(
        default=0,
        metadata={
            "help": (
                "Leave out items with fewer annotators, and report how many. 0: keep all, and an item without any is"
                " an error."
            )
        },
    )
    max_annotators: int | None = field(
        default=None,
        metadata={
            "help": (
                "Draw at most this many annotators an item, without replacement, by a hash of id and --draw_seed."
                " Recipes draw for training items alone; test items keep all their votes. Default: all."
            )
        },
    )
    majority_ties: Literal["first", "random", "exclude"] = field(
        default="first",
        metadata={
            "help": (
                "Reference label of an item whose majority is tied: the 'first' of the tied labels, one at 'random'"
                " (by a hash of id and --draw_seed), or 'exclude' the item."
            )
        },
    )
    max_items: int | None = field(
        default=None,
        metadata={"help": "Keep at most this many items, drawn by a hash of id and --draw_seed. Default: all."},
    )
    draw_seed: int = field(
        default=0, metadata={"help": "Seed of the draws above. Another seed, other annotators, ties and items."}
    )

    def check(self) -> None:
        """Raise [`UserInputError`] for values out of range."""
        for name, least in (("min_annotators", 0), ("max_annotators", 1), ("max_items", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise UserInputError(f"--{name} must be at least {least}, got {value}.")


@dataclass
class QuestionOptions(TaskOptions):
    """A task file with several questions: which of them."""

    question: str | None = field(
        default=None,
        metadata={
            "help": "The question of the task file to train or test on. Default: all, if one judge can answer them."
        },
    )


class Item(NamedTuple):
    """One thing that annotators judged.

    Args:
        id, group (`str`): those of the record.
        fields (`Mapping[str, Any]`): fields for the prompt template.
        counts (`list` of length K): votes per label, whole numbers unless there are `ballots`.
        source (`str`), row (`int` or `str`): where it was read, for error messages.
        part (`str`): which of several questions about the same thing (SummEval's dimension); statistics are per part.
        split (`str`): the part that the source puts it into: `"train"`, `"validation"`, `"test"`, or none.
        reference (`int`, *optional*): index of the reference label, after it is chosen. Before that, the one of the
            source, which decides a tie.
        ballots (`tuple`, *optional*): the labels (indices) of each annotator, if some gave several, among which their
            votes are divided.
    """

    id: str
    group: str
    fields: Mapping[str, Any]
    counts: list[int] | list[float]
    source: str
    row: int | str
    part: str = ""
    split: str = ""
    reference: int | None = None
    ballots: tuple[tuple[int, ...], ...] | None = None

    @property
    def num_annotators(self) -> int:
        """How many votes there are."""
        return len(self.ballots) if self.ballots is not None else int(sum(self.counts))


def text_of(row: Mapping[str, Any], field: str, source: str, number: int, *, blank: bool = False) -> str:
    """A row's text field, stripped.

    Raises:
        [`JudgmentDataError`]: it is not a text, or it is blank (unless `blank` allows that).
    """
    value = row.get(field)
    if not isinstance(value, str) or not (blank or value.strip()):
        what = "a text" if blank else "a non-empty text"
        raise JudgmentDataError(f"must be {what}, got {value!r}", source=source, row=number, field=field)
    return value.strip()


@dataclass
class LoadReport:
    """Counts of a source's items: how many were read, left out (by reason) and changed; and which prompts repeat."""

    num_read: int = 0
    num_records: int = 0
    excluded: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)
    files: list[str] = field(default_factory=list)
    repeats: Repeats = field(default_factory=Repeats, repr=False, compare=False)

    def lines(self) -> list[str]:
        """The report as plain sentences."""
        lines = [f"{self.num_read:,} items read, {self.num_records:,} records"]
        lines += [f"left out, {reason}: {count:,}" for reason, count in self.excluded.most_common()]
        lines += [f"{note}: {count:,}" for note, count in self.notes.most_common()]
        return lines

    def add_training(self, own: LoadReport) -> None:
        """Note the counts of the training items, whose votes are drawn again. They are kept apart from items that were
        left out of the source: training items have already been counted, and the sums above would not add up.
        """
        for note, count in own.notes.items():
            self.notes[f"training {note}"] += count
        for reason, count in own.excluded.items():
            self.notes[f"training items left out, {reason}"] += count

    def to_dict(self) -> dict[str, Any]:
        """The report for result files."""
        return {
            "read": self.num_read,
            "records": self.num_records,
            "excluded": dict(self.excluded),
            "notes": dict(self.notes),
        }


class Source(NamedTuple):
    """The input of a task: its files, the options, the report for remarks, and the path that was given."""

    files: list[DataFile]
    options: Any
    report: LoadReport
    path: Path | None

    def rows(self, required: Iterable[str] = ()) -> Iterator[tuple[str, int, dict[str, Any]]]:
        """Yield file name, row number and content of every row, with a progress bar. What a reader should
        know of the files is counted in the report.

        Raises:
            [`JudgmentDataError`]: as [`read_rows`], or a row lacks one of the `required` fields.
        """
        for file in self.files:
            for number, row in _with_progress(file, self.report.notes):
                for name in required:
                    if row.get(name) is None:
                        raise JudgmentDataError(
                            "is missing",
                            source=file.name,
                            row=number,
                            field=name,
                            fix=missing_column(name, row),
                        )
                yield file.name, number, row


def _with_progress(file: DataFile, notes: Counter[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    from tqdm.auto import tqdm

    # `None` shows no bar if the output is not a terminal. Of all processes of a launch only one shows it.
    disable = True if os.environ.get("LOCAL_RANK", "0") != "0" else None
    with tqdm(desc=f"Reading {Path(file.name).name}", unit=" rows", disable=disable, delay=1) as bar:
        for entry in read_rows(file, notes=notes):
            yield entry
            bar.update()
