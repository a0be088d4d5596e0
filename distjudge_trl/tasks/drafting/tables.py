"""Finding votes that are spread over columns: a column an annotator, or columns of counts or marks a label."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from distjudge_trl.labels.spelling import comparison_key, spelling
from distjudge_trl.tasks.drafting.candidate import Candidate, follow, per_item
from distjudge_trl.tasks.drafting.columns import (
    ABOUT,
    ANNOTATOR,
    GROUP,
    ID,
    LABEL,
    MOST_LABELS,
    PERSON,
    REASON,
    SYSTEM,
    Column,
    is_number,
    overlapping,
)
from distjudge_trl.tasks.drafting.shares import find_share_columns


_TOTAL = re.compile(r"(?i)^(count|total|n|num|votes?)$|num.*(annot|vote|rat)|(annot|vote|rat).*(count|num)|number.of")
_COUNTED = re.compile(r"(?i)(^|[^a-z])(n|num|count|counts|votes?)([^a-z]|$)|^#")
_BRACKETS = re.compile(r"(.*?)\s*[\[(]([^\])]*)[\])]\s*")
_PEOPLE = re.compile(r"(?i)\d|ann|rater|worker|judge|coder|user")


def find_in_columns(columns: list[Column], rows: list[dict[str, Any]]) -> Iterator[Candidate]:
    """Candidates that read several columns."""
    place = {column.steps: number for number, column in enumerate(columns)}
    shares = list(find_share_columns(columns, rows, place))
    yield from shares
    of_shares = {column.steps for candidate in shares for column in candidate.hidden}
    cells = [c for c in columns if len(c.steps) == 1 and c.is_label_like and c.steps not in of_shares]
    counts = list(_counts(cells, rows, place))
    yield from counts
    taken = {column.steps for candidate in counts for column in candidate.hidden}
    yield from _annotators([column for column in cells if column.steps not in taken], rows, place)


def _annotators(cells: list[Column], rows: list[dict[str, Any]], place: dict[Any, int]) -> Iterator[Candidate]:
    possible = [column for column in cells if not _describes(column)]
    seen: set[frozenset[tuple[str, ...]]] = set()
    by_name = _named_groups(possible)
    for named, group in [*by_name, *((False, group) for group in _alike(possible))]:
        members = frozenset(column.steps for column in group)
        # Columns such as anna_tone, anna_style, ben_tone, ben_style are several questions, and not four people.
        parts = {part for _, own in by_name if len(part := frozenset(c.steps for c in own)) > 1 and part < members}
        if not named and any(sum(map(len, parts_of)) >= len(members) for parts_of in _partitions(parts)):
            continue
        keys = set().union(*(column.keys for column in group)) if group else set()
        total = sum(len(column.filled) for column in group)
        if len(group) < 2 or members in seen or not 2 <= len(keys) <= MOST_LABELS or total < 2 * len(keys):
            continue
        if not overlapping([column.keys for column in group]):
            continue
        if len(keys) > 10 and not all(map(is_number, keys)):
            continue
        seen.add(members)
        paths = [column.path for column in group]
        steps = [column.steps for column in group]

        def read(row: dict[str, Any], steps: list[tuple[str, ...]] = steps) -> list[Any]:
            return [follow(row, one) for one in steps]

        checks = []
        if not named or any(other & members and other != members for other in map(_members, by_name)):
            checks.append("are these columns of people? If of questions, name one of them, or see `questions`")
        rank = 1_000 + place[group[0].steps] - (1_000 if named else 0)
        rank += 1_000 * (len(steps[0]) - 1)
        yield Candidate(
            {"annotator_columns": paths},
            read,
            per_item(read, rows),
            rank,
            f"{len(paths)} columns with labels in common, one of each annotator",
            group,
            checks=checks,
            may_be_questions=not named,
        )


def _members(named: tuple[bool, list[Column]]) -> frozenset[tuple[str, ...]]:
    return frozenset(column.steps for column in named[1])


def _partitions(parts: set[frozenset[tuple[str, ...]]]) -> Iterator[list[frozenset[tuple[str, ...]]]]:
    """Sets without common members, as many as there are from each start."""
    for first in parts:
        chosen = [first]
        for part in sorted(parts, key=len, reverse=True):
            if len(part) == len(first) and not any(part & other for other in chosen):
                chosen.append(part)
        if len(chosen) > 1:
            yield chosen


def _describes(column: Column) -> bool:
    """Whether a column describes the item rather than judges it."""
    name = column.name
    if ABOUT.search(name) or REASON.search(name) or SYSTEM.search(name) or PERSON.fullmatch(name):
        return True
    numbered = _PEOPLE.search(name) is not None
    return (ID.search(name) is not None and not LABEL.search(name) and not numbered) or (
        column.differs() and len(column.keys) > 3
    )


def _named_groups(columns: list[Column]) -> list[tuple[bool, list[Column]]]:
    """Groups of columns whose names differ in one part: annotator1, annotator2; Tone [Anna], Tone [Ben]."""
    groups: dict[tuple[Any, ...], list[Column]] = {}
    for column in columns:
        parent, name = column.steps[:-1], column.name
        if (brackets := _BRACKETS.fullmatch(name)) is not None and brackets[1]:
            groups.setdefault((parent, "[]", brackets[1]), []).append(column)
        if re.search(r"\d", name):
            groups.setdefault((parent, "#", re.sub(r"\d+", "#", name)), []).append(column)
        parts = re.split(r"[_\-.: ]", name)
        if len(parts) > 1:
            groups.setdefault((parent, "<", name[: -len(parts[-1])]), []).append(column)
            groups.setdefault((parent, ">", name[len(parts[0]) :]), []).append(column)
    # Of columns that are alike in two ways, those are a question's whose other part names people.
    several = [(key, group) for key, group in groups.items() if len(group) > 1]
    order = {"[]": 0, "#": 1, "<": 2, ">": 2}
    several.sort(key=lambda entry: (order[entry[0][1]], -_people(entry[0], entry[1])))
    return [(True, group) for _, group in several]


def _people(key: tuple[Any, ...], group: list[Column]) -> int:
    """How many of the parts in which the names of a group differ look like people."""
    _, kind, same = key
    rest = [column.name.removeprefix(same) if kind == "<" else column.name.removesuffix(same) for column in group]
    return sum(_PEOPLE.search(part) is not None for part in rest)


def _alike(columns: list[Column]) -> list[list[Column]]:
    """Groups of columns that have most of their values in common."""
    groups: list[list[Column]] = []
    for column in columns:
        if GROUP.search(column.name) and not any(map(is_number, column.keys)):
            continue
        for group in groups:
            keys = set().union(*(other.keys for other in group))
            if group[0].steps[:-1] == column.steps[:-1] and 2 * len(keys & column.keys) >= len(column.keys) > 0:
                group.append(column)
                break
        else:
            groups.append([column])
    return groups


def _counts(cells: list[Column], rows: list[dict[str, Any]], place: dict[Any, int]) -> Iterator[Candidate]:
    """Columns of counts, or of marks (0 and 1), whose sums are the numbers of votes."""
    numbers = {column.steps: _counted(column) for column in cells}
    columns = [column for column in cells if numbers[column.steps] is not None]
    taken: set[tuple[str, ...]] = set()
    for blocks, marked in _blocks([column for column in columns if not _TOTAL.search(column.name)]):
        own = {column.steps for block in blocks for column in block.values()}
        if own & taken:
            continue
        labels = list(dict.fromkeys(label for block in blocks for label in block))
        named = {label: [block[label] for block in blocks if label in block] for label in labels}
        if marked or _are_votes(list(blocks[0].values()), columns, numbers):
            taken |= own
            found = _label_columns(named, rows, place)
            found.sure = not marked or len(labels) > 2
            yield found
    for total in columns:
        if _TOTAL.search(total.name):
            rest = [column for column in columns if column is not total and not ID.search(column.name)]
            for group in (rest, *([c for c in rest if c is not left] for left in rest)):
                if len(group) > 1 and _sums_to(group, total, numbers):
                    found = _label_columns({column.name: [column] for column in group}, rows, place, total)
                    found.sure = True
                    yield found
                    return


def _counted(column: Column) -> list[int] | None:
    """The counts of a column, 0 for an empty cell or one of a few that are damaged; `None` if these are no counts."""
    counts, damaged = [], 0
    for value in column.values:
        text = spelling(value) if value is not None and str(value).strip() else "0"
        text = {"true": "1", "false": "0"}.get(text.casefold(), text)
        damaged += not text.isdecimal()
        counts.append(int(text) if text.isdecimal() else 0)
    return counts if damaged <= _allowed(len(counts)) else None


def _allowed(rows: int) -> int:
    """How many rows may be damaged. The check of the draft names them."""
    return max(1, rows // 20) if rows > 4 else 0


def _blocks(columns: list[Column]) -> list[tuple[list[dict[str, Column]], bool]]:
    """Columns by the parts of their names: a block holds an annotator's mark for each label. The flag says that each
    row of a block has at most one mark, and nearly every row with an answer has one.
    """
    found = []
    for separator in (".", ":", "_", " ", "-"):
        by_prefix: dict[str, dict[str, Column]] = {}
        for column in columns:
            prefix, mark, label = column.name.rpartition(separator)
            if mark and label and len(column.steps) == 1:
                by_prefix.setdefault(prefix, {})[label] = column
        by_question: dict[str, list[dict[str, Column]]] = {}
        for prefix, block in by_prefix.items():
            if len(block) > 1:
                by_question.setdefault(re.sub(r"\d+", "#", prefix), []).append(block)
        for blocks in by_question.values():
            found.append((blocks, all(map(_has_one_mark, blocks)) and len(blocks[0]) > 1))
    by_suffix: dict[str, dict[str, Column]] = {}
    for column in columns:
        label, mark, suffix = column.name.partition("_")
        if mark and len(column.steps) == 1:
            by_suffix.setdefault(suffix, {})[label] = column
    found += [([block], False) for suffix, block in by_suffix.items() if len(block) > 1 and _COUNTED.search(suffix)]
    return found


def _has_one_mark(block: dict[str, Column]) -> bool:
    sums, answered, damaged = [], 0, 0
    for cells in zip(*(column.values for column in block.values()), strict=True):
        filled = [spelling(cell) for cell in cells if cell is not None and str(cell).strip()]
        if any(cell.casefold() not in ("0", "1", "true", "false") for cell in filled):
            filled = []
            damaged += 1
        answered += bool(filled)
        sums.append(sum(cell.casefold() in ("1", "true") for cell in filled))
    single = sum(count == 1 for count in sums)
    return damaged <= _allowed(len(sums)) and 0 < answered <= single + _allowed(answered)


def _are_votes(group: list[Column], columns: list[Column], numbers: dict[Any, Any]) -> bool:
    """Whether columns of counts have the same sum in every row, or that of another column, or are called counts."""
    sums = [sum(row) for row in zip(*(numbers[column.steps] for column in group), strict=True)]
    if max(sums, default=0) < 2 or not any(0 in numbers[column.steps] for column in group):
        return False
    totals = [column for column in columns if column not in group and _TOTAL.search(column.name)]
    if any(_sums_to(group, total, numbers) for total in totals):
        return True
    called = all(_COUNTED.search(column.name) for column in group)
    return called or (len(set(sums)) == 1 and len(sums) > 3)


def _sums_to(group: list[Column], total: Column, numbers: dict[Any, Any]) -> bool:
    sums = [sum(row) for row in zip(*(numbers[column.steps] for column in group), strict=True)]
    return sums == numbers[total.steps] and max(sums) > 1


def _label_columns(
    named: dict[str, list[Column]], rows: list[dict[str, Any]], place: dict[Any, int], total: Column | None = None
) -> Candidate:
    used = [column for columns in named.values() for column in columns]
    steps = {label: [column.steps for column in columns] for label, columns in named.items()}

    def read(row: dict[str, Any]) -> Iterator[Any]:
        for label, places in steps.items():
            for one in places:
                text = spelling(follow(row, one)).casefold()
                yield from [label] * (int(text) if text.isdecimal() else text == "true")

    labels = list(named)
    if all(is_number(comparison_key(label)) for label in labels):
        labels.sort(key=lambda label: float(comparison_key(label)))
    paths = {label: [column.path for column in named[label]] for label in labels}
    people = max(map(len, named.values()))
    blocks = f", of {people} annotators" if people > 1 else ""
    return Candidate(
        {"label_columns": {label: one[0] if len(one) == 1 else one for label, one in paths.items()}},
        read,
        per_item(read, rows),
        place[used[0].steps] - (500 if ANNOTATOR.search(used[0].name) or LABEL.search(used[0].name) else 0),
        f"columns that count the votes of {len(labels)} labels{blocks}",
        [*used, *([total] if total is not None else [])],
        labels,
        ["the labels are parts of the columns' names"],
    )
