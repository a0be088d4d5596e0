"""The schema of a task's YAML file."""

from __future__ import annotations

from functools import cached_property
from string import ascii_uppercase
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from distjudge_trl.data.paths import ColumnPath
from distjudge_trl.errors import UserInputError, listing
from distjudge_trl.labels import LabelSpace
from distjudge_trl.labels.spelling import spelling
from distjudge_trl.tasks.custom.base import Columns, RawText, Strict, Text, Word, as_name
from distjudge_trl.tasks.custom.sources import AnySource, HubSource, OptionalSplit, PartSources


def _number_or_column(value: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool) and value < 1:
        raise ValueError(f"must be at least 1, or the name of a column, got {value}")
    if isinstance(value, float):
        raise ValueError(f"must be a whole number, or the name of a column, got {value}")  # noqa: TRY004
    return value if isinstance(value, int) and not isinstance(value, bool) else as_name(value)


class Votes(Strict):
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
    shares: Text | dict[Text, Text] | None = Field(
        None,
        description=(
            "column that holds a mapping of labels to shares, or a list of shares in the labels' order; or a mapping"
            " of labels to columns, in which one label may be left out: it has the rest"
        ),
    )
    annotator: Text | None = Field(
        None,
        description=(
            "with rows, or with label_columns that hold one annotator's marks a row: column that names the annotator;"
            " voting twice is an error"
        ),
    )
    num_annotators: Annotated[int | str | None, BeforeValidator(_number_or_column)] = Field(
        None, description="with shares: number of annotators, or the column that holds it"
    )
    separator: Annotated[str, Field(min_length=1)] = Field(
        ";", description="with list: what separates the labels in a text"
    )
    only: dict[Text, Columns] | None = Field(
        None,
        description=(
            "with list: columns with lists beside that of the votes, and the values for which a vote counts, such as"
            " {tone.status: submitted}"
        ),
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
        if self.annotator is not None and self.rows is None and self.label_columns is None:
            raise ValueError(
                "`annotator` goes with `rows`, or with `label_columns` that hold one annotator's marks a row"
            )
        if self.only is not None and self.list_column is None:
            raise ValueError("`only` goes with `list`; rows are left out by `skip`")
        if (self.num_annotators is not None) != (self.shares is not None):
            raise ValueError(
                "`shares` and `num_annotators` go together: shares alone do not say how many people voted"
            )
        if self.multiple != "error" and given[0] in ("counts", "label_columns", "shares") and not self.by_row:
            raise ValueError(f"`multiple` does not go with `{given[0]}`, which does not say who voted")
        columns = self.columns()
        if twice := [column for column in columns if columns.count(column) > 1]:
            key = given[0] if self.annotator is None else "annotator"
            raise ValueError(f"`{key}` names the column {twice[0]!r} a second time: its votes would count twice")
        for text in columns:
            if () in ColumnPath(text).branches:
                raise ValueError(f"{text!r} reads every column: begin it with the name of one")
        return self

    @property
    def by_row(self) -> bool:
        """Whether a row is one annotator's vote: rows with the same id are one item."""
        return self.rows is not None or (self.label_columns is not None and self.annotator is not None)

    def columns(self) -> list[str]:
        """The columns (or paths) with votes: the prompt must not show them."""
        shares = tuple(self.shares.values()) if isinstance(self.shares, dict) else (self.shares,)
        named = (self.list_column, self.counts, self.rows, self.annotator, *shares, *(self.only or ()))
        several = (self.annotator_columns or (), *(self.label_columns or {}).values())
        return [name for name in (*named, *(name for part in several for name in part)) if name]


class Message(Strict):
    """One message of the prompt."""

    role: RawText
    content: RawText


def _as_messages(value: Any) -> Any:
    return [{"role": "user", "content": value.strip()}] if isinstance(value, str) else value


def _letters_or_mapping(value: Any) -> Any:
    if value not in (None, "letters") and not isinstance(value, dict):
        raise ValueError(f"must be `letters`, or a mapping of labels to words, got {value!r}")
    return value


Name = Annotated[Text, Field(pattern=r"^[A-Za-z0-9_.-]+$")]
_Labels = Annotated[tuple[Word, ...], Field(min_length=2)]
_Synonyms = dict[Text, tuple[Text, ...]]
_Spellings = Annotated[
    dict[Text, tuple[Text, ...]],
    Field(description="label to its spellings in the data, which are no answers of the judge"),
]
_Answers = Annotated[
    dict[Text, Word] | str | None,
    BeforeValidator(_letters_or_mapping),
    Field(description="what the judge answers instead of the labels: A, B, C, ..., or label to word"),
]
_Template = Annotated[tuple[Message, ...] | None, BeforeValidator(_as_messages)]
_Missing = Annotated[
    tuple[Text, ...],
    Field(description="texts or numbers that mean a missing vote, besides an empty cell, null and NaN"),
]
_Id = Annotated[Columns | None, Field(description="column, or several together; by default the row's number")]
_Group = Annotated[
    Columns | None,
    Field(description="column, or several together, of what must not straddle a split; by default the id"),
]
_Skip = Annotated[Text | None, Field(description="JMESPath expression: rows for which it is true are left out")]


class TaskFile(Strict):
    """The content of a task file."""

    name: Name
    description: Text = "A task of your own"
    labels: _Labels
    synonyms: _Synonyms = Field(default_factory=dict)
    spellings: _Spellings = Field(default_factory=dict)
    answers: _Answers = None
    ordinal: bool = False
    template: _Template = None
    template_file: RawText | None = None
    source: AnySource
    votes: Votes
    id: _Id = None
    group: _Group = None
    missing: _Missing = ()
    skip: _Skip = None
    split: OptionalSplit = None

    @property
    def official_split(self) -> bool:
        """Whether the file says which part of a split each row belongs to."""
        return self.split is not None or self._source_names_parts

    @property
    def _source_names_parts(self) -> bool:
        source = self.source
        return isinstance(source, PartSources) or (isinstance(source, HubSource) and source.splits is not None)

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
        if self.votes.by_row and self.id is None:
            form = "rows" if self.votes.rows is not None else "annotator"
            raise ValueError(f"`votes: {form}` needs `id`: the column that says which rows belong together")
        if isinstance(self.votes.shares, dict) and len(self.labels) - len(self.votes.shares) > 1:
            rest = listing([label for label in self.labels if label not in self.votes.shares], "and")
            raise ValueError(f"`votes: shares` names no columns for {rest}; only one label may have the rest")
        if self.answers == "letters" and len(self.labels) > len(ascii_uppercase):
            raise ValueError(f"`answers: letters` has 26 letters, and there are {len(self.labels)} labels")
        if self.split is not None and self._source_names_parts:
            raise ValueError("`source` and `split` both say which part a row belongs to: drop one of them")
        counts = sorted(self.codes - self.count_codes)
        if counts and self.votes.label_columns is not None:
            raise ValueError(
                f"`missing` names {counts[0]}, which may also be a count of `votes: label_columns`: take"
                " it out, or empty the cells in which it means a missing vote"
            )
        return self


class Question(Strict):
    """One of several questions about the same items. What it does not say is taken from the file's top level."""

    labels: _Labels | None = None
    synonyms: _Synonyms | None = None
    spellings: _Spellings | None = None
    answers: _Answers = None
    ordinal: bool | None = None
    template: _Template = None
    template_file: RawText | None = None
    votes: Votes | None = None
    missing: _Missing | None = None


class QuestionsFile(Question):
    """The content of a task file with several questions."""

    name: Name
    description: Text = "A task of your own"
    source: AnySource
    id: _Id = None
    group: _Group = None
    skip: _Skip = None
    split: OptionalSplit = None
    questions: dict[Name, Question] = Field(min_length=1)


def _may_be_count(code: str) -> bool:
    try:
        number = float(code)
    except ValueError:
        return False
    return number >= 0 and number.is_integer()
