"""What a task is: labels, a prompt template, where its data lives, and how items are read and become records."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from datasets import Dataset

from distjudge_trl.data.download import RemoteFile, download
from distjudge_trl.data.files import DataFile, find_files, read_rows
from distjudge_trl.data.records import build_dataset, make_record
from distjudge_trl.data.splits import stable_key
from distjudge_trl.data.template import PromptTemplate
from distjudge_trl.data.votes import draw_votes, majority_label
from distjudge_trl.errors import JudgmentDataError, NoRecordsError, UserInputError
from distjudge_trl.labels import LabelSpace


if TYPE_CHECKING:
    from distjudge_trl.batching import PromptFitter


@dataclass
class TaskOptions:
    """How votes become records; every task has these, some have more."""

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
        if self.max_annotators is not None and self.max_annotators < self.min_annotators:
            raise UserInputError(
                f"--max_annotators {self.max_annotators} draws fewer than --min_annotators {self.min_annotators} asks"
                " for."
            )


class Item(NamedTuple):
    """One thing that people judged: `counts` `(K,)` are votes per label, `fields` what the prompt template may use,
    `source` and `row` where it was read.
    """

    id: str
    group: str
    fields: Mapping[str, Any]
    counts: list[int]
    source: str
    row: int | str


@dataclass
class LoadReport:
    """What became of a source: how many items were read, left out (by reason), changed."""

    num_read: int = 0
    num_records: int = 0
    excluded: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)
    files: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """Plain sentences for people."""
        lines = [f"{self.num_read:,} items read, {self.num_records:,} records"]
        lines += [f"left out, {reason}: {count:,}" for reason, count in self.excluded.most_common()]
        lines += [f"{note}: {count:,}" for note, count in self.notes.most_common()]
        return lines

    def to_dict(self) -> dict[str, Any]:
        """For result files."""
        return {
            "read": self.num_read,
            "records": self.num_records,
            "excluded": dict(self.excluded),
            "notes": dict(self.notes),
        }


class Source(NamedTuple):
    """What a task reads from: its files, the options, and the report to write remarks to."""

    files: list[DataFile]
    options: Any
    report: LoadReport
    root: Path

    def rows(
        self, required: Iterable[str] = (), *, delimiter: str | None = None
    ) -> Iterator[tuple[str, int, dict[str, Any]]]:
        """File name, row number and content of every row, with a progress bar over the files' bytes.

        Raises:
            [`JudgmentDataError`]: as [`read_rows`]; a row without one of the `required` fields.
        """
        for file in self.files:
            for number, row in _with_progress(file, delimiter):
                for name in required:
                    if row.get(name) is None:
                        raise JudgmentDataError(
                            "is missing",
                            source=file.name,
                            row=number,
                            field=name,
                            fix=f"The row has: {', '.join(row)}.",
                        )
                yield file.name, number, row


def _with_progress(file: DataFile, delimiter: str | None) -> Iterator[tuple[int, dict[str, Any]]]:
    from tqdm.auto import tqdm

    # None: no bar where nobody looks (a log file, a pipe); and one for all processes of a launch.
    disable = True if os.environ.get("LOCAL_RANK", "0") != "0" else None
    with tqdm(desc=f"Reading {Path(file.name).name}", unit=" rows", disable=disable, delay=1) as bar:
        for entry in read_rows(file, delimiter=delimiter):
            yield entry
            bar.update()


@dataclass(frozen=True)
class JudgmentTask:
    """A judgment task.

    Args:
        name (`str`): how commands and files call it.
        description (`str`): one line on what is judged and by whom.
        labels (`tuple[str, ...]`): in their fixed order.
        template ([`PromptTemplate`]): renders an item's fields into a prompt that ends where the answer begins.
        read_items (`Callable[[Source], Iterator[Item]]`): the items of its files, as a stream. Raises
            [`JudgmentDataError`] on malformed sources.
        file_patterns (`tuple[str, ...]`): names of its files in a folder or an archive.
        remote_files (`tuple[RemoteFile, ...]`): where they officially live.
        find (`Callable[[Path | None], list[DataFile]]`, *optional*): replaces the search by pattern and the download.
        expand (`Callable[[Item, TaskOptions], Iterator[Item]]`, *optional*): the forms in which an item is asked,
            after
            its votes were drawn (both orders of a pair).
        synonyms (`Mapping[str, Sequence[str]]`, *optional*): further spellings of labels.
        ordinal (`bool`): whether the labels' order means something.
        size (`str`): for `distjudge-trl tasks`.
        options (`type[TaskOptions]`): what can be chosen when records are built.
    """

    name: str
    description: str
    labels: tuple[str, ...]
    template: PromptTemplate
    read_items: Callable[[Source], Iterator[Item]]
    file_patterns: tuple[str, ...] = ()
    remote_files: tuple[RemoteFile, ...] = ()
    find: Callable[[Path | None], list[DataFile]] | None = None
    expand: Callable[[Item, Any], Iterator[Item]] | None = None
    synonyms: Mapping[str, Sequence[str]] | None = None
    ordinal: bool = False
    size: str = ""
    options: type[TaskOptions] = TaskOptions

    def label_space(self) -> LabelSpace:
        """A fresh, unbound label space of this task."""
        return LabelSpace(self.labels, self.synonyms, self.ordinal)

    def load(
        self,
        data_path: str | Path | None = None,
        options: TaskOptions | None = None,
        *,
        template: PromptTemplate | None = None,
        fitter: PromptFitter | None = None,
        report: LoadReport | None = None,
    ) -> Dataset:
        """Validated judgment records.

        Args:
            data_path (`str` or `Path`, *optional*): file, archive or folder; by default the official files, downloaded
                once.
            options ([`TaskOptions`], *optional*): of the class `self.options`.
            template ([`PromptTemplate`], *optional*): replaces the task's.
            fitter ([`~distjudge_trl.batching.PromptFitter`], *optional*): shortens prompts to a model's length.
            report ([`LoadReport`], *optional*): filled with what was read and left out.

        Raises:
            [`JudgmentDataError`]: malformed data, named by file, row and field.
            [`UserInputError`]: no such file, no network, options out of range.
        """
        options = options if options is not None else self.options()
        options.check()
        report = report if report is not None else LoadReport()
        files = self._find(Path(data_path) if data_path is not None else None)
        report.files = [file.name for file in files]
        source = Source(files, options, report, Path(data_path) if data_path is not None else Path())
        already_shortened = fitter.num_shortened if fitter is not None else 0
        records = self._records(source, template or self.template, fitter)
        name = files[0].name if len(files) == 1 else str(data_path or self.name)
        try:
            dataset = build_dataset(records, self.label_space(), source=name)
        except NoRecordsError:
            if report.num_read:
                raise UserInputError(
                    f"{name}: all {report.num_read:,} items are left out ({'; '.join(report.excluded)}). Loosen the"
                    " options."
                ) from None
            raise
        report.num_records = len(dataset)
        if fitter is not None and fitter.num_shortened > already_shortened:
            count = fitter.num_shortened - already_shortened
            report.notes[f"prompts shortened to {fitter.max_length:,} tokens ({fitter.truncation})"] += count
        return dataset

    def _find(self, data_path: Path | None) -> list[DataFile]:
        if self.find is not None:
            return self.find(data_path)
        if data_path is not None:
            return find_files(data_path, self.file_patterns)
        return [file for remote in self.remote_files for file in find_files(download(remote), self.file_patterns)]

    def _records(
        self, source: Source, template: PromptTemplate, fitter: PromptFitter | None
    ) -> Iterator[dict[str, Any]]:
        options, space = source.options, self.label_space()
        for kept in self._kept_items(source):
            for item in self.expand(kept, options) if self.expand is not None else (kept,):
                reference = majority_label(item.counts, options.majority_ties, item_id=item.id, seed=options.draw_seed)
                if reference is None:
                    source.report.excluded["tied majority"] += 1
                    continue
                prompt = (
                    fitter.fit(template, item.fields, source=item.source, row=item.row)
                    if fitter is not None
                    else template.render(item.fields, source=item.source, row=item.row)
                )
                yield make_record(
                    id=item.id,
                    group=item.group,
                    prompt=prompt,
                    counts=item.counts,
                    label_space=space,
                    reference=reference,
                )

    def _kept_items(self, source: Source) -> Iterator[Item]:
        """Items with the votes that the options ask for, at most `max_items` of them."""
        limit = source.options.max_items
        if limit is None:
            yield from self._checked_items(source)
            return
        items = list(self._checked_items(source))
        order = sorted(range(len(items)), key=lambda i: stable_key(source.options.draw_seed, items[i].id))
        if len(items) > limit:
            source.report.excluded[f"not among the {limit:,} drawn"] += len(items) - limit
        for i in sorted(order[:limit]):
            yield items[i]

    def _checked_items(self, source: Source) -> Iterator[Item]:
        options, report = source.options, source.report
        seen: set[str] = set()
        for item in self.read_items(source):
            report.num_read += 1
            if item.id in seen:
                raise JudgmentDataError(
                    f"the id {item.id!r} occurs twice",
                    source=item.source,
                    row=item.row,
                    field="id",
                    fix="Ids must be unique in a task: remove one of the rows, or number them.",
                )
            seen.add(item.id)
            votes = sum(item.counts)
            if votes < options.min_annotators:
                report.excluded[f"fewer than {options.min_annotators} annotators"] += 1
            elif not votes:
                raise JudgmentDataError(
                    "no votes",
                    source=item.source,
                    row=item.row,
                    field="votes",
                    fix="Every item needs at least one annotator; --min_annotators 1 leaves such items out.",
                )
            elif options.max_annotators is not None and votes > options.max_annotators:
                report.notes[f"items of which {options.max_annotators} annotators were drawn"] += 1
                drawn = draw_votes(item.counts, options.max_annotators, item_id=item.id, seed=options.draw_seed)
                yield item._replace(counts=drawn)
            else:
                yield item
