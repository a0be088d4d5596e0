"""From the rows of a user's files to items: fields, votes, and rows that belong to one item."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from distjudge_trl.data.paths import ColumnPath, compile_expression, without
from distjudge_trl.data.template import LEGEND, as_column, is_empty
from distjudge_trl.data.values import has_classes, holds_bytes, name_classes, plain_value
from distjudge_trl.errors import JudgmentDataError, UserInputError, first_line
from distjudge_trl.labels.spelling import nfc, spelling
from distjudge_trl.tasks.custom.cells import Place, in_yaml
from distjudge_trl.tasks.custom.schema import FileSource, HubSource, TaskFile
from distjudge_trl.tasks.custom.votes import Ballot, RowVotes, VoteReader
from distjudge_trl.tasks.items import Item, Source


# The key of an item in a .json file that is one object; its default id.
_KEY = "_key"


def _hub_rows(source: HubSource) -> Iterator[tuple[int, dict[str, Any]]]:
    from datasets import load_dataset
    from datasets.exceptions import DatasetsError
    from huggingface_hub.errors import HfHubHTTPError

    try:
        dataset = load_dataset(source.hub, source.config, split=source.split, revision=source.revision)
    except (OSError, ValueError, DatasetsError, HfHubHTTPError) as error:
        raise UserInputError(
            f"The data set {source.hub!r} cannot be loaded: {first_line(error)} Check name, config and split; without"
            " network pass --data_path with a copy of its files."
        ) from None
    features = dataset.features if has_classes(dataset.features) else None
    for number, row in enumerate(dataset, start=1):
        plain = plain_value(row)
        yield number, name_classes(plain, features, source=f"hub:{source.hub}", number=number) if features else plain


def read_items(file: TaskFile, shown: frozenset[str], has_legend: bool, source: Source) -> Iterator[Item]:
    """Items of the source. `shown` are the fields that the prompt uses, `has_legend` says whether it has a legend."""
    reader = _Reader(file, shown, has_legend, source)
    held: list[Item] = []
    for item in reader.grouped() if file.votes.rows is not None else reader.single():
        held.append(item)
        # A path that finds nothing anywhere is the cause of what else is wrong with the items.
        if reader.all_found:
            yield from held
            held.clear()
    reader.check_found()
    yield from held


class _Reader:
    def __init__(self, file: TaskFile, shown: frozenset[str], has_legend: bool, source: Source) -> None:
        self.file, self.shown, self.has_legend, self.source = file, shown, has_legend, source
        self.votes = VoteReader(file)
        self.hidden = [ColumnPath(text) for text in file.votes.columns()]
        self.id = [ColumnPath(text) for text in file.id or ()]
        self.group = [ColumnPath(text) for text in file.group or ()]
        self.skip = compile_expression(file.skip, "skip") if file.skip is not None else None
        self.paths = [*self.votes.paths.values(), *self.id, *self.group]
        self.first: tuple[str, dict[str, Any]] | None = None
        self.num_rows = self.num_kept = 0
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
            if not self.num_kept:
                raise UserInputError(f"{name}: `skip: {self.skip.text}` leaves out all {self.num_rows:,} rows.")
        for path in self.paths:
            if not path.found:
                raise path.nothing_found(row, name, self.num_kept)

    def rows(self) -> Iterator[tuple[str, int, dict[str, Any]]]:
        """Rows that are not skipped, with their columns' names in Unicode NFC."""
        for name, number, row in _rows(self.file, self.source):
            if not all(unicodedata.is_normalized("NFC", str(column)) for column in row):
                row = {nfc(str(column)): value for column, value in row.items()}
            if self.first is None:
                self.first = name, row
                if self.has_legend and LEGEND in row:
                    raise JudgmentDataError(
                        "{{ legend }} in the template is the list of answers, and there is a column of that name",
                        source=name,
                        row=number,
                        field=LEGEND,
                        fix=f"Write {as_column(LEGEND)} for the column.",
                    )
            self.num_rows += 1
            if self.skip is not None and _is_true(self.skip.find(row, name, number), Place(name, number, "skip")):
                self.source.report.notes["rows left out by `skip`"] += 1
                continue
            self.num_kept += 1
            yield name, number, row

    def single(self) -> Iterator[Item]:
        """Items of files with one row per item."""
        files = self.source.files
        prefix = os.path.commonprefix([data_file.name for data_file in files])
        keyed = {data_file.name for data_file in files if data_file.format == "json"}
        for name, number, row in self.rows():
            own = row[_KEY] if name in keyed and _KEY in row else number
            default_id = f"{name[len(prefix) :]}:{own}" if len(files) > 1 else str(own)
            yield self._item(row, self.votes.read(row, name, number), name, number, default_id)

    def grouped(self) -> Iterator[Item]:
        """Items of files with one row per annotator. Rows with the same id are one item, wherever they are."""
        column, annotator = self.file.votes.rows, self.file.votes.annotator
        assert column is not None
        items: dict[str, Item] = {}
        ballots: dict[str, dict[Any, Ballot]] = {}
        for name, number, row in self.rows():
            item_id = _named(self.id, row, name, number)
            if item_id not in items:
                items[item_id] = self._item(row, RowVotes([0] * len(self.votes.space)), name, number)
                ballots[item_id] = {}
            self._check_same(items[item_id], row, name, number)
            # Without a column for annotators, every row is one of its own.
            voter: Any = (name, number)
            if annotator is not None:
                voter = _named([self.votes.paths[annotator]], row, name, number)
            ballot = self.votes.ballot(row, column, name, number)
            if voter in ballots[item_id]:
                ballot = self._second(ballots[item_id][voter], ballot, item_id, voter, name, number)
            elif not ballot:
                self.source.report.notes["rows without a vote left out"] += 1
            ballots[item_id][voter] = ballot
        for item_id, item in items.items():
            votes = self.votes.count(ballots[item_id].values())
            yield item._replace(counts=votes.counts, ballots=votes.ballots)

    def _second(self, first: Ballot, second: Ballot, item_id: str, voter: str, name: str, number: int) -> Ballot:
        """The labels of an annotator from two rows of an item, if the task file allows several."""
        column, annotator = self.file.votes.rows, self.file.votes.annotator
        assert column is not None and annotator is not None
        if self.file.votes.multiple == "error" or set(first) & set(second) or not second:
            several = ", write `multiple: votes` (or `shares`) if annotators may give several labels"
            raise JudgmentDataError(
                f"{voter!r} votes on the item {item_id!r} a second time",
                source=name,
                row=number,
                field=annotator,
                fix=(
                    f"Remove one of the rows{several if first != second else ''}, or drop `votes.annotator` to count"
                    " both."
                ),
            )
        return self.votes.several(first, second, Place(name, number, column))

    def _item(self, row: Mapping[str, Any], votes: RowVotes, name: str, number: int, default_id: str = "") -> Item:
        item_id = _named(self.id, row, name, number) if self.id else default_id
        group = _named(self.group, row, name, number) if self.group else item_id
        return Item(item_id, group, without(row, self.hidden), votes.counts, name, number, ballots=votes.ballots)

    def _check_same(self, item: Item, row: Mapping[str, Any], name: str, number: int) -> None:
        """Rows of one item must agree in the fields that the prompt shows and in the group. Columns of annotators may
        differ.
        """
        fields = without(row, self.hidden)
        differing = [
            column
            for column in sorted(self.shown)
            if (here := fields.get(column)) != (there := item.fields.get(column))
            and not (is_empty(here) and is_empty(there))
        ]
        if not differing and self.group and _named(self.group, row, name, number) != item.group:
            differing = [", ".join(path.text for path in self.group)]
        if differing:
            raise JudgmentDataError(
                f"differs from row {item.row} of the same item {item.id!r}",
                source=name,
                row=number,
                field=differing[0],
                fix="Rows of one item must show the same; correct one, or the id column.",
            )


def _rows(file: TaskFile, source: Source) -> Iterator[tuple[str, int, dict[str, Any]]]:
    if source.files[0].format == "hub":
        assert isinstance(file.source, HubSource)
        for number, row in _hub_rows(file.source):
            yield source.files[0].name, number, row
    else:
        yield from source.rows(delimiter=file.source.delimiter if isinstance(file.source, FileSource) else None)


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
    texts = ["" if is_empty(cell) else str(cell) for cell in cells.values()]
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
