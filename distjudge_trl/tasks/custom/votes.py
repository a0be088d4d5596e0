"""Reading the votes of a row, in all forms that a task file can name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from distjudge_trl.data.values import parse_structure
from distjudge_trl.data.votes import share_counts
from distjudge_trl.errors import listing, short
from distjudge_trl.labels.spelling import DECIMAL_COMMA, comparison_key, spelling, trimmed
from distjudge_trl.tasks.custom.cells import (
    SEPARATORS,
    Place,
    in_yaml,
    mapping_fix,
    quantity,
    separators_of,
    split,
)
from distjudge_trl.tasks.custom.schema import TaskFile
from distjudge_trl.tasks.custom.totals import TotalsReader


# The labels that one annotator gave, as indices; empty for a missing vote.
Ballot = tuple[int, ...]


class RowVotes(NamedTuple):
    """The votes of an item: per label, and each annotator's labels if some share one vote among several labels."""

    counts: list[int] | list[float]
    ballots: tuple[Ballot, ...] | None = None


class VoteReader(TotalsReader):
    """Reads votes as a task file says. `paths` are the columns that it reads."""

    def __init__(self, file: TaskFile) -> None:
        super().__init__(file)
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
        value, place = self._cell(row, votes.list_column, source, number)
        if votes.only is not None:
            value = self._kept(value, place, row)
        return self.count(self._list(value, place))

    def row_ballot(self, row: Mapping[str, Any], source: str, number: int) -> Ballot:
        """The labels of the annotator whose row this is."""
        if self.votes.rows is not None:
            return self.ballot(row, self.votes.rows, source, number)
        counts = self._label_columns(row, source, number)
        assert self.votes.annotator is not None
        if max(counts) > 1:
            label, count = self.space.labels[counts.index(max(counts))], max(counts)
            raise Place(source, number, "votes").error(
                f"one annotator gives the label {label!r} {count} times",
                "With `annotator` a row has one annotator's marks, 0 or 1; for counts of all annotators drop it.",
            )
        marked = tuple(index for index, count in enumerate(counts) if count)
        return self._allowed(marked, Place(source, number, "votes"))

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

    # One annotator

    def _ballot(self, value: Any, place: Place, *, within: str = "") -> Ballot:
        """The labels of one annotator. `within` is the step to the value in a column of several: `[]` or `.*`."""
        if self.is_missing(value):
            return ()
        if isinstance(value, str):
            if self._knows(value):
                return self._known_text(value, place, alone=False)
            value = parse_structure(value)
        if isinstance(value, Mapping):
            raise place.error(
                f"a vote is a mapping and no label: {short(value)}", self._path_fix(value, place, within)
            )
        if isinstance(value, (list, tuple, set, frozenset)):
            entries = [entry for entry in value if not self.is_missing(entry)]
            if any(isinstance(entry, (list, tuple, set, Mapping)) for entry in entries):
                raise place.error(
                    f"a vote is a list with parts of parts: {short(value)}", self._path_fix(list(value), place, within)
                )
            return self._allowed(tuple(self._index(entry, place) for entry in entries), place)
        if isinstance(value, str):
            parts = separators_of(value, self._is_vote)
            if parts:
                labels = [part for part in next(iter(parts.values())) if not self.is_missing(part)]
                return self._allowed(tuple(map(self.space.index, labels)), place, value)
        return (self._index(value, place),)

    def _path_fix(self, value: Any, place: Place, within: str) -> str:
        votes = self.votes
        key = "list" if votes.list_column is not None else "rows" if votes.rows is not None else "annotator_columns"
        path = self.paths.get(place.field)
        return mapping_fix(value, path.start if path is not None else place.field, key, self._knows, within)

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
            one = "" if value is None else f" If it is one label: `spellings: {{LABEL: [{in_yaml(str(value))}]}}`."
            shown = repr(value) if value is not None else listing(self.space.labels[label] for label in labels)
            raise place.error(
                f"one annotator gives {quantity(len(labels))} labels: {shown}",
                "In `votes` write `multiple: votes` (a vote for each), or `multiple: shares` (one vote, divided among"
                f" them).{one}",
            )
        return labels

    # All annotators

    def _kept(self, value: Any, place: Place, row: Mapping[str, Any]) -> Any:
        """The votes for which the lists beside them have one of the values that `only` names."""
        votes = parse_structure(value)
        for column, values in (self.votes.only or {}).items():
            if self.is_missing(votes):
                return votes
            beside = parse_structure(self.paths[column].find(row, place.source, place.row))
            at = Place(place.source, place.row, column)
            if not isinstance(votes, list) or not isinstance(beside, list) or len(votes) != len(beside):
                lengths = [len(part) if isinstance(part, list) else "no list" for part in (votes, beside)]
                raise at.error(
                    f"must be a list as long as that of the votes, which has {lengths[0]} entries; it has {lengths[1]}"
                    if isinstance(votes, list) and isinstance(beside, list)
                    else f"`only` needs a list here and in `{place.field}`, got {short(beside)} and {short(votes)}"
                )
            wanted = set(map(comparison_key, values))
            votes = [vote for vote, said in zip(votes, beside, strict=True) if comparison_key(said) in wanted]
        return votes

    def _list(self, value: Any, place: Place) -> list[Ballot]:
        if isinstance(value, str) and not self._knows(value):
            value = parse_structure(value)
        if isinstance(value, (set, frozenset)):
            raise place.error("is a set, in which equal votes are lost", "Write the votes as a list.")
        if isinstance(value, Mapping):
            if value and all(self._knows(name) for name in value) and not any(map(_is_boolean, value.values())):
                raise place.error(
                    f"maps labels to numbers: {short(value)}",
                    f"For counts write `votes: {{counts: {place.field}}}`; if the names are annotators, write"
                    f' `votes: {{list: "values({place.field})"}}`.',
                )
            return [self._ballot(entry, place, within=".*") for entry in value.values()]
        if isinstance(value, (list, tuple)):
            return [self._ballot(entry, place, within="[]") for entry in value]
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


def _is_boolean(value: Any) -> bool:
    return isinstance(value, bool)
