"""Tables of linear judges."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from distjudge_trl.errors import UserInputError
from distjudge_trl.methods import METHODS
from distjudge_trl.report.cells import Table, number
from distjudge_trl.study.grids import Noise
from distjudge_trl.study.groups import PAPER, REFERENCE, STARS, Group
from distjudge_trl.study.linear_judges import PATIENCE, Point
from distjudge_trl.study.linear_study import DIGITS, FEATURES, FIGURES, LinearStudy


_SIGNS = (
    "Negative is better. Mean ± standard deviation over seeds, which draw the training items and which of them are"
    " held out."
)
_INTERVALS = f"[95 % interval over test items of the mean over seeds]. {STARS} Nothing is corrected for their number."


def _signs(studies: Iterable[LinearStudy]) -> list[str]:
    return [_SIGNS, *([_INTERVALS] if any(study.comparisons for study in studies) else [])]


def _cut_off(studies: Sequence[LinearStudy], methods: Sequence[str]) -> list[str]:
    """A note on the judges that the limit of steps may have stopped: their best step is among the last."""
    late = [
        o.steps > study.about["most_steps"] - PATIENCE
        for study in studies
        for o in study.outcomes
        if o.method in methods
    ]
    limits = " or ".join(f"{limit:,}" for limit in sorted({int(study.about["most_steps"]) for study in studies}))
    return (
        [f"{sum(late):,} of these {len(late):,} judges were stopped by the limit of {limits} steps."]
        if any(late)
        else []
    )


def _annotators(point: Point) -> str:
    """The number of annotators, or those of which each item drew one: "1 / 3 / 10"."""
    return str(point.annotators or "all").replace(",", " / ")


def _drawn(study: LinearStudy) -> list[str]:
    """What [`_annotators`] means by several numbers."""
    several = any(isinstance(point.annotators, str) for point in study.points())
    return ["Several numbers of annotators: each item drew one of them."] if several else []


def points_table(study: LinearStudy) -> Table:
    """Every method at every point."""
    header = ["items", "annotators", "alpha", "epsilon", "method", "excess KL", "+ temperature"]
    header += [f"minus {REFERENCE}, + temperature", "entropy corr.", "accuracy %"]
    rows = [
        [
            *(f"{point.items:,}", _annotators(point), f"{point.alpha:g}", f"{point.radius:g}", method),
            number(study.values(method, point, "kl"), ".4f"),
            number(study.values(method, point, "scaled_kl"), ".4f"),
            "" if method == REFERENCE else study.difference(method, point, "scaled_kl"),
            number(study.values(method, point, "entropy_correlation"), ".2f"),
            number(study.values(method, point, "accuracy"), ".1f", 100),
        ]
        for point in study.points()
        for method in study.methods()
    ]
    number_tested, floor, prior = (study.about[name] for name in ("test_items", "noise_floor", "prior_kl"))
    tested = (
        f"{number_tested:,} test items; noise floor {floor:.4f}; the training prior is {prior - floor:.4f} above it."
    )
    notes = [tested, *_signs([study]), *_drawn(study), *_cut_off([study], study.methods())]
    return Table("linear", f"{study.title}: linear judges", header, rows, notes)


def yardstick_table(studies: Mapping[str, LinearStudy], data: Mapping[str, Mapping[str, Group]]) -> Table:
    """Excess KL after temperature scaling of linear judges of KL + CE that were trained on all items, with all
    features, beside the study's judges of the data set of the same name, which were tested on the same items.
    """
    header = ["data", "test items", "training items", "noise floor", "training prior"]
    by_question = any("question_prior_kl" in study.about for study in studies.values())
    header += [*(["prior of each question"] if by_question else []), *FEATURES.values()]
    header += [f"trained model: {REFERENCE}", f"trained model: {PAPER}"]
    rows = []
    for name in dict.fromkeys(key.partition("/")[2] for key in studies):
        found = {features: studies.get(f"{features}/{name}") for features in FEATURES}
        there = [each for each in found.values() if each is not None]
        study = there[0]
        if any(not _alike(study, each) for each in there):
            raise UserInputError(f"{name}: its judges of different features have different items. Make them again.")
        (point,), about = study.points(), study.about
        rows.append([study.title, f"{about['test_items']:,}", f"{point.items:,}", f"{about['noise_floor']:.3f}"])
        rows[-1].append(f"{about['prior_kl'] - about['noise_floor']:.3f}")
        if by_question:
            own = about.get("question_prior_kl")
            rows[-1].append("-" if own is None else f"{own - about['noise_floor']:.3f}")
        for each in found.values():
            rows[-1].append("-" if each is None else number(each.values(REFERENCE, point, "scaled_kl"), ".3f"))
        for method in (REFERENCE, PAPER):
            group = data.get(name, {}).get(method)
            same = group is not None and same_items(group, about)
            rows[-1].append(group.text("excess_kl", "temperature") if group is not None and same else "-")
    models = " and ".join(sorted({study.model for study in studies.values() if study.model is not None}))
    features = (
        f"Linear judges of {REFERENCE}. Frozen model: softmaxes over hidden states of a model that stays as it is"
        f" ({models}). Both: over these and TF-IDF of words. Trained model: the study's, all its weights trained."
    )
    notes = [
        "Excess KL after temperature scaling; mean ± standard deviation over seeds.",
        features,
        "Training items of the linear judges; a fifth of them is held out.",
        *_cut_off(list(studies.values()), [REFERENCE]),
    ]
    return Table("linear-yardstick", "Linear judges beside a trained language model", header, rows, notes)


def _alike(one: LinearStudy, other: LinearStudy) -> bool:
    """Whether two studies have the same test items and as many training items."""
    known = [(s.points(), s.about["test_items"], round(s.about["noise_floor"], DIGITS)) for s in (one, other)]
    return known[0] == known[1]


def same_items(group: Group, about: Mapping[str, float]) -> bool:
    """Whether judges were tested on as many items as a study of linear judges, with the same noise floor."""
    metrics = group.results[0].results["metrics"]
    own = metrics["num_items"], metrics["noise_floor"] or 0.0
    return bool(np.allclose(own, (about["test_items"], about["noise_floor"]), atol=1e-5))


def linear_gains_tables(features: str, studies: Iterable[LinearStudy], reading: str) -> Iterator[Table]:
    """KL of every method minus that of KL + CE, trained on all items, with some features. Methods that less than half
    of the data sets have stand in a table of their own, `rare`. Each table has the data sets that have one of its
    methods.
    """
    studies = list(studies)
    names = [name for study in studies for name in study.methods() if name != REFERENCE]
    order = dict.fromkeys(name for name in (*METHODS, *names) if name in names)
    rare = [name for name in order if 2 * names.count(name) < len(studies)]
    for kind, methods in (("gains", [name for name in order if name not in rare]), ("rare", rare)):
        own = [study for study in studies if set(methods) & set(study.methods())]
        if not own:
            continue
        rows = [
            [study.title, *(study.difference(method, study.points()[0], FIGURES[reading]) for method in methods)]
            for study in own
        ]
        title = f"KL minus that of {REFERENCE}" + (", both after temperature scaling" if reading != "plain" else "")
        title += "" if kind == "gains" else ": methods that few data sets have"
        notes = [*_signs(own), *(_cut_off(own, [REFERENCE, *methods]) if reading != "plain" else [])]
        yield Table(f"linear-{features}-{kind}-{reading}", title, ["data", *methods], rows, notes)


def linear_curve_table(name: str, study: LinearStudy) -> Table:
    """KL + CE, and what other methods differ by, for every number of items and of annotators.

    Raises:
        [`UserInputError`]: points differ in alpha or epsilon.
    """
    if len({(point.alpha, point.radius) for point in study.points()}) > 1:
        raise UserInputError(f"{name}: has several alphas or epsilons. Call the file of a grid grid-NAME.json.")
    methods = [method for method in study.methods() if method != REFERENCE]
    header = ["items", "annotators", f"excess KL of {REFERENCE}", *(f"{method} minus it" for method in methods)]
    rows = [
        [
            f"{point.items:,}",
            _annotators(point),
            number(study.values(REFERENCE, point, "scaled_kl"), ".3f"),
            *(study.difference(method, point, "scaled_kl") for method in methods),
        ]
        for point in study.points()
    ]
    prior = study.about["prior_kl"] - study.about["noise_floor"]
    notes = [
        "All after temperature scaling.",
        *_signs([study]),
        *_drawn(study),
        f"The training prior of all items is {prior:.3f} above the floor.",
        *_cut_off([study], study.methods()),
    ]
    return Table(f"linear-{name}", f"{study.title}: items and annotators", header, rows, notes)


def linear_grid_table(name: str, study: LinearStudy) -> Table:
    """Figure 3: excess KL of the paper's loss for every alpha and epsilon, as trained and after scaling.

    Raises:
        [`UserInputError`]: the paper's loss is missing at a point, or points differ in more than alpha and epsilon.
    """
    points = study.points()
    if len({(point.alpha, point.radius) for point in points}) < len(points) or PAPER not in study.methods():
        raise UserInputError(f"{name}: a grid needs judges of {PAPER}, one number of items and one of annotators.")
    alphas, radii = (sorted({getattr(point, field) for point in points}) for field in ("alpha", "radius"))
    means = {
        figure: {(point.alpha, point.radius): np.mean(study.values(PAPER, point, figure)) for point in points}
        for figure in FIGURES.values()
    }
    rows = [
        [f"{alpha:g}", *(f"{means['kl'][alpha, r]:.4f} / {means['scaled_kl'][alpha, r]:.4f}" for r in radii)]
        for alpha in alphas
    ]
    notes = ["Excess KL as trained / after temperature scaling, mean over seeds."]
    for words, figure in (("As trained", "kl"), ("After temperature scaling", "scaled_kl")):
        (alpha, radius), lowest = min(means[figure].items(), key=lambda item: item[1])
        noise = Noise.of(np.array([study.values(PAPER, point, figure) for point in points]))
        close = sum(mean - lowest < noise.apart for mean in means[figure].values()) - 1
        beside = "" if np.isnan(noise.noise) else f"; {close} of the others within {noise.apart:.4f} of it"
        notes.append(f"{words}: the lowest is alpha {alpha:g}, epsilon {radius:g}{beside}. {noise.text('.4f')}")
    notes += _cut_off([study], [PAPER])
    header = ["alpha", *(f"epsilon {radius:g}" for radius in radii)]
    return Table(f"linear-{name}", f"{study.title}: alpha times epsilon", header, rows, notes)


def hindsight_table(features: str, studies: Iterable[LinearStudy]) -> Table | None:
    """The method that turns out best on each data set, beside the paper's loss: no choice on other items is ahead by
    more. `None` without judges of the paper's loss.
    """
    rows = []
    for study in studies:
        (point,) = study.points()
        kls = {method: np.array(study.values(method, point, "scaled_kl")) for method in study.methods()}
        if PAPER not in kls:
            continue
        best = min(kls, key=lambda method: kls[method].mean())
        change = 100 * (kls[best].mean() / kls[PAPER].mean() - 1)
        cells = (number(kls[method].tolist(), ".4f") for method in (PAPER, best))
        rows.append([study.title, str(len(kls)), *cells, best, f"{change:+.1f} %"])
    header = ["data", "methods compared", PAPER, "best in hindsight", "which is", "change"]
    notes = [
        "Excess KL after temperature scaling, mean ± standard deviation over seeds.",
        "The best is chosen on the test items, which flatters it: an upper bound of what a choice among these gains.",
    ]
    title = f"What choosing a method could gain over {PAPER} at most"
    return Table(f"linear-{features}-hindsight", title, header, rows, notes) if rows else None


def linear_tables(studies: Mapping[str, LinearStudy], data: Mapping[str, Mapping[str, Group]]) -> dict[str, Table]:
    """All tables, by name. Of the files of some features, `grid-NAME` are alpha times epsilon, others with several
    points are curves, and those with one are compared.
    """
    single = {}
    tables: list[Table] = []
    for key, study in studies.items():
        features, _, name = key.partition("/")
        if name.startswith("grid-"):
            tables.append(linear_grid_table(f"{features}-{name}", study))
        elif len(study.points()) > 1:
            tables.append(linear_curve_table(f"{features}-{name}", study))
        else:
            single[key] = study
    for features in dict.fromkeys(key.partition("/")[0] for key in single):
        own = [study for key, study in single.items() if key.startswith(f"{features}/")]
        tables += [table for reading in FIGURES for table in linear_gains_tables(features, own, reading)]
        hindsight = hindsight_table(features, own)
        tables += [hindsight] if hindsight is not None else []
    if single:
        tables.append(yardstick_table(single, data))
    return {table.name: table for table in tables}
