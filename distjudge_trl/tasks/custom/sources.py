"""The keys `source` and `split` of a task file: where the rows are, and which part of a split each belongs to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag, model_validator

from distjudge_trl.data.encodings import check_encoding
from distjudge_trl.data.joining import Join
from distjudge_trl.data.paths import ColumnPath
from distjudge_trl.data.reading import Quoting, Reading, check_delimiter
from distjudge_trl.data.source_files import find_files
from distjudge_trl.data.splits import OFFICIAL_PARTS
from distjudge_trl.errors import listing
from distjudge_trl.labels.spelling import comparison_key
from distjudge_trl.tasks.custom.base import Columns, RawText, Strict, Text


def _check_several(named: Mapping[str, Any], key: str, instead: str) -> None:
    """Raise if fewer than two parts are named: there is nothing to split."""
    if len(named) < 2:
        got = f"only `{next(iter(named))}` is" if named else "none is"
        raise ValueError(f"`{key}` names two or three of {listing(OFFICIAL_PARTS, 'and')}; {got} named{instead}")


class HubSplits(Strict):
    """The names that a data set on the hub has for the parts of its split."""

    train: Text | None = None
    validation: Text | None = None
    test: Text | None = None

    @model_validator(mode="after")
    def _several(self) -> HubSplits:
        _check_several(self.named, "splits", ". For a single one write `split: NAME`")
        # A slice (`train[:10%]`) is a piece of its split.
        names = [name.split("[")[0] for name in self.named.values()]
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"`splits` uses {twice[0]!r} for two parts: a judge would be tested on what it has seen")
        return self

    @property
    def named(self) -> dict[str, str]:
        """Part to split of the hub."""
        return {part: name for part in OFFICIAL_PARTS if (name := getattr(self, part)) is not None}


def _part_mapping(value: Any) -> Any:
    if isinstance(value, str):
        raise ValueError(  # noqa: TRY004 (what pydantic turns into an error of its own)
            f"must map parts to splits, as {{train: train, test: test}}; for one split write `split: {value}`"
        )
    return value


class HubSource(Strict):
    """A data set on the hub (or a local folder in its layout)."""

    hub: Text
    config: Text | None = None
    split: Text | None = Field(None, description="the split to read, `train` by default")
    splits: Annotated[HubSplits | None, BeforeValidator(_part_mapping)] = Field(
        None, description="part (train, validation, test) to split of the hub"
    )
    revision: Text | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> HubSource:
        if self.split is not None and self.splits is not None:
            raise ValueError("give `split` (one split is read) or `splits` (a split for each part), not both")
        return self

    @property
    def parts(self) -> dict[str, str]:
        """Part to split of the hub. The part is "" if the source names none."""
        return self.splits.named if self.splits is not None else {"": self.split or "train"}


def _expression(text: str) -> str:
    if problem := ColumnPath(text).problem:
        raise ValueError(f"{text!r} is no JMESPath expression ({problem})")
    return text


class FileSource(Strict):
    """A file, folder or archive. A relative path is relative to the YAML file's folder."""

    path: RawText
    files: tuple[RawText, ...] = Field(("*",), description="glob patterns of file names, for a folder or an archive")
    delimiter: Annotated[str, BeforeValidator(check_delimiter)] | None = Field(
        None, description="of CSV; guessed from the first rows by default"
    )
    encoding: Annotated[Text, AfterValidator(check_encoding)] | None = Field(
        None, description="of text files, such as cp1252; by default UTF-8, and UTF-16 where the file says so"
    )
    quoting: Quoting = Field(
        "auto",
        description="of CSV: 'standard' (quote marks enclose cells), 'none' (they belong to the texts) or 'auto'",
    )
    sheet: Text | None = Field(None, description="of an Excel workbook; by default its only sheet")
    header: Annotated[int, Field(ge=1)] | None = Field(
        None, description="of a table: the row with the names of the columns, by default the first that is not empty"
    )
    items: Annotated[Text, AfterValidator(_expression)] | None = Field(
        None, description="path to the list of items in each object of the file, such as `data`"
    )

    def reading(self, folder: Path) -> Reading:
        """How its files are read. `folder` is that of the YAML file."""
        return Reading(
            self.delimiter,
            self.encoding,
            self.quoting,
            self.sheet,
            self.header,
            self.items,
            self._join(folder),
            written=self.path,
        )

    def _join(self, folder: Path) -> Join | None:
        return None


def _as_pairs(value: Any) -> Any:
    names = value if isinstance(value, list) else [value]
    return value if isinstance(value, dict) else {name: name for name in names}


class JoinedFile(FileSource):
    """A file with more columns for the rows of a source."""

    by: Annotated[dict[Text, Text], BeforeValidator(_as_pairs), Field(min_length=1)] = Field(
        description="the column, or columns, that both files have; or a mapping of the names here to those there"
    )


class JoiningSource(FileSource):
    """A file, folder or archive, perhaps with columns of another file."""

    join: JoinedFile | None = Field(None, description="another file, whose columns the rows get")

    def _join(self, folder: Path) -> Join | None:
        if self.join is None:
            return None
        found = find_files(folder / self.join.path, self.join.files)
        return Join(tuple(replace(file, reading=self.join.reading(folder)) for file in found), dict(self.join.by))


def _as_mapping(value: Any) -> Any:
    return {"path": value} if isinstance(value, str) else value


_File = Annotated[JoiningSource, BeforeValidator(_as_mapping)]


class PartSources(Strict):
    """Files for each part of a split."""

    train: _File | None = None
    validation: _File | None = None
    test: _File | None = None

    @model_validator(mode="after")
    def _several(self) -> PartSources:
        one = next(iter(self.named.values()), None)
        _check_several(self.named, "source", f". For a single file write `source: {one.path}`" if one else "")
        return self

    @property
    def named(self) -> dict[str, FileSource]:
        """Part to its files."""
        return {part: source for part in OFFICIAL_PARTS if (source := getattr(self, part)) is not None}


def _kind(value: Any) -> str:
    if isinstance(value, HubSource) or (isinstance(value, dict) and "hub" in value):
        return "hub"
    named = isinstance(value, dict) and set(OFFICIAL_PARTS) & set(value) and "path" not in value
    return "parts" if named or isinstance(value, PartSources) else "file"


AnySource = Annotated[
    Annotated[JoiningSource, Tag("file")] | Annotated[HubSource, Tag("hub")] | Annotated[PartSources, Tag("parts")],
    Discriminator(_kind),
    BeforeValidator(_as_mapping),
]


def _is_mapping(value: Any) -> Any:
    if not isinstance(value, dict):
        raise ValueError(  # noqa: TRY004 (what pydantic turns into an error of its own)
            "must be a mapping such as {column: split, train: [train], validation: [dev], test: [test]}, got"
            f" {value!r}"
        )
    return value


class SplitColumn(Strict):
    """The column that says which part of a split a row belongs to, and what it says."""

    column: Text
    train: Columns | None = Field(None, description="value, or values, of training rows")
    validation: Columns | None = None
    test: Columns | None = None
    ignore: Columns = Field((), description="values of rows that are left out")

    @model_validator(mode="after")
    def _consistent(self) -> SplitColumn:
        _check_several(self.named, "split", "")
        seen: dict[str, str] = {}
        for part, values in {**self.named, "ignore": self.ignore}.items():
            for value in values:
                other = seen.setdefault(comparison_key(value), part)
                if other != part:
                    raise ValueError(f"the value {value!r} stands under `{other}` and under `{part}`")
        return self

    @property
    def named(self) -> dict[str, tuple[str, ...]]:
        """Part to the values that mean it."""
        return {part: values for part in OFFICIAL_PARTS if (values := getattr(self, part)) is not None}

    @cached_property
    def part_of(self) -> dict[str, str]:
        """Part, or "ignore", by value, in the form by which values are compared."""
        named = {**self.named, "ignore": self.ignore}
        return {comparison_key(value): part for part, values in named.items() for value in values}


OptionalSplit = Annotated[
    SplitColumn | None, BeforeValidator(lambda value: None if value is None else _is_mapping(value))
]
