"""The table of one number of annotations, spent on many items or on many annotators an item (the paper's Table 4)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

from distjudge_trl.report.cells import Table
from distjudge_trl.study.groups import (
    SEEDS,
    Group,
    check_same_items,
    excess_text,
    gain_text,
    marks_text,
    plan_methods,
    seeds_text,
)
from distjudge_trl.study.plan import Plan
from distjudge_trl.study.store import StudyResult


# Options that say what is annotated, and how often it is read.
_SPENDING = {"max_annotators", "max_train_samples", "annotation_budget", "num_train_epochs", "max_steps"}
# Numbers of annotations that differ by less count as one: the items that are drawn differ in their votes.
_TOLERANCE = 0.02


class _Spent(NamedTuple):
    """What judges were trained on, and the judges."""

    annotations: int
    items: int
    epochs: float
    group: Group

    @property
    def an_item(self) -> float:
        return self.annotations / self.items


def budgets_table(plan: Plan, results: Sequence[StudyResult]) -> Table | None:
    """Judges of one method and data set that were trained on equally many annotations of different numbers of items.
    `None` if there are no two.
    """
    rows = []
    for data in plan.content.data:
        for method in plan_methods(plan):
            for choice in _equal(_spent(results, data, method)):
                first = choice[0].group
                for spent in choice:
                    minus = "-" if spent.group is first else gain_text(spent.group, first, "plain")
                    rows.append(
                        [
                            plan.data_title(data),
                            f"{plan.method_title(method)}{seeds_text(spent.group)}",
                            f"{spent.items:,}",
                            f"{spent.an_item:.3g}",
                            f"{spent.annotations:,}",
                            f"{spent.epochs:.3g}",
                            spent.group.text("kl"),
                            excess_text(spent.group),
                            spent.group.text("kl", "temperature"),
                            minus,
                        ]
                    )
    if not rows:
        return None
    header = ["data", "method", "items", "annotators an item", "annotations", "epochs", "KL", "excess KL (95 %)"]
    header += ["+ temperature", "KL minus that of the first"]
    notes = [
        f"Judges are tested on all votes of the same test items. {SEEDS}",
        "Differences: over the seeds that both have [95 % interval over items of the mean over them].",
        marks_text(rows),
    ]
    return Table("budgets", "One number of annotations, on many items or on many annotators", header, rows, notes)


def _spent(results: Sequence[StudyResult], data: str, method: str) -> Iterator[_Spent]:
    own = [r for r in results if (r.about["data"], r.about["method"]) == (data, method) and "transfer" not in r.about]
    own = [result for result in own if set(result.about["vary"]) <= _SPENDING]
    check_same_items(own)
    own = sorted(own, key=lambda result: (repr(sorted(result.about["vary"].items())), result.about["seed"]))
    for _, found in groupby(own, key=lambda result: result.about["vary"]):
        group = Group(data, method, tuple(found))
        settings = group.results[0].results["settings"]
        if settings.get("num_train_votes") and settings.get("num_train_items"):
            epochs = settings["num_train_epochs"]
            yield _Spent(settings["num_train_votes"], settings["num_train_items"], epochs, group)


def _equal(found: Iterator[_Spent]) -> Iterator[list[_Spent]]:
    """Those with equally many annotations of different numbers of items, most items first."""
    left = sorted(found, key=lambda spent: (spent.annotations, -spent.items))
    while left:
        most = (1 + _TOLERANCE) * left[0].annotations
        choice = [spent for spent in left if spent.annotations <= most]
        left = left[len(choice) :]
        if len({spent.items for spent in choice}) > 1:
            yield sorted(choice, key=lambda spent: -spent.items)
