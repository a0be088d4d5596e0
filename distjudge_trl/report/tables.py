"""Tables of results for terminals and Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


# Figures of a result that suppose whole votes.
SUPPOSE_WHOLE = "Noise floor, excess KL and human ceiling"
# A share of the probability from which on it is worth a line.
_NOTED = 0.005
_HEADER = ("method", "KL (95 %)", "excess KL", "accuracy (95 %)", "label mass")


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, readable as plain text. Cells are text: bars, backslashes and line ends are escaped."""
    cells = [[_cell(cell) for cell in row] for row in (header, *rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in cells
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def _cell(text: str) -> str:
    return markdown_text(text).replace("|", "\\|")


def markdown_text(text: str) -> str:
    """Escape a text, so that Markdown shows it unchanged in one line and not as HTML, a link, a picture, or a list."""
    text = " ".join(str(text).split()).replace("\\", "\\\\").replace("<", "&lt;").replace("](", "]\\(")
    return f"\\{text}" if text.startswith(("*", "#")) else text


def rows_of(results: dict[str, Any], *, variants: bool = True) -> list[dict[str, Any]]:
    """The rows of a result file: the judge and, with `variants`, its calibrated variants and the constants."""
    return [results, *(results["variants"] if variants else [])]


def result_row(row: dict[str, Any]) -> tuple[str, ...]:
    """Cells of one row, in the order of the table's header. KL in nats, accuracy in per cent."""
    metrics = row["metrics"]
    kl, accuracy, mass = metrics["kl"], metrics["accuracy"], metrics.get("label_mass")
    return (
        row["method"],
        f"{kl['value']:.3f} {_interval(kl, '.3f')}",
        f"{metrics['excess_kl']['value']:.3f}" if metrics["excess_kl"] is not None else "-",
        f"{100 * accuracy['value']:.1f} % {_interval(accuracy, '.1f', 100)}",
        f"{mass:.3f}" if mass is not None else "-",
    )


def results_table(runs: Sequence[dict[str, Any]], *, variants: bool = False) -> str:
    """A Markdown table of runs on the same test items, with the noise floor as its last row."""
    rows = [result_row(row) for run in runs for row in rows_of(run, variants=variants)]
    metrics = runs[0]["metrics"]
    if (prior := runs[0].get("question_prior")) is not None:
        rows.append(result_row({"method": "question-prior", **prior}))
    if metrics["noise_floor"] is not None:
        rows.append(("noise floor", f"{metrics['noise_floor']:.3f}", "0.000", "-", "-"))
    divided = metrics.get("divided_items")
    note = "\n\n" + left_out(SUPPOSE_WHOLE, divided, metrics["num_items"]) if divided else ""
    return markdown_table(_HEADER, rows) + note


def question_prior_line(runs: Sequence[dict[str, Any]]) -> list[str]:
    """A line on what knowing the question alone comes to, if the first such run asks several."""
    metrics = next((run["question_prior"]["metrics"] for run in runs if run.get("question_prior") is not None), None)
    if metrics is None:
        return []
    excess = f", {metrics['excess_kl']['value']:.3f} above the floor" if metrics["excess_kl"] is not None else ""
    prior = "The training prior of each question, which knows what is asked and reads nothing else, has a KL of"
    return [f"{prior} {metrics['kl']['value']:.3f}{excess}."]


def left_out(figures: str, divided: int, total: int) -> str:
    """A sentence about figures that suppose whole votes."""
    return f"{figures} leave out {divided:,} of {total:,} items, in which divided votes are no whole numbers."


def parts_table(results: dict[str, Any]) -> str:
    """A Markdown table of the judge on each question of a task that has several."""
    header = ("question", "items", "KL (95 %)", "noise floor", "excess KL", "accuracy (95 %)")
    rows = []
    for name, metrics in results["parts"].items():
        _, kl, excess, accuracy, _ = result_row({"method": name, "metrics": metrics})
        floor = f"{metrics['noise_floor']:.3f}" if metrics["noise_floor"] is not None else "-"
        rows.append((name, f"{metrics['num_items']:,}", kl, floor, excess, accuracy))
    return markdown_table(header, rows)


def label_sets_table(results: dict[str, Any]) -> str:
    """A Markdown table of a calibrated judge's label sets, over all items and for each question."""
    fit, parts = results["calibration"]["conformal"], results.get("parts", {})
    rows = []
    for name, metrics in {"all": results["metrics"], **parts}.items():
        coverage, size = metrics["coverage"], metrics["set_size"]
        rows.append(
            (
                *((name,) if parts else ()),
                f"{fit['level']:g}",
                f"{coverage['value']:.3f} {_interval(coverage, '.3f')}",
                f"{size['value']:.2f} of {len(results['labels'])} {_interval(size, '.2f')}",
            )
        )
    kind = "intervals" if fit["kind"] == "intervals" else "label sets"
    header = ("question",) if parts else ()
    return markdown_table((*header, f"level of {kind}", "coverage (95 %)", "labels in one (95 %)"), rows)


def robustness_table(runs: Sequence[dict[str, Any]], *, variants: bool = False) -> str:
    """A Markdown table of the KL at every length of the perturbation (the paper's Table 3)."""
    rows = [row for run in runs for row in rows_of(run, variants=variants)]
    header = ("method", *(f"{point['radius']:g}" for point in rows[0]["robustness"]))
    return markdown_table(
        header, [(row["method"], *(f"{point['kl']:.3f}" for point in row["robustness"])) for row in rows]
    )


def extraction_lines(found: dict[str, Any]) -> list[str]:
    """What readers should know of how a judge behind a server was read, from the key `extraction` of its result file;
    empty for other judges.
    """
    lines = []
    if "missing_labels" in found:
        share, floor = 100 * found["items_with_missing_labels"], found["floor"]
        given = f", and it gets {floor:g}" if floor is not None else ""
        lines.append(f"{share:.1f} % of the items have a label that is not among the returned tokens{given}.")
        if found.get("items_without_labels"):
            lines.append(
                f"{100 * found['items_without_labels']:.1f} % of the items have no label at all among these tokens:"
                " their distribution is uniform, and the model did not choose it. A larger --top-logprobs finds more."
            )
        if found.get("kl_low") is not None:
            low, high = found["kl_low"], found["kl_high"]
            lines.append(f"The probability that was not returned allows a KL between {low:.3f} and {high:.3f}.")
        if found["prefix_mass"] > _NOTED:
            mass = 100 * found["prefix_mass"]
            lines.append(
                f"{mass:.1f} % of the probability is read from beginnings of labels. --tokenizer reads exactly."
            )
        if found["ambiguous_mass"] > _NOTED:
            mass = 100 * found["ambiguous_mass"]
            lines.append(f"{mass:.1f} % of the probability begins several labels, and counts for none.")
    if "unparsed" in found:
        lines.append(f"{100 * found['unparsed']:.1f} % of the sampled answers are no label, and count for none.")
    if found.get("refused"):
        lines.append(f"{found['refused']:,} answers are refusals, and say nothing about the labels.")
    return lines


def _interval(estimate: dict[str, float | None], spec: str, factor: float = 1.0) -> str:
    low, high = estimate["low"], estimate["high"]
    if low is None or high is None:
        return "[one group: no interval]"
    return f"[{format(factor * low, spec)}, {format(factor * high, spec)}]"


def shared_task_table(figures: dict[str, Any]) -> str:
    """The key `lewidi` of a result file: the official figures of a judge and the rows beside it."""
    names = {
        "cross_entropy": "cross-entropy",
        "micro_f1": "micro-F1",
        "manhattan": "Manhattan",
        "wasserstein": "Wasserstein",
        "num_items": "items",
        "num_incomplete": "incomplete",
    }
    keys = [key for key in names if key in figures["rows"][0]]
    rows = [
        [row["method"], *(f"{row[key]:.3f}" if isinstance(row[key], float) else f"{row[key]:,}" for key in keys)]
        for row in figures["rows"]
    ]
    return markdown_table(["method", *(names[key] for key in keys)], rows)
