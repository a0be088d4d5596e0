"""The paper's Tables 1 to 6 in its layout, ours above its own figures; and what it does not print: every metric of
every judge, and tests of the differences.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from distjudge_trl.evaluation import item_kl, paired_difference
from distjudge_trl.evaluation.statistics import holm, over_seeds, paired_test, seed_test
from distjudge_trl.report import paper
from distjudge_trl.report.runs import CONSTANTS, Cell, TestSet, value_of
from distjudge_trl.report.tables import markdown_table


MAIN_TASKS = ("snli", "mnli", "summeval", "mtbench")
MORE_TASKS = ("chaosnli", "helpsteer2", "helpsteer2_pref")
PAPER = "paper"
OURS = "ours"
BASELINE = "single-point"
LEVEL = 0.05


@dataclass
class Table:
    """A table of a report. `name` is its file's; `rows` are texts; `paper_rows` the indices of those that quote the
    paper; `notes` stand below it.
    """

    name: str
    title: str
    header: list[str]
    rows: list[list[str]]
    notes: list[str] = field(default_factory=list)
    paper_rows: set[int] = field(default_factory=set)

    def markdown(self) -> str:
        """Title, table and notes."""
        notes = "".join(f"\n- {note}" for note in self.notes)
        return f"## {self.title}\n\n{markdown_table(self.header, self.rows)}\n{notes and notes + chr(10)}"


@dataclass(frozen=True)
class Comparison:
    """A judge against another on the same items: KL of `a` minus KL of `b`, with its 95 % interval; `p` is adjusted
    for all comparisons on the test set (Holm); `test` says which one it is.
    """

    test_set: TestSet
    a: Cell
    b: Cell
    difference: float
    low: float
    high: float
    raw_p: float
    p: float
    test: str


def compare(test_sets: Sequence[TestSet]) -> list[Comparison]:
    """Every trained judge of a model against its single-point judge.

    With two or more common seeds the paired t-test over seeds, as the paper has five; with one the paired permutation
    test over items. Holm's correction runs over all comparisons on a test set.
    """
    found: list[tuple[TestSet, Cell, Cell, float, float, float, float, str]] = []
    for test_set in test_sets:
        cells = test_set.main_cells()
        for base in [cell for cell in cells if cell.method == BASELINE]:
            for cell in cells:
                if cell.model != base.model or cell.method == base.method or cell.method in CONSTANTS:
                    continue
                found.append((test_set, cell, base, *_difference(cell, base)))
    adjusted: list[float] = []
    for test_set in test_sets:
        raw = [entry[6] for entry in found if entry[0] is test_set]
        adjusted += holm(raw) if raw else []
    return [Comparison(*entry[:7], p=p, test=entry[7]) for entry, p in zip(found, adjusted, strict=True)]


def _difference(cell: Cell, base: Cell) -> tuple[float, float, float, float, str]:
    """Difference in KL, its interval over items (mean over seeds), p-value, and the test's name."""
    ours = {row.seed: row for row in cell.rows}
    theirs = {row.seed: row for row in base.rows}
    common = [seed for seed in ours if seed in theirs]
    if common:
        pairs = [(ours[seed], theirs[seed]) for seed in common]
    else:
        pairs = [(cell.rows[0], base.rows[0])]
    kls = [np.mean([item_kl(row.run.p, row.log_q) for row in side], axis=0) for side in zip(*pairs, strict=True)]
    groups = pairs[0][0].run.items["group"][:]
    estimate = paired_difference(kls[0], kls[1], groups)
    if len(common) > 1:
        p_value = seed_test(*([value_of(row.metrics, "kl") for row in side] for side in zip(*pairs, strict=True)))
        assert p_value is not None
        return estimate.value, estimate.low, estimate.high, p_value, f"t-test, {len(common)} seeds"
    return estimate.value, estimate.low, estimate.high, paired_test(kls[0], kls[1], groups), "permutation of items"


# Cells


def number(values: Sequence[float], spec: str, factor: float = 1.0) -> str:
    """Mean of a figure, with the standard deviation over seeds if there are several."""
    summary = over_seeds([factor * value for value in values])
    if np.isnan(summary.mean):
        return "-"
    text = format(summary.mean, spec)
    return f"{text} ± {format(summary.std, spec)}" if summary.num_runs > 1 else text


def kl_text(cell: Cell, mark: str = "") -> str:
    """KL with its spread over seeds, or with its interval over items."""
    text = number(cell.values("kl"), ".3f")
    kl = cell.rows[0].metrics["kl"]
    if len(cell.rows) == 1 and kl["low"] is not None:
        text += f" [{kl['low']:.3f}, {kl['high']:.3f}]"
    return text + mark


def _accuracy(cell: Cell) -> str:
    return number(cell.values("accuracy"), ".1f", 100)


def _source(cells: Iterable[Cell]) -> str:
    """Ours, and with how many seeds."""
    counts = sorted({len(cell.rows) for cell in cells})
    if counts == [1]:
        return OURS
    return f"{OURS}, {counts[0]} seeds" if len(counts) == 1 else f"{OURS}, {counts[0]} to {counts[-1]} seeds"


def _columns(tasks: Sequence[str], test_sets: Sequence[TestSet]) -> list[tuple[str, TestSet | None]]:
    """Title and test set of every column: a task of the paper without runs of ours has a column all the same."""
    columns: list[tuple[str, TestSet | None]] = []
    for task in tasks:
        ours = [test_set for test_set in test_sets if test_set.task == task and not test_set.is_transfer]
        columns += [(paper.TITLES[task] if len(ours) == 1 else entry.name, entry) for entry in ours]
        columns += [] if ours else [(paper.TITLES[task], None)]
    return columns


_SIGNIFICANCE = (
    "\\* differs from single-point in KL at p < 0.05 after Holm's correction (see the table of comparisons). Ours with"
    " one seed: 95 % interval over items, clustered by group; with several: mean ± standard deviation over seeds."
)
_FLOOR = (
    "Noise floor: the KL that the true distributions would score against so few annotators. Human ceiling: half of the"
    " annotators against the other half, a harder test than the floor, because a half has fewer votes."
)
_OTHER_DATA = (
    "Ours and the paper's figures come from other models, training sizes and test items; only the order of methods is"
    " comparable."
)


def _results(
    name: str,
    title: str,
    columns: Sequence[tuple[str, TestSet | None]],
    paper_rows: dict[tuple[str, str], list[str]],
    comparisons: Sequence[Comparison],
    *,
    accuracy: bool = True,
) -> Table:
    """Rows are models and methods, columns pairs of KL and accuracy a test set."""
    names = [[f"{title} KL", *([f"{title} acc. %"] if accuracy else [])] for title, _ in columns]
    header = ["model", "method", "source", *(name for pair in names for name in pair)]
    marks = {(c.test_set.name, c.a.model, c.a.method): " *" if c.p < LEVEL else "" for c in comparisons}
    cells: dict[tuple[str, str], dict[int, Cell]] = {}
    for i, (_, test_set) in enumerate(columns):
        for cell in test_set.main_cells() if test_set is not None else ():
            cells.setdefault((cell.model, cell.method), {})[i] = cell
    rows = []
    for (model, method), found in cells.items():
        row = [model or "-", method, _source(found.values())]
        for i, (_, test_set) in enumerate(columns):
            here = found.get(i)
            if here is None or test_set is None:
                row += ["-", *(["-"] if accuracy else [])]
                continue
            row += [kl_text(here, marks.get((test_set.name, model, method), ""))]
            row += [_accuracy(here)] if accuracy else []
        rows.append(row)
    if cells:
        rows += _yardsticks(columns, accuracy)
    first = len(rows)
    rows += [[model, method, PAPER, *values] for (model, method), values in paper_rows.items()]
    notes = [_SIGNIFICANCE, _FLOOR] if cells else ["No runs of ours for this table."]
    if cells and paper_rows:
        notes.append(_OTHER_DATA)
    return Table(name, title, header, rows, notes, set(range(first, len(rows))))


def _yardsticks(columns: Sequence[tuple[str, TestSet | None]], accuracy: bool) -> list[list[str]]:
    floor, ceiling = ["-", "noise floor", OURS], ["-", "human ceiling", OURS]
    for _, test_set in columns:
        blank = ["-"] if accuracy else []
        known = test_set.noise_floor if test_set is not None else None
        floor += [f"{known:.3f}" if known is not None else "-", *blank]
        halves = test_set.human_ceiling if test_set is not None else None
        ceiling += [f"{halves['kl']:.3f}" if halves else "-"]
        ceiling += ([f"{100 * halves['accuracy']:.1f}"] if halves else ["-"]) if accuracy else []
    return [floor, ceiling]


def main_table(test_sets: Sequence[TestSet], comparisons: Sequence[Comparison]) -> Table:
    """Table 1: the four data sets of the paper."""
    columns = _columns(MAIN_TASKS, test_sets)
    rows = {}
    for key, figures in paper.MAIN.items():
        row = []
        for title, test_set in columns:
            kl, accuracy = figures[test_set.task if test_set else _task_of(title)]
            row += [f"{kl:.2f}", f"{accuracy:.1f}"]
        rows[key] = row
    return _results("table1", "Table 1: alignment with human distributions", columns, rows, comparisons)


def _task_of(title: str) -> str:
    return next(task for task, name in paper.TITLES.items() if name == title)


def more_data_table(test_sets: Sequence[TestSet], comparisons: Sequence[Comparison]) -> Table:
    """Table 5: further data sets, KL alone."""
    columns = _columns(MORE_TASKS, test_sets)
    rows = {
        key: [f"{figures[test_set.task if test_set else _task_of(title)]:.2f}" for title, test_set in columns]
        for key, figures in paper.MORE_DATA.items()
    }
    return _results("table5", "Table 5: further data sets", columns, rows, comparisons, accuracy=False)


def other_table(test_sets: Sequence[TestSet], comparisons: Sequence[Comparison]) -> Table | None:
    """Tasks that the paper does not have, in the layout of Table 1."""
    others = [t for t in test_sets if not t.is_transfer and t.task not in (*MAIN_TASKS, *MORE_TASKS)]
    if not others:
        return None
    titles = [paper.TITLES.get(t.task, t.name) if t.name == t.task else t.name for t in others]
    return _results("other_tasks", "Other tasks", list(zip(titles, others, strict=True)), {}, comparisons)


def transfer_table(test_sets: Sequence[TestSet], comparisons: Sequence[Comparison]) -> Table:
    """Table 6: trained on one task, tested on another; the paper's is SNLI to ChaosNLI."""
    ours = [test_set for test_set in test_sets if test_set.is_transfer]
    columns: list[tuple[str, TestSet | None]] = [(test_set.name, test_set) for test_set in ours]
    if not any(test_set.task == "chaosnli" for test_set in ours):
        columns.append(("snli to chaosnli", None))
    rows = {}
    for key, (kl, accuracy) in paper.TRANSFER.items():
        row = []
        for _, test_set in columns:
            is_theirs = test_set is None or test_set.task == "chaosnli"
            row += [f"{kl:.2f}" if is_theirs else "-", f"{accuracy:.1f}" if is_theirs and accuracy else "-"]
        rows[key] = row
    return _results("table6", "Table 6: out of distribution", columns, rows, comparisons)


def ablation_table(test_sets: Sequence[TestSet]) -> Table:
    """Table 2: what each part of the objective does. A row a model and task, as the paper's columns."""
    header = ["model", "task", "source"]
    for name in paper.ABLATION_NAMES.values():
        header += [f"{name} KL", f"{name} acc. %"]
    rows = []
    for test_set in test_sets:
        models: dict[str, dict[str, Cell]] = {}
        for cell in test_set.main_cells():
            if cell.method in paper.ABLATION_NAMES:
                models.setdefault(cell.model, {})[cell.method] = cell
        for model, cells in models.items():
            if len(cells) < 2:
                continue
            row = [model, test_set.name, _source(cells.values())]
            for method in paper.ABLATION_NAMES:
                row += [kl_text(cells[method]), _accuracy(cells[method])] if method in cells else ["-", "-"]
            rows.append(row)
    first = len(rows)
    for (model, task), figures in paper.ABLATION.items():
        row = [model, paper.TITLES[task], PAPER]
        for method in paper.ABLATION_NAMES:
            row += [f"{figures[method][0]:.2f}", f"{figures[method][1]:.1f}"]
        rows.append(row)
    notes = [_OTHER_DATA if first else "No runs of ours for this table."]
    return Table("table2", "Table 2: ablation", header, rows, notes, set(range(first, len(rows))))


def robustness_by_task(test_sets: Sequence[TestSet]) -> Table:
    """Table 3: KL when the test targets are moved at random."""
    methods = ("single-point", "no-adversary", "distribution")
    radii = sorted({point["radius"] for t in test_sets for row in t.rows for point in row.content["robustness"]})
    radii = radii or [0.0, 0.05, 0.1, 0.15, 0.2, 0.25]
    header = ["task", "model", "method", "source", *(f"δ = {radius:g}" for radius in radii)]
    rows = []
    for test_set in test_sets:
        for cell in test_set.main_cells():
            if cell.method not in methods:
                continue
            row = [test_set.name, cell.model, cell.method, _source([cell])]
            for radius in radii:
                points = [point for r in cell.rows for point in r.content["robustness"] if point["radius"] == radius]
                if not points:
                    row.append("-")
                    continue
                spread = np.std([p["kl"] for p in points], ddof=1) if len(points) > 1 else points[0]["std"]
                row.append(f"{np.mean([p['kl'] for p in points]):.3f} ± {spread:.3f}")
            rows.append(row)
    first = len(rows)
    for task, theirs in paper.ROBUSTNESS.items():
        for method in methods:
            figures = [theirs[method].get(radius) for radius in radii]
            texts = ["-" if figure is None else f"{figure:.3f}" for figure in figures]
            rows.append([paper.TITLES[task], "Qwen2.5-7B", method, PAPER, *texts])
    note = (
        "Ours: targets moved by L2 length δ in a direction drawn uniformly from the simplex's tangent space, projected"
        " back; mean over draws, ± standard deviation over draws (one seed) or seeds. The paper does not say how it"
        " draws; of its rows the first and the last δ are given here."
    )
    return Table(
        "table3", "Table 3: robustness to perturbed targets", header, rows, [note], set(range(first, len(rows)))
    )


def budget_table(test_sets: Sequence[TestSet]) -> Table:
    """Table 4: one number of annotations, spent on items or on annotators."""
    header = ["model", "task", "items", "labels an item", "annotations", "source", "KL", "acc. %"]
    rows = []
    for test_set in test_sets:
        cells = [
            cell
            for cell in test_set.cells()
            if cell.rows[0].settings.get("max_annotators") is not None and cell.method == "distribution"
        ]
        for cell in sorted(cells, key=lambda cell: cell.rows[0].settings["max_annotators"]):
            own = cell.rows[0].settings
            items, votes = (
                f"{own[name]:,}" if own.get(name) else "-" for name in ("num_train_items", "num_train_votes")
            )
            spent = [cell.model, test_set.name, items, str(own["max_annotators"]), votes]
            rows.append([*spent, _source([cell]), kl_text(cell), _accuracy(cell)])
    first = len(rows)
    for (items_, labels), (kl, accuracy) in paper.BUDGET.items():
        figures = [f"{items_:,}", str(labels), "about 8,000", PAPER, f"{kl:.2f}", f"{accuracy:.1f}"]
        rows.append(["Qwen2.5-7B", "SNLI", *figures])
    notes = ["Judges are tested on all votes of the test items." if first else "No runs of ours for this table."]
    return Table("table4", "Table 4: annotation budget", header, rows, notes, set(range(first, len(rows))))


_METRICS: tuple[tuple[str, str, str, float], ...] = (
    ("kl", "KL", ".3f", 1),
    ("excess_kl", "excess KL", ".3f", 1),
    ("jensen_shannon", "JS", ".3f", 1),
    ("total_variation", "TV", ".3f", 1),
    ("hellinger", "Hellinger", ".3f", 1),
    ("brier", "Brier", ".3f", 1),
    ("wasserstein", "Wasserstein", ".3f", 1),
    ("mean_error", "error of mean", ".3f", 1),
    ("entropy_correlation", "entropy corr.", ".3f", 1),
    ("distance_correlation", "distance corr.", ".3f", 1),
    ("accuracy", "acc. %", ".1f", 100),
    ("macro_f1", "macro F1", ".3f", 1),
    ("kappa", "kappa", ".3f", 1),
    ("ece", "ECE", ".3f", 1),
    ("label_mass", "label mass", ".3f", 1),
    ("floor_items", "KL floor, % of items", ".1f", 100),
)
METRIC_NAMES = tuple(name for name, *_ in _METRICS)


def metrics_table(test_set: TestSet) -> Table:
    """Every metric of every judge of a test set."""
    cells = test_set.main_cells()
    shown = [m for m in _METRICS if any(not np.isnan(v) for cell in cells for v in cell.values(m[0]))]
    rows = [
        [
            cell.model or "-",
            cell.method,
            str(len(cell.rows)),
            *(number(cell.values(name), spec, factor) for name, _, spec, factor in shown),
        ]
        for cell in cells
    ]
    metrics = test_set.rows[0].metrics
    notes = [f"{metrics['num_items']:,} items in {metrics['num_groups']:,} groups."]
    if test_set.noise_floor is not None:
        notes[0] += f" Noise floor of the KL: {test_set.noise_floor:.3f}."
    ceiling = test_set.human_ceiling
    if ceiling:
        notes.append(
            f"Half of the annotators against the other half: KL {ceiling['kl']:.3f}, total variation"
            f" {ceiling['total_variation']:.3f}, accuracy {100 * ceiling['accuracy']:.1f} %."
        )
    others = len(test_set.cells()) - len(cells)
    if others:
        notes.append(f"{others} further configurations are in all_runs.csv.")
    header = ["model", "method", "seeds", *(title for _, title, _, _ in shown)]
    return Table(f"metrics_{_file_name(test_set.name)}", f"All metrics: {test_set.name}", header, rows, notes)


def comparisons_table(comparisons: Sequence[Comparison]) -> Table | None:
    """Differences from the single-point judge, with tests."""
    if not comparisons:
        return None
    header = ["test set", "model", "method", "KL minus single-point", "95 % over items", "p", "p (Holm)", "test"]
    rows = [
        [
            c.test_set.name,
            c.a.model,
            c.a.method,
            f"{c.difference:+.3f}",
            f"[{c.low:+.3f}, {c.high:+.3f}]" if np.isfinite(c.low) else "-",
            f"{c.raw_p:.4f}",
            f"{c.p:.4f}",
            c.test,
        ]
        for c in comparisons
    ]
    note = (
        "Holm's correction over the comparisons on a test set. One common seed: paired permutation test over items,"
        " which says whether these two judges differ, not whether two trainings would."
    )
    return Table("comparisons", "Comparisons with single-point", header, rows, [note])


def _file_name(name: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in name.lower()).strip("-")[:60] or "task"


def all_tables(test_sets: Sequence[TestSet], comparisons: Sequence[Comparison]) -> list[Table]:
    """In the order of a report."""
    makers: list[Callable[[], Table | None]] = [
        lambda: main_table(test_sets, comparisons),
        lambda: other_table(test_sets, comparisons),
        lambda: ablation_table(test_sets),
        lambda: robustness_by_task(test_sets),
        lambda: budget_table(test_sets),
        lambda: more_data_table(test_sets, comparisons),
        lambda: transfer_table(test_sets, comparisons),
        lambda: comparisons_table(comparisons),
    ]
    tables = [table for make in makers if (table := make()) is not None]
    return tables + [metrics_table(test_set) for test_set in test_sets]
