"""What a prompt would show of the items, and which columns name and group them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import combinations
from typing import Any

from distjudge_trl.labels.spelling import comparison_key
from distjudge_trl.tasks.drafting.columns import (
    ABOUT,
    ANNOTATOR,
    GROUP,
    ID,
    LABEL,
    REASON,
    SYSTEM,
    TECHNICAL,
    Column,
    ListEntry,
    is_number,
)


_MOST_TEXTS = 5
_SHORT_TEXT = 15
_LONGEST_NAME = 32
_MOST_LISTED = 4
# Keys of a message in a conversation.
_MESSAGE = ({"role", "content"}, {"from", "value"}, {"speaker", "text"}, {"role", "text"})


def find_texts(columns: Sequence[Column], hidden: Sequence[Column]) -> tuple[list[Column], list[Column]]:
    """Columns that a prompt could show, and those left out because annotators explain themselves in them."""
    texts: list[Column] = []
    reasons: list[Column] = []
    others: list[Column] = []
    for column in [*columns, *in_lists(columns)]:
        if _within(column, hidden) or not column.filled or ID.search(column.name):
            continue
        if column.raw is not None:
            column = Column(column.steps, column.raw)
        if message_keys(column) is None and not _is_text(column):
            continue
        if any(REASON.search(name) for name in column.steps):
            reasons.append(column)
        elif not TECHNICAL.search(column.name) and not ABOUT.search(column.name):
            texts.append(column)
        elif column.is_scalar:
            others.append(column)
    if not texts and (alone := [column for column in reasons if not _within(column, hidden)]):
        # Where nothing else is shown, a column called "comment" is what was judged.
        longest = max(alone, key=lambda column: column.mean_length)
        texts, reasons = [longest], [column for column in reasons if column is not longest]
    if not texts and others:
        texts = [max(others, key=lambda column: column.mean_length)]
    if not texts:
        texts = _short_texts(columns, hidden)
    texts = _with_siblings(texts, columns, hidden)
    return texts[:_MOST_TEXTS], reasons


def _with_siblings(texts: list[Column], columns: Sequence[Column], hidden: Sequence[Column]) -> list[Column]:
    """Texts with those beside them that are short: the other parts of a mapping, the other answer of a pair."""
    kinds = {(column.steps[:-1], _numberless(column.name)) for column in texts}
    parents = {column.steps[:-1] for column in texts if len(column.steps) > 1}
    own = [column.steps for column in texts]
    found = []
    for column in columns:
        pair = (column.steps[:-1], _numberless(column.name)) in kinds and _numberless(column.name) != column.name
        if column.steps in own:
            found.append(texts[own.index(column.steps)])
        elif (
            (pair or column.steps[:-1] in parents)
            and _is_words(column)
            and not _within(column, hidden)
            and not any(p.search(column.name) for p in (ID, ABOUT, REASON, TECHNICAL, SYSTEM, LABEL, ANNOTATOR))
        ):
            found.append(column)
    return [*found, *(column for column in texts if column.steps not in {one.steps for one in found})]


def _numberless(name: str) -> str:
    """A name without the number or letter that tells it from those of its kind: response_a, answer 2, textB."""
    return re.sub(r"(?i)(?<=[_\W])[ab]$|(?<=[a-z])[AB]$|\d+$", "#", name)


def _is_words(column: Column) -> bool:
    """Whether a column holds different texts of several words."""
    if not column.is_scalar or not all(isinstance(value, str) for value in column.filled):
        return False
    several = sum(len(value.split()) > 1 or not value.isascii() for value in column.filled)
    return 2 * several >= len(column.filled) and len(set(column.filled)) > 1


def in_lists(columns: Sequence[Column]) -> list[Column]:
    """Texts in lists that hold as many mappings in every row, such as the two summaries that were compared."""
    found = []
    for column in columns:
        sizes = {len(value) for value in column.filled if isinstance(value, list)}
        entries = [entry for value in column.filled if isinstance(value, list) for entry in value]
        if len(sizes) != 1 or not 2 <= (size := sizes.pop()) <= _MOST_LISTED or message_keys(column) is not None:
            continue
        if column.raw is not None or not all(isinstance(entry, dict) for entry in entries):
            continue
        for number in range(size):
            for name in entries[0]:
                lists = [value if isinstance(value, list) and value else [{}] * size for value in column.values]
                part = [value[number].get(name) for value in lists]
                one = Column((*column.steps[:-1], ListEntry(column.name, number), name), part)
                if _is_text(one) and len(set(one.filled)) > 2:
                    found.append(one)
    return found


def message_keys(column: Column) -> tuple[str, str] | None:
    """The keys of speaker and text, if the column holds conversations."""
    entries = [entry for value in column.filled if isinstance(value, list) for entry in value]
    if not entries or not all(isinstance(entry, dict) for entry in entries):
        return None
    for keys in _MESSAGE:
        if all(keys <= set(entry) for entry in entries):
            speaker, text = sorted(keys, key=lambda key: key in ("content", "value", "text"))
            return speaker, text
    return None


def _is_text(column: Column) -> bool:
    texts = [value for value in column.filled if isinstance(value, str)]
    if not column.is_scalar or 10 * len(texts) < 9 * len(column.filled):
        return False
    several_words = sum(len(value.split()) > 1 or not value.isascii() for value in texts)
    return (
        column.mean_length >= _SHORT_TEXT
        and 2 * several_words >= len(column.filled)
        and len(set(texts)) > 1
        and not re.match(r"\d{4}-\d\d-\d\d|https?:", texts[0])
    )


def _short_texts(columns: Sequence[Column], hidden: Sequence[Column]) -> list[Column]:
    """The column with the longest texts, where all are short."""
    possible = [
        column
        for column in columns
        if column.is_scalar
        and not _within(column, hidden)
        and not any(pattern.search(column.name) for pattern in (ABOUT, ID, REASON, ANNOTATOR))
        and any(isinstance(value, str) for value in column.filled)
        and len(set(map(str, column.filled))) > 1
    ]
    possible.sort(key=lambda column: (len(set(map(str, column.filled))) > 5, column.mean_length))
    return possible[-1:]


def _within(column: Column, hidden: Sequence[Column]) -> bool:
    return any(column.parent[: len(other.steps)] == other.steps for other in hidden)


def find_id(columns: Sequence[Column], hidden: Sequence[Column], texts: Sequence[Column]) -> list[str] | None:
    """The column that names the items, or several together; `None` if no column does."""
    scalars = [
        column for column in columns if column.is_scalar and not _within(column, hidden) and column not in texts
    ]
    named = [column for column in scalars if ID.search(column.name) and not ANNOTATOR.search(column.name)]
    named.sort(key=lambda column: (len(column.steps), column.name.casefold() != "id"))
    for column in named:
        if column.differs():
            return [column.path]
    parts = [*named, *(column for column in scalars if SYSTEM.search(column.name) and len(column.steps) == 1)]
    for size in (2, 3, 4):
        for group in combinations(parts[:6], size):
            if are_unique(group):
                return [column.path for column in group]
    for column in scalars:
        names = [str(value) for value in column.filled]
        if (
            column.differs()
            and not LABEL.search(column.name)
            and not any(" " in name or len(name) > 64 for name in names)
        ):
            return [column.path]
    return None


def are_unique(columns: Sequence[Column]) -> bool:
    """Whether every row has other values in the columns."""
    names = list(zip(*(map(str, column.values) for column in columns), strict=True))
    return all(len(column.filled) == len(column.values) for column in columns) and len(set(names)) == len(names)


def find_group(
    columns: Sequence[Column], hidden: Sequence[Column], texts: Sequence[Column], id_paths: Sequence[str]
) -> Column | None:
    """A column that several items share, such as an article or a thread; else a text that they share."""
    scalars = [column for column in columns if column.is_scalar and not _within(column, hidden)]
    for column in scalars:
        if column in texts or list(id_paths) == [column.path] or SYSTEM.search(column.name):
            continue
        if any(pattern.search(column.name) for pattern in (ANNOTATOR, ABOUT, REASON, TECHNICAL)):
            continue
        if GROUP.search(column.name) and _is_shared(column, fewest=0.005):
            return column
        if ID.search(column.name) and _is_shared(column, fewest=0.05):
            return column
    for column in texts:
        if column.is_scalar and _is_shared(column, fewest=0.005):
            return column
    for column in scalars:
        names = all(
            isinstance(value, str) and len(value) <= _LONGEST_NAME and not is_number(comparison_key(value))
            for value in column.filled
        )
        known = (ANNOTATOR, ABOUT, REASON, TECHNICAL, SYSTEM, LABEL)
        if names and not any(pattern.search(column.name) for pattern in known) and _is_shared(column, fewest=0.2):
            return column
    return None


def _is_shared(column: Column, fewest: float) -> bool:
    """Whether items share values of the column, and there are enough of these to split by."""
    values: list[Any] = [str(value) for value in column.filled]
    different = len(set(values))
    return len(values) == len(column.values) and max(3, fewest * len(values)) <= different <= 0.95 * len(values)
