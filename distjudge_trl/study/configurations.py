"""A table of a study: is one configuration ahead of the paper's loss on most data sets?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from distjudge_trl.evaluation.distances import item_kl
from distjudge_trl.evaluation.statistics import paired_difference
from distjudge_trl.report.cells import LEVEL, Table
from distjudge_trl.report.test_sets import value_of
from distjudge_trl.study.groups import (
    PAPER,
    Group,
    change_text,
    dagger,
    dagger_notes,
    plan_methods,
    read_so,
    same_seeds,
    stars,
)
from distjudge_trl.study.plan import Plan
from distjudge_trl.study.starts import data_beside, start_title


_READING = "temperature"
# What counts as ahead: so much less excess KL.
AHEAD = 0.1


class _Configuration(NamedTuple):
    """Its name, and its seeds by the data set on which they are compared."""

    title: str
    groups: dict[str, Group]


def configurations_table(plan: Plan, data: Mapping[str, Mapping[str, Group]]) -> Table | None:
    """The change in excess KL from the paper's loss, both after temperature scaling, on every data set on which that
    has several seeds: of one judge of every other configuration from one of the paper's judges, and of the mean of its
    seeds' answers from the mean of the same seeds of the paper's. `None` without a configuration on two data sets.
    """
    papers = _papers(plan, data)
    rows = []
    for title, groups in _configurations(plan, data, list(papers)):
        if title == plan.method_title(PAPER):
            continue
        pairs = {
            key: pair for key in papers if key in groups and (pair := _pair(papers[key], groups[key])) is not None
        }
        for form in ("one judge", "mean of its seeds"):
            found = {key: _change(*pair, form == "one judge") for key, pair in pairs.items()}
            ahead = sum(change <= -AHEAD for _, change, _ in found.values())
            sure = sum(change <= -AHEAD and is_sure for _, change, is_sure in found.values())
            cells = [found[key][0] if key in found else "-" for key in papers]
            rows.append([title, form, *cells, f"{ahead} of {len(found)}", str(sure) if form == "one judge" else "-"])
    header = ["configuration", "", *map(plan.data_title, papers), f"ahead by {100 * AHEAD:.0f} % or more", "surely"]
    paper = plan.method_title(PAPER)
    change = (
        f"Change in excess KL from {paper}, over the seeds that both have (two or more), after temperature scaling of"
        f" all: one judge from one judge of {paper} on average, the mean of its seeds' answers from that of {paper}."
    )
    notes = [
        change,
        "[95 % interval over items of the mean over seeds], with the noise floor fixed.",
        f"Surely: how many of these have an interval without 0 and p below {LEVEL} in a paired t-test over the seeds.",
    ]
    notes += dagger_notes(rows)
    return Table("configurations", "Configurations beside the paper's loss", header, rows, notes) if rows else None


def _papers(plan: Plan, data: Mapping[str, Mapping[str, Group]]) -> dict[str, Group]:
    """The judges of the paper's loss from the plan's model, where it has several seeds; of data sets that are tested
    on the same items, those of the first.
    """
    found: dict[tuple[str, str], Group] = {}
    for key, planned in plan.content.data.items():
        group = read_so(data[key][PAPER], _READING) if PAPER in data.get(key, {}) else None
        if planned.start is None and group is not None and len(group.results) > 1:
            found.setdefault((planned.task, group.results[0].results["test_fingerprint"]), group)
    return {group.data: group for group in found.values()}


def _pair(paper: Group, group: Group) -> tuple[Group, Group] | None:
    """Both with the seeds that both have; `None` if these are not several."""
    pair = same_seeds(paper, group, _READING)
    return pair if pair is not None and len(pair[0].results) > 1 else None


def _configurations(plan: Plan, data: Mapping[str, Mapping[str, Group]], keys: list[str]) -> Iterator[_Configuration]:
    """Methods from the plan's model, and then those that start from the judges of another data set."""
    for start in dict.fromkeys([None, *(planned.start for planned in plan.content.data.values())]):
        for method in plan_methods(plan):
            groups: dict[str, Group] = {}
            for other, planned in plan.content.data.items():
                if planned.start != start or method not in data.get(other, {}):
                    continue
                group = read_so(data[other][method], _READING)
                places = [other] if start is None else data_beside(plan, other, data)
                groups |= {key: group for key in places if key in keys and len(group.results) > 1}
            title = plan.method_title(method)
            if len(groups) > 1:
                yield _Configuration(start_title(plan, title, start), groups)


def _change(paper: Group, group: Group, alone: bool) -> tuple[str, float, bool]:
    """The cell, the change, and whether items and seeds agree that there is one."""
    p = paper.results[0].run.p
    kls = [each.item_kl(_READING) if alone else item_kl(p, each.mean_log_q(_READING)) for each in (paper, group)]
    floor = value_of(paper.results[0].results["metrics"], "noise_floor")
    text = change_text(kls[0] - floor, kls[1] - floor, paper.groups)
    if text == "-":  # the paper's judges are at the floor
        return text, 0.0, False
    is_sure = False
    if alone:  # the mean of the seeds is one judge, which has no other seeds
        seeds = (each.seed_item_kl(_READING).mean(1).tolist() for each in (group, paper))
        is_sure = stars(paired_difference(kls[1], kls[0], paper.groups), *seeds) == " **"
    return text + dagger(paper, group), (kls[1].mean() - floor) / (kls[0].mean() - floor) - 1, is_sure
