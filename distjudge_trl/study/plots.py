"""Plots of a study, as data: what a loss gains on each data set, and KL against a varied option."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from distjudge_trl.evaluation import paired_difference
from distjudge_trl.report.plots import Line, Panel, Plot
from distjudge_trl.study.grids import grid_plot
from distjudge_trl.study.groups import REFERENCE, Group, compared_data, plan_methods, same_seeds, varied_groups
from distjudge_trl.study.plan import Plan
from distjudge_trl.study.store import StudyResult


# Options of the curves: what the x axis shows.
CURVES = {"max_annotators": "annotators an item in training", "max_train_samples": "training items"}


def study_plots(plan: Plan, results: Sequence[StudyResult], data: Mapping[str, Mapping[str, Group]]) -> list[Plot]:
    """The plots of a study that have data: `gains`, `grid`, and one for each option of `CURVES`."""
    curves = (curve_plot(plan, results, option) for option in CURVES)
    plots = [gains_plot(plan, data), grid_plot(plan, results), *curves]
    return [plot for plot in plots if plot.panels]


def gains_plot(plan: Plan, data: Mapping[str, Mapping[str, Group]]) -> Plot:
    """KL of every trained method minus that of KL + CE, with intervals over items."""
    panels = []
    for key in compared_data(plan, data):
        names = [name for name in plan_methods(plan) if name in data[key] and name not in ("raw", REFERENCE)]
        differences = []
        for name in names:
            pair = same_seeds(data[key][name], data[key][REFERENCE], "plain")
            if pair is not None:
                found = paired_difference(pair[0].item_kl(), pair[1].item_kl(), pair[0].groups)
                differences.append((f"{plan.method_title(name)} ({len(pair[0].results)})", found))
        if differences:
            differences.reverse()  # the first row of a table is the highest tick
            low, high = [d.low for _, d in differences], [d.high for _, d in differences]
            middle, places = [d.value for _, d in differences], [float(i) for i in range(len(differences))]
            line = Line("mean over seeds", middle, places, 0, low, high)
            panels.append(Panel(plan.data_title(key), [line], reference=0.0, ticks=[name for name, _ in differences]))
    reference = plan.method_title(REFERENCE)
    return Plot(
        "gains",
        f"KL minus that of {reference}, as trained",
        "Left of the dashed line is better. Whiskers: 95 % over items, of the mean over the seeds (their number in"
        " brackets); what other seeds would give, they do not say.",
        "difference in KL (nats)",
        "",
        panels,
        "dots",
        reference,
    )


def curve_plot(plan: Plan, results: Sequence[StudyResult], option: str) -> Plot:
    """KL against a varied option: a line per method, a panel per data set."""
    panels = []
    for key in plan.content.data:
        points = varied_groups(results, key, option)
        lines = []
        for number, name in enumerate(name for name in plan_methods(plan) if name != "raw"):
            here = [(value, methods[name]) for value, methods in points.items() if name in methods]
            if len(here) > 1:
                x = [amount(value, group, option) for value, group in here]
                kls = [group.values("kl") for _, group in here]
                lines.append(Line(plan.method_title(name), x, [float(np.mean(each)) for each in kls], number))
        if lines:
            first = next(iter(next(iter(points.values())).values())).results[0]
            floor = first.results["metrics"]["noise_floor"]
            panels.append(Panel(plan.data_title(key), lines, reference=floor))
    label = CURVES[option]
    return Plot(
        option.removeprefix("max_").replace("_", "-"),
        f"KL against {label}",
        "Means over the seeds that were run. Dashed: the noise floor.",
        label,
        "KL (nats)",
        panels,
        reference_label="noise floor",
    )


def amount(value: object, group: Group, option: str) -> float:
    """A value of an option of [`CURVES`]; where it is unset, the training items or mean annotators that there were."""
    if value is not None:
        return float(str(value))
    settings = group.results[0].results["settings"]
    items = settings.get("num_train_items") or 0
    if option == "max_train_samples":
        return float(items)
    return (settings.get("num_train_votes") or 0) / items if items else float("nan")
