"""Several ratings of the items in one file, as the key `questions` would name them."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Any

from distjudge_trl.errors import UserInputError
from distjudge_trl.tasks.drafting.candidate import Candidate
from distjudge_trl.tasks.drafting.labels import DraftLabels, find_labels
from distjudge_trl.tasks.drafting.sample import Sample


_MOST = 12


def find_questions(
    votes: Candidate, labels: DraftLabels, others: Sequence[Candidate], sample: Sample
) -> dict[str, dict[str, Any]]:
    """What each question says of the votes, and of its labels where they are not those of the draft. Empty if there
    is only one.
    """
    if votes.per_item <= 1:
        return {}
    if votes.may_be_questions and "annotator_columns" in votes.votes and not others:
        names = votes.votes["annotator_columns"]
        return {_name(name): {"votes": {"list": name}} for name in names[:_MOST]}
    chosen = [votes]
    for other in others:
        alike = list(other.votes) == list(votes.votes) and all(_apart(other, one) for one in chosen)
        if alike and not any(_same(other, one, sample) for one in chosen):
            chosen.append(other)
    questions: dict[str, dict[str, Any]] = {}
    for candidate in chosen[:_MOST]:
        try:
            own = _labels(candidate, sample) if candidate is not votes else labels
        except UserInputError:
            continue
        question: dict[str, Any] = {"votes": candidate.votes}
        if own.labels != labels.labels:
            question |= {"labels": own.labels, "ordinal": own.ordinal}
            if own.letters != labels.letters:
                question["answers"] = "letters" if own.letters else None
        if own.spellings:
            question["spellings"] = own.spellings
        if own.missing:
            question["missing"] = own.missing
        if own.multiple:
            question["votes"] = {**candidate.votes, "multiple": "votes"}
        questions.setdefault(_name(_about(candidate)), question)
    return questions if len(questions) > 1 else {}


def _labels(candidate: Candidate, sample: Sample) -> DraftLabels:
    given = (vote for row in sample.rows for vote in candidate.read(row))
    lists = any(isinstance(vote, (list, tuple)) and len(vote) > 1 for vote in given)
    return find_labels(candidate.values(sample.all_rows()), candidate.labels, lists)


def _apart(one: Candidate, other: Candidate) -> bool:
    """Whether two candidates read other columns, of as many people."""
    texts = [_columns(candidate) for candidate in (one, other)]
    return not texts[0] & texts[1] and len(texts[0]) == len(texts[1])


def _same(one: Candidate, other: Candidate, sample: Sample) -> bool:
    """Whether two candidates read the same labels, perhaps as names and as codes."""
    pairs: set[tuple[str, str]] = set()
    for row in sample.rows[:500]:
        mine, its = (list(map(str, candidate.read(row))) for candidate in (one, other))
        if len(mine) != len(its):
            return False
        pairs.update(zip(mine, its, strict=True))
    return "shares" not in one.votes and len({a for a, _ in pairs}) == len({b for _, b in pairs}) == len(pairs)


def _columns(candidate: Candidate) -> set[str]:
    found: set[str] = set()
    for key, value in candidate.votes.items():
        if key in ("annotator", "num_annotators", "separator"):
            continue
        parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else [value]
        found.update(name for part in parts for name in (part if isinstance(part, list) else [part]))
    return found


def _about(candidate: Candidate) -> str:
    """What a question is about: the column, or what several columns have in common."""
    names = sorted(_columns(candidate))
    if len(names) == 1:
        return names[0]
    start = os.path.commonprefix(names)
    end = os.path.commonprefix([name[::-1] for name in names])[::-1]
    return max((re.sub(r"\W+$|^\W+", "", part) for part in (start, end)), key=len) or names[0]


def _name(text: str) -> str:
    """A name as `questions` takes it."""
    text = re.sub(r"\s*\|\|.*|\[.*?\]|\"", "", text)
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", text).strip("_.-") or "question"
