"""Values of rows in one form for all file formats: texts, numbers, lists and mappings, as in JSON.

Parquet and the hub's data sets have types that JSON lacks. Values with an equivalent in JSON are converted when a row
is read, so that a task sees one kind of row. Others (bytes) are kept, and refused where they would be shown or
written.
"""

from __future__ import annotations

import ast
import datetime
import decimal
import json
import math
import re
import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from distjudge_trl.errors import JudgmentDataError


if TYPE_CHECKING:
    from datasets import Features

# An array as numpy prints it: [0 1 1], ['a' 'b'].
_QUOTED = r"'[^']*'|\"[^\"]*\""
_ARRAY = re.compile(rf"\[\s*((?:{_QUOTED}|[^\s\[\]{{}}'\",]+)(?:\s+(?:{_QUOTED}|[^\s\[\]{{}}'\",]+))*)\s*\]")
_ENTRY = re.compile(rf"{_QUOTED}|\S+")
# The number of a missing class in data sets of the hub.
_NO_CLASS = -1


def parse_structure(value: Any) -> Any:
    """The list or mapping that a text holds, as JSON, Python or numpy writes it and cells of CSV do; other values are
    returned unchanged.
    """
    if not isinstance(value, str) or value.strip()[:1] not in ("[", "{", "("):
        return value
    text = value.strip()
    array = _ARRAY.fullmatch(text)
    if array is not None and len(entries := _ENTRY.findall(array[1])) > 1:
        return [entry[1:-1] if entry[0] in "'\"" else entry for entry in entries]
    for parse in (json.loads, ast.literal_eval):
        try:
            parsed = parse(text)
        except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
            continue
        return parsed if isinstance(parsed, (list, tuple, set, Mapping)) else value
    return value


def plain_value(value: Any) -> Any:
    """Convert an Arrow value to its form in JSON, at any depth of lists and mappings: times in ISO 8601, decimals as
    numbers (as texts if a float would round them), UUIDs as texts. Other values are returned unchanged.
    """
    if isinstance(value, (datetime.date, datetime.time)):  # a datetime is a date
        return value.isoformat()
    if isinstance(value, decimal.Decimal):
        return _plain_decimal(value)
    if isinstance(value, uuid.UUID):
        return str(value)
    if isinstance(value, Mapping):
        return {plain_value(name): plain_value(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_value(part) for part in value]
    return value


def _plain_decimal(value: decimal.Decimal) -> int | float | str:
    if value.is_finite() and value == value.to_integral_value():
        return int(value)
    number = float(value)
    return number if not value.is_finite() or decimal.Decimal(repr(number)) == value else str(value)


def holds_bytes(value: Any) -> bool:
    """Whether a value is bytes, or has bytes anywhere in its lists and mappings. As text they would read `b'...'`."""
    if isinstance(value, Mapping):
        return any(holds_bytes(name) or holds_bytes(part) for name, part in value.items())
    if isinstance(value, (list, tuple, set, frozenset)):
        return any(map(holds_bytes, value))
    return isinstance(value, (bytes, bytearray, memoryview))


def name_classes(row: Mapping[str, Any], features: Features, *, source: str, number: int) -> dict[str, Any]:
    """A row of a data set with the names of its classes (`ClassLabel`) instead of their numbers, at any depth; -1,
    which means no class, becomes `None`.

    Raises:
        [`JudgmentDataError`]: a number has no name.
    """
    named = dict(row)
    for field, feature in features.items():
        if field in named:
            try:
                named[field] = _named(named[field], feature)
            except (ValueError, IndexError) as error:
                raise JudgmentDataError(f"names no class ({error})", source=source, row=number, field=field) from None
    return named


def has_classes(feature: Any) -> bool:
    """Whether a feature of a data set, or any below it, is a `ClassLabel`."""
    from datasets import ClassLabel

    if isinstance(feature, ClassLabel):
        return True
    if isinstance(feature, Mapping):
        return any(map(has_classes, feature.values()))
    return has_classes(feature.feature) if hasattr(feature, "feature") else False


def _named(value: Any, feature: Any) -> Any:
    from datasets import ClassLabel

    if value is None or not has_classes(feature):
        return value
    if isinstance(feature, ClassLabel):
        return None if value == _NO_CLASS else feature.int2str(value)
    if isinstance(feature, Mapping):
        return {name: _named(part, feature[name]) for name, part in value.items()}
    return [_named(part, feature.feature) for part in value]


def as_json(row: Mapping[str, Any], *, source: str | None = None, number: int | None = None) -> dict[str, Any]:
    """A row that can be written as a line of JSON. NaN, which stands for an empty cell, becomes `None`.

    Raises:
        [`JudgmentDataError`]: JSON cannot represent a field's value (bytes, infinity); the message names row and
            field.
    """
    written = {}
    for field, value in row.items():
        written[field] = _without_nan(value)
        try:
            json.dumps({field: written[field]}, allow_nan=False)
        except (TypeError, ValueError, RecursionError):
            raise JudgmentDataError(
                f"holds {_shown(value)}, which cannot be written as JSON",
                source=source,
                row=number,
                field=str(field),
                fix="Drop the column, or make it a text or a number.",
            ) from None
    return written


def _without_nan(value: Any) -> Any:
    if isinstance(value, float):
        return None if math.isnan(value) else value
    if isinstance(value, Mapping):
        return {name: _without_nan(part) for name, part in value.items()}
    return [_without_nan(part) for part in value] if isinstance(value, (list, tuple)) else value


def _shown(value: Any) -> str:
    text = repr(value)
    return f"{text[:37]}..." if len(text) > 40 else text
