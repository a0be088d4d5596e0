"""Plots as PNG files, drawn with matplotlib."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from distjudge_trl.errors import writing
from distjudge_trl.files.atomic import replacing
from distjudge_trl.report.plots import COLORS, Panel, Plot
from distjudge_trl.runtime.extras import needing


def save_png(plot: Plot, path: str | Path, description: str | None = None) -> None:
    """Draw a plot into a PNG, atomically.

    Args:
        plot ([`Plot`]): the plot.
        path (`str` or `Path`): the file.
        description (`str`, *optional*): a text in the file's metadata.

    Raises:
        [`UserInputError`]: matplotlib is not installed.
    """
    with needing("matplotlib", "Figures need"):
        import matplotlib as mpl
        from matplotlib.figure import Figure

    columns = min(3, len(plot.panels))
    rows = -(-len(plot.panels) // columns)
    height = 1.2 + 0.27 * max(len(panel.ticks or ()) for panel in plot.panels) if plot.kind == "dots" else 3.8
    # Names are the user's texts, in which a dollar sign does not start a formula.
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
            figure.savefig(temporary, format="png", metadata={"Description": description} if description else None)


def _draw(axis: Any, plot: Plot, panel: Panel, handles: dict[str, Any]) -> None:
    for line in panel.lines:
        color = COLORS[line.key % len(COLORS)]
        if plot.kind == "dots":
            assert line.low is not None and line.high is not None and panel.ticks is not None
            spread = [np.subtract(line.x, line.low), np.subtract(line.high, line.x)]
            drawn = axis.errorbar(line.x, line.y, xerr=spread, fmt="o", color=color, ms=4.5, capsize=2.5, lw=1.3)
            handles.setdefault(line.name, drawn)
            axis.set_yticks(range(len(panel.ticks)), panel.ticks)
            if min(line.low) >= 0:
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
        # Ticks at the values that were run.
        axis.set_xticks(sorted({x for line in panel.lines for x in line.x}))
    axis.set_title(panel.title)
    axis.set_xlabel(plot.x_label)
    axis.set_ylabel(plot.y_label)
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
