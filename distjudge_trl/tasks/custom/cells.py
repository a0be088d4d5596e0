"""What stands in the cells of a user's files: texts of lists and mappings, and what a cell that is no label may be."""

from __future__ import annotations

import decimal
import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from distjudge_trl.data.paths import path_step
from distjudge_trl.data.template import is_empty
from distjudge_trl.data.votes import whole_count
from distjudge_trl.errors import JudgmentDataError, listing
from distjudge_trl.labels.spelling import DECIMAL_COMMA, spelling, trimmed


# What people write for "no answer".
_NO_ANSWER = frozenset(
    ("-", "--", "\u2013", "?", ".", "na", "n/a", "n.a.", "nan", "nil", "none", "null", "skip", "skipped", "missing")
    + ("unknown", "no answer", "not applicable", "blank", "empty", "#n/a", "undefined")
)
# What stands between the labels of a text, and how to say so.
SEPARATORS = {
    ",": "commas",
    ";": "semicolons",
    "|": "bars",
    "/": "slashes",
    "\t": "tabs",
    "\n": "line breaks",
    " ": "blanks",
}
_COUNTED = {2: "two", 3: "three", 4: "four", 5: "five", 6: "six", 7: "seven", 8: "eight"}


class Place(NamedTuple):
    """Where a value was read: file, row and column."""

    source: str
    row: int
    field: str

    def error(self, problem: str, fix: str | None = None) -> JudgmentDataError:
        return JudgmentDataError(problem, source=self.source, row=self.row, field=self.field, fix=fix)


def number_of(cell: Any, place: Place) -> Any:
    """A count in a cell: a number, the text of one, or a boolean of one-hot columns."""
    if isinstance(cell, bool):
        return int(cell)
    if not isinstance(cell, str):
        return cell
    text = spelling(cell)
    if text.casefold() in ("true", "false"):
        return int(text.casefold() == "true")
    try:
        return float(text)
    except ValueError:
        pass
    several = next((name for mark, name in SEPARATORS.items() if mark in text and _are_numbers(text, mark)), None)
    if several is not None:
        raise place.error(
            f"{cell!r} is not a count but several, with {several}",
            "Correct the cell, or give each annotator a column and name them all: `label_columns: {LABEL: [column_1,"
            " column_2]}`.",
        )
    raise place.error(f"{cell!r} is not a count", no_answer_fix(cell) or "Correct the cell.")


def counted(count: Any, answer: Any, place: Place, *, shares: bool = False) -> int:
    """A count of votes as an integer. `shares`: what is no whole number may be a share of a mapping."""
    fix = "Correct the row."
    if shares and isinstance(count, float) and 0 < count < 1:
        fix = f"For shares of the votes write `votes: {{shares: {place.field}, num_annotators: COLUMN OR NUMBER}}`."
    return whole_count(count, answer, place.source, place.row, place.field, fix)


def counts_of_shares(
    shares: Mapping[Any, Any], annotators: int, place: Place, *, leaves_a_rest: bool = False
) -> dict[Any, int]:
    """How many of the annotators each share of a row is. Shares may be rounded, to two digits or more, and one of them
    may be adjusted so that they sum to 1 (0.33, 0.33, 0.34). With `leaves_a_rest` they may sum to less.

    Raises:
        [`JudgmentDataError`]: a share is none, or the shares are not whole votes of so many annotators.
    """
    numbers = {label: _share(share, label, place) for label, share in shares.items() if not is_empty(share)}
    digits = max((_digits(number) for number in numbers.values()), default=0)
    rounding = annotators * 0.5 * 10.0**-digits * (1 + 1e-9) if digits >= 2 else 0.0
    # Shares may be float32.
    exact = max(1e-6, 1e-7 * annotators)
    # More would take wrong numbers of annotators for right ones.
    if rounding < 0.125 and math.isclose(sum(numbers.values()), 1, rel_tol=0, abs_tol=1e-9):
        rounding *= 2
    tolerance = max(exact, rounding)
    if tolerance >= 0.5:
        raise place.error(
            f"shares of {digits} digits do not tell the votes of {annotators:,} annotators",
            "Write them with more digits, or correct `num_annotators`.",
        )
    counts = {label: round(number * annotators) for label, number in numbers.items()}
    for label, number in numbers.items():
        votes = number * annotators
        if not math.isclose(counts[label], votes, rel_tol=0, abs_tol=tolerance):
            raise place.error(
                f"the share {shares[label]!r} of {annotators} annotators is {votes:.6g} votes, not a whole number",
                "Correct `num_annotators`. Shares may be rounded to two digits or more.",
            )
    together = sum(counts.values())
    if together > annotators or (together < annotators and not leaves_a_rest):
        raise place.error(
            f"the shares of {annotators} annotators are {together} votes together",
            "They must sum to 1: correct the row, or `num_annotators`.",
        )
    return counts


def _share(share: Any, label: Any, place: Place) -> float:
    number = _percentage(share)
    if number is None:
        try:
            number = float(spelling(share)) if isinstance(share, str) else share
        except ValueError:
            number = None
    if not isinstance(number, (int, float)) or not 0 <= number <= 1 + 1e-9:  # also NaN
        raise place.error(
            f"the share of {label!r} is {share!r}, not a number from 0 to 1, or a percentage such as 67 %",
            "Correct the row.",
        )
    return float(number)


def _digits(number: float) -> int:
    exponent = decimal.Decimal(repr(number)).normalize().as_tuple().exponent
    return max(0, -exponent) if isinstance(exponent, int) else 0


def _percentage(cell: Any) -> float | None:
    """The share that a text such as "67 %" means."""
    if not isinstance(cell, str) or not cell.strip().endswith("%"):
        return None
    try:
        return float(decimal.Decimal(spelling(cell.strip().removesuffix("%"))) / 100)
    except decimal.InvalidOperation:
        return None


def _are_numbers(text: str, mark: str) -> bool:
    parts = [part for part in text.split(mark) if part.strip()]
    return len(parts) > 1 and all(re.fullmatch(r"\s*[0-9]+(\.[0-9]+)?\s*", part) for part in parts)


def split(text: str, separator: str) -> list[str]:
    """The parts of a text between separators, without the blanks around them."""
    return [trimmed(part) for part in (text.split() if separator == " " else text.split(separator))]


def separators_of(text: str, is_vote: Callable[[str], bool]) -> dict[str, list[str]]:
    """The separators by which a text falls into two votes or more, and the votes."""
    found = {}
    for separator in SEPARATORS:
        if separator in text:
            parts = [part for part in split(text, separator) if part]
            if len(parts) > 1 and all(map(is_vote, parts)):
                found[separator] = parts
    return found


def quantity(count: int) -> str:
    """A small number in words."""
    return _COUNTED.get(count, str(count))


def in_yaml(text: str) -> str:
    """A text as YAML takes it, in double quotes."""
    return json.dumps(text, ensure_ascii=False)


def no_answer_fix(value: Any) -> str | None:
    """The line of YAML for a word that stands for a missing vote."""
    word = trimmed(str(value))
    if word.casefold() not in _NO_ANSWER:
        return None
    return f"If it stands for a missing vote, write `missing: [{in_yaml(word)}]`."


def unknown_fix(value: Any, labels: tuple[str, ...], close: str | None) -> str:
    """What to do about a vote that is no label."""
    if isinstance(value, bool) or spelling(value).casefold() in ("true", "false"):
        word = spelling(value).casefold()
        return (
            'For booleans write `labels: ["true", "false"]`, in quotes, or give a label this spelling: `spellings:'
            f" {{{in_yaml(labels[0])}: [{in_yaml(word)}]}}`."
        )
    if (fix := no_answer_fix(value)) is not None:
        return fix
    if isinstance(value, str) and DECIMAL_COMMA.fullmatch(trimmed(value)):
        return f"It is read as the number {spelling(value)}, with a decimal comma. Add that label, or correct the row."
    words = re.findall(r"[+-]?\w+(?:\.\w+)?", str(value).casefold())
    named = [label for label in labels if label.casefold() in words]
    label = in_yaml(named[0]) if len(named) == 1 else in_yaml(close) if close is not None else "LABEL"
    return (
        f"Correct the row, or write which label it means, such as `spellings: {{{label}: [{in_yaml(str(value))}]}}`."
    )


def mapping_fix(value: Any, column: str, key: str, is_label: Callable[[Any], bool], within: str = "") -> str:
    """What to do about a mapping in the place of a label: the path to the label inside it.

    Args:
        value (`Any`): the mapping, or a list of mappings.
        column (`str`): the column, as a path begins with it.
        key (`str`): the key of `votes` that names it.
        is_label (`Callable`): whether a text or number is a label.
        within (`str`): the step from the column to the value, if it holds several: `[]` or `.*`.
    """
    inside = _path_to_label(value, is_label)
    if inside is None:
        keys = f" Its keys are {listing(value)}." if isinstance(value, Mapping) else ""
        path = _quoted(f"{column}{within}.NAME")
        return f"Name the part that holds the label by its path, such as `{key}: {path}`.{keys}"
    if within == "[]" and isinstance(value, Mapping) and "was_cancelled" in value:
        within = "[?!was_cancelled]"
    path = f"{column}{within}{inside}"
    if within:
        return f"Name the part that holds the label by its path: `{key}: {_quoted(path)}`."
    return (
        f"Name the part that holds the label by its path: `{key}: {_quoted(path)}`"
        f" (`{_quoted(f'{path} || {column}')}` if other rows hold the label itself)."
    )


def _quoted(path: str) -> str:
    """A path in quotes, as YAML takes it."""
    return f"'{path}'" if '"' in path else f'"{path}"'


def _path_to_label(value: Any, is_label: Callable[[Any], bool], depth: int = 8) -> str | None:
    """The path below a mapping or list to the first text that is a label; "" for the label itself."""
    if isinstance(value, Mapping) and depth:
        for name, part in value.items():
            inside = _path_to_label(part, is_label, depth - 1)
            if inside is not None:
                step = path_step(str(name))
                return None if "'" in step else f".{step}{inside}"
    elif isinstance(value, list) and depth:
        for part in value:
            inside = _path_to_label(part, is_label, depth - 1)
            if inside is not None:
                return f"[]{inside}" if inside else ""
    elif isinstance(value, (str, int, float)) and not is_empty(value) and is_label(value):
        return ""
    return None
