"""The figures of a report as data. They are drawn as PNG (matplotlib) and as interactive plots (plotly)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from distjudge_trl.evaluation.distances import item_accuracy, item_entropy
from distjudge_trl.report import paper
from distjudge_trl.report.runs import CONSTANTS, Row
from distjudge_trl.report.test_sets import Cell, TestSet


# Okabe and Ito's colours, which colour-blind people can distinguish.
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f", "#8c6d31", "#5e4fa2", "#1b9e77")
# How many judges the overview shows.
_KINDS: dict[str, Callable[[Row], bool]] = {
    "as trained": lambda row: not row.is_constant and not row.is_calibrated,
    "calibrated afterwards": lambda row: row.is_calibrated,
    "constant, reads nothing": lambda row: row.is_constant,
}
# How many judges the reliability and entropy plots show; the others are in the tables.
PLOTTED = ("raw", "raw + temperature", "single-point", "no-adversary", "dirichlet", "distribution")
_NUM_BINS = 10


@dataclass
class Line:
    """Points of one judge. `low` and `high` are the ends of intervals in y (for dots: in x). `key` determines the
    colour.
    """

    name: str
    x: list[float]
    y: list[float]
    key: int = 0
    low: list[float] | None = None
    high: list[float] | None = None
    hover: list[str] | None = None


@dataclass
class Panel:
    """One pair of axes. `ticks` are the names on the y axis of a panel of dots."""

    title: str
    lines: list[Line]
    reference: float | None = None
    diagonal: float | None = None
    ticks: list[str] | None = None


@dataclass
class Plot:
    """A figure. `kind` is `"lines"` through points, or `"dots"` with horizontal intervals."""

    name: str
    title: str
    caption: str
    x_label: str
    y_label: str
    panels: list[Panel]
    kind: Literal["lines", "dots"] = "lines"
    reference_label: str = ""


def all_plots(test_sets: Sequence[TestSet]) -> list[Plot]:
    """All plots in the order of a report, without those that have no data."""
    # Results on validation items are shown only in the plot of the settings' effect.
    tested = [test_set for test_set in test_sets if not test_set.is_validation]
    plots = [overview(tested), figure_3(test_sets), reliability_plot(tested), entropy_plot(tested)]
    return [plot for plot in plots if plot.panels]


def overview(test_sets: Sequence[TestSet]) -> Plot:
    """KL of every judge with its interval, and the noise floor."""
    panels = []
    for test_set in test_sets:
        cells = sorted(test_set.main_cells, key=lambda cell: -np.mean(cell.values("kl")))
        names = _names(cells)
        lines = []
        for key, (kind, belongs) in enumerate(_KINDS.items()):
            places = [i for i, cell in enumerate(cells) if belongs(cell.rows[0])]
            if not places:
                continue
            middle = [float(np.mean(cells[i].values("kl"))) for i in places]
            low, high = (list(ends) for ends in zip(*(_interval(cells[i]) for i in places), strict=True))
            seeds = [f"{len(cells[i].rows)} seed{'s' if len(cells[i].rows) > 1 else ''}" for i in places]
            hover = [f"{names[i]}: KL {kl:.3f}, {n}" for i, kl, n in zip(places, middle, seeds, strict=True)]
            lines.append(Line(kind, middle, [float(i) for i in places], key, low, high, hover))
        panels.append(Panel(_title(test_set), lines, reference=test_set.noise_floor, ticks=names))
    return Plot(
        "kl",
        "KL of every judge",
        "KL to the annotators' distribution in nats, lower is better. Whiskers: 95 % over items (one seed) or ± one"
        " standard deviation over seeds. Dashed: the noise floor, below which no judge can be on average.",
        "KL (nats)",
        "",
        panels,
        "dots",
        "noise floor",
    )


def figure_3(test_sets: Sequence[TestSet]) -> Plot:
    """KL against alpha, with a line per epsilon and a panel per data set, from runs of one method that differ only in
    these two.
    """
    panels = []
    for test_set in test_sets:
        grids: dict[tuple[Any, ...], dict[float, dict[float, float]]] = {}
        for cell in test_set.cells:
            own = cell.rows[0].objective
            if cell.method not in ("distribution", "no-adversary") or own["max_annotators"] is not None:
                continue
            radius = own["perturbation_radius"] if own["adversary"] != "none" else 0.0
            same = {k: v for k, v in own.items() if k not in ("alpha", "adversary", "perturbation_radius")}
            key = (cell.model, cell.rows[0].settings.get("num_train_items"), cell.rows[0].setup, str(same))
            grids.setdefault(key, {}).setdefault(float(radius), {})[float(own["alpha"])] = float(
                np.mean(cell.values("kl"))
            )
        for (model, num_items, *_), grid in grids.items():
            if max(len(points) for points in grid.values()) < 2:
                continue
            lines = [
                Line(f"ε = {radius:g}", sorted(points), [points[alpha] for alpha in sorted(points)], key)
                for key, (radius, points) in enumerate(sorted(grid.items()))
            ]
            count = f", {num_items:,} items" if num_items else ""
            # The floor is given in the title and not drawn: it is far below and would flatten the lines.
            floor = f"; noise floor {test_set.noise_floor:.3f}" if test_set.noise_floor is not None else ""
            panels.append(Panel(f"{_title(test_set)} ({model}{count}{floor})", lines))
    return Plot(
        "figure3",
        "Figure 3: weight of the KL term and radius of the adversary",
        "KL against alpha, with a line per epsilon; on validation items if a sweep chose by it. The paper finds the"
        " smallest KL near alpha = 0.8, and the worst line is epsilon = 0.",
        "α",
        "KL (nats)",
        panels,
    )


def _curves(
    test_sets: Sequence[TestSet],
    values: Callable[[Row], tuple[np.ndarray, np.ndarray]],
    bins: Callable[[np.ndarray], list[np.ndarray]],
    end: Callable[[TestSet], float],
) -> list[Panel]:
    """Means of two values per item, in bins of the first (lists of indices), with a line per judge, and the
    diagonal.
    """
    panels = []
    for test_set in test_sets:
        lines = []
        for key, cell in _plotted(test_set):
            pair = values(cell.rows[0])
            members = bins(pair[0])
            x, y = ([float(side[member].mean()) for member in members] for side in pair)
            hover = [f"{cell.method}: {len(member)} items" for member in members]
            lines.append(Line(cell.method, x, y, key, hover=hover))
        if lines:
            panels.append(Panel(_title(test_set), lines, diagonal=end(test_set)))
    return panels


def _equal_counts(values: np.ndarray) -> list[np.ndarray]:
    """Bins with equal numbers of items. Some bins of equal width would hold a single item."""
    order = np.argsort(values, kind="stable")
    return np.array_split(order, min(_NUM_BINS, max(1, len(order) // 20)))


def _between_quantiles(values: np.ndarray) -> list[np.ndarray]:
    """Bins between quantiles. Few annotators have few different entropies, so equal values are in one bin and no bin
    is repeated.
    """
    edges = np.unique(np.quantile(values, np.linspace(0, 1, _NUM_BINS + 1)))
    member = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, max(len(edges) - 2, 0))
    return [np.flatnonzero(member == b) for b in np.unique(member)]


def reliability_plot(test_sets: Sequence[TestSet]) -> Plot:
    """Accuracy in bins of the judge's confidence."""
    panels = _curves(
        test_sets,
        lambda row: (np.exp(row.log_q).max(-1), item_accuracy(row.run.p, row.log_q)),
        _equal_counts,
        lambda test_set: 1.0,
    )
    return Plot(
        "reliability",
        "Reliability",
        "How often the judge's likeliest label is the majority's, in bins of equal counts of its confidence (the ECE"
        " of the tables has 15 bins of equal width). On the"
        " diagonal, confidence equals accuracy; a judge that matches people's disagreement is under-confident here:"
        " the majority is right more often than any one person. First seed of each method.",
        "confidence",
        "accuracy",
        panels,
    )


def entropy_plot(test_sets: Sequence[TestSet]) -> Plot:
    """The judge's mean entropy in bins of the annotators' entropy."""
    panels = _curves(
        test_sets,
        lambda row: (item_entropy(np.log(np.maximum(row.run.p, 1e-300))), item_entropy(row.log_q)),
        _between_quantiles,
        lambda test_set: float(np.log(len(test_set.labels))),
    )
    return Plot(
        "entropy",
        "Does the judge know where people disagree?",
        "Mean entropy of the judge in bins of the annotators' entropy (nats). A flat line: the judge is equally unsure"
        " of everything. With few annotators the human entropy itself is biased downwards. First seed of each method.",
        "entropy of the annotators",
        "entropy of the judge",
        panels,
    )


def _plotted(test_set: TestSet) -> list[tuple[int, Cell]]:
    """Colour and cell of the plotted judges. If there are several models, those of the model with most judges."""
    cells = [cell for cell in test_set.main_cells if cell.method not in CONSTANTS]
    known = [cell for cell in cells if cell.method in PLOTTED]
    chosen = known or cells[: len(COLORS)]
    models = [cell.model for cell in chosen]
    model = max(models, key=models.count) if models else ""
    keys = {method: key for key, method in enumerate(PLOTTED)}
    return [(keys.get(c.method, i), c) for i, c in enumerate(chosen) if c.model == model]


def _names(cells: Sequence[Cell]) -> list[str]:
    models = {cell.model for cell in cells if cell.model}
    return [f"{cell.method} ({cell.model})" if len(models) > 1 and cell.model else cell.method for cell in cells]


def _interval(cell: Cell) -> tuple[float, float]:
    values = cell.values("kl")
    if len(values) > 1:
        mean, std = float(np.mean(values)), float(np.std(values, ddof=1))
        return mean - std, mean + std
    kl = cell.rows[0].metrics["kl"]
    return (kl["low"], kl["high"]) if kl["low"] is not None else (values[0], values[0])


def _title(test_set: TestSet) -> str:
    return paper.TITLES.get(test_set.name, test_set.name)
