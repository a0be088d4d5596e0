"""The paper's Tables 1 to 6 in its layout, our figures above the paper's."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from distjudge_trl.report import paper
from distjudge_trl.report.cells import (
    LEVEL,
    OURS,
    PAPER,
    Column,
    Table,
    accuracy_text,
    excess_text,
    floor_text,
    kl_text,
    make_columns,
    source_text,
)
from distjudge_trl.report.comparisons import BASELINE, Comparison
from distjudge_trl.report.test_sets import Cell, TestSet


MAIN_TASKS = ("snli", "mnli", "summeval", "mtbench")
MORE_TASKS = ("chaosnli", "helpsteer2", "helpsteer2_pref")
_NO_RUNS = "No runs of ours for this table."
_SIGNIFICANCE = (
    "* differs from single-point in KL, for better or worse, at p < 0.05 after Holm's correction over all comparisons"
    " (a report has a table of them). Ours with one seed: 95 % interval over items, clustered by group; with several:"
    " mean ± standard deviation over seeds."
)
_FLOOR = (
    "Noise floor: the KL that the true distributions would score against so few annotators; excess: the KL above it."
    " How well annotators predict each other is in another table of a report."
)
_OTHER_DATA = (
    "Our figures and the paper's come from different models, training sizes and test items; only the order of methods"
    " is comparable."
)


def _results(
    name: str,
    title: str,
    columns: Sequence[Column],
    paper_rows: dict[tuple[str, str], list[tuple[str, str]]],
    comparisons: Sequence[Comparison],
    *,
    accuracy: bool = True,
) -> Table:
    """A table with a row per model and method. Each test set has columns for KL, excess KL and accuracy; the paper has
    only the first and the last.
    """

    def texts(kl: str, excess: str, share: str) -> list[str]:
        return [kl, excess, share] if accuracy else [kl, excess]

    header = ["model", "method", "source"]
    for column in columns:
        header += texts(f"{column.title} KL", f"{column.title} excess", f"{column.title} acc. %")
    starred = {
        (c.test_set.name, c.a.model, c.a.method)
        for c in comparisons
        if c.b.method == BASELINE and c.p is not None and c.p < LEVEL
    }
    cells: dict[tuple[str, str], dict[int, Cell]] = {}
    for i, column in enumerate(columns):
        for cell in column.cells:
            cells.setdefault((cell.model, cell.method), {})[i] = cell
    rows = []
    for (model, method), found in cells.items():
        row = [model or "-", method, source_text(found.values())]
        for i, column in enumerate(columns):
            here = found.get(i)
            if here is None or column.test_set is None:
                row += texts("-", "-", "-")
                continue
            star = " *" if (column.test_set.name, model, method) in starred else ""
            row += texts(kl_text(here, star), excess_text(here), accuracy_text(here))
        rows.append(row)
    if cells:
        known = [floor_text(c.test_set) if c.test_set is not None else "-" for c in columns]
        floors = [texts(floor, "0" if floor != "-" else "-", "-") for floor in known]
        rows.append(["-", "noise floor", OURS, *(text for part in floors for text in part)])
    for (model, method), figures in paper_rows.items():
        rows.append([model, method, PAPER, *(text for kl, share in figures for text in texts(kl, "-", share))])
    notes = [_SIGNIFICANCE, _FLOOR] if cells else [_NO_RUNS]
    if cells and paper_rows:
        notes.append(_OTHER_DATA)
    return Table(name, title, header, rows, notes)


def main_table(test_sets: Sequence[TestSet], comparisons: Sequence[Comparison]) -> Table:
    """Table 1: the four data sets of the paper."""
    columns = make_columns(MAIN_TASKS, test_sets)
    rows = {
        key: [(f"{figures[c.task][0]:.2f}", f"{figures[c.task][1]:.1f}") for c in columns]
        for key, figures in paper.MAIN.items()
    }
    return _results("table1", "Table 1: alignment with human distributions", columns, rows, comparisons)


def more_data_table(test_sets: Sequence[TestSet], comparisons: Sequence[Comparison]) -> Table:
    """Table 5: further data sets, KL alone."""
    columns = make_columns(MORE_TASKS, test_sets)
    rows = {key: [(f"{figures[c.task]:.2f}", "-") for c in columns] for key, figures in paper.MORE_DATA.items()}
    return _results("table5", "Table 5: further data sets", columns, rows, comparisons, accuracy=False)


def other_table(test_sets: Sequence[TestSet], comparisons: Sequence[Comparison]) -> Table | None:
    """Tasks that the paper does not have, in the layout of Table 1."""
    others = [t for t in test_sets if t.source is None and t.task not in (*MAIN_TASKS, *MORE_TASKS)]
    if not others:
        return None
    columns = [Column(paper.TITLES.get(t.name, t.name), t.task, t) for t in others]
    return _results("other_tasks", "Other tasks", columns, {}, comparisons)


def transfer_table(test_sets: Sequence[TestSet], comparisons: Sequence[Comparison]) -> Table:
    """Table 6: trained on one task, tested on another; the paper's is SNLI to ChaosNLI."""
    columns = [Column(t.name, f"{t.source} to {t.task}", t) for t in test_sets if t.source is not None]
    theirs = "snli to chaosnli"
    if all(column.task != theirs for column in columns):
        columns.append(Column(theirs, theirs, None))
    rows = {
        key: [
            (f"{kl:.2f}", f"{share:.1f}" if share else "-") if column.task == theirs else ("-", "-")
            for column in columns
        ]
        for key, (kl, share) in paper.TRANSFER.items()
    }
    return _results("table6", "Table 6: out of distribution", columns, rows, comparisons)


def ablation_table(test_sets: Sequence[TestSet]) -> Table:
    """Table 2: the effect of each part of the objective. It has one row per model and task, which are the paper's
    columns.
    """
    header = ["model", "task", "source", "noise floor"]
    for name in paper.ABLATION_NAMES.values():
        header += [f"{name} KL", f"{name} acc. %"]
    rows = []
    for test_set in test_sets:
        models: dict[str, dict[str, Cell]] = {}
        for cell in test_set.main_cells:
            if cell.method in paper.ABLATION_NAMES:
                models.setdefault(cell.model, {})[cell.method] = cell
        for model, cells in models.items():
            if len(cells) < 2:
                continue
            row = [model, test_set.name, source_text(cells.values()), floor_text(test_set)]
            for method in paper.ABLATION_NAMES:
                row += [kl_text(cells[method]), accuracy_text(cells[method])] if method in cells else ["-", "-"]
            rows.append(row)
    notes = [_OTHER_DATA if rows else _NO_RUNS]
    for (model, task), figures in paper.ABLATION.items():
        row = [model, paper.TITLES[task], PAPER, "-"]
        for method in paper.ABLATION_NAMES:
            row += [f"{figures[method][0]:.2f}", f"{figures[method][1]:.1f}"]
        rows.append(row)
    return Table("table2", "Table 2: ablation", header, rows, notes)


def robustness_by_task(test_sets: Sequence[TestSet]) -> Table:
    """Table 3: KL when the test targets are moved at random."""
    methods = ("single-point", "no-adversary", "distribution")
    radii = sorted({point["radius"] for t in test_sets for row in t.rows for point in row.content["robustness"]})
    radii = radii or [0.0, 0.05, 0.1, 0.15, 0.2, 0.25]
    header = ["task", "model", "method", "source", "noise floor", *(f"δ = {radius:g}" for radius in radii)]
    rows = []
    for test_set in test_sets:
        for cell in test_set.main_cells:
            if cell.method not in methods:
                continue
            row = [test_set.name, cell.model, cell.method, source_text([cell]), floor_text(test_set)]
            for radius in radii:
                points = [point for r in cell.rows for point in r.content["robustness"] if point["radius"] == radius]
                if not points:
                    row.append("-")
                    continue
                spread = np.std([p["kl"] for p in points], ddof=1) if len(points) > 1 else points[0]["std"]
                row.append(f"{np.mean([p['kl'] for p in points]):.3f} ± {spread:.3f}")
            rows.append(row)
    for task, theirs in paper.ROBUSTNESS.items():
        for method in methods:
            figures = [theirs[method].get(radius) for radius in radii]
            texts = ["-" if figure is None else f"{figure:.3f}" for figure in figures]
            rows.append([paper.TITLES[task], "Qwen2.5-7B", method, PAPER, "-", *texts])
    note = (
        "Ours: targets moved by L2 length δ in a direction drawn uniformly from the simplex's tangent space, projected"
        " back; mean over draws, ± standard deviation over draws (one seed) or seeds. The paper does not say how it"
        " draws; only the first and the last δ of its rows are given here. The noise floor is that of the unmoved"
        " targets (δ = 0)."
    )
    return Table("table3", "Table 3: robustness to perturbed targets", header, rows, [note])


def budget_table(test_sets: Sequence[TestSet]) -> Table:
    """Table 4: one number of annotations, spent on items or on annotators."""
    header = ["model", "task", "items", "labels an item", "annotations", "source", "KL", "noise floor", "acc. %"]
    rows = []
    for test_set in test_sets:
        cells = [
            cell
            for cell in test_set.cells
            if cell.rows[0].settings.get("max_annotators") is not None and cell.method == "distribution"
        ]
        for cell in sorted(cells, key=lambda cell: cell.rows[0].settings["max_annotators"]):
            own = cell.rows[0].settings
            items, votes = (
                f"{own[name]:,}" if own.get(name) else "-" for name in ("num_train_items", "num_train_votes")
            )
            spent = [cell.model, test_set.name, items, str(own["max_annotators"]), votes]
            rows.append([*spent, source_text([cell]), kl_text(cell), floor_text(test_set), accuracy_text(cell)])
    notes = ["Judges are tested on all votes of the test items." if rows else _NO_RUNS]
    for (items_, labels), (kl, accuracy) in paper.BUDGET.items():
        figures = [f"{items_:,}", str(labels), "about 8,000", PAPER, f"{kl:.2f}", "-", f"{accuracy:.1f}"]
        rows.append(["Qwen2.5-7B", "SNLI", *figures])
    return Table("table4", "Table 4: annotation budget", header, rows, notes)
