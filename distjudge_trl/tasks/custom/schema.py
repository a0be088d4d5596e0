"""The schema of a task's YAML file."""

from __future__ import annotations

from functools import cached_property
from string import ascii_uppercase
from typing import Annotated, Any, Literal

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
from distjudge_trl.data.paths import ColumnPath
from distjudge_trl.data.reading import Quoting, Reading
from distjudge_trl.errors import UserInputError, listing
from distjudge_trl.labels import LabelSpace
from distjudge_trl.labels.spelling import nfc, spelling


def _text(value: Any) -> Any:
    """Labels may be written as numbers; YAML's booleans are most often unquoted words."""
    if isinstance(value, bool):
        raise ValueError(  # noqa: TRY004 (what pydantic turns into an error of its own)
            f"YAML reads an unquoted yes, no, on, off, true or false as the boolean {str(value).lower()}: write it in"
            f' quotes, "Yes" or "{str(value).lower()}"'
        )
    if isinstance(value, (int, float)):
        return spelling(value)
    return value


def _name(value: Any) -> Any:
    """Texts that name something in the data are kept in Unicode NFC."""
    value = _text(value)
    return nfc(value) if isinstance(value, str) else value


RawText = Annotated[str, BeforeValidator(_text), Field(min_length=1)]
Text = Annotated[str, BeforeValidator(_name), Field(min_length=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _as_columns(value: Any) -> Any:
    return value if isinstance(value, list) else (value,)


Columns = Annotated[tuple[Text, ...], BeforeValidator(_as_columns), Field(min_length=1)]


def _number_or_column(value: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool) and value < 1:
        raise ValueError(f"must be at least 1, or the name of a column, got {value}")
    return value if isinstance(value, int) and not isinstance(value, bool) else _name(value)


class Votes(_Strict):
    """Where the votes are, in exactly one of six forms. Every column may be a path."""

    list_column: Text | None = Field(
        None,
        alias="list",
        description="list of labels, mapping of annotators to labels, or a text of labels (see separator)",
    )
    counts: Text | None = Field(None, description="column that holds a mapping of labels to counts")
    annotator_columns: tuple[Text, ...] | None = Field(
        None, description="columns that hold one annotator's label each"
    )
    label_columns: dict[Text, Columns] | None = Field(
        None, description="mapping of labels to the column, or columns, of their counts"
    )
    rows: Text | None = Field(
        None,
        description=(
            "column that holds one annotator's label, with a row an annotator; rows with the same id belong together"
        ),
    )
    shares: Text | None = Field(
        None, description="column that holds a mapping of labels to shares, or a list of shares in the labels' order"
    )
    annotator: Text | None = Field(
        None, description="with rows: column that names the annotator; voting twice is an error"
    )
    num_annotators: Annotated[int | str | None, BeforeValidator(_number_or_column)] = Field(
        None, description="with shares: number of annotators, or the column that holds it"
    )
    separator: Annotated[str, Field(min_length=1)] = Field(
        ";", description="with list: what separates the labels in a text"
    )
    multiple: Literal["error", "votes", "shares"] = Field(
        "error", description="several labels by one annotator: an error, one vote each, or shares of one vote"
    )

    @model_validator(mode="after")
    def _exactly_one(self) -> Votes:
        forms = {
            "list": self.list_column,
            "counts": self.counts,
            "annotator_columns": self.annotator_columns,
            "label_columns": self.label_columns,
            "rows": self.rows,
            "shares": self.shares,
        }
        given = [name for name, value in forms.items() if value]
        if len(given) != 1:
            raise ValueError(f"needs exactly one of {', '.join(forms)}; got {', '.join(given) or 'none of them'}")
        if self.annotator is not None and self.rows is None:
            raise ValueError("`annotator` goes with `rows`")
        if (self.num_annotators is not None) != (self.shares is not None):
            raise ValueError(
                "`shares` and `num_annotators` go together: shares alone do not say how many people voted"
            )
        if self.multiple != "error" and given[0] in ("counts", "label_columns", "shares"):
            raise ValueError(f"`multiple` does not go with `{given[0]}`, which does not say who voted")
        columns = [column for named in (self.label_columns or {}).values() for column in named]
        if twice := [column for column in columns if columns.count(column) > 1]:
            raise ValueError(f"`label_columns` names the column {twice[0]!r} twice")
        for text in self.columns():
            if () in ColumnPath(text).branches:
                raise ValueError(f"{text!r} reads every column: begin it with the name of one")
        return self

    def columns(self) -> list[str]:
        """The columns (or paths) with votes: the prompt must not show them."""
        named = (self.list_column, self.counts, self.rows, self.annotator, self.shares)
        several = (self.annotator_columns or (), *(self.label_columns or {}).values())
        return [name for name in (*named, *(name for part in several for name in part)) if name]


class HubSource(_Strict):
    """A data set on the hub (or a local folder in its layout)."""

    hub: Text
    config: Text | None = None
    split: Text = "train"
    revision: Text | None = None


class FileSource(_Strict):
    """A file, folder or archive. A relative path is relative to the YAML file's folder."""

    path: RawText
    files: tuple[RawText, ...] = Field(("*",), description="glob patterns of file names, for a folder or an archive")
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

    role: RawText
    content: RawText


def _as_mapping(value: Any) -> Any:
    return {"path": value} if isinstance(value, str) else value


def _as_messages(value: Any) -> Any:
    return [{"role": "user", "content": value.strip()}] if isinstance(value, str) else value


AnySource = Annotated[
    Annotated[FileSource, Tag("file")] | Annotated[HubSource, Tag("hub")],
    Discriminator(lambda value: "hub" if isinstance(value, dict) and "hub" in value else "file"),
    BeforeValidator(_as_mapping),
]


def _letters_or_mapping(value: Any) -> Any:
    if value not in (None, "letters") and not isinstance(value, dict):
        raise ValueError(f"must be `letters`, or a mapping of labels to words, got {value!r}")
    return value


class TaskFile(_Strict):
    """The content of a task file."""

    name: Annotated[Text, Field(pattern=r"^[A-Za-z0-9_.-]+$")]
    description: Text = "A task of your own"
    labels: tuple[Text, ...] = Field(min_length=2)
    synonyms: dict[Text, tuple[Text, ...]] = Field(default_factory=dict)
    spellings: dict[Text, tuple[Text, ...]] = Field(
        default_factory=dict, description="label to its spellings in the data, which are no answers of the judge"
    )
    answers: Annotated[dict[Text, Text] | str | None, BeforeValidator(_letters_or_mapping)] = Field(
        None, description="what the judge answers instead of the labels: A, B, C, ..., or label to word"
    )
    ordinal: bool = False
    template: Annotated[tuple[Message, ...] | None, BeforeValidator(_as_messages)] = None
    template_file: RawText | None = None
    source: AnySource
    votes: Votes
    id: Columns | None = Field(None, description="column, or several together; by default the row's number")
    group: Columns | None = Field(
        None, description="column, or several together, of what must not straddle a split; by default the id"
    )
    missing: tuple[Text, ...] = Field(
        (), description="texts or numbers that mean a missing vote, besides an empty cell, null and NaN"
    )

    skip: Text | None = Field(None, description="JMESPath expression: rows for which it is true are left out")

    @cached_property
    def answer_words(self) -> dict[str, str] | None:
        """What the judge answers for each label, if not the label."""
        if isinstance(self.answers, str):
            return dict(zip(self.labels, ascii_uppercase, strict=False))
        return self.answers

    def label_space(self) -> LabelSpace:
        """The labels as the judge answers them."""
        return LabelSpace(self.labels, self.synonyms, self.ordinal, self.answer_words)

    def reading_space(self) -> LabelSpace:
        """The labels with all of their spellings in the data."""
        if unknown := [label for label in self.spellings if label not in self.labels]:
            raise UserInputError(f"`spellings`: {unknown[0]!r} is not a label. Labels: {listing(self.labels)}.")
        known = {label: (*self.synonyms.get(label, ()), *self.spellings.get(label, ())) for label in self.labels}
        return LabelSpace(self.labels, known)

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
        if self.answers == "letters" and len(self.labels) > len(ascii_uppercase):
            raise ValueError(f"`answers: letters` has 26 letters, and there are {len(self.labels)} labels")
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
