"""The tables of a study: every figure is computed from its results folder."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial

from distjudge_trl.methods import METHODS
from distjudge_trl.report.build import all_tables as report_tables
from distjudge_trl.report.cells import Table, number
from distjudge_trl.report.comparisons import compare
from distjudge_trl.report.tables import question_prior_line
from distjudge_trl.report.test_sets import load_test_sets, value_of
from distjudge_trl.study.averages import averages_table
from distjudge_trl.study.budgets import budgets_table
from distjudge_trl.study.configurations import configurations_table
from distjudge_trl.study.grids import grid_table
from distjudge_trl.study.groups import (
    PAPER,
    READINGS,
    REFERENCE,
    SEEDS,
    Group,
    compared_data,
    excess_text,
    gain_text,
    group_results,
    marks_text,
    number_text,
    ordered_groups,
    plan_methods,
    seeds_text,
    varied_groups,
)
from distjudge_trl.study.plan import Plan
from distjudge_trl.study.plots import CURVES, amount
from distjudge_trl.study.shared_task import shared_task_table, tuned_table
from distjudge_trl.study.sizes import sizes_table
from distjudge_trl.study.softness import likeness_table, moved_table, scaled_table
from distjudge_trl.study.starts import starts_table
from distjudge_trl.study.store import StudyResult


# Tables of `distjudge-trl report` that pages show.
REPORT_TABLES = ("other_tasks", "comparisons", "halves", *(f"table{number}" for number in range(1, 7)))


def data_table(plan: Plan, methods: Mapping[str, Group]) -> Table:
    """All methods on one data set."""
    first = next(iter(methods.values())).results[0]
    metrics = first.results["metrics"]
    header = ["method", "KL", "excess KL (95 %)", "+ temperature", "+ vector", "entropy corr.", "accuracy %", "ECE"]
    header += ["label mass"]
    rows = []
    for name, group in ordered_groups(plan, methods):
        excess = excess_text(group)
        rows.append(
            [
                f"{plan.method_title(name)}{seeds_text(group)}",
                group.text("kl"),
                excess,
                group.text("kl", "temperature"),
                group.text("kl", "vector"),
                group.text("entropy_correlation", form=".2f"),
                group.text("accuracy", form=".1f", scale=100),
                group.text("ece"),
                group.text("label_mass", form=".2g"),
            ]
        )
    prior = first.rows.get("training-prior")
    if prior is not None:
        kl, excess_prior = value_of(prior.metrics, "kl"), value_of(prior.metrics, "excess_kl")
        accuracy = 100 * value_of(prior.metrics, "accuracy")
        rows.append(
            [
                "training prior (reads nothing)",
                f"{kl:.3f}",
                number_text(excess_prior),
                "",
                "",
                "",
                f"{accuracy:.1f}",
                "",
                "",
            ]
        )
    ceiling = metrics["human_ceiling"]
    judges = [r for group in methods.values() for r in group.results if r.results["trained_on"]]
    sizes = sorted({result.results["settings"].get("num_train_items") or 0 for result in judges} or {0})
    floor = number_text(metrics["noise_floor"])
    tested = f"{metrics['num_items']:,} ({metrics['num_groups']:,} groups)"
    trained = f"{sizes[-1]:,}" if len(sizes) < 2 else f"{sizes[0]:,} to {sizes[-1]:,}"
    notes = [f"Trained on {trained} items, tested on {tested}; noise floor {floor}."]
    notes += question_prior_line([r.results for group in methods.values() for r in group.results])
    if ceiling is not None:
        notes.append(_halves_note(plan, ceiling, methods))
    return Table(f"data-{first.about['data']}", plan.data_title(first.about["data"]), header, rows, notes)


def _halves_note(plan: Plan, ceiling: Mapping[str, float], methods: Mapping[str, Group]) -> str:
    """How well people predict people, and judges of the reference the same halves."""
    text = f"Half of an item's annotators predict the other half with KL {ceiling['kl']:.3f}"
    text += f" and accuracy {100 * ceiling['accuracy']:.1f} %"
    if REFERENCE not in methods:
        return f"{text}."
    found = [result.results["metrics"]["human_ceiling"] for result in methods[REFERENCE].results]
    kl, accuracy = (
        number([c["judge_kl"] for c in found], ".3f"),
        number([c["judge_accuracy"] for c in found], ".1f", 100),
    )
    return f"{text}, {plan.method_title(REFERENCE)} predicts it with {kl} and {accuracy} %."


def gains_table(plan: Plan, data: Mapping[str, Mapping[str, Group]], *, reading: str = "plain") -> Table | None:
    """KL of every method minus that of KL + CE, on each data set: intervals over items. `None` if no judge is read
    so.
    """
    if not any(group.values("kl", reading) for methods in data.values() for group in methods.values()):
        return None
    keys = compared_data(plan, data)
    names = [name for name in plan_methods(plan) if any(name in data[key] for key in keys)]
    rows = [
        [plan.method_title(name), *(gain_text(data[key].get(name), data[key][REFERENCE], reading) for key in keys)]
        for name in names
        if name not in (REFERENCE, "raw")
    ]
    if not rows:
        return None
    header = ["method", *(plan.data_title(key) for key in keys)]
    title = f"KL minus that of {plan.method_title(REFERENCE)}"
    title += "" if reading == "plain" else f", both with {reading} scaling"
    notes = [
        "Negative is better. Mean ± standard deviation over seeds [95 % interval over items of the mean over seeds].",
        marks_text(rows),
        "Nothing is corrected for the number of comparisons.",
        "Without ± it is one seed, whose interval says nothing about other seeds.",
    ]
    return Table(f"gains-{reading}", title, header, rows, notes)


def curve_table(
    plan: Plan, results: Sequence[StudyResult], data: str, option: str, *, reading: str = "plain"
) -> Table | None:
    """KL of every method against a varied option. Where it is unset, what there was counts, and comes last."""
    points = varied_groups(results, data, option, reading)
    if len(points) < 2:
        return None
    names = [name for name in plan_methods(plan) if sum(name in methods for methods in points.values()) > 1]
    if not names:
        return None
    rows = []
    for name in names:
        kls = [found[name].values("kl", reading) if name in found else [] for found in points.values()]
        rows.append([plan.method_title(name), *(number(values, ".3f") for values in kls)])
    if REFERENCE in names:
        for name in names:
            if name == REFERENCE:
                continue
            cells = [gain_text(found.get(name), found.get(REFERENCE), reading) for found in points.values()]
            rows.append([f"{plan.method_title(name)} minus {plan.method_title(REFERENCE)}", *cells])
    firsts = [next(iter(methods.values())) for methods in points.values()]
    words = [f"{amount(value, group, option):,.4g}" for value, group in zip(points, firsts, strict=True)]
    title = f"{plan.data_title(data)}: KL against {CURVES[option]}"
    notes = [
        SEEDS,
        "Differences: [95 % interval over items of the mean over the seeds that both have].",
        marks_text(rows),
    ]
    return Table(f"curve-{data}-{option}-{reading}", title, ["method", *words], rows, notes)


def _in_paper_layout(plan: Plan, result: StudyResult) -> bool:
    """Whether the report's tables show a result. They call judges by the recipes' methods and by their model, as which
    neither a method of the plan nor a judge that was trained further can be told.
    """
    data = plan.content.data[result.about["data"]]
    return result.about["method"] in METHODS and (data.start_from is None or result.about["method"] == "raw")


# Tables of all data sets, which have no variants.
OF_THE_STUDY: dict[str, Callable[[Plan, Mapping[str, Mapping[str, Group]]], Table | None]] = {
    "sizes": sizes_table,
    "moved": moved_table,
    "scaled-ece": partial(scaled_table, metric="ece"),
    "scaled-entropy_correlation": partial(scaled_table, metric="entropy_correlation"),
    "starts": starts_table,
    "averages": averages_table,
    "configurations": configurations_table,
    "lewidi-dev": shared_task_table,
    "lewidi-tuned": tuned_table,
}


def could_be_table(plan: Plan, name: str) -> bool:
    """Whether a study of this plan can have a table of this name; some follow only from certain results."""
    keys = plan.content.data
    gains = (f"gains-{reading}" for reading in READINGS)
    of_data = (f"{kind}-{key}" for kind in ("data", "likeness", "grid") for key in keys)
    known = {"budgets", *OF_THE_STUDY, *REPORT_TABLES, *gains, *of_data}
    curves = (f"curve-{key}-{o}-{r}" for key, o, r in itertools.product(keys, CURVES, READINGS[:2]))
    return name in known or name in curves or name.startswith("metrics_")


def all_tables(plan: Plan, results: Sequence[StudyResult], names: Collection[str] | None = None) -> dict[str, Table]:
    """Every table of a study, by name: its own, and those of the report, which has the paper's layout.

    Args:
        plan ([`Plan`]): gives the order of rows, and titles.
        results (`Sequence[StudyResult]`): of the plan's runs.
        names (`Collection[str]`, *optional*): make only these; a large study has many, and each takes a second.
    """
    data = group_results(results)
    makers: dict[str, Callable[[], Table | None]] = {}
    for key in plan.content.data:
        if key in data:
            makers[f"data-{key}"] = partial(data_table, plan, data[key])
        if PAPER in data.get(key, {}):
            makers[f"likeness-{key}"] = partial(likeness_table, plan, data[key])
        makers[f"grid-{key}"] = partial(grid_table, plan, results, key)
        for option, reading in itertools.product(CURVES, READINGS[:2]):
            make = partial(curve_table, plan, results, key, option, reading=reading)
            makers[f"curve-{key}-{option}-{reading}"] = make
    for reading in READINGS:
        makers[f"gains-{reading}"] = partial(gains_table, plan, data, reading=reading)
    makers |= {name: partial(make, plan, data) for name, make in OF_THE_STUDY.items()}
    makers["budgets"] = partial(budgets_table, plan, results)
    own = [make() for name, make in makers.items() if names is None or name in names]
    tables = {table.name: table for table in own if table is not None}
    if names is None or set(names) - makers.keys():
        test_sets = load_test_sets([result.path for result in results if _in_paper_layout(plan, result)])
        found = report_tables(test_sets, compare(test_sets))
        tables |= {table.name: table for table in found if names is None or table.name in names}
    return tables
