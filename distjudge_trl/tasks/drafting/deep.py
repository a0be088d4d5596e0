"""Finding votes deep inside nested rows, where no known export is: lists of annotations, or mappings of annotators."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jmespath

from distjudge_trl.labels.spelling import comparison_key
from distjudge_trl.tasks.drafting.candidate import Candidate, per_item
from distjudge_trl.tasks.drafting.columns import (
    ABOUT,
    ANNOTATOR,
    ID,
    LABEL,
    MOST_LABELS,
    REASON,
    SYSTEM,
    Column,
    are_label_like,
    is_missing_code,
    step,
)


_DEPTH = 9
_MOST_PLACES = 400
_NO_LABELS = ("role", "status", "type", "kind", "version", "from_name", "to_name")


def find_deep(rows: list[dict[str, Any]]) -> Iterator[Candidate]:
    """Candidates of values that stand below a list, or below a mapping of annotators to mappings, at any depth."""
    places: dict[tuple[str, ...], None] = {}
    for row in rows[:200]:
        for name, value in row.items():
            if isinstance(value, (list, dict)):
                _walk(value, (step(str(name)),), places)
    for place, steps in enumerate(list(places)[:_MOST_PLACES]):
        name = steps[-1].strip('"')
        if any(pattern.search(name) for pattern in (ABOUT, ANNOTATOR, ID, REASON, SYSTEM)) or name in _NO_LABELS:
            continue
        path = _text(steps)
        expression = jmespath.compile(path)

        def read(row: dict[str, Any], expression: Any = expression) -> list[Any]:
            found = expression.search(row)
            return found if isinstance(found, list) else []

        given = [[str(vote) for vote in read(row)] for row in rows]
        values = [vote for row in rows for vote in read(row) if vote not in (None, "")]
        keys = {comparison_key(value) for value in values if not is_missing_code(value)} if _flat(values) else set()
        each = per_item(read, rows)
        repeated = any(len(set(votes)) < len(votes) for votes in given)
        if each <= 1 or not repeated or not 2 <= len(keys) <= MOST_LABELS or len(values) < 2 * len(keys):
            continue
        if not are_label_like(values) or all(len(set(votes)) < 2 for votes in given):
            continue
        yield Candidate(
            {"list": path},
            read,
            each,
            place - (500 if LABEL.search(name) else 0),
            f"`{path}` holds a label of each annotator",
            [Column((steps[0].strip('"'),), [row.get(steps[0].strip('"')) for row in rows])],
        )


def _flat(values: list[Any]) -> bool:
    return not any(isinstance(value, (list, dict)) for value in values)


def _walk(value: Any, steps: tuple[str, ...], places: dict[tuple[str, ...], None]) -> None:
    """Collect the paths of single values that stand below a list or a mapping of mappings."""
    if len(steps) > _DEPTH or len(places) > _MOST_PLACES:
        return
    if isinstance(value, list):
        for entry in value[:20]:
            if isinstance(entry, (dict, list)):
                _walk(entry, (*steps, "[]"), places)
    elif isinstance(value, dict):
        if _is_mapping_of_mappings(value):
            for part in value.values():
                _walk(part, (*steps, "*"), places)
            return
        for name, part in value.items():
            _walk(part, (*steps, step(str(name))), places)
    elif {"[]", "*"} & set(steps):
        places.setdefault(steps)


def _is_mapping_of_mappings(value: dict[str, Any]) -> bool:
    """Whether the names in a mapping are those of annotators or projects: each has the same parts."""
    parts = list(value.values())
    if not parts or not all(isinstance(part, dict) and part for part in parts):
        return False
    return len(parts) > 1 and all(set(part) == set(parts[0]) for part in parts)


def _text(steps: tuple[str, ...]) -> str:
    text = steps[0]
    for one in steps[1:]:
        text += one if one == "[]" else f".{one}"
    return text
