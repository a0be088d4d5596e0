"""Tables of a study beside the systems of a shared task: LeWiDi 2023, the dev parts."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from distjudge_trl.evaluation.lewidi import item_cross_entropy
from distjudge_trl.report.cells import Table, number
from distjudge_trl.study.groups import Group, interval_text, plan_methods, seeds_text
from distjudge_trl.study.plan import Plan


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

    def cross_entropies(self, group: Group, reading: str) -> list[float]:
        """One for each seed that was read so."""
        return [float(item_cross_entropy(self.p, answers).mean()) for answers in _answers(group, reading)]

    def text(self, group: Group | None) -> str:
        """Cross-entropy after temperature scaling, and the share of the way to the floor."""
        found = [] if group is None else self.cross_entropies(group, "temperature")
        if not found:
            return "-"
        share = (self.constant - np.mean(found)) / (self.constant - self.floor)
        return f"{number(found, '.3f')} ({100 * share:.0f} %)"


def shared_task_table(plan: Plan, data: Mapping[str, Mapping[str, Group]]) -> Table | None:
    """Every method on the data sets of the plan that are called as their task; `None` without results of one on the
    whole dev part.
    """
    keys = [key for key in _of_the_shared_task(plan, data) if key == plan.task(key)]
    if not keys:
        return None
    parts = {key: _Part(data[key]) for key in keys}
    rows = []
    for name in plan_methods(plan):
        if any(name in data[key] for key in keys):
            cells = [parts[key].text(data[key].get(name)) for key in keys]
            rows.append([plan.method_title(name), *cells])
    rows.append([_SYSTEM, *(f"{PUBLISHED_DEV[key]:.3f}" for key in keys)])
    rows.append(["constant: mean of train", *(f"{parts[key].constant:.3f} (0 %)" for key in keys)])
    rows.append(["floor: the targets' own entropy", *(f"{parts[key].floor:.3f} (100 %)" for key in keys)])
    header = ["judge", *(plan.data_title(key) for key in keys)]
    note = f"Cross-entropy after temperature scaling; {_SHARE}. Mean ± standard deviation over seeds."
    return Table("lewidi-dev", "LeWiDi 2023, dev: cross-entropy", header, rows, [note])


def tuned_table(plan: Plan, data: Mapping[str, Mapping[str, Group]]) -> Table | None:
    """The judges of all other data sets with a task of the shared task, in detail; `None` without results of one on
    the whole dev part.
    """
    keys = [key for key in _of_the_shared_task(plan, data) if key != plan.task(key)]
    rows = []
    for key in keys:
        part = _Part(data[key])
        for name in plan_methods(plan):
            group = data[key].get(name)
            if group is None or not len(answers := _answers(group, "temperature")):
                continue
            scaled = item_cross_entropy(part.p, answers)
            together = item_cross_entropy(part.p, answers.mean(0)).mean()
            rows.append(
                [
                    plan.data_title(key),
                    f"{plan.method_title(name)}{seeds_text(len(answers))}",
                    number(part.cross_entropies(group, "plain"), ".3f"),
                    part.text(group),
                    interval_text(scaled.mean(0) - item_cross_entropy(part.p, part.p), group),
                    f"{together:.3f}" if len(answers) > 1 else "-",
                    f"{PUBLISHED_DEV[plan.task(key)]:.3f}",
                    f"{part.constant:.3f}",
                    f"{part.floor:.3f}",
                ]
            )
    if not rows:
        return None
    header = ["data", "judge", "as trained", "+ temperature", "above the floor (95 %)"]
    header += ["answers of all seeds, averaged", "CICL_DMS", "constant", "floor"]
    notes = [
        f"Cross-entropy; {_SHARE}. Mean ± standard deviation over seeds.",
        "Intervals are over items, of the mean over seeds after temperature scaling.",
    ]
    return Table("lewidi-tuned", "LeWiDi 2023, dev: judges tuned on the train part", header, rows, notes)


def _of_the_shared_task(plan: Plan, data: Mapping[str, Mapping[str, Group]]) -> list[str]:
    return [
        key
        for key in plan.content.data
        if plan.task(key) in PUBLISHED_DEV and key in data and all(_is_of_dev(group) for group in data[key].values())
    ]


def _is_of_dev(group: Group) -> bool:
    """Whether judges were tested on the whole official part: published figures are of no other."""
    options = [result.about["options"] for result in group.results]
    return all(
        each.get("split", "official") == "official" and not each.get("max_eval_samples") and not each.get("max_items")
        for each in options
    )


def _answers(group: Group, reading: str) -> np.ndarray:
    """Distributions `(S, N, K)` of the seeds that were read so."""
    return np.array([np.exp(r.rows[reading].log_q) for r in group.results if reading in r.rows])
