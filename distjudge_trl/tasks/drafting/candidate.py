"""One way to read votes from a sample, as a finder of forms proposes it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from distjudge_trl.data.values import parse_structure
from distjudge_trl.tasks.drafting.columns import Column


# Reads from a row what its annotators gave: per annotator, one label or several.
Reader = Callable[[dict[str, Any]], Iterable[Any]]


@dataclass
class Candidate:
    """Votes as a task file would name them.

    Args:
        votes (`dict`): the value of `votes`.
        read (`Reader`): the annotators' labels in a row; a list for several labels by one annotator.
        per_item (`float`): votes an item, on average.
        rank (`int`): of candidates with as many votes, the lowest is taken.
        seen (`str`): what was found, for a comment.
        hidden (`list[Column]`): columns with votes or annotators, which the prompt must not show.
        labels (`list`, *optional*): labels that the data name, in their order; else those that occur.
        checks (`list[str]`): what the user should look at.
        keys (`dict`): further keys of the task file: `id`, `skip`, `missing`.
        per_row (`bool`): whether a row is one annotator's vote.
        sure (`bool`): whether it is taken before others with more votes.
        may_be_questions (`bool`): whether the columns of several people may be those of several questions.
    """

    votes: dict[str, Any]
    read: Reader
    per_item: float
    rank: int
    seen: str
    hidden: list[Column] = field(default_factory=list)
    labels: list[Any] | None = None
    checks: list[str] = field(default_factory=list)
    keys: dict[str, Any] = field(default_factory=dict)
    per_row: bool = False
    sure: bool = False
    may_be_questions: bool = False

    def values(self, rows: Iterable[dict[str, Any]]) -> Iterator[Any]:
        """Every single label that occurs."""
        for row in rows:
            for vote in self.read(row):
                yield from vote if isinstance(vote, (list, tuple)) else (vote,)

    @property
    def order(self) -> tuple[bool, float, int]:
        """The best candidate has the smallest."""
        return (not self.sure, -round(self.per_item, 1), self.rank)


def per_item(read: Reader, rows: list[dict[str, Any]]) -> float:
    """Votes a row, over rows that have some."""
    numbers = [sum(vote not in (None, "", []) for vote in read(row)) for row in rows]
    filled = [number for number in numbers if number]
    return sum(filled) / len(filled) if filled else 0.0


def entries_of(value: Any) -> list[dict[str, Any]]:
    """The mappings in a list."""
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []


def mapping_of(value: Any) -> dict[Any, Any]:
    """The mapping, or an empty one."""
    return value if isinstance(value, dict) else {}


def follow(row: Any, steps: tuple[str, ...]) -> Any:
    """The part of a row, in which texts of lists and mappings count as these."""
    for name in steps:
        row = parse_structure(row.get(name)) if isinstance(row, dict) else None
    return row
