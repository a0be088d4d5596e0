"""Shares of votes, and how many annotators are behind them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from distjudge_trl.errors import JudgmentDataError
from distjudge_trl.labels.spelling import comparison_key, spelling
from distjudge_trl.tasks.custom.cells import Place, counts_of_shares
from distjudge_trl.tasks.drafting.candidate import Candidate, follow
from distjudge_trl.tasks.drafting.columns import MOST_LABELS, Column, is_number, label_names


def number_in(value: Any) -> float | None:
    """The number in a cell, if there is one."""
    text = spelling(value) if not isinstance(value, float) else str(value)
    try:
        return float(text)
    except ValueError:
        return None


def sum_to_one(values: list[Any]) -> bool:
    """Whether mappings or lists hold shares."""
    fractions = False
    for value in values:
        numbers = [number_in(part) for part in (value.values() if isinstance(value, dict) else value)]
        if not numbers or any(number is None or not -1e-9 <= number <= 1 + 1e-9 for number in numbers):
            return False
        given = [number for number in numbers if number is not None]
        if abs(sum(given) - 1) > 0.005 * len(given) + 1e-6:
            return False
        fractions = fractions or any(0 < number < 1 for number in given)
    return fractions


def find_annotators(column: Column, rows: list[dict[str, Any]]) -> tuple[Any, float] | None:
    """The column with the number of annotators, or the number, by which all shares are whole votes; and its mean."""
    shares = [
        [number_in(part) or 0.0 for part in (value.values() if isinstance(value, dict) else value)]
        for value in column.filled
    ]
    filled = [row for row in rows if follow(row, column.steps)]
    if len(filled) < len(column.filled):
        filled = rows
    names = [name for name in rows[0] if isinstance(number_in(rows[0][name]), float)]
    for name in sorted(names, key=lambda name: not re.search(r"(?i)num|annot|count|total|votes", str(name))):
        counts = [number_in(row.get(name)) for row in filled]
        if all(count and count >= 1 and count.is_integer() for count in counts) and all(
            _are_whole(value, count) for value, count in zip(shares, counts, strict=True)
        ):
            return str(name), sum(map(float, filter(None, counts))) / len(counts)
    for number in range(2, 201):
        if all(_are_whole(value, number) for value in shares):
            return number, float(number)
    return None


def _are_whole(shares: list[float], count: Any) -> bool:
    try:
        counts_of_shares(dict(enumerate(shares)), int(count), Place("", 0, ""))
    except JudgmentDataError:
        return False
    return True


def find_share_columns(
    columns: list[Column], rows: list[dict[str, Any]], place: dict[Any, int]
) -> Iterator[Candidate]:
    """Candidates with a column of shares for each label, which sum to 1; or a column with the share of one label,
    where another has the number of annotators.
    """
    shares = [column for column in columns if len(column.steps) == 1 and _are_shares(column)]
    kinds: dict[bool, list[Column]] = {}
    for column in shares:
        kinds.setdefault(any("%" in str(value) for value in column.filled), []).append(column)
    for own in kinds.values():
        for group in (own, *([c for c in own if c is not left] for left in own)):
            rest = [dict(enumerate(map(_share, cells))) for cells in zip(*(c.values for c in group), strict=True)]
            filled = [row for row in rest if any(share is not None for share in row.values())]
            if 2 <= len(group) <= MOST_LABELS and sum_to_one(filled):
                together = Column(("shares",), filled)
                if (found := find_annotators(together, rows)) is not None:
                    labels = label_names([column.name for column in group])
                    named = {label: column.path for label, column in zip(labels, group, strict=True)}
                    yield _of_columns(named, group, found, place[group[0].steps])
                return
    for column in shares:
        values = [{"": share, "rest": 1 - share} for value in column.values if (share := _share(value)) is not None]
        found = find_annotators(Column(("shares",), values), rows)
        if found is not None and isinstance(found[0], str) and re.search(r"(?i)annot|rater|vote", found[0]):
            yield _of_columns({column.name: column.path}, [column], found, place[column.steps], f"not {column.name}")


def _share(value: Any) -> float | None:
    text = str(value).strip()
    number = number_in(text.removesuffix("%").strip())
    return number / 100 if number is not None and text.endswith("%") else number


def _are_shares(column: Column) -> bool:
    numbers = [_share(value) for value in column.filled]
    return (
        bool(numbers)
        and column.is_scalar
        and all(number is not None and -1e-9 <= number <= 1 + 1e-9 for number in numbers)
        and any(number is not None and 0 < number < 1 for number in numbers)
    )


def _of_columns(
    named: dict[str, str], columns: list[Column], found: tuple[Any, float], rank: int, other: str | None = None
) -> Candidate:
    annotators, mean = found
    labels = [*([other] if other is not None else []), *named]
    checks = ["the labels are the names of columns, or parts of them"]
    if not isinstance(annotators, str):
        checks.append(f"{annotators} annotators is the smallest number by which every share is whole votes")
    if other is not None:
        checks.append(f"`{columns[0].path}` is the share of {columns[0].path}; {other!r} has the rest")
    return Candidate(
        {"shares": named, "num_annotators": annotators},
        lambda row: labels,
        mean,
        rank,
        "columns that hold shares of the votes" if other is None else f"`{columns[0].path}` holds shares of the votes",
        columns,
        labels,
        checks,
        sure=True,
    )


def share_candidate(
    column: Column, found: tuple[Any, float], rank: int, labels: list[str] | None, length: int = 0
) -> Candidate:
    annotators, mean = found

    def read(row: dict[str, Any], steps: tuple[str, ...] = column.steps) -> Iterator[Any]:
        value = follow(row, steps)
        yield from value if isinstance(value, dict) else ()

    checks = []
    if not isinstance(annotators, str):
        checks.append(f"{annotators} annotators is the smallest number by which every share is whole votes")
    if labels is None:
        labels = [f"label {number}" for number in range(1, length + 1)]
        checks.append("a list of shares does not name its labels: write them in its order")
    elif all(is_number(comparison_key(label)) for label in labels):
        labels = sorted(labels, key=lambda label: float(comparison_key(label)))
    return Candidate(
        {"shares": column.path, "num_annotators": annotators},
        read,
        mean,
        rank + 20_000,
        f"`{column.path}` holds shares of the votes",
        [column],
        labels,
        checks,
    )
