"""The schema of a task's YAML file."""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    model_validator,
)

from distjudge_trl.data.encodings import check_encoding
from distjudge_trl.data.reading import Quoting, Reading
from distjudge_trl.data.values import spelling


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
    """The columns with the votes, in exactly one of five forms."""

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
    separator: Text = Field(";", description="with list: what separates the labels in a text")

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
    """A file, folder or archive. A relative path is relative to the YAML file's folder."""

    path: Text
    files: tuple[Text, ...] = Field(("*",), description="glob patterns of file names, for a folder or an archive")
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] | None = Field(
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

    def reading(self) -> Reading:
        """How its files are read."""
        return Reading(self.delimiter, self.encoding, self.quoting, self.sheet, self.path)


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
    """The content of a task file."""

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
        (), description="texts or numbers that mean a missing vote, besides an empty cell, null and NaN"
    )

    @cached_property
    def codes(self) -> frozenset[str]:
        """The codes in `missing`, in the spelling by which values are compared."""
        return frozenset(map(spelling, self.missing))

    @cached_property
    def count_codes(self) -> frozenset[str]:
        """The codes that can replace a count: 9 may be nine votes, while -1 and `n/a` cannot be a count."""
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
                f"`missing` names {counts[0]}, which may also be a count of `votes: label_columns`: take"
                " it out, or empty the cells in which it means a missing vote"
            )
        return self


def _may_be_count(code: str) -> bool:
    try:
        number = float(code)
    except ValueError:
        return False
    return number >= 0 and number.is_integer()
