"""From the rows of a user's files to items: fields, votes, and rows that belong to one item. The module is a little
long because one reader does all of it, in one pass over the rows.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from distjudge_trl.data.json_rows import Key
from distjudge_trl.data.paths import ColumnPath, compile_expression, without
from distjudge_trl.data.question_template import ASKED, QUESTION
from distjudge_trl.data.reading import KEY_COLUMN
from distjudge_trl.data.source_files import DataFile
from distjudge_trl.data.template import LEGEND, as_column, is_empty
from distjudge_trl.data.values import holds_bytes
from distjudge_trl.errors import JudgmentDataError, UserInputError
from distjudge_trl.labels.spelling import nfc, spelling
from distjudge_trl.tasks.custom.cells import Place, in_yaml
from distjudge_trl.tasks.custom.finding import IGNORED, PartReader, read_rows
from distjudge_trl.tasks.custom.schema import TaskFile
from distjudge_trl.tasks.custom.votes import Ballot, RowVotes, VoteReader
from distjudge_trl.tasks.items import Item, Source


class Shown(NamedTuple):
    """What the prompts show: `fields`, whether there is a `legend` among them, and whether several questions have the
    same template (`shared`), which has to show the question's name. `hidden` are columns of votes on other questions.
    """

    fields: frozenset[str]
    legend: bool = False
    shared: bool = False
    hidden: tuple[str, ...] = ()


def read_items(files: Mapping[str, TaskFile], shown: Shown, source: Source) -> Iterator[Item]:
    """Items of the source.

    Args:
        files (`Mapping[str, TaskFile]`): the task file, under the name ""; of several questions one each, by their
            names, which differ in what a question may say.
        shown ([`Shown`]): what the prompts show.
        source (`Source`): the files that were found.
    """
    reader = _Reader(files, shown, source)
    held: list[Item] = []
    for item in reader.grouped() if reader.file.votes.by_row else reader.single():
        held.append(item)
        # A path that finds nothing anywhere is the cause of what else is wrong with the items. The ids of several
        # parts are compared when all of them are known.
        if reader.all_found and not reader.has_part_files:
            yield from held
            held.clear()
    reader.check_found()
    yield from _unique_over_parts(held, reader) if reader.has_part_files else held


def _unique_over_parts(items: list[Item], reader: _Reader) -> Iterator[Item]:
    """Items in which an id that several parts of a split have is prefixed with the part.

    Raises:
        [`JudgmentDataError`]: two parts have the same item: the judge would be tested on what it was trained on.
    """
    parts: dict[str, set[str]] = {}
    first: dict[str, Item] = {}
    for item in items:
        parts.setdefault(item.id, set()).add(item.split)
        other = first.setdefault(item.id, item)
        shows = reader.shown.fields
        if other.split != item.split and all(other.fields.get(name) == item.fields.get(name) for name in shows):
            raise JudgmentDataError(
                f"the item {item.id!r} of the part `{item.split}` is in `{other.split}`, too (row {other.row} of"
                f" {other.source})",
                source=item.source,
                row=item.row,
                field="id",
                fix="Remove it from one of them: a judge would be tested on what it has seen.",
            )
    for item in items:
        if len(parts[item.id]) > 1:
            note = f"ids that are in several parts of the split, prefixed with the part ({item.split}:ID)"
            reader.source.report.notes[note] += 1
            group = item.group if reader.group else f"{item.split}:{item.group}"
            item = item._replace(id=f"{item.split}:{item.id}", group=group)
        yield item


class _Reader:
    def __init__(self, files: Mapping[str, TaskFile], shown: Shown, source: Source) -> None:
        self.shown, self.source = shown, source
        self.file = file = next(iter(files.values()))  # in all but the votes they agree
        self.votes = {question: VoteReader(own) for question, own in files.items()}
        texts = {text for own in files.values() for text in own.votes.columns()}
        self.hidden = [ColumnPath(text) for text in sorted({*texts, *shown.hidden})]
        self.id = [ColumnPath(text) for text in file.id or ()]
        self.group = [ColumnPath(text) for text in file.group or ()]
        self.skip = compile_expression(file.skip, "skip") if file.skip is not None else None
        self.parts = PartReader(file, source)
        self.has_part_files = any(data_file.role for data_file in source.files)
        votes = [path for reader in self.votes.values() for path in reader.paths.values()]
        self.paths = [*votes, *self.id, *self.group, *self.parts.paths]
        self.first: tuple[str, dict[str, Any]] | None = None
        self.num_rows = self.num_kept = 0
        self.has_column_asked = False
        self._all_found = False

    @property
    def all_found(self) -> bool:
        """Whether every path has found something in some row so far."""
        self._all_found = self._all_found or (
            all(path.found for path in self.paths) and (self.skip is None or self.skip.columns_found)
        )
        return self._all_found

    def check_found(self) -> None:
        """Raise [`UserInputError`] if a path finds nothing in any row, or `skip` leaves out all of them."""
        if self.first is None:
            return
        name, row = self.first
        if self.skip is not None:
            if not self.skip.columns_found:
                raise self.skip.nothing_found(row, name, self.num_rows)
            self.source.report.notes["rows left out by `skip`"] += 0  # none is worth knowing, too
            if not self.num_kept:
                raise UserInputError(f"{name}: `skip: {self.skip.text}` leaves out all {self.num_rows:,} rows.")
        for path in self.paths:
            if not path.found:
                raise path.nothing_found(row, name, self.num_kept)
        others = len(self.source.files) - 1
        self.parts.check_parts(f"{self.source.files[0].name}{f' and {others} more' if others else ''}")

    def rows(self) -> Iterator[tuple[DataFile, int, dict[str, Any], str]]:
        """Rows that are not left out, with their columns' names in Unicode NFC, and the part that each belongs to."""
        for data_file, number, row in read_rows(self.file, self.source):
            name = data_file.name
            if not all(unicodedata.is_normalized("NFC", str(column)) for column in row):
                row = {nfc(str(column)): value for column, value in row.items()}
            if self.first is None:
                self.first, self.has_column_asked = (name, row), ASKED in row
                self._check_names(row, name, number)
            self.num_rows += 1
            if self.skip is not None and _is_true(self.skip.find(row, name, number), Place(name, number, "skip")):
                self.source.report.notes["rows left out by `skip`"] += 1
                continue
            part = self.parts.part(row, data_file, number)
            if part == IGNORED:
                self.source.report.notes["rows left out by `split: ignore`"] += 1
                continue
            self.num_kept += 1
            yield data_file, number, row, part

    def _check_names(self, row: Mapping[str, Any], name: str, number: int) -> None:
        """Refuse columns with the names of what a template may show besides columns."""
        if self.shown.legend and LEGEND in row:
            raise JudgmentDataError(
                "{{ legend }} in the template is the list of answers, and there is a column of that name",
                source=name,
                row=number,
                field=LEGEND,
                fix=f"Write {as_column(LEGEND)} for the column.",
            )
        if "" not in self.votes and QUESTION in row:
            raise JudgmentDataError(
                "is the name of the question in a template, and there is a column of that name",
                source=name,
                row=number,
                field=QUESTION,
                fix="Rename the column.",
            )
        if self.shown.shared and ASKED in row and QUESTION not in self.shown.fields:
            raise JudgmentDataError(
                "{{ question }} in the template is this column, and so all questions have the same prompts",
                source=name,
                row=number,
                field=ASKED,
                fix=f"Write {{{{ {QUESTION} }}}} for the name of the question, or give each question a `template`.",
            )

    def single(self) -> Iterator[Item]:
        """Items of files with one row per item."""
        names: dict[str, list[str]] = {}
        for data_file in self.source.files:
            names.setdefault(data_file.role, []).append(data_file.name)
        prefixes = {role: len(os.path.commonprefix(own)) for role, own in names.items()}
        for data_file, number, row, part in self.rows():
            name, role = data_file.name, data_file.role
            own = row[KEY_COLUMN] if isinstance(row.get(KEY_COLUMN), Key) else number
            default_id = f"{name[prefixes[role] :]}:{own}" if len(names[role]) > 1 else str(own)
            base = self._item(row, name, number, part, f"{role}:{default_id}" if role else default_id)
            for question, reader in self.votes.items():
                yield self._asking(base, question, reader.read(row, name, number))

    def grouped(self) -> Iterator[Item]:
        """Items of files with one row per annotator. Rows with the same id are one item, wherever they are in a part
        of the split.
        """
        items: dict[tuple[str, str], Item] = {}
        ballots: dict[tuple[str, str], dict[str, dict[Any, Ballot]]] = {}
        for data_file, number, row, part in self.rows():
            name = data_file.name
            key = data_file.role, _named(self.id, row, name, number)
            if key not in items:
                items[key] = self._item(row, name, number, part)
                ballots[key] = {question: {} for question in self.votes}
            self._check_same(items[key], row, name, number, part)
            for question in self.votes:
                self._add_ballot(ballots[key][question], question, row, key[1], name, number)
        for key, item in items.items():
            for question, reader in self.votes.items():
                yield self._asking(item, question, reader.count(ballots[key][question].values()))

    def _add_ballot(
        self, ballots: dict[Any, Ballot], question: str, row: Mapping[str, Any], item_id: str, name: str, number: int
    ) -> None:
        """Add the labels of a row's annotator to those of the others."""
        reader = self.votes[question]
        annotator = reader.votes.annotator
        # Without a column for annotators, every row is one of its own.
        voter: Any = (name, number)
        if annotator is not None:
            voter = _named([reader.paths[annotator]], row, name, number)
        ballot = reader.row_ballot(row, name, number)
        if ballots.get(voter) and ballot:
            ballot = _second(reader, ballots[voter], ballot, item_id, voter, name, number)
        elif not ballot:
            about = f" on {question}" if question else ""
            self.source.report.notes[f"rows without a vote{about} left out"] += 1
        # A row without a vote takes none away.
        ballots[voter] = ballot or ballots.get(voter, ballot)

    def _item(self, row: Mapping[str, Any], name: str, number: int, part: str, default_id: str = "") -> Item:
        """The item of a row, without votes."""
        item_id = _named(self.id, row, name, number) if self.id else default_id
        group = _named(self.group, row, name, number) if self.group else item_id
        return Item(item_id, group, without(row, self.hidden), [], name, number, split=part)

    def _asking(self, item: Item, question: str, votes: RowVotes) -> Item:
        """The item that asks a question about a row."""
        item = item._replace(counts=votes.counts, ballots=votes.ballots)
        if not question:
            return item
        if ASKED in item.fields and not self.has_column_asked and ASKED in self.shown.fields:
            raise JudgmentDataError(
                "{{ question }} in the template is the name of the question, and this row has a column of that name,"
                " unlike the first row",
                source=item.source,
                row=item.row,
                field=ASKED,
                fix="Rename the column.",
            )
        own = {} if self.has_column_asked else {ASKED: question}
        fields = {**own, **item.fields, QUESTION: question}
        return item._replace(id=f"{item.id}/{question}", fields=fields, part=question)

    def _check_same(self, item: Item, row: Mapping[str, Any], name: str, number: int, part: str) -> None:
        """Rows of one item must agree in the fields that the prompt shows, in the group and in the part of the split.
        Columns of annotators may differ.
        """
        fields = without(row, self.hidden)
        differing = [
            column
            for column in sorted(self.shown.fields)
            if (here := fields.get(column)) != (there := item.fields.get(column))
            and not (is_empty(here) and is_empty(there))
        ]
        if not differing and self.group and _named(self.group, row, name, number) != item.group:
            differing = [", ".join(path.text for path in self.group)]
        if not differing and part != item.split:
            differing = [path.text for path in self.parts.paths]
        if differing:
            raise JudgmentDataError(
                f"differs from row {item.row} of the same item {item.id!r}",
                source=name,
                row=number,
                field=differing[0],
                fix="Rows of one item must show the same; correct one, or the id column.",
            )


def _second(
    reader: VoteReader, first: Ballot, second: Ballot, item_id: str, voter: str, name: str, number: int
) -> Ballot:
    """The labels of an annotator from two rows of an item, if the task file allows several."""
    annotator = reader.votes.annotator
    assert annotator is not None
    if reader.votes.multiple == "error" or set(first) & set(second) or not second:
        several = ", write `multiple: votes` (or `shares`) if annotators may give several labels"
        raise JudgmentDataError(
            f"{voter!r} votes on the item {item_id!r} a second time",
            source=name,
            row=number,
            field=annotator,
            fix=(
                f"Remove one of the rows{several if first != second else ''}, or drop `votes.annotator` to count both."
            ),
        )
    return reader.several(first, second, Place(name, number, reader.votes.rows or annotator))


def _named(paths: Iterable[ColumnPath], row: Mapping[str, Any], name: str, number: int) -> str:
    """Text of a column, or of several columns together, some of which may be empty."""
    cells = {path.text: path.find(row, name, number) for path in paths}
    for column, cell in cells.items():
        place = Place(name, number, column)
        if holds_bytes(cell):
            raise place.error("holds bytes, not text", "Write the column as text (UTF-8).")
        if isinstance(cell, (list, Mapping)):
            raise place.error(
                f"must name one thing, got {str(cell)[:60]!r}", f"Name a part of it by a path, such as `{column}.id`."
            )
    # A column of numbers with gaps is one of floats: 1.0 names what 1 names.
    whole = {column: int(cell) for column, cell in cells.items() if isinstance(cell, float) and cell % 1 == 0}
    texts = ["" if is_empty(cell) else str(cell) for cell in {**cells, **whole}.values()]
    if not any(texts):
        place = Place(name, number, ", ".join(cells))
        raise place.error(f"is {next(iter(cells.values()))!r}", "Fill it in.")
    # Empty parts are kept, so that (x, nothing) and (nothing, x) are different names.
    return " / ".join(texts)


def _is_true(value: Any, place: Place) -> bool:
    """Whether `skip` leaves a row out: its value is true, in any spelling of a cell."""
    word = spelling(value).casefold()
    if is_empty(value) or word in ("false", "0"):
        return False
    if word in ("true", "1"):
        return True
    raise place.error(
        f"`skip` must be true or false, got {str(value)[:60]!r}",
        f"Compare: `skip: {in_yaml(f'COLUMN == {value!r}')}`.",
    )
