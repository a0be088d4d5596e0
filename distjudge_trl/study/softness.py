"""Tables of how soft the judges of a study are: whose answers are alike, what moved targets make of their KL, and what
scaling makes of their calibration and entropy.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from distjudge_trl.evaluation.distances import item_entropy, item_kl
from distjudge_trl.report.cells import Table, number
from distjudge_trl.study.groups import (
    PAPER,
    READINGS,
    SEEDS,
    Group,
    compared_data,
    fewer_text,
    ordered_groups,
    people_entropy,
    plan_methods,
    seeds_text,
)
from distjudge_trl.study.plan import Plan
from distjudge_trl.study.store import StudyResult


def likeness_table(plan: Plan, methods: Mapping[str, Group]) -> Table:
    """How like the paper's judge those of the other methods are: KL between their answers, as they are and after
    temperature scaling of both, and their entropy. Beside them, how like each other the paper's judges are.
    """
    paper = {result.about["seed"]: result for result in methods[PAPER].results}
    rows = []
    for name, group in ordered_groups(plan, methods):
        title, own = f"{plan.method_title(name)}{seeds_text(group)}", {r.about["seed"]: r for r in group.results}
        pairs = [(paper[seed], result) for seed, result in own.items() if seed in paper]
        if name == PAPER:
            title, pairs = f"{title}, another seed", list(itertools.permutations(paper.values(), 2))
        entropy = [float(item_entropy(result.run.log_q).mean()) for result in group.results]
        rows.append([title, *(_apart(pairs, reading) for reading in READINGS[:2]), number(entropy, ".2f")])
    header = ["method", f"KL({plan.method_title(PAPER)} ‖ it)", "+ temperature", "entropy of its answers"]
    people = people_entropy(methods[PAPER].results[0])
    if people is not None:
        rows.append(["people (the true distributions, estimated)", "", "", f"{people.mean:.2f}"])
    data = methods[PAPER].data
    notes = [
        "Mean over test items, in nats, of judges with the same seed (of the paper's judges: pairs of seeds).",
        "+ temperature: both after temperature scaling.",
    ]
    return Table(f"likeness-{data}", f"{plan.data_title(data)}: which judges are alike", header, rows, notes)


def _apart(pairs: Sequence[tuple[StudyResult, StudyResult]], reading: str) -> str:
    """KL between the answers of two judges; with the number of pairs, if some were not read so."""
    found = []
    for judges in pairs:
        if all(reading in judge.rows for judge in judges):
            one, other = (judge.rows[reading].log_q for judge in judges)
            found.append(max(float(item_kl(np.exp(one), other).mean()), 0.0))
    return number(found, ".3f") + fewer_text(len(found), len(pairs))


def moved_table(plan: Plan, data: Mapping[str, Mapping[str, Group]]) -> Table | None:
    """How much KL grows when test targets are moved at random by the largest length (the paper's Table 3), as trained
    and after temperature scaling. `None` if nothing was tested so.
    """
    cells: dict[str, dict[str, str]] = {}
    lengths = set()
    for key in compared_data(plan, data):
        for name, group in data[key].items():
            plain, scaled = (_growth(group, reading) for reading in READINGS[:2])
            if plain:
                lengths |= {length for length, _ in (*plain, *scaled)}
                texts = (number([growth for _, growth in found], ".3f") for found in (plain, scaled))
                cells.setdefault(name, {})[key] = " / ".join(texts)
    keys = [key for key in plan.content.data if any(key in row for row in cells.values())]
    names = [name for name in plan_methods(plan) if name in cells]
    if not keys or len(lengths) != 1:
        return None
    rows = [[plan.method_title(name), *(cells[name].get(key, "-") for key in keys)] for name in names]
    note = "As trained / after temperature scaling; mean ± standard deviation over seeds."
    title = f"KL to targets moved at random by {lengths.pop():g} (L2), minus KL to the targets"
    return Table("moved", title, ["method", *(plan.data_title(key) for key in keys)], rows, [note])


def _growth(group: Group, reading: str) -> list[tuple[float, float]]:
    """The largest length by which targets were moved and how much more the KL is there, for each seed tested so."""
    rows = [result.rows[reading].content for result in group.results if reading in result.rows]
    points = [sorted(row["robustness"], key=lambda point: point["radius"]) for row in rows if row.get("robustness")]
    return [(p[-1]["radius"], p[-1]["kl"] - p[0]["kl"]) for p in points if p[0]["radius"] == 0]


def scaled_table(plan: Plan, data: Mapping[str, Mapping[str, Group]], *, metric: str) -> Table | None:
    """A metric of every method on each data set: as trained, with temperature and with vector scaling. `None` if no
    judge was scaled.
    """
    keys = [key for key in compared_data(plan, data) if any(g.values(metric, READINGS[1]) for g in data[key].values())]
    if not keys:
        return None
    form = ".2f" if metric == "entropy_correlation" else ".3f"
    rows = []
    for name in plan_methods(plan):
        groups = [data[key].get(name) for key in keys]
        if any(groups):
            cells = (
                " / ".join(group.text(metric, reading, form) for reading in READINGS) if group else "-"
                for group in groups
            )
            rows.append([plan.method_title(name), *cells])
    header = ["method", *(plan.data_title(key) for key in keys)]
    notes = ["As trained / with temperature scaling / with vector scaling.", SEEDS]
    return Table(f"scaled-{metric}", f"{metric} as trained and scaled", header, rows, notes)
