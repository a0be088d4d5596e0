"""The labels of a draft: their order, codes for missing votes, spellings, and what the judge answers."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from distjudge_trl.errors import UserInputError
from distjudge_trl.labels.spelling import comparison_key, spelling, trimmed
from distjudge_trl.tasks.drafting.columns import LEADING_NUMBER, MOST_LABELS, is_missing_code, is_number
from distjudge_trl.tasks.drafting.single_cells import labels_in


# Numbers by which surveys mark a missing answer.
_CODES = {"-1", "-9", "-99", "-999", "99", "999", "9999", "-8", "-7", "-77", "77", "88"}
# Words for no answer that may also be labels, where the others are words.
_MAY_BE_LABELS = {"none", "unknown", "empty", "blank", "nil", ".", "undefined", "?", "skip"}
_SCALES = (
    ("no", "yes"),
    ("false", "true"),
    ("negative", "neutral", "positive"),
    ("disagree", "neutral", "agree"),
    ("strongly disagree", "disagree", "neutral", "agree", "strongly agree"),
    ("strongly disagree", "disagree", "neither agree nor disagree", "agree", "strongly agree"),
    (
        *("strongly disagree", "disagree", "somewhat disagree", "slightly disagree", "neither agree nor disagree"),
        *("neutral", "undecided", "slightly agree", "somewhat agree", "agree", "strongly agree"),
    ),
    ("very negative", "negative", "neutral", "positive", "very positive"),
    ("very poor", "poor", "fair", "average", "good", "very good", "excellent"),
    ("very dissatisfied", "dissatisfied", "neutral", "satisfied", "very satisfied"),
    ("very unlikely", "unlikely", "neutral", "likely", "very likely"),
    ("not at all", "slightly", "somewhat", "moderately", "very", "extremely"),
    ("benign", "moderate", "extreme"),
    ("very bad", "bad", "fair", "good", "very good"),
    ("poor", "fair", "good", "very good", "excellent"),
    ("never", "rarely", "sometimes", "often", "always"),
    ("none", "low", "medium", "high"),
    ("low", "medium", "high"),
    ("entailment", "neutral", "contradiction"),
)
_LONGEST_GAP = 20


@dataclass
class DraftLabels:
    """What a draft says about labels."""

    labels: list[str]
    ordinal: bool
    letters: bool
    missing: list[str] = field(default_factory=list)
    spellings: dict[str, list[str]] = field(default_factory=dict)
    multiple: bool = False
    checks: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)


def find_labels(values: Iterable[Any], named: list[Any] | None, several: bool) -> DraftLabels:
    """Labels from all values that occur, and from those that the data name.

    Args:
        values (iterable): single labels.
        named (`list`, *optional*): labels in their order, if the data name them.
        several (`bool`): whether some annotators give a list of labels.

    Raises:
        [`UserInputError`]: fewer than two labels, or too many.
    """
    written: dict[str, str] = {}
    counts: Counter[str] = Counter()
    for value in values:
        if value is None or (isinstance(value, (str, list)) and not value):
            continue
        key = comparison_key(value)
        counts[key] += 1
        written.setdefault(key, spelling(value))
    found = DraftLabels([], ordinal=False, letters=False, multiple=several)
    for label in named or []:
        written.setdefault(comparison_key(label), trimmed(str(label)))
    words = [key for key in written if not is_missing_code(key)]
    odd = _words_among_numbers(words, counts)
    words = [word for word in words if word not in odd]
    numeric = bool(words) and all(map(is_number, words))
    for key in list(written):
        is_code = is_missing_code(key) and (numeric or key not in _MAY_BE_LABELS)
        if is_code or key in odd or (numeric and key in _CODES and _is_outside(key, words)):
            found.missing.append(written.pop(key))
            counts.pop(key, None)
    if numeric and "-1" in written and "-2" not in written and len(written) > 3:
        found.checks.append("-1 is read as a label: if it means a missing vote, write `missing: [-1]`")
    for key in [key for key in written if labels_in(key, set(written))]:
        parts = labels_in(key, set(written))
        for part in parts:
            counts[part] += counts[key]
        found.multiple = True
        del written[key], counts[key]
    _numbers_in_front(written, found, counts)
    found.labels = _in_order(written, named, found)
    found.counts = counts
    if len(found.labels) < 2:
        raise UserInputError(f"only {len(found.labels)} label was found ({', '.join(found.labels) or 'none'}).")
    if len(found.labels) > MOST_LABELS and named is None:
        raise UserInputError(f"{len(found.labels):,} different labels were found; a judge tells 26 apart.")
    if len(found.labels) > MOST_LABELS:
        found.checks.append("more labels than letters: `data --stats --model MODEL` says whether it tells them apart")
    else:
        found.letters = _need_letters(found.labels)
    return found


def _is_outside(key: str, words: list[str]) -> bool:
    """Whether a number is far from all other numbers of a scale."""
    others = [float(word) for word in words if word not in _CODES]
    if len(others) < 2:
        return False
    number = float(key)
    if number < 0:
        return min(others) >= 0 and min(others) - number > 1
    return number > max(others) + 10


def _words_among_numbers(words: list[str], counts: Counter[str]) -> set[str]:
    """A word or two, in a few cells, where all other labels are numbers: codes for a missing vote."""
    odd = {word for word in words if not is_number(word) and LEADING_NUMBER.fullmatch(word) is None}
    if len(odd) > 2 or len(words) - len(odd) < 3 or 5 * sum(counts[word] for word in odd) > sum(counts.values()):
        return set()
    return odd


def _numbers_in_front(written: dict[str, str], found: DraftLabels, counts: Counter[str]) -> None:
    """Make "1 - poor" a spelling of 1 where every label begins with a number."""
    matches = {key: LEADING_NUMBER.fullmatch(text) for key, text in written.items() if not is_number(key)}
    if not matches or not all(matches.values()):
        return
    numbers = {key: match[1] or match[2] for key, match in matches.items() if match}
    if len(set(numbers.values())) < 2:
        return
    for key, number in numbers.items():
        found.spellings.setdefault(number, []).append(written.pop(key))
        written.setdefault(number, number)
        counts[number] += counts.pop(key, 0)


def _in_order(written: dict[str, str], named: list[Any] | None, found: DraftLabels) -> list[str]:
    keys = list(written)
    if keys and all(map(is_number, keys)):
        keys.sort(key=float)
        found.ordinal = len(keys) > 2
        if found.ordinal:
            found.checks.append("ordinal: the numbers are ratings, and not names such as 0 for a tie")
        whole = all(float(key).is_integer() for key in keys)
        low, high = (int(float(keys[0])), int(float(keys[-1]))) if whole else (0, 0)
        missing = [str(number) for number in range(low, high + 1) if str(number) not in keys] if whole else []
        if missing and len(keys) > 2 and high - low <= _LONGEST_GAP:
            found.checks.append(f"no vote is {', '.join(missing)}: added, because it is between others")
            keys = [str(number) for number in range(low, high + 1)]
            written |= {key: key for key in missing}
    elif named is not None:
        order = [comparison_key(label) for label in named]
        keys.sort(key=lambda key: order.index(key) if key in order else len(order))
    elif len(marks := {character for key in keys for character in key}) == 1 and not marks.pop().isalnum():
        keys.sort(key=len)  # stars
        found.ordinal = len(keys) > 2
    else:
        scale = next((scale for scale in _SCALES if set(keys) <= set(scale)), None)
        keys.sort(key=lambda key: (scale.index(key) if scale else 0, key))
        if scale is not None and len(keys) > 2 and scale[-1] != "contradiction":
            found.ordinal = True
        elif scale is None and len(keys) > 2:
            found.checks.append("the labels are in alphabetical order: bring them into the right one if they have one")
    return [written[key] for key in keys]


def _need_letters(labels: list[str]) -> bool:
    """Whether some tokenizers could not tell the labels apart by their first tokens."""
    if all(is_number(label) for label in labels):
        return any(len(label) > 1 for label in labels)
    starts = [re.split(r"[\s_\-]", label.casefold())[0] for label in labels]
    if len(set(starts)) < len(starts):
        return True
    return any(a != b and (a.startswith(b) or (len(a) > 3 and a[:3] == b[:3])) for a in starts for b in starts)
