"""The class `JudgmentTask`: labels, a prompt template, the location of the data, and how items are read and become
records. The module is long because the steps from files to records stand in one place, in their order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datasets import Dataset

from distjudge_trl.data.download import RemoteFile, download
from distjudge_trl.data.records import build_dataset, make_record
from distjudge_trl.data.source_files import DataFile, find_files
from distjudge_trl.data.splits import SWAPPED, stable_key
from distjudge_trl.data.template import PromptTemplate
from distjudge_trl.data.votes import draw_ballots, draw_votes, majority_label, share_counts
from distjudge_trl.errors import JudgmentDataError, NoRecordsError, UserInputError, listing, nearest
from distjudge_trl.labels import LabelSpace
from distjudge_trl.tasks.items import Item, LoadReport, Source, TaskOptions
from distjudge_trl.tasks.repeats import Asked, Repeats


if TYPE_CHECKING:
    from distjudge_trl.batching import PromptFitter


@dataclass(frozen=True)
class JudgmentTask:
    """A judgment task.

    Args:
        name (`str`): its name in commands and files.
        description (`str`): one line: what is judged, and by whom.
        labels (`tuple[str, ...]`): in their fixed order.
        template ([`PromptTemplate`]): renders an item's fields into a prompt that ends where the answer begins.
        read_items (`Callable[[Source], Iterator[Item]]`): the items of its files, as a stream. Raises
            [`JudgmentDataError`] on malformed sources.
        file_patterns (`tuple[str, ...]`): names of its files in a folder or an archive.
        remote_files (`tuple[RemoteFile, ...]`): their official sources.
        find (`Callable[[Path | None], list[DataFile]]`, *optional*): replaces the search by pattern and the download.
        expand (`Callable[[Item, TaskOptions], Iterator[Item]]`, *optional*): the forms in which an item is presented
            to the judge (both orders of a pair), after its votes are drawn and its reference is chosen.
        synonyms (`Mapping[str, Sequence[str]]`, *optional*): further spellings of labels.
        ordinal (`bool`): whether the labels' order means something.
        size (`str`): number of items, as shown by `distjudge-trl tasks`.
        official_split (`bool`): whether the source says which items are for training, validation and test. Recipes
            then use these parts unless `--split` says otherwise.
        options (`type[TaskOptions]`): the options of building records.
        family (`str`): name of the task of which this is one question, if it is one.
        optional_fields (`frozenset[str]`): fields that a template may test although no item of a source has them.
        answers (`Mapping[str, str]`, *optional*): what the judge answers instead of each label.
        parts (`tuple[str, ...]`): names of several questions about the same things (SummEval's dimensions), if there
            are some. The id of a record then ends with a slash and the name of its question, and judges are also
            scored for each question alone.
        questions (`Mapping[str, JudgmentTask]`): for each question a task with this question alone, see `choose`.
        undecided (`str`): why one judge cannot answer all of the questions, as a clause; such a task has no labels,
            and a question has to be chosen.
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
    official_split: bool = False
    options: type[TaskOptions] = TaskOptions
    optional_fields: frozenset[str] = frozenset()
    answers: Mapping[str, str] | None = None
    parts: tuple[str, ...] = ()
    questions: Mapping[str, JudgmentTask] = field(default_factory=dict)
    undecided: str = ""
    family: str = ""

    def choose(self, question: str | None) -> JudgmentTask:
        """The task of one question of several (`--question`); without a question all of them together.

        Raises:
            [`UserInputError`]: there is no such question, or one judge cannot answer all of them.
        """
        if question is None:
            if self.undecided:
                raise UserInputError(
                    f"{self.name}: {self.undecided}, so one judge cannot answer both. Choose one with --question:"
                    f" {listing(self.questions, 'or')}."
                )
            return self
        if question in self.questions:
            return self.questions[question]
        if self.parts == (question,):  # it has been chosen
            return self
        if not self.questions:
            raise UserInputError(f"--question {question}: the task {self.name!r} has no questions to choose from.")
        close = nearest(question, self.questions)
        raise UserInputError(
            f"--question {question}: the task {self.name!r} has no such question."
            f"{f' Did you mean {close}?' if close else ''} Questions: {listing(self.questions)}."
        )

    def is_called(self, name: str | None) -> bool:
        """Whether this is the name of the task, of one of its questions, or of the task whose question this is."""
        known = {self.name, self.family, *(task.name for task in self.questions.values())}
        return bool(name) and name in known

    def part_of(self, record_id: str) -> str:
        """The question that a record asks, by its id; "" if the task has a single one."""
        name = record_id.removesuffix(SWAPPED).rpartition("/")[2]
        return name if name in self.parts else ""

    def label_space(self) -> LabelSpace:
        """A fresh, unbound label space of this task."""
        return LabelSpace(self.labels, self.synonyms, self.ordinal, self.answers)

    def read_template(self, path: str | Path) -> PromptTemplate:
        """The template of a file, with this task's legend.

        Raises:
            [`UserInputError`]: as [`PromptTemplate.from_file`].
        """
        return PromptTemplate.from_file(path).with_legend(self.label_space().legend)

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
            [`JudgmentDataError`]: malformed data; the message names file, row and field.
            [`UserInputError`]: no such file, no network, options out of range.
        """
        options = options if options is not None else self.options()
        report = report if report is not None else LoadReport()
        items = self.draw(self.items(data_path, options, report=report), options, report=report)
        return self.records(items, options, template=template, fitter=fitter, report=report)

    # The steps of `load`. Each returns a stream; a caller that needs items twice makes a list.

    def items(self, data_path: str | Path | None, options: TaskOptions, *, report: LoadReport) -> Iterator[Item]:
        """Items with all their votes. Items with too few annotators are left out, and at most `max_items` are
        returned.
        """
        if (chosen := self.choose(getattr(options, "question", None))) is not self:
            yield from chosen.items(data_path, options, report=report)
            return
        kept = self._checked(self._source(data_path, options, report))
        limit = options.max_items
        if limit is None:
            yield from kept
            return
        items = list(kept)
        order = sorted(range(len(items)), key=lambda i: stable_key(options.draw_seed, items[i].id))
        if len(items) > limit:
            report.excluded[f"not among the {limit:,} drawn"] += len(items) - limit
        for i in sorted(order[:limit]):
            yield items[i]

    def inputs(self, data_path: str | Path | None, options: TaskOptions, *, report: LoadReport) -> Iterator[Item]:
        """All items in the order of their files, with votes or without: what a judge is to answer."""
        yield from self._checked(self._source(data_path, options, report), need_votes=False)

    def draw(self, items: Iterable[Item], options: TaskOptions, *, report: LoadReport) -> Iterator[Item]:
        """Items with at most `max_annotators` of their votes and a reference label (eq. 3). The report counts items
        that the rule for tied majorities leaves out.
        """
        limit = options.max_annotators
        for item in items:
            counts = item.counts
            if limit is not None and item.num_annotators > limit:
                if item.ballots is not None:
                    ballots = draw_ballots(item.ballots, limit, item_id=item.id, seed=options.draw_seed)
                    item, counts = item._replace(ballots=tuple(ballots)), share_counts(ballots, len(counts))
                else:
                    counts = draw_votes(list(map(int, counts)), limit, item_id=item.id, seed=options.draw_seed)
                report.notes[f"items of which {limit} annotators were drawn"] += 1
            reference = majority_label(counts, options.majority_ties, item_id=item.id, seed=options.draw_seed)
            if options.majority_ties == "first" and item.reference is not None:
                # The source's own label decides a tie.
                reference = item.reference if counts[item.reference] == max(counts) else reference
            if reference is None:
                report.excluded["tied majority"] += 1
            else:
                yield item._replace(counts=counts, reference=reference)

    def records(
        self,
        items: Iterable[Item],
        options: TaskOptions,
        *,
        template: PromptTemplate | None = None,
        fitter: PromptFitter | None = None,
        report: LoadReport,
    ) -> Dataset:
        """Validated records of drawn items, in all forms of each item.

        Raises:
            [`UserInputError`]: a `fitter` is given and most prompts repeat others, or the template
                tests a field that no item has.
            [`JudgmentDataError`]: the template asks several questions in the same words.
        """
        if (chosen := self.choose(getattr(options, "question", None))) is not self:
            return chosen.records(items, options, template=template, fitter=fitter, report=report)
        template = template or self.template
        template.check_shows_something()
        already_shortened = fitter.num_shortened if fitter is not None else 0
        name = report.files[0] if len(report.files) == 1 else self.name
        seen: set[str] = set()
        repeats, asked = Repeats(), Asked()

        def records() -> Iterator[dict[str, Any]]:
            for item in items:
                seen.update(name for name in template.optional_fields if name in item.fields)
                for form in self.expand(item, options) if self.expand is not None else (item,):
                    prompt = self.prompt_of(form, template, fitter)
                    repeats.add(form.fields, prompt)
                    if len(self.parts) > 1:
                        thing = "".join(form.id.rpartition(f"/{form.part}")[::2])
                        asked.add(thing, form.part, form.fields, prompt, source=form.source, row=form.row)
                    yield make_record(
                        id=form.id,
                        group=form.group,
                        prompt=prompt,
                        counts=form.counts,
                        label_space=space,
                        reference=form.reference,
                        split=form.split,
                    )

        space = self.label_space()
        try:
            dataset = build_dataset(records(), space, source=name)
        except NoRecordsError:
            if report.num_read:
                raise UserInputError(
                    f"{name}: all {report.num_read:,} items are left out ({'; '.join(report.excluded)}). Loosen the"
                    " options."
                ) from None
            raise
        unknown = template.optional_fields - seen - self.optional_fields
        if unknown:
            raise UserInputError(
                f"{name}: the prompt template tests the field {min(unknown)!r}, which no item has. Correct the name,"
                " or take it out."
            )
        report.repeats = repeats
        if fitter is not None:  # only a look at the data is no run
            repeats.check(name, template)
        report.num_records = len(dataset)
        if fitter is not None and fitter.num_shortened > already_shortened:
            count = fitter.num_shortened - already_shortened
            report.notes[f"prompts shortened to {fitter.max_length:,} tokens ({fitter.truncation})"] += count
        return dataset

    def prompts(
        self,
        items: Iterable[Item],
        options: TaskOptions,
        *,
        template: PromptTemplate | None = None,
        fitter: PromptFitter | None = None,
    ) -> Iterator[tuple[str, list[dict[str, str]]]]:
        """The prompts of drawn items, in all forms of each item, with the ids of their records."""
        if (chosen := self.choose(getattr(options, "question", None))) is not self:
            yield from chosen.prompts(items, options, template=template, fitter=fitter)
            return
        for item in items:
            for form in self.expand(item, options) if self.expand is not None else (item,):
                yield form.id, self.prompt_of(form, template or self.template, fitter)

    def _find(self, data_path: Path | None) -> list[DataFile]:
        if self.find is not None:
            return self.find(data_path)
        if data_path is not None:
            return find_files(data_path, self.file_patterns)
        return [file for remote in self.remote_files for file in find_files(download(remote), self.file_patterns)]

    def _source(self, data_path: str | Path | None, options: TaskOptions, report: LoadReport) -> Source:
        options.check()
        path = Path(data_path) if data_path is not None else None
        files = self._find(path)
        joined = [other.name for file in files[:1] if file.reading.join for other in file.reading.join.files]
        report.files = [file.name for file in files] + joined
        return Source(files, options, report, path)

    def _checked(self, source: Source, *, need_votes: bool = True) -> Iterator[Item]:
        options, report = source.options, source.report
        seen: set[str] = set()
        for item in self.read_items(source):
            report.num_read += 1
            votes = item.num_annotators
            if need_votes and votes < options.min_annotators:
                report.excluded[f"fewer than {options.min_annotators} annotators"] += 1
                continue
            if need_votes and not votes:
                raise JudgmentDataError(
                    f"no votes on {item.part}" if item.part else "no votes",
                    source=item.source,
                    row=item.row,
                    field="votes",
                    fix="Every item needs at least one annotator; --min_annotators 1 leaves such items out.",
                )
            if item.id in seen:
                raise JudgmentDataError(
                    f"the id {item.id!r} occurs twice",
                    source=item.source,
                    row=item.row,
                    field="id",
                    fix=(
                        "Ids must be unique in a task: remove one of the rows, or number them."
                        + (" If each row is one annotator's, see `votes: rows`." if self.size == "yours" else "")
                    ),
                )
            seen.add(item.id)
            yield item

    @staticmethod
    def prompt_of(item: Item, template: PromptTemplate, fitter: PromptFitter | None) -> list[dict[str, str]]:
        """The prompt of an item, shortened by the fitter if there is one."""
        template = template.of(item.fields)
        if fitter is not None:
            return fitter.fit(template, item.fields, source=item.source, row=item.row)
        return template.render(item.fields, source=item.source, row=item.row)
