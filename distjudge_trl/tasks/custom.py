"""A user's own task without code: a YAML file that says what the labels are and where the votes stand.

The file is checked against the models below (pydantic); docs/data.md has worked examples.
"""

from __future__ import annotations

import ast
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    model_validator,
)

from distjudge_trl.data.files import DataFile, find_files
from distjudge_trl.data.template import PromptTemplate, is_empty
from distjudge_trl.data.values import has_classes, holds_bytes, name_classes, plain_value, spelling
from distjudge_trl.data.votes import votes_to_counts
from distjudge_trl.errors import JudgmentDataError, UserInputError, first_line
from distjudge_trl.labels import LabelSpace
from distjudge_trl.tasks.base import Item, JudgmentTask, Source, TaskOptions
from distjudge_trl.yaml_file import read_yaml


def _code(value: Any) -> Any:
    """A code for a missing vote may be any number."""
    return str(value) if isinstance(value, float) else value


def _text(value: Any) -> Any:
    """Labels may be written as numbers; YAML's booleans are most often unquoted words."""
    if isinstance(value, bool):
        raise ValueError(  # noqa: TRY004 (what pydantic turns into an error of its own)
            f'YAML reads an unquoted yes, no, on or off as {str(value).lower()}: write it in quotes, "Yes"'
        )
    return str(value) if isinstance(value, int) else value


Text = Annotated[str, BeforeValidator(_text), Field(min_length=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Votes(_Strict):
    """Where the votes stand: exactly one of five forms."""

    list_column: Text | None = Field(
        None, alias="list", description="column that holds a list of labels, or a text of them (see separator)"
    )
    counts: Text | None = Field(None, description="column that holds a mapping of labels to counts")
    annotator_columns: tuple[Text, ...] | None = Field(
        None, description="columns that hold one annotator's label each"
    )
    label_columns: dict[Text, Text] | None = Field(
        None, description="mapping of labels to the columns of their counts"
    )
    rows: Text | None = Field(
        None,
        description=(
            "column that holds one annotator's label, with a row an annotator; rows with the same id belong together"
        ),
    )
    annotator: Text | None = Field(
        None, description="with rows: column that names the annotator; voting twice is an error"
    )
    separator: Text = Field(";", description="with list: what stands between the labels of a text")

    @model_validator(mode="after")
    def _exactly_one(self) -> Votes:
        forms = {
            "list": self.list_column,
            "counts": self.counts,
            "annotator_columns": self.annotator_columns,
            "label_columns": self.label_columns,
            "rows": self.rows,
        }
        given = [name for name, value in forms.items() if value]
        if len(given) != 1:
            raise ValueError(f"needs exactly one of {', '.join(forms)}; got {', '.join(given) or 'none of them'}")
        if self.annotator is not None and self.rows is None:
            raise ValueError("`annotator` goes with `rows`")
        return self

    def columns(self) -> set[str]:
        """Names of the columns with votes: the prompt must not show them."""
        named = {self.list_column, self.counts, self.rows, self.annotator, *(self.annotator_columns or ())}
        return {name for name in (*named, *(self.label_columns or {}).values()) if name}


class HubSource(_Strict):
    """A data set on the hub (or a local folder in its layout)."""

    hub: Text
    config: Text | None = None
    split: Text = "train"
    revision: Text | None = None


class FileSource(_Strict):
    """A file, folder or archive; a relative path starts at the YAML file's folder."""

    path: Text
    files: tuple[Text, ...] = Field(("*",), description="glob patterns of file names, for a folder or an archive")
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] | None = Field(
        None, description="of CSV; guessed from the header by default"
    )


class Message(_Strict):
    """One message of the prompt."""

    role: Text
    content: Text


def _as_mapping(value: Any) -> Any:
    return {"path": value} if isinstance(value, str) else value


def _as_messages(value: Any) -> Any:
    return [{"role": "user", "content": value.strip()}] if isinstance(value, str) else value


AnySource = Annotated[
    Annotated[FileSource, Tag("file")] | Annotated[HubSource, Tag("hub")],
    Discriminator(lambda value: "hub" if isinstance(value, dict) and "hub" in value else "file"),
    BeforeValidator(_as_mapping),
]


def _as_columns(value: Any) -> Any:
    return value if isinstance(value, list) else (value,)


Columns = Annotated[tuple[Text, ...], BeforeValidator(_as_columns), Field(min_length=1)]


class TaskFile(_Strict):
    """The whole file."""

    name: Annotated[Text, Field(pattern=r"^[A-Za-z0-9_.-]+$")]
    description: Text = "A task of your own"
    labels: tuple[Text, ...] = Field(min_length=2)
    synonyms: dict[Text, tuple[Text, ...]] = Field(default_factory=dict)
    ordinal: bool = False
    template: Annotated[tuple[Message, ...] | None, BeforeValidator(_as_messages)] = None
    template_file: Text | None = None
    source: AnySource
    votes: Votes
    id: Columns | None = Field(None, description="column, or several together; by default the row's number")
    group: Columns | None = Field(
        None, description="column, or several together, of what must not straddle a split; by default the id"
    )
    missing: tuple[Annotated[Text, BeforeValidator(_code)], ...] = Field(
        (), description="texts or numbers that stand for a missing vote, besides an empty cell, null and NaN"
    )

    @cached_property
    def codes(self) -> frozenset[str]:
        """`missing` in the spelling by which values are compared."""
        return frozenset(map(spelling, self.missing))

    @cached_property
    def count_codes(self) -> frozenset[str]:
        """Those that can stand where a count is expected: 9 there may be nine votes, -1 and `n/a` may not."""
        return frozenset(code for code in self.codes if not _may_be_count(code))

    @model_validator(mode="after")
    def _consistent(self) -> TaskFile:
        if (self.template is None) == (self.template_file is None):
            raise ValueError("needs exactly one of `template` and `template_file`")
        if self.votes.rows is not None and self.id is None:
            raise ValueError("`votes: rows` needs `id`: the column that says which rows belong together")
        counts = sorted(self.codes - self.count_codes)
        if counts and self.votes.label_columns is not None:
            raise ValueError(
                f"`missing` names {counts[0]}, and `votes: label_columns` reads counts, of which that may be one: take"
                " it out, or empty the cells in which it stands for nothing"
            )
        return self


def _may_be_count(code: str) -> bool:
    try:
        number = float(code)
    except ValueError:
        return False
    return number >= 0 and number.is_integer()


def load_task(path: Path) -> JudgmentTask:
    """The task that a YAML file defines.

    Raises:
        [`UserInputError`]: unreadable, no valid YAML, a key that is unknown, missing or of a wrong type (named, with
        what
            was expected), labels that contradict each other, or a template that does not parse.
    """
    content = read_yaml(path)
    try:
        file = TaskFile.model_validate(content)
    except ValidationError as error:
        raise UserInputError(f"{path}: {_explain(error)}") from None
    try:
        template = _template(file, path.parent)
        space = LabelSpace(file.labels, file.synonyms)
        _refuse_codes_of_labels(file)
    except UserInputError as error:
        raise UserInputError(f"{path}: {error}") from None
    shown = template.fields & file.votes.columns()
    if shown:
        raise UserInputError(
            f"{path}: the prompt shows {min(shown)!r}, a column of votes: the judge must not see them."
        )
    if file.votes.label_columns is not None:
        for label in file.votes.label_columns:
            try:
                space.index(label)
            except KeyError as error:
                raise UserInputError(f"{path}: `votes.label_columns`: {error.args[0]}.") from None
    return JudgmentTask(
        name=file.name,
        description=file.description,
        labels=file.labels,
        synonyms=dict(file.synonyms),
        ordinal=file.ordinal,
        template=template,
        read_items=partial(_read_items, file, template.fields),
        find=partial(_find, file, path.parent),
        options=TaskOptions,
        size="yours",
    )


def _refuse_codes_of_labels(file: TaskFile) -> None:
    """A code that means a label, too, under any spelling of either, would take votes away from it."""
    for label in file.labels:
        for known in (label, *file.synonyms.get(label, ())):
            for code in file.missing:
                # As votes are compared with codes, and as they are looked up among the labels.
                if spelling(known) == spelling(code) or known.strip().casefold() in (
                    code.strip().casefold(),
                    spelling(code).casefold(),
                ):
                    raise UserInputError(
                        f"`missing`: {code!r} is a code for a missing vote and means the label {label!r}, whose votes"
                        " would be lost. Take it out, or rename the label."
                    )


def _explain(error: ValidationError) -> str:
    """The first finding of pydantic: key, what is wrong, what was expected."""
    details = error.errors(include_url=False)
    first = details[0]
    # A union's tag comes right behind its key.
    location = [part for i, part in enumerate(first["loc"]) if first["loc"][max(i - 1, 0)] != "source" or i == 0]
    keys = ".".join(map(str, location))
    place = f"`{keys}`: " if keys else ""
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        message = f"is no key of a task file; known here are {', '.join(_known_keys(first['loc'][:-1]))}"
    elif first["type"] == "missing":
        message = "is missing"
    elif first["type"].endswith("_type"):
        message = f"{message[0].lower()}{message[1:]}, got {first['input']!r}"
    return f"{place}{message}."


def _known_keys(place: tuple[int | str, ...]) -> list[str]:
    models: dict[str, type[BaseModel]] = {"votes": Votes, "file": FileSource, "hub": HubSource, "template": Message}
    model: type[BaseModel] = TaskFile
    for part in place:
        model = models.get(str(part), model)
    return [info.alias or name for name, info in model.model_fields.items()]


def _template(file: TaskFile, folder: Path) -> PromptTemplate:
    if file.template_file is not None:
        return PromptTemplate.from_file(folder / file.template_file)
    assert file.template is not None
    return PromptTemplate([message.model_dump() for message in file.template])


# Reading


def _find(file: TaskFile, folder: Path, data_path: Path | None) -> list[DataFile]:
    """Files of the source, or of `data_path` in its place."""
    source = file.source
    patterns = source.files if isinstance(source, FileSource) else ("*",)
    if data_path is not None:
        return find_files(data_path, patterns)
    if isinstance(source, HubSource):
        # Rows come from the hub's own library; the "file" only carries the name.
        return [DataFile(f"hub:{source.hub}", source.hub, "hub", lambda: None)]
    return find_files(folder / source.path, patterns)


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


def _read_items(file: TaskFile, shown: frozenset[str], source: Source) -> Iterator[Item]:
    """Items of the source; `shown` are the fields that the prompt uses."""
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
    """Text of a column, or of several together, of which some may be empty."""
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
    # Empty parts stay, so that (x, nothing) and (nothing, x) are two names.
    return " / ".join(texts)


def _cell(column: str, row: Mapping[str, Any], name: str, number: int) -> Any:
    if column not in row:
        raise JudgmentDataError(
            "is missing", source=name, row=number, field=column, fix=f"The row has: {', '.join(map(str, row))}."
        )
    return row[column]


def _is_missing(file: TaskFile, value: Any) -> bool:
    """Whether a vote is an empty cell, or a value of which the file says that it stands for one, however spelled."""
    return is_empty(value) or (bool(file.codes) and spelling(value) in file.codes)


def _is_count_code(file: TaskFile, value: Any) -> bool:
    """Whether a code for a missing vote stands in the place of a count."""
    return bool(file.count_codes) and spelling(value) in file.count_codes


def _counts_of_row(file: TaskFile, space: LabelSpace, row: Mapping[str, Any], name: str, number: int) -> list[int]:
    """Votes per label of a row that holds all of its item's votes; missing ones count nothing."""
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
        # Parquet and the hub fill the labels that nobody chose with null. A code among the labels counts the votes
        # that are missing.
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
    """A cell of CSV may hold a list or mapping as JSON or Python text."""
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
                f"{cell!r} is no count", source=name, row=number, field=column, fix="Correct the cell."
            ) from None
    return cell


def _grouped_rows(file: TaskFile, shown: frozenset[str], source: Source, space: LabelSpace) -> Iterator[Item]:
    """One row an annotator: rows with the same id are one item, wherever they stand."""
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
    """Rows of one item must agree in what the prompt shows and in the group; annotators' own columns may differ."""
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
