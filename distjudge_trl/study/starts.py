"""A table of a study: what it gains to start from the judge of a related data set."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

from distjudge_trl.errors import listing
from distjudge_trl.report.cells import Table
from distjudge_trl.study.groups import (
    PAPER,
    REFERENCE,
    SEEDS,
    Group,
    gain_text,
    marks_text,
    plan_methods,
    relative_text,
    same_seeds,
)
from distjudge_trl.study.plan import Plan
from distjudge_trl.study.plan_file import Start


_READING = "temperature"


def starts_table(plan: Plan, data: Mapping[str, Mapping[str, Group]]) -> Table | None:
    """Excess KL after temperature scaling of judges that start from another judge, beside judges from the plan's model
    on the same data and on its controls (`compare_with`): of the paper's method, of KL + CE, and of their own. `None`
    without such judges.
    """
    rows, alone = [], []
    for key, planned in plan.content.data.items():
        if planned.start is None or key not in data:
            continue
        plain = data_beside(plan, key, data)
        if not plain:
            alone.append(plan.data_title(key))
        for method, other in itertools.product(plan_methods(plan), plain):
            for beside in dict.fromkeys((PAPER, REFERENCE, method)):
                row = _row(plan, (other, beside), (key, method), data)
                rows += [row] if row is not None else []
    header = ["data of A", "A", "B: from a related judge", "seeds", "excess KL of A", "of B"]
    header += ["B relative to A (95 %)", "B minus A (95 %)", "accuracy % of A", "accuracy % of B"]
    notes = [
        "A starts from the plan's model, unless it says from which judges.",
        f"Excess KL after temperature scaling of both, over the seeds that both have. {SEEDS}",
        "B relative to A, B minus A: [95 % interval over items of the mean over seeds], with the noise floor fixed.",
        marks_text(rows),
    ]
    if alone:
        notes.append(
            f"Without a comparison: {listing(alone)}. No data set with results has the same task, files, options and"
            " test items, and the plan's model to start from."
        )
    return Table("starts", "Judges that start from a related judge", header, rows, notes) if rows else None


def _row(
    plan: Plan, plain: tuple[str, str], further: tuple[str, str], data: Mapping[str, Mapping[str, Group]]
) -> list[str] | None:
    """Two groups, by data set and method, side by side; `None` if they have no seed in common."""
    groups = [data[key].get(method) for key, method in (plain, further)]
    if groups[0] is None or groups[1] is None or further[1] == "raw":
        return None
    pair = same_seeds(groups[0], groups[1], _READING)
    if pair is None:
        return None
    first, second = pair
    return [
        plan.data_title(plain[0]),
        _judge_title(plan, *plain),
        _judge_title(plan, *further),
        str(len(first.results)),
        first.text("excess_kl", _READING),
        second.text("excess_kl", _READING),
        relative_text(first, second, _READING),
        gain_text(second, first, _READING),
        first.text("accuracy", form=".1f", scale=100),
        second.text("accuracy", form=".1f", scale=100),
    ]


def _judge_title(plan: Plan, key: str, method: str) -> str:
    return start_title(plan, plan.method_title(method), plan.content.data[key].start)


def start_title(plan: Plan, title: str, start: Start | None) -> str:
    """A method's title with the judges from which it starts; with their method, if others start from another one."""
    if start is None:
        return title
    starts = (planned.start for planned in plan.content.data.values())
    several = len({other.method for other in starts if other is not None and other.data == start.data}) > 1
    method = "" if start.method is None or not several else f" ({plan.method_title(start.method)})"
    return f"{title} from {plan.data_title(start.data)}{method}"


def data_beside(plan: Plan, key: str, data: Mapping[str, Mapping[str, Group]]) -> list[str]:
    """The data sets whose judges stand beside those of `key`: with the same task, files and options and the model of
    the plan to start from, and its controls, as far as they have results on the same test items.
    """
    own = plan.content.data[key]
    found = []
    for other, planned in plan.content.data.items():
        same = (planned.task, planned.path, planned.options) == (own.task, own.path, own.options)
        beside = other in own.compare_with or (same and planned.start is None)
        if beside and other != key and other in data:
            tested = {g.results[0].results["test_fingerprint"] for d in (data[other], data[key]) for g in d.values()}
            found += [other] if len(tested) == 1 else []
    return found
