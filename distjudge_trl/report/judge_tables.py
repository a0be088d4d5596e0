"""Tables that the paper does not have: every metric of every judge, tests of the differences, and the human
ceiling.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from distjudge_trl.evaluation.metrics import METRICS
from distjudge_trl.evaluation.statistics import Estimate
from distjudge_trl.report.cells import Table, number
from distjudge_trl.report.comparisons import Comparison
from distjudge_trl.report.tables import SUPPOSE_WHOLE, extraction_lines, left_out, question_prior_line
from distjudge_trl.report.test_sets import TestSet, value_of


# The metrics of each question of a task that has several.
_OF_QUESTIONS = ("kl", "excess_kl", "total_variation", "wasserstein", "accuracy", "kappa", "ece")


def metrics_table(test_set: TestSet) -> Table:
    """Every metric of every judge of a test set."""
    cells = test_set.main_cells
    shown = {
        name: metric
        for name, metric in METRICS.items()
        if any(not np.isnan(value) for cell in cells for value in cell.values(name))
    }
    rows = [
        [
            cell.model or "-",
            cell.method,
            str(len(cell.rows)),
            *(number(cell.values(name), metric.spec, metric.factor) for name, metric in shown.items()),
        ]
        for cell in cells
    ]
    metrics = test_set.rows[0].metrics
    notes = [f"{metrics['num_items']:,} items in {metrics['num_groups']:,} groups."]
    if test_set.noise_floor is not None:
        notes[0] += f" Noise floor of the KL: {test_set.noise_floor:.3f}."
    if metrics.get("divided_items"):
        notes.append(left_out(SUPPOSE_WHOLE, metrics["divided_items"], metrics["num_items"]))
    notes += question_prior_line([row.run.results for row in test_set.rows])
    others = len(test_set.cells) - len(cells)
    if others:
        notes.append(f"{others} further configurations are in all_runs.csv.")
    read = {row.model: row.run.results["extraction"] for row in test_set.rows if row.model}
    notes += [f"{model}: {' '.join(lines)}" for model, found in read.items() if (lines := extraction_lines(found))]
    for shown_row, row in test_set.repeated:
        notes.append(
            f"{row.run.path} equals {shown_row.run.path} in all settings and the seed and is left out of the tables;"
            f" their KL differs by {abs(value_of(row.metrics, 'kl') - value_of(shown_row.metrics, 'kl')):.4f}."
        )
    header = ["model", "method", "seeds", *(metric.title for metric in shown.values())]
    return Table(f"metrics_{_file_name(test_set.name)}", f"All metrics: {test_set.name}", header, rows, notes)


def questions_table(test_set: TestSet) -> Table | None:
    """Every judge on each question of a task that has several, such as the dimensions of SummEval."""
    cells = [cell for cell in test_set.main_cells if all("parts" in row.content for row in cell.rows)]
    names = list(dict.fromkeys(name for cell in cells for row in cell.rows for name in row.content["parts"]))
    if not names:
        return None
    shown = {name: METRICS[name] for name in _OF_QUESTIONS if test_set.ordinal or not METRICS[name].ordinal}
    rows = []
    for name in names:
        for cell in cells:
            metrics = [row.content["parts"][name] for row in cell.rows if name in row.content["parts"]]
            figures = [
                number([value_of(own, key) for own in metrics], metric.spec, metric.factor)
                for key, metric in shown.items()
            ]
            items, floor = f"{metrics[0]['num_items']:,}", value_of(metrics[0], "noise_floor")
            rows.append([name, items, cell.model, cell.method, str(len(metrics)), number([floor], ".3f"), *figures])
    header = ["question", "items", "model", "method", "seeds", "noise floor"]
    return Table(
        f"questions_{_file_name(test_set.name)}",
        f"Each question alone: {test_set.name}",
        [*header, *(metric.title for metric in shown.values())],
        rows,
        ["The judges answered all questions; their figures over all of them are in the table of all metrics."],
    )


def comparisons_table(comparisons: Sequence[Comparison]) -> Table | None:
    """Differences between judges, with tests."""
    if not comparisons:
        return None
    header = ["test set", "model", "method", "against", "KL", "95 %", "p", "p (Holm)", "acc. %", "95 %", "test"]
    rows = [
        [
            c.test_set.name,
            c.a.model,
            c.a.method,
            c.b.method,
            f"{c.kl.value:+.3f}",
            _ends(c.kl, 1, "+.3f"),
            f"{c.raw_p:.4f}" if c.raw_p is not None else "-",
            f"{c.p:.4f}" if c.p is not None else "-",
            f"{100 * c.accuracy.value:+.1f}",
            _ends(c.accuracy, 100, "+.1f"),
            c.test,
        ]
        for c in comparisons
    ]
    notes = [
        (
            "Differences are the method minus the one in the column `against`. The tests are of the KL; Holm's"
            " correction is over all rows that have a test."
        ),
        (
            "With one seed: intervals over items, and the paired permutation test, which says whether these two judges"
            " differ, but not whether two trainings would. With several seeds: Student's t over seeds, as"
            " for the paper's five."
        ),
    ]
    return Table("comparisons", "Comparisons between judges", header, rows, notes)


def _ends(estimate: Estimate, factor: float, spec: str) -> str:
    if not np.isfinite(estimate.low):
        return "-"
    return f"[{format(factor * estimate.low, spec)}, {format(factor * estimate.high, spec)}]"


def halves_table(test_sets: Sequence[TestSet]) -> Table | None:
    """How well half of the annotators are predicted by the other half, and by every judge."""
    rows = []
    for test_set in test_sets:
        ceiling = test_set.human_ceiling
        if not ceiling:
            continue
        humans = [f"{ceiling['kl']:.3f}", f"{ceiling['total_variation']:.3f}", f"{100 * ceiling['accuracy']:.1f}"]
        rows.append([test_set.name, "-", "the other half of the annotators", *humans])
        for cell in test_set.main_cells:
            halves = [row.metrics["human_ceiling"] for row in cell.rows]
            figures = [
                number([half[f"judge_{name}"] for half in halves], spec, factor)
                for name, spec, factor in (("kl", ".3f", 1), ("total_variation", ".3f", 1), ("accuracy", ".1f", 100))
            ]
            rows.append([test_set.name, cell.model or "-", cell.method, *figures])
    if not rows:
        return None
    note = (
        "The target is half of an item's annotators, over 20 random halves. Compare these figures only"
        " with each other and not with other tables, whose target is all annotators. A good judge knows more than the"
        " few people of the other half."
    )
    header = ["test set", "model", "half of the annotators predicted by", "KL", "TV", "acc. %"]
    return Table("halves", "Human ceiling: how well half of the annotators can be predicted", header, rows, [note])


def _file_name(name: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in name.lower()).strip("-")[:60] or "task"
