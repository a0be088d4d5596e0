"""From the rows of a user's files to items: fields, votes, and rows that belong to one item."""

from __future__ import annotations

import ast
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from distjudge_trl.data.columns import missing_column
from distjudge_trl.data.template import is_empty
from distjudge_trl.data.values import has_classes, holds_bytes, name_classes, plain_value, spelling
from distjudge_trl.data.votes import votes_to_counts
from distjudge_trl.errors import JudgmentDataError, UserInputError, first_line
from distjudge_trl.labels import LabelSpace
from distjudge_trl.tasks.custom.schema import FileSource, HubSource, TaskFile
from distjudge_trl.tasks.items import Item, Source


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


def _rows(file: TaskFile, source: Source) -> Iterator[tuple[str, int, dict[str, Any]]]:
    if source.files[0].format == "hub":
        assert isinstance(file.source, HubSource)
        for number, row in _hub_rows(file.source):
            yield source.files[0].name, number, row
    else:
        yield from source.rows(delimiter=file.source.delimiter if isinstance(file.source, FileSource) else None)


def read_items(file: TaskFile, shown: frozenset[str], source: Source) -> Iterator[Item]:
    """Items of the source. `shown` are the fields that the prompt uses."""
    space = LabelSpace(file.labels, file.synonyms)
    if file.votes.rows is not None:
        yield from _grouped_rows(file, shown, source, space)
        return
    prefix = os.path.commonprefix([data_file.name for data_file in source.files])
    for name, number, row in _rows(file, source):
        default_id = f"{name[len(prefix) :]}:{number}" if len(source.files) > 1 else str(number)
        yield _item(file, row, _counts_of_row(file, space, row, name, number), name, number, default_id)


def _item(
    file: TaskFile, row: Mapping[str, Any], counts: list[int], name: str, number: int, default_id: str = ""
) -> Item:
    item_id = _named(file.id, row, name, number) if file.id is not None else default_id
    group = _named(file.group, row, name, number) if file.group is not None else item_id
    hidden = file.votes.columns()
    fields = {column: value for column, value in row.items() if column not in hidden}
    return Item(item_id, group, fields, counts, name, number)


def _named(columns: tuple[str, ...], row: Mapping[str, Any], name: str, number: int) -> str:
    """Text of a column, or of several columns together, some of which may be empty."""
    cells = [_cell(column, row, name, number) for column in columns]
    for column, cell in zip(columns, cells, strict=True):
        if holds_bytes(cell):
            raise JudgmentDataError(
                "holds bytes, not text", source=name, row=number, field=column, fix="Write the column as text (UTF-8)."
            )
    texts = ["" if is_empty(cell) else str(cell) for cell in cells]
    if not any(texts):
        raise JudgmentDataError(
            f"is {cells[0]!r}", source=name, row=number, field=", ".join(columns), fix="Fill it in."
        )
    # Empty parts are kept, so that (x, nothing) and (nothing, x) are different names.
    return " / ".join(texts)


def _cell(column: str, row: Mapping[str, Any], name: str, number: int) -> Any:
    if column not in row:
        raise JudgmentDataError("is missing", source=name, row=number, field=column, fix=missing_column(column, row))
    return row[column]


def _is_missing(file: TaskFile, value: Any) -> bool:
    """Whether a vote is an empty cell, or any spelling of a value that the task file lists under `missing`."""
    return is_empty(value) or (bool(file.codes) and spelling(value) in file.codes)


def _is_count_code(file: TaskFile, value: Any) -> bool:
    """Whether a count is a code for a missing vote."""
    return bool(file.count_codes) and spelling(value) in file.count_codes


def _counts_of_row(file: TaskFile, space: LabelSpace, row: Mapping[str, Any], name: str, number: int) -> list[int]:
    """Votes per label of a row that holds all of its item's votes. Missing votes are not counted."""
    votes = file.votes

    def count(answers: list[Any] | dict[Any, Any], column: str) -> list[int]:
        return votes_to_counts(answers, space, source=name, row=number, field=column)

    if votes.annotator_columns is not None:
        parts = [
            count([cell], column)
            for column in votes.annotator_columns
            if not _is_missing(file, cell := _cell(column, row, name, number))
        ]
    elif votes.label_columns is not None:
        parts = [
            count({label: _number(cell, column, name, number)}, column)
            for label, column in votes.label_columns.items()
            if not is_empty(cell := _cell(column, row, name, number)) and not _is_count_code(file, cell)
        ]
    elif votes.counts is not None:
        parts = [
            count(_mapping(file, _cell(votes.counts, row, name, number), votes.counts, name, number), votes.counts)
        ]
    else:
        assert votes.list_column is not None
        value = _structure(_cell(votes.list_column, row, name, number))
        if isinstance(value, str):
            value = [part.strip() for part in value.split(votes.separator)]
        answers = value if isinstance(value, list) else [value]
        parts = [count([answer for answer in answers if not _is_missing(file, answer)], votes.list_column)]
    return [sum(column) for column in zip([0] * len(space), *parts, strict=True)]


def _mapping(file: TaskFile, cell: Any, column: str, name: str, number: int) -> dict[Any, Any]:
    value = _structure(cell)
    if isinstance(value, Mapping):
        # Parquet and the hub have null for labels that nobody chose. A code among the labels counts the missing votes.
        return {
            label: count
            for label, count in value.items()
            if count is not None and not _is_missing(file, label) and not _is_count_code(file, count)
        }
    if _is_missing(file, value):
        return {}
    raise JudgmentDataError(
        f"must be a mapping of labels to counts, got {value!r}", source=name, row=number, field=column
    )


def _structure(value: Any) -> Any:
    """A value whose CSV cell holds a list or mapping as JSON or Python text."""
    if isinstance(value, str) and value.strip()[:1] in ("[", "{"):
        for parse in (json.loads, ast.literal_eval):
            try:
                return parse(value)
            except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
                continue
    return value


def _number(cell: Any, column: str, name: str, number: int) -> Any:
    if isinstance(cell, str):
        try:
            return float(cell)
        except ValueError:
            raise JudgmentDataError(
                f"{cell!r} is not a count", source=name, row=number, field=column, fix="Correct the cell."
            ) from None
    return cell


def _grouped_rows(file: TaskFile, shown: frozenset[str], source: Source, space: LabelSpace) -> Iterator[Item]:
    """Items of files with one row per annotator. Rows with the same id are one item, wherever they are."""
    assert file.votes.rows is not None and file.id is not None
    items: dict[str, Item] = {}
    voted: set[tuple[str, str]] = set()
    for name, number, row in _rows(file, source):
        item_id = _named(file.id, row, name, number)
        vote = _cell(file.votes.rows, row, name, number)
        if item_id not in items:
            items[item_id] = _item(file, row, [0] * len(space), name, number)
        _check_same(items[item_id], row, (*shown, *(file.group or ())), name, number)
        if file.votes.annotator is not None:
            annotator = _named((file.votes.annotator,), row, name, number)
            if (item_id, annotator) in voted:
                raise JudgmentDataError(
                    f"{annotator!r} votes on the item {item_id!r} a second time",
                    source=name,
                    row=number,
                    field=file.votes.annotator,
                    fix="Remove one of the rows, or drop `votes.annotator` to count both.",
                )
            voted.add((item_id, annotator))
        if _is_missing(file, vote):
            source.report.notes["rows without a vote left out"] += 1
            continue
        counts = votes_to_counts([vote], space, source=name, row=number, field=file.votes.rows)
        items[item_id] = items[item_id]._replace(
            counts=[a + b for a, b in zip(items[item_id].counts, counts, strict=True)]
        )
    yield from items.values()


def _check_same(item: Item, row: Mapping[str, Any], columns: Iterable[str], name: str, number: int) -> None:
    """Rows of one item must agree in the fields that the prompt shows and in the group. Columns of annotators may
    differ.
    """
    for column in columns:
        here, there = row.get(column), item.fields.get(column)
        if here != there and not (is_empty(here) and is_empty(there)):
            raise JudgmentDataError(
                f"differs from row {item.row} of the same item {item.id!r}",
                source=name,
                row=number,
                field=column,
                fix="Rows of one item must show the same; correct one, or the id column.",
            )
