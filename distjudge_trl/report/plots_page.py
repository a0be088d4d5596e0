"""Plots for the HTML page, drawn with plotly."""

from __future__ import annotations

import html
from typing import Any

import numpy as np

from distjudge_trl.report.plots import COLORS, Plot
from distjudge_trl.runtime.extras import needing


def to_plotly(plot: Plot) -> dict[str, Any]:
    """A plotly figure as JSON content. Names are escaped: plotly reads some HTML in texts.

    Raises:
        [`UserInputError`]: plotly is not installed.
    """
    with needing("plotly", "The page needs"):
        import plotly.graph_objects as go
        from plotly.subplots import make_subplots

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
