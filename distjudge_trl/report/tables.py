"""Tables of results, for terminals and Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


_HEADER = ("method", "KL (95 %)", "excess KL", "accuracy (95 %)", "label mass")


def result_row(results: dict[str, Any]) -> tuple[str, ...]:
    """Cells of one run, in the order of the table's header. KL in nats, accuracy in per cent."""
    metrics = results["metrics"]
    kl, accuracy, mass = metrics["kl"], metrics["accuracy"], metrics.get("label_mass")
    return (
        results["method"],
        f"{kl['value']:.3f} {_interval(kl, '.3f')}",
        f"{metrics['excess_kl']:.3f}" if metrics["excess_kl"] is not None else "-",
        f"{100 * accuracy['value']:.1f} % {_interval(accuracy, '.1f', 100)}",
        f"{mass:.3f}" if mass is not None else "-",
    )


def results_table(runs: Sequence[dict[str, Any]]) -> str:
    """A Markdown table of runs on the same test items, readable as plain text, with the noise floor as its last
    row.
    """
    rows = [_HEADER, *(result_row(run) for run in runs)]
    metrics = runs[0]["metrics"]
    if metrics["noise_floor"] is not None:
        rows.append(("noise floor", f"{metrics['noise_floor']:.3f}", "0.000", "-", "-"))
    widths = [max(len(row[i]) for row in rows) for i in range(len(_HEADER))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def _interval(estimate: dict[str, float | None], spec: str, factor: float = 1.0) -> str:
    low, high = estimate["low"], estimate["high"]
    if low is None or high is None:
        return "[one group: no interval]"
    return f"[{format(factor * low, spec)}, {format(factor * high, spec)}]"
