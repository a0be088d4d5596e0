"""Tables of a study beside the systems of a shared task: LeWiDi 2023, the dev parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from distjudge_trl.evaluation.lewidi import item_cross_entropy
from distjudge_trl.evaluation.statistics import bootstrap_mean
from distjudge_trl.report.cells import Table, number
from distjudge_trl.study.groups import Group, plan_methods, seeds_text
from distjudge_trl.study.plan import Plan
from distjudge_trl.study.store import StudyResult


# Cross-entropies on the dev part that were published (docs/lewidi.md names the source).
PUBLISHED_DEV = {"hs_brexit": 0.322, "convabuse": 0.230, "md_agreement": 0.528, "armis": 0.616}
_SYSTEM = "CICL_DMS (published, multilingual DistilBERT)"
_SHARE = "in brackets the share of the way from the constant to the floor"


class _Part:
    """The dev part of a task: its floor (the targets' own entropy) and the constant mean of train."""

    def __init__(self, methods: Mapping[str, Group]) -> None:
        self.p = next(iter(methods.values())).results[0].run.p
        self.floor = float(item_cross_entropy(self.p, self.p).mean())
        constant = next(r.rows["training-prior"] for group in methods.values() for r in group.results)
        self.constant = float(item_cross_entropy(self.p, np.exp(constant.log_q)).mean())

    def share(self, cross_entropy: float) -> str:
        return f"{100 * (self.constant - cross_entropy) / (self.constant - self.floor):.0f} %"


def shared_task_tables(plan: Plan, data: Mapping[str, Mapping[str, Group]]) -> list[Table]:
    """`lewidi-dev`: every method on the data sets of the plan that are called as their task; `lewidi-tuned`: the
    judges of all other data sets with such a task, in detail. Only those that have results.
    """
    keys = [key for key in plan.content.data if plan.task(key) in PUBLISHED_DEV and key in data]
    plain, tuned = [key for key in keys if key == plan.task(key)], [key for key in keys if key != plan.task(key)]
    tables = [_methods_table(plan, data, plain)] if plain else []
    return [*tables, *([_tuned_table(plan, data, tuned)] if tuned else [])]


def _methods_table(plan: Plan, data: Mapping[str, Mapping[str, Group]], keys: Sequence[str]) -> Table:
    parts = {key: _Part(data[key]) for key in keys}
    rows = []
    for name in plan_methods(plan):
        if any(name in data[key] for key in keys):
            cells = [_text(parts[key], data[key].get(name)) for key in keys]
            rows.append([plan.method_title(name), *cells])
    rows.append([_SYSTEM, *(f"{PUBLISHED_DEV[key]:.3f}" for key in keys)])
    rows.append(["constant: mean of train", *(f"{parts[key].constant:.3f} (0 %)" for key in keys)])
    rows.append(["floor: the targets' own entropy", *(f"{parts[key].floor:.3f} (100 %)" for key in keys)])
    header = ["judge", *(plan.data_title(key) for key in keys)]
    note = f"Cross-entropy after temperature scaling; {_SHARE}. Mean ± standard deviation over seeds."
    return Table("lewidi-dev", "LeWiDi 2023, dev: cross-entropy", header, rows, [note])


def _text(part: _Part, group: Group | None) -> str:
    found = [] if group is None else _cross_entropies(part, group, "temperature")
    return f"{number(found, '.3f')} ({part.share(float(np.mean(found)))})" if found else "-"


def _tuned_table(plan: Plan, data: Mapping[str, Mapping[str, Group]], keys: Sequence[str]) -> Table:
    rows = []
    for key in keys:
        part = _Part(data[key])
        for name in plan_methods(plan):
            group = data[key].get(name)
            if group is None or not (scaled := _cross_entropies(part, group, "temperature")):
                continue
            excess = bootstrap_mean(_item_means(part, group) - item_cross_entropy(part.p, part.p), group.groups)
            together = np.mean([np.exp(r.rows["temperature"].log_q) for r in _read(group, "temperature")], axis=0)
            rows.append(
                [
                    plan.data_title(key),
                    f"{plan.method_title(name)}{seeds_text(group)}",
                    number(_cross_entropies(part, group, "plain"), ".3f"),
                    f"{number(scaled, '.3f')} ({part.share(float(np.mean(scaled)))})",
                    f"{excess.value:.3f} [{excess.low:.3f}, {excess.high:.3f}]",
                    f"{item_cross_entropy(part.p, together).mean():.3f}" if len(scaled) > 1 else "-",
                    f"{PUBLISHED_DEV[plan.task(key)]:.3f}",
                    f"{part.constant:.3f}",
                    f"{part.floor:.3f}",
                ]
            )
    header = [
        "data",
        "judge",
        "as trained",
        "+ temperature",
        "above the floor (95 %)",
        "answers of all seeds, averaged",
    ]
    header += ["CICL_DMS", "constant", "floor"]
    notes = [
        f"Cross-entropy; {_SHARE}. Mean ± standard deviation over seeds.",
        "Intervals are over items, of the mean over seeds after temperature scaling.",
    ]
    return Table("lewidi-tuned", "LeWiDi 2023, dev: judges tuned on the train part", header, rows, notes)


def _read(group: Group, reading: str) -> list[StudyResult]:
    return [result for result in group.results if reading in result.rows]


def _cross_entropies(part: _Part, group: Group, reading: str) -> list[float]:
    return [float(item_cross_entropy(part.p, np.exp(r.rows[reading].log_q)).mean()) for r in _read(group, reading)]


def _item_means(part: _Part, group: Group) -> np.ndarray:
    """Cross-entropy of every item after temperature scaling, the mean over the seeds."""
    found = [item_cross_entropy(part.p, np.exp(r.rows["temperature"].log_q)) for r in _read(group, "temperature")]
    return np.mean(found, axis=0)
