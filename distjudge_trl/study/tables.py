"""The tables of a study: every figure is computed from its results folder."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from distjudge_trl.evaluation import item_kl, paired_difference
from distjudge_trl.evaluation.lewidi import item_cross_entropy
from distjudge_trl.evaluation.statistics import bootstrap_mean, over_seeds, seed_test
from distjudge_trl.report.build import all_tables as report_tables
from distjudge_trl.report.cells import LEVEL, Table
from distjudge_trl.report.comparisons import compare
from distjudge_trl.report.test_sets import load_test_sets, value_of
from distjudge_trl.study.plan import Plan
from distjudge_trl.study.store import StudyResult


# How a judge is read: as it is, and with the scalings that are fitted on held-out training items.
READINGS = ("plain", "temperature", "vector")
_REFERENCE = "no-adversary"
# Tables of `distjudge-trl report` that pages show.
REPORT_TABLES = ("other_tasks", "comparisons", "halves", *(f"table{number}" for number in range(1, 7)))
# Cross-entropies on the dev part that were published (docs/lewidi.md names the source).
PUBLISHED_DEV = {"hs_brexit": 0.322, "convabuse": 0.230, "md_agreement": 0.528, "armis": 0.616}


class Group(NamedTuple):
    """The seeds of one method on one data set, with the same varied options."""

    data: str
    method: str
    results: tuple[StudyResult, ...]

    def values(self, name: str, reading: str = "plain") -> list[float]:
        """A metric, one value per seed; none of seeds that were not read so (without `calibrate`)."""
        return [value_of(result.rows[reading].metrics, name) for result in self.results if reading in result.rows]

    def item_kl(self, reading: str = "plain") -> np.ndarray:
        """KL of every item `(N,)`, the mean over the seeds."""
        return np.mean([item_kl(result.run.p, result.rows[reading].log_q) for result in self.results], axis=0)

    @property
    def groups(self) -> list[str]:
        """The group of every item, for intervals."""
        return list(self.results[0].run.items["group"][:])


def group_results(
    results: Iterable[StudyResult], *, vary: Mapping[str, object] | None = None, transfer: str | None = None
) -> dict[str, dict[str, Group]]:
    """Data set to method to group, of the results with exactly these varied options and this transfer."""
    found: dict[str, dict[str, list[StudyResult]]] = {}
    for result in results:
        about = result.about
        if about.get("transfer") == transfer and (about["method"] == "raw" or about["vary"] == dict(vary or {})):
            found.setdefault(about["data"], {}).setdefault(about["method"], []).append(result)
    return {
        data: {name: Group(data, name, tuple(sorted(rows, key=lambda r: r.about["seed"]))) for name, rows in m.items()}
        for data, m in found.items()
    }


def data_table(plan: Plan, methods: Mapping[str, Group]) -> Table:
    """All methods on one data set."""
    first = next(iter(methods.values())).results[0]
    metrics = first.results["metrics"]
    header = ["method", "KL", "excess KL (95 %)", "+ temperature", "+ vector", "entropy corr.", "accuracy %", "ECE"]
    rows = []
    for name, group in _ordered(plan, methods):
        excess = _excess(group)
        rows.append(
            [
                f"{plan.method_title(name)}{_seeds(group)}",
                mean_text(group.values("kl")),
                excess,
                mean_text(group.values("kl", "temperature")),
                mean_text(group.values("kl", "vector")),
                mean_text(group.values("entropy_correlation"), ".2f"),
                mean_text([100 * value for value in group.values("accuracy")], ".1f"),
                mean_text(group.values("ece"), ".3f"),
            ]
        )
    prior = first.rows.get("training-prior")
    if prior is not None:
        kl, excess_prior = value_of(prior.metrics, "kl"), value_of(prior.metrics, "excess_kl")
        accuracy = 100 * value_of(prior.metrics, "accuracy")
        rows.append(
            ["training prior (reads nothing)", f"{kl:.3f}", _number(excess_prior), "", "", "", f"{accuracy:.1f}", ""]
        )
    ceiling = metrics["human_ceiling"]
    sizes = sorted({r.results["settings"].get("num_train_items") or 0 for g in methods.values() for r in g.results})
    floor = _number(metrics["noise_floor"])
    tested = f"{metrics['num_items']:,} ({metrics['num_groups']:,} groups)"
    notes = [f"Trained on {sizes[-1]:,} items, tested on {tested}; noise floor {floor}."]
    if ceiling is not None:
        how_well = f"KL {ceiling['kl']:.3f} and accuracy {100 * ceiling['accuracy']:.1f} %"
        notes.append(f"Human ceiling: half of an item's annotators predict the other half with {how_well}.")
    return Table(f"data-{first.about['data']}", plan.data_title(first.about["data"]), header, rows, notes)


def gains_table(
    plan: Plan, data: Mapping[str, Mapping[str, Group]], *, reading: str = "plain", reference: str = _REFERENCE
) -> Table | None:
    """KL of every method minus that of one of them, on each data set: intervals over items. `None` if no judge is read
    so.
    """
    if not any(group.values("kl", reading) for methods in data.values() for group in methods.values()):
        return None
    names = [
        name for name in plan_methods(plan) if name != reference and any(name in found for found in data.values())
    ]
    names = [name for name in names if name != "raw"]
    rows = []
    for key in plan.content.data:
        if key not in data or reference not in data[key]:
            continue
        cells = [gain_text(data[key].get(name), data[key][reference], reading) for name in names]
        rows.append([plan.data_title(key), *cells])
    header = ["data", *(plan.method_title(name) for name in names)]
    title = f"KL minus that of {plan.method_title(reference)}"
    title += "" if reading == "plain" else f", both with {reading} scaling"
    note = (
        "Negative is better. Mean ± standard deviation over seeds [95 % interval over items of the mean over seeds,"
        " groups resampled]. *: the interval excludes 0. **: a paired t-test over the seeds has p < 0.05, too. Not"
        " corrected for the number of comparisons."
    )
    return Table(f"gains-{reading}", title, header, rows, [note])


def shared_task_table(plan: Plan, data: Mapping[str, Mapping[str, Group]]) -> Table:
    """Cross-entropy on the dev parts of LeWiDi 2023, and the share of the way from the constant mean to the floor."""
    keys = [key for key in plan.content.data if key in PUBLISHED_DEV and key in data]
    methods = [name for name in plan_methods(plan) if any(name in data[key] for key in keys)]
    header = ["judge", *(plan.data_title(key) for key in keys)]
    frame: dict[str, tuple[float, float]] = {}
    for key in keys:
        first = next(iter(data[key].values())).results[0]
        constant = next((r.rows["training-prior"] for g in data[key].values() for r in g.results), None)
        p = first.run.p
        assert constant is not None
        frame[key] = (
            float(item_cross_entropy(p, p).mean()),
            float(item_cross_entropy(p, np.exp(constant.log_q)).mean()),
        )
    rows = []
    for name in methods:
        for reading in READINGS:
            cells = [_cross_entropy_text(data[key].get(name), reading, *frame[key]) for key in keys]
            scaled = "" if reading == "plain" else f" + {reading}"
            rows.append([f"{plan.method_title(name)}{scaled}", *cells])
    rows.append(["CICL_DMS (published, multilingual DistilBERT)", *(f"{PUBLISHED_DEV[key]:.3f}" for key in keys)])
    rows.append(["constant: mean of train", *(f"{frame[key][1]:.3f} (0 %)" for key in keys)])
    rows.append(["floor: the targets' own entropy", *(f"{frame[key][0]:.3f} (100 %)" for key in keys)])
    note = "Cross-entropy (share of the way from the constant to the floor); mean ± standard deviation over seeds."
    return Table("lewidi-dev", "LeWiDi 2023, dev: cross-entropy", header, rows, [note])


def curve_table(
    plan: Plan, results: Sequence[StudyResult], data: str, option: str, *, reading: str = "plain"
) -> Table | None:
    """KL of every method against a varied option, the largest value (unset) last."""
    points: dict[object, dict[str, Group]] = {}
    for value in _varied(results, data, option):
        vary = {} if value is None else {option: value}
        read = (r for r in results if r.about["data"] == data and reading in r.rows)
        points[value] = group_results(read, vary=vary).get(data, {})
    if len(points) < 2:
        return None
    names = [
        name
        for name in plan_methods(plan)
        if name != "raw" and sum(name in methods for methods in points.values()) > 1
    ]
    if not names:
        return None
    rows = []
    for name in names:
        rows.append(
            [
                plan.method_title(name),
                *(mean_text(found[name].values("kl", reading)) if name in found else "-" for found in points.values()),
            ]
        )
    if _REFERENCE in names:
        for name in names:
            if name == _REFERENCE:
                continue
            cells = [gain_text(found.get(name), found.get(_REFERENCE), reading) for found in points.values()]
            rows.append([f"{plan.method_title(name)} minus {plan.method_title(_REFERENCE)}", *cells])
    words = ["all" if value is None else f"{value:,}" for value in points]
    title = f"{plan.data_title(data)}: KL against {option.removeprefix('max_').replace('_', ' ')}"
    return Table(f"curve-{data}-{option}-{reading}", title, ["method", *words], rows, [])


def _varied(results: Sequence[StudyResult], data: str, option: str) -> list[object]:
    found = {
        result.about["vary"].get(option)
        for result in results
        if result.about["data"] == data and "transfer" not in result.about and set(result.about["vary"]) <= {option}
    }
    numbers = sorted(value for value in found if value is not None)
    return [*numbers, *([None] if None in found else [])]


def plan_methods(plan: Plan) -> list[str]:
    """The methods of a plan's parts, in the order of the recipes' methods and then of the plan's own."""
    from distjudge_trl.methods import METHODS

    used = [name for part in plan.content.runs.values() for name in part.methods]
    return [name for name in (*METHODS, *plan.content.methods) if name in used]


def _ordered(plan: Plan, methods: Mapping[str, Group]) -> list[tuple[str, Group]]:
    return [(name, methods[name]) for name in plan_methods(plan) if name in methods]


def gain_text(group: Group | None, reference: Group | None, reading: str) -> str:
    """Difference in KL over the seeds that both have, ± its standard deviation over them, and its interval over items.
    It has a star if the interval excludes 0, two if a paired t-test over the seeds agrees.
    """
    if group is None or reference is None:
        return "-"
    seeds, others = ({r.about["seed"] for r in g.results if reading in r.rows} for g in (group, reference))
    seeds &= others
    one, other = (
        Group(g.data, g.method, tuple(r for r in g.results if r.about["seed"] in seeds)) for g in (group, reference)
    )
    if not seeds:
        return "-"
    over_items = paired_difference(one.item_kl(reading), other.item_kl(reading), one.groups)
    kls = one.values("kl", reading), other.values("kl", reading)
    text = f"{over_items.value:+.3f}"
    if len(seeds) > 1:
        text += f" ± {np.std(np.subtract(*kls), ddof=1):.3f}"
    text += f" [{over_items.low:+.3f}, {over_items.high:+.3f}]"
    if over_items.low <= 0 <= over_items.high:
        return text
    p_value = seed_test(*kls) if len(seeds) > 1 else None
    return text + (" **" if p_value is not None and p_value < LEVEL else " *")


def _excess(group: Group) -> str:
    floor = group.results[0].results["metrics"]["noise_floor"]
    if floor is None:
        return "-"
    found = bootstrap_mean(group.item_kl() - floor, group.groups)
    return f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"


def _cross_entropy_text(group: Group | None, reading: str, floor: float, constant: float) -> str:
    if group is None:
        return "-"
    found = [
        float(item_cross_entropy(r.run.p, np.exp(r.rows[reading].log_q)).mean())
        for r in group.results
        if reading in r.rows
    ]
    if not found:
        return "-"
    share = (constant - np.mean(found)) / (constant - floor)
    return f"{mean_text(found)} ({100 * share:.0f} %)"


def _seeds(group: Group) -> str:
    return f" ({len(group.results)} seeds)" if len(group.results) > 1 else ""


def _number(value: float | None) -> str:
    return "-" if value is None or np.isnan(value) else f"{value:.3f}"


def mean_text(values: Sequence[float], spec: str = ".3f") -> str:
    """Mean, with the standard deviation if there are several."""
    if not values or np.isnan(values).all():
        return "-"
    summary = over_seeds(values)
    text = format(summary.mean, spec)
    return f"{text} ± {format(summary.std, spec)}" if summary.num_runs > 1 else text


def could_be_table(plan: Plan, name: str) -> bool:
    """Whether a study of this plan can have a table of this name; some follow only from certain results."""
    keys = plan.content.data
    known = {"lewidi-dev", *REPORT_TABLES, *(f"gains-{reading}" for reading in READINGS), *(f"data-{k}" for k in keys)}
    return name in known or name.startswith(("metrics_", *(f"curve-{key}-" for key in keys)))


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
        for option, reading in itertools.product(("max_annotators", "max_train_samples"), READINGS[:2]):
            make = partial(curve_table, plan, results, key, option, reading=reading)
            makers[f"curve-{key}-{option}-{reading}"] = make
    for reading in READINGS:
        makers[f"gains-{reading}"] = partial(gains_table, plan, data, reading=reading)
    if PUBLISHED_DEV.keys() & data.keys():
        makers["lewidi-dev"] = partial(shared_task_table, plan, data)
    own = [make() for name, make in makers.items() if names is None or name in names]
    tables = {table.name: table for table in own if table is not None}
    if names is None or set(names) - makers.keys():
        test_sets = load_test_sets([result.path for result in results])
        tables |= {table.name: table for table in report_tables(test_sets, compare(test_sets))}
    return tables
