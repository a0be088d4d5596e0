"""Shares of votes, and how many annotators are behind them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from distjudge_trl.errors import JudgmentDataError
from distjudge_trl.labels.spelling import comparison_key, spelling
from distjudge_trl.tasks.custom.cells import Place, counts_of_shares
from distjudge_trl.tasks.drafting.candidate import Candidate, follow
from distjudge_trl.tasks.drafting.columns import Column, is_number


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
