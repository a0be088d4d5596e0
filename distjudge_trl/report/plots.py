"""The figures of a report, once as data, drawn twice: PNG (matplotlib) and interactive (plotly)."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from distjudge_trl.atomic import replacing
from distjudge_trl.errors import UserInputError, writing
from distjudge_trl.evaluation.distances import item_accuracy, item_entropy
from distjudge_trl.extras import install_hint
from distjudge_trl.report import paper
from distjudge_trl.report.runs import CONSTANTS, Cell, Row, TestSet


# Okabe and Ito's colours, which colour-blind people tell apart.
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f", "#8c6d31", "#5e4fa2", "#1b9e77")
# Of judges in the overview.
_KINDS: dict[str, Callable[[Row], bool]] = {
    "as trained": lambda row: not row.is_constant and not row.is_calibrated,
    "calibrated afterwards": lambda row: row.is_calibrated,
    "constant, reads nothing": lambda row: row.is_constant,
}
# Shown in the reliability and entropy plots; the others are in the tables.
_PLOTTED = ("raw", "raw + temperature", "single-point", "no-adversary", "dirichlet", "distribution")
_NUM_BINS = 10


@dataclass
class Line:
    """Points of one judge. `low` and `high`: ends of intervals in y (for dots: in x). `key` decides the colour."""

    name: str
    x: list[float]
    y: list[float]
    key: int = 0
    low: list[float] | None = None
    high: list[float] | None = None
    hover: list[str] | None = None


@dataclass
class Panel:
    """One pair of axes. `ticks` name the places on y of a panel of dots."""

    title: str
    lines: list[Line]
    reference: float | None = None
    diagonal: float | None = None
    ticks: list[str] | None = None


@dataclass
class Plot:
    """A figure. `kind`: `"lines"` through points, or `"dots"` with horizontal intervals."""

    name: str
    title: str
    caption: str
    x_label: str
    y_label: str
    panels: list[Panel]
    kind: Literal["lines", "dots"] = "lines"
    reference_label: str = ""


def all_plots(test_sets: Sequence[TestSet]) -> list[Plot]:
    """In the order of a report; those without data are left out."""
    # What chose settings shows their effect, and nothing else.
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
    """KL against alpha, a line an epsilon, a panel a data set: from runs of one method that differ in them alone."""
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
            # The floor is named, not drawn: far below, it would flatten the lines.
            floor = f"; noise floor {test_set.noise_floor:.3f}" if test_set.noise_floor is not None else ""
            panels.append(Panel(f"{_title(test_set)} ({model}{count}{floor})", lines))
    return Plot(
        "figure3",
        "Figure 3: weight of the KL term and radius of the adversary",
        "KL against alpha, a line an epsilon; on validation items where a sweep chose by it. The paper finds the least"
        " KL near alpha = 0.8 and epsilon = 0 the worst line.",
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
    """Means of two values an item, in bins of the first (lists of indices), a line a judge, and the diagonal."""
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
    """Bins of equal width would hold a single item here and there."""
    order = np.argsort(values, kind="stable")
    return np.array_split(order, min(_NUM_BINS, max(1, len(order) // 20)))


def _between_quantiles(values: np.ndarray) -> list[np.ndarray]:
    """Few annotators have few different entropies: each bin once, and equal values in one."""
    edges = np.unique(np.quantile(values, np.linspace(0, 1, _NUM_BINS + 1)))
    member = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, max(len(edges) - 2, 0))
    return [np.flatnonzero(member == b) for b in np.unique(member)]


def reliability_plot(test_sets: Sequence[TestSet]) -> Plot:
    """Accuracy in bins of confidence."""
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
        " diagonal, confidence is accuracy; a judge that matches people's disagreement is under-confident here:"
        " the majority is right more often than any one person. First seed of each method.",
        "confidence",
        "accuracy",
        panels,
    )


def entropy_plot(test_sets: Sequence[TestSet]) -> Plot:
    """Judge's mean entropy in bins of the annotators'."""
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
    """Colour and cell; with several models, those of the one with most judges."""
    cells = [cell for cell in test_set.main_cells if cell.method not in CONSTANTS]
    known = [cell for cell in cells if cell.method in _PLOTTED]
    chosen = known or cells[: len(COLORS)]
    models = [cell.model for cell in chosen]
    model = max(models, key=models.count) if models else ""
    keys = {method: key for key, method in enumerate(_PLOTTED)}
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


# matplotlib


def save_png(plot: Plot, path: str | Path) -> None:
    """Draw a plot into a PNG, whole or not at all.

    Raises:
        [`UserInputError`]: matplotlib is not installed.
    """
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError:
        raise UserInputError(f"Figures need matplotlib: {install_hint('matplotlib')}.") from None

    columns = min(3, len(plot.panels))
    rows = -(-len(plot.panels) // columns)
    height = 1.2 + 0.27 * max(len(panel.ticks or ()) for panel in plot.panels) if plot.kind == "dots" else 3.8
    # Names are texts of the user's: a dollar sign in one is no formula.
    with mpl.rc_context({"text.parse_math": False, "font.size": 9.5, "axes.titlesize": 11}):
        figure = Figure(figsize=(max(6.4, 4.7 * columns), height * rows + 0.7), dpi=150, layout="constrained")
        axes = np.atleast_1d(figure.subplots(rows, columns)).ravel()
        for axis in axes[len(plot.panels) :]:
            axis.axis("off")
        handles: dict[str, Any] = {}
        for axis, panel in zip(axes, plot.panels, strict=False):
            _draw(axis, plot, panel, handles)
        figure.suptitle(plot.title, fontweight="bold")
        if handles:
            figure.legend(
                handles.values(),
                handles.keys(),
                loc="outside lower center",
                ncols=min(6, 3 * columns, len(handles)),
                frameon=False,
            )
        with writing(path), replacing(path) as temporary:
            figure.savefig(temporary, format="png")


def _draw(axis: Any, plot: Plot, panel: Panel, handles: dict[str, Any]) -> None:
    for line in panel.lines:
        color = COLORS[line.key % len(COLORS)]
        if plot.kind == "dots":
            assert line.low is not None and line.high is not None and panel.ticks is not None
            spread = [np.subtract(line.x, line.low), np.subtract(line.high, line.x)]
            drawn = axis.errorbar(line.x, line.y, xerr=spread, fmt="o", color=color, ms=4.5, capsize=2.5, lw=1.3)
            handles.setdefault(line.name, drawn)
            axis.set_yticks(range(len(panel.ticks)), panel.ticks)
            axis.set_xlim(left=0)
            continue
        (drawn,) = axis.plot(line.x, line.y, color=color, marker="o", markersize=4, linewidth=1.7)
        handles.setdefault(line.name, drawn)
    if panel.diagonal is not None:
        axis.plot([0, panel.diagonal], [0, panel.diagonal], color="#999999", lw=1, ls=":", zorder=0)
        axis.set_xlim(0, panel.diagonal)
        axis.set_ylim(0, panel.diagonal * 1.02)
    if panel.reference is not None:
        draw = axis.axvline if plot.kind == "dots" else axis.axhline
        handles.setdefault(plot.reference_label, draw(panel.reference, color="#444444", lw=1, ls="--", zorder=0))
    if plot.kind == "lines" and panel.diagonal is None:
        # Marks at the values that were run.
        axis.set_xticks(sorted({x for line in panel.lines for x in line.x}))
    axis.set_title(panel.title)
    axis.set_xlabel(plot.x_label)
    axis.set_ylabel(plot.y_label)
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)


# plotly


def to_plotly(plot: Plot) -> dict[str, Any]:
    """A plotly figure as JSON content. Names are escaped: plotly reads some HTML in texts.

    Raises:
        [`UserInputError`]: plotly is not installed.
    """
    try:
        import plotly.graph_objects as go
        from plotly.subplots import make_subplots
    except ImportError:
        raise UserInputError(f"The page needs plotly: {install_hint('plotly')}.") from None

    columns = min(2, len(plot.panels))
    rows = -(-len(plot.panels) // columns)
    figure = make_subplots(
        rows=rows,
        cols=columns,
        subplot_titles=[_text(panel.title) for panel in plot.panels],
        horizontal_spacing=0.24 if plot.kind == "dots" else 0.1,
        vertical_spacing=min(0.3, 0.22 / max(rows - 1, 1)),
    )
    shown: set[str] = set()
    tallest = 0
    for i, panel in enumerate(plot.panels):
        place = {"row": i // columns + 1, "col": i % columns + 1}
        for line in panel.lines:
            color = COLORS[line.key % len(COLORS)]
            common = {
                "x": line.x,
                "y": line.y,
                "name": _text(line.name),
                "legendgroup": _text(line.name),
                "showlegend": line.name not in shown,
                "marker": {"color": color, "size": 8},
                "hovertext": [_text(hover) for hover in line.hover or ()] or None,
            }
            shown.add(line.name)
            if plot.kind == "dots":
                assert line.low is not None and line.high is not None and panel.ticks is not None
                spread = {
                    "type": "data",
                    "symmetric": False,
                    "array": np.subtract(line.high, line.x).tolist(),
                    "arrayminus": np.subtract(line.x, line.low).tolist(),
                }
                figure.add_trace(go.Scatter(**common, mode="markers", error_x=spread, hoverinfo="text"), **place)
                ticks = [_text(tick) for tick in panel.ticks]
                figure.update_yaxes(tickvals=list(range(len(ticks))), ticktext=ticks, **place)
                figure.update_xaxes(rangemode="tozero", **place)
                tallest = max(tallest, len(ticks))
            else:
                figure.add_trace(go.Scatter(**common, mode="lines+markers", line={"color": color}), **place)
        if panel.diagonal is not None:
            figure.add_shape(
                type="line",
                x0=0,
                y0=0,
                x1=panel.diagonal,
                y1=panel.diagonal,
                line={"color": "#999", "dash": "dot", "width": 1},
                **place,
            )
        if panel.reference is not None:
            add = figure.add_vline if plot.kind == "dots" else figure.add_hline
            add(panel.reference, line={"color": "#444", "dash": "dash", "width": 1}, **place)
        figure.update_xaxes(title_text=plot.x_label, **place)
        figure.update_yaxes(title_text=plot.y_label, **place)
    height = 110 + 26 * tallest if plot.kind == "dots" else 380
    figure.update_layout(
        template="plotly_white",
        height=height * rows + 100,
        margin={"l": 20, "r": 20, "t": 40, "b": 40},
        font={"family": "system-ui, sans-serif", "size": 13},
        legend={"orientation": "h", "y": -70 / (height * rows), "yanchor": "top"},
        hovermode="closest",
    )
    figure.update_yaxes(automargin=True)
    content: dict[str, Any] = figure.to_plotly_json()
    return content


def _text(text: str) -> str:
    return html.escape(" ".join(text.split()), quote=False)
