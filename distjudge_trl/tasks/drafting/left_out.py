"""Rows that a platform marks as not accepted: rejected work, drafts, previews."""

from __future__ import annotations

import re
from collections.abc import Sequence

from distjudge_trl.labels.spelling import spelling
from distjudge_trl.tasks.drafting.columns import Column, step


_STATE = re.compile(r"(?i)status|state|verdict")
_NOT_ACCEPTED = re.compile(
    r"(?i)(rejected|discarded|draft|cancell?ed|returned|timed.?out|spam|survey preview|skipped|abandoned|expired)"
)


def find_skip(columns: Sequence[Column], hidden: Sequence[Column]) -> str | None:
    """The expression for rows that were not accepted, if some were and some were not."""
    for column in columns:
        if not column.is_scalar or not _STATE.search(column.name) or any(column.steps == o.steps for o in hidden):
            continue
        values = list(dict.fromkeys(spelling(value) for value in column.filled))
        found = [value for value in values if _NOT_ACCEPTED.fullmatch(value)]
        if found and len(found) < len(values) <= 10:
            path = ".".join(map(step, column.steps))
            return " || ".join(f"{path} == '{value}'" for value in found)
    return None
