"""A table of a study: what it gains to start from the judge of a related data set."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from distjudge_trl.report.cells import Table, number
from distjudge_trl.study.groups import PAPER, STARS, Group, gain_text, plan_methods, seeds_text
from distjudge_trl.study.plan import Plan


_READING = "temperature"


def starts_table(plan: Plan, data: Mapping[str, Mapping[str, Group]]) -> Table | None:
    """Excess KL after temperature scaling of judges that start from another judge, beside the paper's method from the
    plan's model on the same data. `None` without such judges.
    """
    rows = []
    for key, planned in plan.content.data.items():
        if planned.start is None or key not in data:
            continue
        plain = _same_data(plan, key, data)
        paper = data[plain].get(PAPER) if plain is not None else None
        if plain is None or paper is None:
            continue
        start = plan.data_title(planned.start.data)
        for name in plan_methods(plan):
            group = data[key].get(name)
            if group is None or name == "raw" or not group.values("kl", _READING):
                continue
            before, after = (float(np.mean(_excess(each))) for each in (paper, group))
            rows.append(
                [
                    plan.data_title(plain),
                    f"{plan.method_title(name)} from {start}{seeds_text(group)}",
                    f"{number(_excess(paper), '.3f')}{seeds_text(paper)}",
                    number(_excess(group), ".3f"),
                    f"{100 * (after / before - 1):+.0f} %",
                    gain_text(group, paper, _READING),
                    number(paper.values("accuracy"), ".1f", 100),
                    number(group.values("accuracy"), ".1f", 100),
                ]
            )
    header = ["data", "judge", f"excess KL of {PAPER}", "excess KL of the judge", "relative", "difference (95 %)"]
    header += [f"accuracy % of {PAPER}", "of the judge"]
    paper_title = plan.method_title(PAPER)
    notes = [
        f"Excess KL after temperature scaling of both; {paper_title}, the paper's setting, is from the plan's model.",
        "Difference over the seeds that both have: mean ± standard deviation [95 % interval over items of that mean].",
        STARS,
    ]
    return Table("starts", "Judges that start from a related judge", header, rows, notes) if rows else None


def _same_data(plan: Plan, key: str, data: Mapping[str, Mapping[str, Group]]) -> str | None:
    """The data set with the same task and files whose judges start from the plan's model, if it has results on the
    same test items.
    """
    own = plan.content.data[key]
    for other, planned in plan.content.data.items():
        if planned.start is None and (planned.task, planned.path) == (own.task, own.path) and other in data:
            tested = {g.results[0].results["test_fingerprint"] for d in (data[other], data[key]) for g in d.values()}
            if len(tested) == 1:
                return other
    return None


def _excess(group: Group) -> list[float]:
    return group.values("excess_kl", _READING)
