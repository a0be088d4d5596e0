"""Figures, with matplotlib."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from distjudge_trl.runtime.extras import needing


_HUMAN_COLOR = "#c9c9c9"
_JUDGE_COLORS = ("#d95f02", "#1b6ca8", "#7a3e9d", "#2a9d5c")


def plot_distributions(
    path: str | Path,
    names: Sequence[str],
    human: np.ndarray,
    judges: Mapping[str, np.ndarray],
    labels: Sequence[str],
    title: str,
) -> None:
    """Draw a PNG with one small panel per item: the human distribution as bars, each judge's as a line.

    Args:
        path (`str` or `Path`): file to write.
        names (`Sequence[str]` of length N): panel titles.
        human (`np.ndarray` of shape `(N, K)`): human distributions.
        judges (`Mapping` of name to `np.ndarray` of shape `(N, K)`): judged distributions, at most four.
        labels (`Sequence[str]` of length K).
        title (`str`): above all panels.

    Raises:
        [`UserInputError`]: matplotlib is not installed.
    """
    with needing("matplotlib", "Figures need"):
        from matplotlib.figure import Figure

    columns = min(4, len(names))
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(3.1 * columns, 2.2 * rows + 0.9), dpi=130, layout="constrained")
    axes = np.atleast_1d(figure.subplots(rows, columns, sharex=True, sharey=True)).ravel()
    x = np.arange(len(labels))
    for i, axis in enumerate(axes):
        if i >= len(names):
            axis.axis("off")
            continue
        axis.bar(x, human[i], color=_HUMAN_COLOR, width=0.85, label="humans")
        for color, (name, q) in zip(_JUDGE_COLORS, judges.items(), strict=False):
            axis.plot(x, q[i], color=color, marker="o", markersize=3, linewidth=1.6, label=name)
        # An expression with dollar signs is not a formula.
        axis.set_title(names[i], fontsize=11, fontweight="bold", parse_math=False)
        axis.set_xticks(x, labels, fontsize=8)
        axis.tick_params(axis="y", labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    handles, legend_labels = axes[0].get_legend_handles_labels()
    figure.suptitle(title, fontsize=12)
    figure.legend(handles, legend_labels, loc="outside lower center", ncols=len(legend_labels), frameon=False)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
