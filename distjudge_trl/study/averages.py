"""A table of a study: what it gains to average the answers of judges that differ in nothing but their seed."""

from __future__ import annotations

from collections.abc import Mapping

from distjudge_trl.evaluation.distances import item_accuracy, item_kl
from distjudge_trl.report.cells import Table
from distjudge_trl.report.test_sets import value_of
from distjudge_trl.study.groups import (
    PAPER,
    Group,
    change_from,
    change_text,
    dagger_notes,
    fewer_text,
    number_text,
    ordered_groups,
    read_so,
)
from distjudge_trl.study.plan import Plan


_READING = "temperature"


def averages_table(plan: Plan, data: Mapping[str, Mapping[str, Group]]) -> Table | None:
    """Excess KL and accuracy of one judge, and of the mean of the answers of all seeds, for every method with several;
    `None` without such a method.
    """
    rows = []
    for key in (key for key in plan.content.data if key in data):
        for name, group in ordered_groups(plan, data[key]):
            judges = read_so(group, _READING)
            if len(judges.results) > 1:
                rows.append([plan.data_title(key), plan.method_title(name), *_cells(judges, data[key].get(PAPER))])
    header = ["data", "method", "judges", "excess KL of one", "of the mean", "change (95 %)"]
    paper = plan.method_title(PAPER)
    header += [f"mean against one {paper} (95 %)", "accuracy % of one", "accuracy % of the mean"]
    notes = [
        "The judges of a row differ in their seed alone. Their probabilities are averaged after temperature scaling.",
        "Of one: mean ± standard deviation over seeds. Change: [interval over items], with the noise floor fixed.",
        "KL is convex in the judge's answer, so the mean cannot be worse than its own judges are on average.",
        f"Against one {paper}: the change from the mean of its judges, of all seeds or of as many as it says.",
        *dagger_notes(rows),
    ]
    return Table("averages", "The mean of several judges", header, rows, notes) if rows else None


def _cells(group: Group, paper: Group | None) -> list[str]:
    p = group.results[0].run.p
    together = group.mean_log_q(_READING)
    floor = value_of(group.results[0].results["metrics"], "noise_floor")
    kl = item_kl(p, together)
    papers = read_so(paper, _READING) if paper is not None else None
    against = "-"
    if papers is not None and papers.results:
        against = change_from(papers, group, kl, _READING) + fewer_text(len(papers.results), len(group.results))
    return [
        str(len(group.results)),
        group.text("excess_kl", _READING),
        number_text(float(kl.mean() - floor)),
        change_text(group.item_kl(_READING) - floor, kl - floor, group.groups),
        against,
        group.text("accuracy", _READING, form=".1f", scale=100),
        f"{100 * item_accuracy(p, together).mean():.1f}",
    ]
