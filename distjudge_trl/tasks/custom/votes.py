"""Reading the votes of a row, in all forms that a task file can name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from distjudge_trl.data.paths import ColumnPath
from distjudge_trl.data.template import is_empty
from distjudge_trl.data.values import parse_structure
from distjudge_trl.data.votes import share_counts
from distjudge_trl.errors import listing, nearest
from distjudge_trl.labels.spelling import DECIMAL_COMMA, spelling, trimmed
from distjudge_trl.tasks.custom.cells import (
    SEPARATORS,
    Place,
    counted,
    counts_of_shares,
    in_yaml,
    mapping_fix,
    number_of,
    quantity,
    separators_of,
    split,
    unknown_fix,
)
from distjudge_trl.tasks.custom.schema import TaskFile


# The labels that one annotator gave, as indices; empty for a missing vote.
Ballot = tuple[int, ...]


class RowVotes(NamedTuple):
    """The votes of an item: per label, and each annotator's labels if some share one vote among several labels."""

    counts: list[int] | list[float]
    ballots: tuple[Ballot, ...] | None = None


class VoteReader:
    """Reads votes as a task file says. `paths` are the columns that it reads."""

    def __init__(self, file: TaskFile) -> None:
        self.file, self.votes = file, file.votes
        self.space = file.reading_space()
        self.paths = {text: ColumnPath(text) for text in file.votes.columns()}
        if isinstance(file.votes.num_annotators, str):
            self.paths[file.votes.num_annotators] = ColumnPath(file.votes.num_annotators)
        self._spelled = {
            trimmed(known).casefold()
            for label in file.labels
            for known in (label, *file.synonyms.get(label, ()), *file.spellings.get(label, ()))
        }

    def read(self, row: Mapping[str, Any], source: str, number: int) -> RowVotes:
        """The votes of a row that holds all of its item's votes. Missing votes are not counted."""
        votes = self.votes
        if votes.annotator_columns is not None:
            return self.count(self.ballot(row, column, source, number) for column in votes.annotator_columns)
        if votes.label_columns is not None:
            return RowVotes(self._label_columns(row, source, number))
        if votes.counts is not None:
            return RowVotes(self._counts(*self._cell(row, votes.counts, source, number)))
        if votes.shares is not None:
            return RowVotes(self._shares(row, source, number))
        assert votes.list_column is not None
        return self.count(self._list(*self._cell(row, votes.list_column, source, number)))

    def ballot(self, row: Mapping[str, Any], column: str, source: str, number: int) -> Ballot:
        """The labels of one annotator, in a column that holds nothing else."""
        return self._ballot(*self._cell(row, column, source, number))

    def count(self, ballots: Iterable[Ballot]) -> RowVotes:
        """The votes of several annotators together."""
        given = [ballot for ballot in ballots if ballot]
        if self.votes.multiple == "shares" and any(len(ballot) > 1 for ballot in given):
            return RowVotes(share_counts(given, len(self.space)), tuple(given))
        counts = [0] * len(self.space)
        for ballot in given:
            for label in ballot:
                counts[label] += 1
        return RowVotes(counts)

    def several(self, first: Ballot, second: Ballot, place: Place) -> Ballot:
        """The labels of one annotator from two cells."""
        return self._allowed((*first, *second), place)

    def is_missing(self, value: Any) -> bool:
        """Whether a vote is an empty cell, or any spelling of a value that the task file lists under `missing`."""
        return is_empty(value) or (bool(self.file.codes) and spelling(value) in self.file.codes)

    def _cell(self, row: Mapping[str, Any], column: str, source: str, number: int) -> tuple[Any, Place]:
        return self.paths[column].find(row, source, number), Place(source, number, column)

    def _knows(self, value: Any) -> bool:
        try:
            self.space.index(value)
        except KeyError:
            return False
        return True

    def _is_vote(self, text: str) -> bool:
        return self._knows(text) or self.is_missing(text)

    # One annotator

    def _ballot(self, value: Any, place: Place, *, in_list: bool = False) -> Ballot:
        if self.is_missing(value):
            return ()
        if isinstance(value, str):
            if self._knows(value):
                return self._known_text(value, place, alone=False)
            value = parse_structure(value)
        if isinstance(value, Mapping):
            key = "list" if in_list else "rows" if self.votes.rows is not None else "annotator_columns"
            raise place.error(
                f"a vote is a mapping and no label: {_short(value)}",
                mapping_fix(value, place.field, key, self._knows, in_list=in_list),
            )
        if isinstance(value, (list, tuple, set, frozenset)):
            entries = [entry for entry in value if not self.is_missing(entry)]
            if any(isinstance(entry, (list, tuple, set, Mapping)) for entry in entries):
                raise place.error(
                    f"a vote is a list with parts of parts: {_short(value)}",
                    mapping_fix(list(value), place.field, "list", self._knows, in_list=in_list),
                )
            return self._allowed(tuple(self._index(entry, place) for entry in entries), place)
        if isinstance(value, str):
            parts = separators_of(value, self._is_vote)
            if parts:
                labels = [part for part in next(iter(parts.values())) if not self.is_missing(part)]
                return self._allowed(tuple(map(self.space.index, labels)), place, value)
        return (self._index(value, place),)

    def _known_text(self, text: str, place: Place, *, alone: bool) -> Ballot:
        """The label that a text means. A text such as "1,0" may be a number with a decimal comma, or two labels;
        `alone` says that it may also be the votes of two annotators.
        """
        index = self.space.index(text)
        comma = DECIMAL_COMMA.fullmatch(trimmed(text))
        if comma is None or trimmed(text).casefold() in self._spelled or not self._is_vote(comma[2]):
            return (index,)
        if not self._is_vote(comma[1]):
            return (index,)
        if self.votes.multiple != "error" and not alone:
            return self._allowed((self.space.index(comma[1]), self.space.index(comma[2])), place, text)
        if not alone and set(comma[2]) != {"0"}:
            return (index,)
        label = self.space.labels[index]
        two = 'write `separator: ","`' if alone else "write `multiple: votes` or `multiple: shares`"
        raise place.error(
            f"{text!r} may be two labels, or the number {spelling(text)} with a decimal comma",
            f"For two labels {two}; for the number `spellings: {{{in_yaml(label)}: [{in_yaml(trimmed(text))}]}}`.",
        )

    def _allowed(self, labels: Ballot, place: Place, value: Any = None) -> Ballot:
        """The labels of one annotator, if the task file allows as many."""
        if len(set(labels)) < len(labels):
            twice = next(label for label in labels if labels.count(label) > 1)
            raise place.error(
                f"one annotator gives the label {self.space.labels[twice]!r} twice",
                "Correct the row. If these are the votes of several annotators, read them with `votes: {list: ...}`.",
            )
        if len(labels) > 1 and self.votes.multiple == "error":
            shown = repr(value) if value is not None else listing(self.space.labels[label] for label in labels)
            raise place.error(
                f"one annotator gives {quantity(len(labels))} labels: {shown}",
                "In `votes` write `multiple: votes` (a vote for each), or `multiple: shares` (one vote, divided among"
                " them).",
            )
        return labels

    def _index(self, value: Any, place: Place) -> int:
        try:
            return self.space.index(value)
        except KeyError as error:
            if isinstance(value, bytes):
                raise place.error("holds bytes, not text", "Write the column as text (UTF-8).") from None
            close = nearest(str(value), self.space.labels)
            raise place.error(str(error.args[0]), unknown_fix(value, self.space.labels, close)) from None

    # All annotators

    def _list(self, value: Any, place: Place) -> list[Ballot]:
        if isinstance(value, str) and not self._knows(value):
            value = parse_structure(value)
        if isinstance(value, (set, frozenset)):
            raise place.error("is a set, in which equal votes are lost", "Write the votes as a list.")
        if isinstance(value, Mapping):
            if value and all(self._knows(name) for name in value) and not any(map(_is_boolean, value.values())):
                raise place.error(
                    f"maps labels to numbers: {_short(value)}",
                    f"For counts write `votes: {{counts: {place.field}}}`; if the names are annotators, write"
                    f' `votes: {{list: "values({place.field})"}}`.',
                )
            value = list(value.values())
        if isinstance(value, (list, tuple)):
            return [self._ballot(entry, place, in_list=True) for entry in value]
        if not isinstance(value, str) or self.is_missing(value):
            return [self._ballot(value, place)]
        if self.votes.separator in value:
            return [self._ballot(part, place) for part in split(value, self.votes.separator)]
        if self._knows(value):
            return [self._known_text(value, place, alone=True)]
        found = separators_of(value, self._is_vote)
        if not found:
            return [self._ballot(value, place)]
        separator, parts = next(iter(found.items()))
        labels = tuple(self.space.index(part) for part in parts if not self.is_missing(part))
        if self.votes.multiple != "error" and len(set(labels)) == len(labels):
            return [labels]
        one = "" if len(set(labels)) < len(labels) else " If one annotator gave them all, see `multiple`."
        raise place.error(
            f"{value!r} looks like {quantity(len(parts))} votes with {SEPARATORS[separator]}",
            f"In `votes` write `separator: {in_yaml(separator)}`.{one}",
        )

    def _label_columns(self, row: Mapping[str, Any], source: str, number: int) -> list[int]:
        counts = [0] * len(self.space)
        for label, columns in (self.votes.label_columns or {}).items():
            for column in columns:
                cell, place = self._cell(row, column, source, number)
                if not is_empty(cell) and not self._is_count_code(cell):
                    counts[self.space.index(label)] += counted(number_of(cell, place), label, place)
        return counts

    def _is_count_code(self, value: Any) -> bool:
        """Whether a count is a code for a missing vote."""
        return bool(self.file.count_codes) and spelling(value) in self.file.count_codes

    def _counts(self, cell: Any, place: Place) -> list[int]:
        counts = [0] * len(self.space)
        value = parse_structure(cell)
        if not isinstance(value, Mapping):
            if self.is_missing(value):
                return counts
            fix = None
            if isinstance(value, (list, tuple)) and value and all(self._knows(entry) for entry in value):
                fix = f"For a list of labels write `votes: {{list: {place.field}}}`."
            raise place.error(f"must be a mapping of labels to counts, got {_short(value)}", fix)
        if value and not any(map(self._is_vote, value)) and all(self._is_vote(vote) for vote in value.values()):
            raise place.error(
                f"maps annotators to labels, not labels to counts: {_short(value)}",
                f"Write `votes: {{list: {place.field}}}`.",
            )
        for label, count in value.items():
            # Parquet and the hub have null for labels that nobody chose. A code among the labels counts the missing
            # votes.
            if count is not None and not self.is_missing(label) and not self._is_count_code(count):
                number = number_of(count, place) if isinstance(count, str) else count
                counts[self._index(label, place)] += counted(number, label, place, shares=True)
        return counts

    def _shares(self, row: Mapping[str, Any], source: str, number: int) -> list[int]:
        assert self.votes.shares is not None and self.votes.num_annotators is not None
        cell, place = self._cell(row, self.votes.shares, source, number)
        annotators: Any = self.votes.num_annotators
        if isinstance(annotators, str):
            found, at = self._cell(row, annotators, source, number)
            annotators = 0 if is_empty(found) else counted(number_of(found, at), "annotators", at)
        value = parse_structure(cell)
        if self.is_missing(value) or not annotators:
            return [0] * len(self.space)
        if isinstance(value, (list, tuple)) and len(value) == len(self.space):
            value = dict(zip(self.space.labels, value, strict=True))
        if not isinstance(value, Mapping):
            raise place.error(
                f"must be a mapping of labels to shares, or a list of {len(self.space)} shares, got {_short(value)}"
            )
        counts = [0] * len(self.space)
        for label, count in counts_of_shares(value, annotators, place).items():
            counts[self._index(label, place)] += count
        return counts


def _is_boolean(value: Any) -> bool:
    return isinstance(value, bool)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
