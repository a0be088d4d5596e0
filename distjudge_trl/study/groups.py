"""The seeds of a method on a data set, and the text of their figures in tables."""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from distjudge_trl.errors import UserInputError, counted
from distjudge_trl.evaluation import item_kl, paired_difference
from distjudge_trl.evaluation.metrics import whole_votes
from distjudge_trl.evaluation.noise_floor import TrueEntropy, true_entropy
from distjudge_trl.evaluation.statistics import Estimate, bootstrap_interval, bootstrap_mean, seed_test
from distjudge_trl.methods import METHODS
from distjudge_trl.report.cells import LEVEL, number
from distjudge_trl.report.test_sets import value_of
from distjudge_trl.study.plan import Plan
from distjudge_trl.study.planned_run import READING_OPTIONS
from distjudge_trl.study.store import StudyResult


# The method that others are compared with, and the paper's.
REFERENCE, PAPER = "no-adversary", "distribution"
# How a judge is read: as it is, and with the scalings that are fitted on held-out training items.
READINGS = ("plain", "temperature", "vector")
# What stars of [`gain_text`] and the figures of [`Group.text`] mean.
STARS = "One star: the interval excludes 0. Two: a paired t-test over the seeds has p below 0.05, too."
DAGGER = "†"
SEEDS = "Mean ± standard deviation over seeds; without ± it is one seed, which says little about others."


class Group(NamedTuple):
    """The seeds of one method on one data set, with the same varied options."""

    data: str
    method: str
    results: tuple[StudyResult, ...]

    def values(self, name: str, reading: str = "plain") -> list[float]:
        """A metric, one value per seed; none of seeds that were not read so (without `calibrate`)."""
        return [value_of(result.rows[reading].metrics, name) for result in self.results if reading in result.rows]

    def text(self, name: str, reading: str = "plain", form: str = ".3f", scale: float = 1) -> str:
        """A metric as text: mean ± standard deviation over the seeds; with their number, if some were not read so."""
        values = self.values(name, reading)
        return number(values, form, scale) + fewer_text(len(values), len(self.results))

    def seed_item_kl(self, reading: str = "plain") -> np.ndarray:
        """KL of every item for every seed, `(seeds, N)`."""
        return np.array([item_kl(result.run.p, result.rows[reading].log_q) for result in self.results])

    def item_kl(self, reading: str = "plain") -> np.ndarray:
        """KL of every item `(N,)`, the mean over the seeds."""
        return np.asarray(self.seed_item_kl(reading).mean(0))

    def mean_log_q(self, reading: str = "plain") -> np.ndarray:
        """Log of the mean of the seeds' probabilities, `(N, K)`."""
        return np.asarray(np.log(np.mean([np.exp(result.rows[reading].log_q) for result in self.results], axis=0)))

    @property
    def precisions(self) -> list[str]:
        """In what the judges were trained, in the order of the seeds; empty texts where it is not known."""
        return [str(result.about["machine"].get("dtype", "")) for result in self.results]

    @property
    def groups(self) -> list[str]:
        """The group of every item, for intervals."""
        return list(self.results[0].run.items["group"][:])


def group_results(
    results: Iterable[StudyResult], *, vary: Mapping[str, object] | None = None, transfer: str | None = None
) -> dict[str, dict[str, Group]]:
    """Data set to method to group, of the results with exactly these varied options and this transfer.

    Raises:
        [`UserInputError`]: two results of a data set were tested on other items, so that no table can compare them.
    """
    found: dict[str, dict[str, list[StudyResult]]] = {}
    wanted = dict(vary or {})
    # An untrained model differs only in how it is read.
    untrained = {name: value for name, value in wanted.items() if name in READING_OPTIONS}
    for result in results:
        about = result.about
        is_raw = about["options"].get("method") == "raw"
        if about.get("transfer") == transfer and about["vary"] == (untrained if is_raw else wanted):
            found.setdefault(about["data"], {}).setdefault(about["method"], []).append(result)
    for methods in found.values():
        check_same_items([result for rows in methods.values() for result in rows])
    return {
        data: {name: Group(data, name, tuple(sorted(rows, key=lambda r: r.about["seed"]))) for name, rows in m.items()}
        for data, m in found.items()
    }


def check_same_items(results: Sequence[StudyResult]) -> None:
    """Check that results of a data set can be compared item by item.

    Raises:
        [`UserInputError`]: two were tested on other items.
    """
    for other in results:
        if other.results["test_fingerprint"] != results[0].results["test_fingerprint"]:
            raise UserInputError(
                f"{other.path}: was tested on other items than {results[0].path}, so that no table can compare them."
                " Give their test items by options of the data set; if its files have changed, delete the older"
                " folder, and the run is made again."
            )


def plan_methods(plan: Plan) -> list[str]:
    """The methods of a plan's parts, in the order of the recipes' methods and then of the plan's own."""
    used = [name for part in plan.content.runs.values() for name in part.methods]
    return [name for name in (*METHODS, *plan.content.methods) if name in used]


def ordered_groups(plan: Plan, methods: Mapping[str, Group]) -> list[tuple[str, Group]]:
    """The groups of a data set by method, in the order of [`plan_methods`]."""
    return [(name, methods[name]) for name in plan_methods(plan) if name in methods]


def compared_data(plan: Plan, data: Mapping[str, Mapping[str, Group]]) -> list[str]:
    """The data sets on which the method that others are compared with has results, in the plan's order."""
    return [key for key in plan.content.data if REFERENCE in data.get(key, {})]


def varied_groups(
    results: Iterable[StudyResult], data: str, option: str, reading: str = "plain"
) -> dict[object, dict[str, Group]]:
    """For each value of a varied option, in order and the unset one (`None`) last: method to group, of the trained
    judges of a data set that were read so and differ in nothing else that is varied.
    """
    own = [result for result in results if result.about["data"] == data and "transfer" not in result.about]
    own = [result for result in own if result.about["options"].get("method") != "raw" and reading in result.rows]
    own = [result for result in own if set(result.about["vary"]) <= {option}]
    check_same_items(own)
    found = {result.about["vary"].get(option) for result in own}
    numbers = sorted(value for value in found if value is not None)
    return {
        value: group_results(own, vary={} if value is None else {option: value}).get(data, {})
        for value in [*numbers, *([None] if None in found else [])]
    }


def read_so(group: Group, reading: str, seeds: Collection[int] | None = None) -> Group:
    """The results of a group that were read so, of all seeds or of these."""
    chosen = (r for r in group.results if reading in r.rows and (seeds is None or r.about["seed"] in seeds))
    return group._replace(results=tuple(chosen))


def same_seeds(one: Group, other: Group, reading: str) -> tuple[Group, Group] | None:
    """Two groups with the seeds that both have in a reading; `None` if there are none."""
    first, second = ({r.about["seed"] for r in read_so(group, reading).results} for group in (one, other))
    seeds = first & second
    return (read_so(one, reading, seeds), read_so(other, reading, seeds)) if seeds else None


def gain_text(group: Group | None, reference: Group | None, reading: str) -> str:
    """Difference in KL over the seeds that both have, ± its standard deviation over them, and its interval over items.
    It has a star if the interval excludes 0, two if a paired t-test over the seeds agrees, and a dagger if judges of
    one seed were trained in different precision.
    """
    pair = same_seeds(group, reference, reading) if group is not None and reference is not None else None
    if pair is None:
        return "-"
    one, other = pair
    text = difference_text(one.seed_item_kl(reading), other.seed_item_kl(reading), one.groups)
    return text if one.precisions == other.precisions else f"{text} {DAGGER}"


def difference_text(one: np.ndarray, other: np.ndarray, groups: Sequence[str]) -> str:
    """The difference of two KLs `(seeds, N)` as [`gain_text`] has it."""
    over_items = paired_difference(one.mean(0), other.mean(0), groups)
    kls = one.mean(1).tolist(), other.mean(1).tolist()
    text = f"{over_items.value:+.3f}"
    if len(one) > 1:
        text += f" ± {np.std(np.subtract(*kls), ddof=1):.3f}"
    return f"{text} [{over_items.low:+.3f}, {over_items.high:+.3f}]{stars(over_items, *kls)}"


def stars(over_items: Estimate, one: Sequence[float], other: Sequence[float]) -> str:
    """The stars of a difference, as [`STARS`] says: of its estimate over items, and of both figures for every seed."""
    if over_items.low <= 0 <= over_items.high:
        return ""
    p_value = seed_test(one, other) if len(one) > 1 else None
    return " **" if p_value is not None and p_value < LEVEL else " *"


def dagger(one: Group, other: Group) -> str:
    """A dagger, unless all judges of both groups were trained in one precision."""
    return "" if len({*one.precisions, *other.precisions}) == 1 else f" {DAGGER}"


def marks_text(rows: Iterable[Sequence[str]]) -> str:
    """What the marks of [`gain_text`] mean that these rows have."""
    return " ".join([STARS, *dagger_notes(rows)])


def dagger_notes(rows: Iterable[Sequence[str]]) -> list[str]:
    """What a dagger means, if these rows have one."""
    if not any(DAGGER in cell for row in rows for cell in row):
        return []
    return [f"{DAGGER}: not all were trained in one precision, which moves KL as much as another seed or more."]


def excess_text(group: Group) -> str:
    """Excess KL of the mean over seeds, with its interval over items."""
    floor = group.results[0].results["metrics"]["noise_floor"]
    if floor is None:
        return "-"
    return interval_text(group.item_kl() - floor, group)


def interval_text(values: np.ndarray, group: Group) -> str:
    """The mean of a figure of every item `(N,)`, with its interval over the items of a group."""
    found = bootstrap_mean(values, group.groups)
    return f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"


def people_entropy(result: StudyResult) -> TrueEntropy | None:
    """How divided the people of a result's test items are; `None` if no item has whole votes."""
    _, counts = whole_votes(result.run.p, np.array(result.run.items["num_annotators"]))
    return _true_entropy(counts.tobytes(), counts.shape[1]) if len(counts) else None


@functools.cache
def _true_entropy(votes: bytes, num_labels: int) -> TrueEntropy:
    """Cached: several tables and data sets have the same test items, and a fit to nine labels takes seconds."""
    return true_entropy(np.frombuffer(votes).reshape(-1, num_labels))


def seeds_text(group: Group | int) -> str:
    """The number of seeds, if there are several."""
    count = group if isinstance(group, int) else len(group.results)
    return f" ({count} seeds)" if count > 1 else ""


def relative_text(before: Group, after: Group, reading: str) -> str:
    """The change in excess KL of two groups that were tested on the same items, as [`change_text`] has it."""
    floor = value_of(before.results[0].results["metrics"], "noise_floor")
    return change_text(before.item_kl(reading) - floor, after.item_kl(reading) - floor, before.groups)


def change_from(before: Group, after: Group, kl: np.ndarray, reading: str) -> str:
    """The same for a KL `(N,)` that judges of the second group have together, with a dagger unless all judges of both
    groups were trained in one precision. Their seeds may differ.
    """
    floor = value_of(before.results[0].results["metrics"], "noise_floor")
    text = change_text(before.item_kl(reading) - floor, kl - floor, before.groups)
    return text if text == "-" else text + dagger(before, after)


def change_text(before: np.ndarray, after: np.ndarray, groups: Sequence[str]) -> str:
    """The change in per cent of the mean of a figure of every item `(N,)`, with its interval over items; a dash where
    the interval of the first has 0 in it, of which there are no per cent.
    """
    first, second = before.mean(), after.mean()
    if not first > 0 or not np.isfinite(second) or not bootstrap_mean(before, groups).low > 0:
        return "-"
    both = np.stack([before, after], axis=-1)
    low, high = bootstrap_interval(both, groups, lambda sums: sums[:, 1] / sums[:, 0] - 1)
    return f"{100 * (second / first - 1):+.0f} % [{100 * low:+.0f}, {100 * high:+.0f}]"


def fewer_text(count: int, total: int) -> str:
    """The number of seeds that a figure is of, if they are not all."""
    return f" ({counted(count, 'seed')})" if 0 < count < total else ""


def number_text(value: float | None, form: str = ".3f") -> str:
    """A figure, or a dash."""
    return "-" if value is None or np.isnan(value) else f"{value:{form}}"
