"""Lists beside that of the votes which say which votes count, as Argilla writes them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from distjudge_trl.tasks.drafting.candidate import Candidate, follow, per_item
from distjudge_trl.tasks.drafting.columns import Column


_COUNTS = "submitted"


def beside(candidate: Candidate, column: Column, columns: Sequence[Column], rows: list[dict[str, Any]]) -> Candidate:
    """The candidate that reads only votes which were submitted, if a list of states is beside the column."""
    if candidate.votes != {"list": column.path} or (states := _states(column, columns)) is None:
        return candidate
    of_states, every = states.steps, candidate.read
    candidate.hidden.append(states)
    said = {str(state) for value in states.filled for state in value}
    if said <= {_COUNTS}:
        return candidate

    def read(row: dict[str, Any]) -> Iterator[Any]:
        for vote, state in zip(every(row), follow(row, of_states) or (), strict=False):
            if state == _COUNTS:
                yield vote

    candidate.votes = {"list": column.path, "only": {states.path: _COUNTS}}
    candidate.read, candidate.per_item = read, per_item(read, rows)
    candidate.seen += f"; only those of which `{states.path}` says {_COUNTS}"
    return candidate


def _states(column: Column, columns: Sequence[Column]) -> Column | None:
    """The column with a state for each vote: tone.responses.status beside tone.responses, or tone.status beside
    tone.value.
    """
    names = {(*column.steps[:-1], "status"), (f"{column.path}.status",)}
    for other in columns:
        pairs = list(zip(column.values, other.values, strict=True))
        if (
            other.steps in names
            and other.steps != column.steps
            and all(isinstance(b, list) and len(a) == len(b) for a, b in pairs if isinstance(a, list))
            and any(_COUNTS in value for value in other.filled)
        ):
            return other
    return None
