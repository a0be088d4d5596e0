"""Finding columns that hold all votes of an item: lists, mappings, texts of several labels, counts and shares."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from distjudge_trl.labels.spelling import comparison_key
from distjudge_trl.tasks.custom.cells import split
from distjudge_trl.tasks.drafting.beside import beside
from distjudge_trl.tasks.drafting.candidate import Candidate, Reader, entries_of, follow, mapping_of, per_item
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
    overlapping,
    step,
)
from distjudge_trl.tasks.drafting.shares import find_annotators, number_in, share_candidate, sum_to_one
from distjudge_trl.tasks.drafting.texts import message_keys


_SEPARATORS = (";", ",", "|", "#", "/", "\t", "\n")
# Names of annotators: Ann12, rater_3, w7, an address.
_PERSON = re.compile(r"(?i)(a|ann|annot|annotator|rater|worker|user|judge|coder|person|w|u|r|p)[\s_.-]?\d+|.+@.+")
_LIKELY_PEOPLE = re.compile(r"(?i)annotat|rater|worker|judge|people|person|by_")
_MOST_ANNOTATORS = 200
# "3/5" is three of five points, and not two votes.
_OUT_OF = re.compile(r"\d+\s*/\s*\d+")
_SHORT_LABEL = 15


def find_in_cells(columns: list[Column], rows: list[dict[str, Any]]) -> Iterator[Candidate]:
    """Candidates that read one column."""
    for place, column in enumerate(columns):
        if not column.filled or REASON.search(".".join(column.steps)):
            continue
        rank = 1_000 * (len(column.steps) - 1) + place
        rank -= 500 if LABEL.search(column.name) else 0
        rank += 2_000 if ABOUT.search(column.name) else 0
        if all(isinstance(value, dict) for value in column.filled):
            yield from _mapping(column, rows, rank)
        elif all(isinstance(value, list) for value in column.filled):
            yield from (beside(candidate, column, columns, rows) for candidate in _list(column, rows, rank))
        elif all(isinstance(value, str) for value in column.filled):
            yield from _separated(column, rows, rank)


def find_single(columns: list[Column], rows: list[dict[str, Any]]) -> Iterator[Candidate]:
    """Columns with one label a row, if there is nothing better."""
    for place, column in enumerate(columns):
        if not column.is_label_like or len(column.keys) < 2 or len(column.filled) < 2 * len(column.keys):
            continue
        if any(pattern.search(column.name) for pattern in (ABOUT, ANNOTATOR, REASON, ID, SYSTEM)):
            continue
        if column.mean_length > _SHORT_LABEL and not LABEL.search(column.name):
            continue
        rank = place + 1_000 * len(column.steps) - (500 if LABEL.search(column.name) else 0)
        yield Candidate(
            {"list": column.path},
            _scalar_reader(column.steps),
            len(column.filled) / len(rows),
            rank + 10_000,
            f"`{column.path}` holds one label a row",
            [column],
            checks=["one vote an item says nothing about disagreement: are the single annotators' labels elsewhere?"],
        )


def _mapping(column: Column, rows: list[dict[str, Any]], rank: int) -> Iterator[Candidate]:
    """A mapping of annotators to labels, of labels to counts, or of labels to shares."""
    names = {str(name): None for value in column.filled for name in value}
    given: dict[str, list[Any]] = {name: [] for name in names}
    for value in column.filled:
        for name, part in value.items():
            if part is not None and part != "":
                given[str(name)].append(part)
    parts = [part for values in given.values() for part in values]
    if not parts or any(isinstance(part, (list, dict)) for part in parts) or not are_label_like(names):
        return
    numbers = [number_in(part) for part in parts]
    whole = all(number is not None and number >= 0 and number.is_integer() for number in numbers)
    people = _LIKELY_PEOPLE.search(column.name) or sum(map(bool, map(_PERSON.fullmatch, names))) * 2 > len(names)
    if 2 <= len(names) <= MOST_LABELS and sum_to_one(column.filled):
        if (found := find_annotators(column, rows)) is not None:
            yield share_candidate(column, found, rank, list(names))
        return
    if whole and not people and 2 <= len(names) <= MOST_LABELS:
        labels = list(names)

        def read_counts(row: dict[str, Any], steps: tuple[str, ...] = column.steps) -> Iterator[Any]:
            for label, count in mapping_of(follow(row, steps)).items():
                yield from [label] * int(number_in(count) or 0)

        yield Candidate(
            {"counts": column.path},
            read_counts,
            per_item(read_counts, rows),
            rank + 5,
            f"`{column.path}` maps labels to counts",
            [column],
            labels,
            [f'if the names are annotators, write `list: "values({column.path})"`; if questions, name one of them'],
        )
        return
    keys = {comparison_key(part) for part in parts if not is_missing_code(part)}
    single = _without_several(keys)
    sets = [{comparison_key(part) for part in values if not is_missing_code(part)} for values in given.values()]
    if (
        are_label_like(parts)
        and 2 <= len(single) <= MOST_LABELS
        and len(parts) >= 2 * len(single)
        and len(names) > 1
        and (len(names) > _MOST_ANNOTATORS or overlapping(sets))
        and not _are_lists(parts)
    ):

        def read_people(row: dict[str, Any], steps: tuple[str, ...] = column.steps) -> Iterator[Any]:
            yield from mapping_of(follow(row, steps)).values()

        yield Candidate(
            {"list": column.path},
            read_people,
            per_item(read_people, rows),
            rank,
            f"`{column.path}` maps annotators to their labels",
            [column],
        )


def _are_lists(parts: list[Any]) -> bool:
    """Whether values are texts of several annotators' labels, as for several questions."""
    texts = [part for part in parts if isinstance(part, str)]
    for separator in (",", ";"):
        several = [split(text, separator) for text in texts if separator in text]
        if 2 * len(several) > len(parts) or any(len(set(votes)) < len(votes) for votes in several):
            return True
    return False


def _list(column: Column, rows: list[dict[str, Any]], rank: int) -> Iterator[Candidate]:
    """A list of labels, of annotations with a label in each, or of shares in the labels' order."""
    entries = [entry for value in column.filled for entry in value]
    if not entries or column.name == "status" or column.name.endswith(".status"):
        return
    if all(isinstance(entry, dict) for entry in entries):
        if message_keys(column) is None and column.raw is None:
            yield from _list_of_mappings(column, entries, rows, rank)
        return
    flat = [part for entry in entries for part in (entry if isinstance(entry, list) else [entry])]
    if not flat or any(isinstance(part, (list, dict)) for part in flat) or not are_label_like(flat):
        return
    if len({len(value) for value in column.filled}) == 1 and sum_to_one(column.filled):
        if (found := find_annotators(column, rows)) is not None:
            yield share_candidate(column, found, rank, None, len(column.filled[0]))
        return
    keys = {comparison_key(part) for part in flat if not is_missing_code(part)}
    repeated = any(len(set(map(str, value))) < len(value) for value in column.filled)
    if not 2 <= len(keys) <= MOST_LABELS or len(flat) < 2 * len(keys):
        return
    if ANNOTATOR.search(column.name) and not LABEL.search(column.name.replace("annot", "")):
        return

    def read(row: dict[str, Any], steps: tuple[str, ...] = column.steps) -> Any:
        value = follow(row, steps)
        return value if isinstance(value, list) else []

    candidate = Candidate(
        {"list": column.path},
        read,
        per_item(read, rows),
        rank,
        f"`{column.path}` is a list of labels, one of each annotator",
        [column],
    )
    if not repeated:
        candidate.checks.append(
            f"no label occurs twice in a row of `{column.path}`: are these the votes of several people?"
        )
        candidate.rank += 5_000
        candidate.per_item = min(candidate.per_item, 1.0)
    yield candidate


def _list_of_mappings(
    column: Column, entries: list[dict[str, Any]], rows: list[dict[str, Any]], rank: int
) -> Iterator[Candidate]:
    names = list(dict.fromkeys(str(name) for entry in entries for name in entry))
    states = {str(entry.get("status")) for entry in entries}
    kept = "[?status=='submitted']" if "submitted" in states and len(states) > 1 else "[]"
    for place, name in enumerate(names):
        values = [entry.get(name) for entry in entries if entry.get(name) not in (None, "")]
        if not values or not are_label_like(values) or any(p.search(name) for p in (ANNOTATOR, ID, SYSTEM, REASON)):
            continue
        given = [[str(entry.get(name)) for entry in value] for value in column.filled]
        if not any(len(set(votes)) < len(votes) for votes in given):
            continue
        keys = {comparison_key(value) for value in values if not is_missing_code(value)}
        if not 2 <= len(keys) <= MOST_LABELS or len(values) < 2 * len(keys) or name in ("status", "role"):
            continue

        def read(
            row: dict[str, Any], steps: tuple[str, ...] = column.steps, name: str = name, kept: str = kept
        ) -> Iterator[Any]:
            for entry in entries_of(follow(row, steps)):
                if kept == "[]" or entry.get("status") == "submitted":
                    yield entry.get(name)

        path = column.path if len(column.steps) > 1 else step(column.steps[0])
        yield Candidate(
            {"list": f"{path}{kept}.{step(name)}"},
            read,
            per_item(read, rows),
            rank + place,
            f"`{column.path}` is a list of annotations, each with `{name}`",
            [column],
        )


def _separated(column: Column, rows: list[dict[str, Any]], rank: int) -> Iterator[Candidate]:
    """A text of several labels, such as "1,0,0"."""
    best: tuple[int, str] | None = None
    for separator in _SEPARATORS:
        texts = [value for value in column.filled if separator in value]
        if 10 * len(texts) < 3 * len(column.filled):
            continue
        parts = [part for value in column.filled for part in split(value, separator) if part]
        keys = {comparison_key(part) for part in parts if not is_missing_code(part)}
        single = _without_several(keys)
        repeated = any(len(set(found := split(value, separator))) < len(found) for value in texts)
        if (
            are_label_like(parts)
            and 2 <= len(single) <= MOST_LABELS
            and len(parts) >= 2 * len(single)
            and repeated
            and not all(map(_OUT_OF.fullmatch, column.filled))
            and not (ANNOTATOR.search(column.name) and all(map(_PERSON.fullmatch, keys)))
            and (best is None or len(single) < best[0])
        ):
            best = (len(single), separator)
    if best is None:
        return
    separator = best[1]

    def read(row: dict[str, Any], steps: tuple[str, ...] = column.steps) -> list[str]:
        value = follow(row, steps)
        return [part for part in split(value, separator) if part] if isinstance(value, str) else []

    yield Candidate(
        {"list": column.path, **({"separator": separator} if separator != ";" else {})},
        read,
        per_item(read, rows),
        rank,
        f"`{column.path}` is a text of labels with {separator!r} between them",
        [column],
    )


def _scalar_reader(steps: tuple[str, ...]) -> Reader:
    return lambda row: [follow(row, steps)]


def _without_several(keys: set[str]) -> set[str]:
    """The labels without texts that are made of other labels, such as "yes,no"."""
    return {key for key in keys if not labels_in(key, keys)}


def labels_in(key: str, known: set[str]) -> list[str]:
    """The labels that a text is made of, if it is several of the known ones."""
    for separator in (",", ";", "|", "/", "#"):
        parts = split(key, separator)
        if len(parts) > 1 and all(part != key and part in known for part in parts):
            return parts
    return []
