"""A table of a study: is one configuration clearly ahead of the paper's loss on most data sets?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from distjudge_trl.evaluation.distances import item_kl
from distjudge_trl.report.cells import Table
from distjudge_trl.report.test_sets import value_of
from distjudge_trl.study.groups import PAPER, Group, change_from, dagger_notes, plan_methods, read_so
from distjudge_trl.study.plan import Plan
from distjudge_trl.study.starts import data_beside


_READING = "temperature"
# What counts as ahead: so much less excess KL.
AHEAD = 0.1


class _Configuration(NamedTuple):
    """Its name, and its seeds by the data set on which they are compared."""

    title: str
    groups: dict[str, Group]


def configurations_table(plan: Plan, data: Mapping[str, Mapping[str, Group]]) -> Table | None:
    """The change in excess KL from one judge of the paper's loss, both after temperature scaling, on every data set on
    which that has several seeds: of one judge of every other configuration with several seeds, and of the mean of its
    seeds' answers. `None` without a configuration that two data sets have.
    """
    papers = {
        key: read_so(data[key][PAPER], _READING)
        for key, planned in plan.content.data.items()
        if planned.start is None and PAPER in data.get(key, {})
    }
    papers = {key: group for key, group in papers.items() if len(group.results) > 1}
    rows = []
    for title, groups in _configurations(plan, data, list(papers)):
        for form in ("one judge", "mean of its seeds"):
            if title == plan.method_title(PAPER) and form == "one judge":
                continue
            found = {key: _change(papers[key], group, form == "one judge") for key, group in groups.items()}
            ahead = sum(change <= -AHEAD for _, change in found.values())
            cells = [found[key][0] if key in found else "-" for key in papers]
            rows.append([title, form, *cells, f"{ahead} of {len(found)}"])
    header = ["configuration", "", *map(plan.data_title, papers), f"ahead by {100 * AHEAD:.0f} % or more"]
    notes = [
        f"Change in excess KL from one judge of {plan.method_title(PAPER)} on average; all after temperature scaling.",
        "[95 % interval over items of the mean over seeds], with the noise floor fixed. All have two seeds or more.",
    ]
    notes += dagger_notes(rows)
    return Table("configurations", "Configurations beside the paper's loss", header, rows, notes) if rows else None


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
                yield _Configuration(title if start is None else f"{title} from {plan.data_title(start.data)}", groups)


def _change(paper: Group, group: Group, alone: bool) -> tuple[str, float]:
    kl = group.item_kl(_READING) if alone else item_kl(paper.results[0].run.p, group.mean_log_q(_READING))
    text = change_from(paper, group, kl, _READING)
    if text == "-":  # the paper's judges are at the floor
        return text, 0.0
    floor = value_of(paper.results[0].results["metrics"], "noise_floor")
    return text, (kl.mean() - floor) / (paper.item_kl(_READING).mean() - floor) - 1
