"""What a drafted task file will say."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from distjudge_trl.tasks.drafting.candidate import Candidate
from distjudge_trl.tasks.drafting.columns import Column
from distjudge_trl.tasks.drafting.labels import DraftLabels
from distjudge_trl.tasks.drafting.own_splits import DraftSplit
from distjudge_trl.tasks.drafting.sample import Sample


@dataclass
class Draft:
    """What a task file will say, and why."""

    name: str
    source: dict[str, Any]
    sample: Sample
    votes: Candidate
    labels: DraftLabels
    texts: list[Column]
    reasons: list[Column]
    id: list[str] | None
    group: str | None
    others: list[Candidate] = field(default_factory=list)
    unvoted: bool = False
    split: DraftSplit | None = None
    questions: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def num_items(self) -> str:
        rows = len(self.sample.rows)
        return f"{rows:,} rows" if self.sample.complete else f"the first {rows:,} rows"
