"""What linear judges scored: the files that keep it, and their tables."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from distjudge_trl.errors import UserInputError
from distjudge_trl.evaluation.statistics import Estimate, seed_difference
from distjudge_trl.files.atomic import replacing
from distjudge_trl.report.cells import Table, number
from distjudge_trl.study.groups import PAPER, REFERENCE, Group
from distjudge_trl.study.linear_judges import STEPS, Outcome, Point


_COLUMNS = ["method", *Point._fields, *Outcome._fields[2:]]
_DIGITS = 5
# Excess KL after temperature scaling, or as trained.
_FIGURES = {"temperature": "scaled_kl", "plain": "kl"}
_SEEDS = (
    "[95 % interval over seeds], with a star if it excludes 0: seeds draw which items are trained on and which are"
    " held out. It says nothing about other test items, and is not corrected for the number of comparisons."
)


class LinearStudy(NamedTuple):
    """The judges of one call of `scripts/benchmarks/linear_judges.py`: the data's title, its `test_items`,
    `noise_floor` and `prior_kl` (nats), and the judges.
    """

    title: str
    about: dict[str, float]
    outcomes: list[Outcome]

    def points(self) -> list[Point]:
        """What the judges were trained with, in order."""
        return list(dict.fromkeys(outcome.point for outcome in self.outcomes))

    def methods(self) -> list[str]:
        """The methods, in order."""
        return list(dict.fromkeys(outcome.method for outcome in self.outcomes))

    def values(self, method: str, point: Point, figure: str) -> list[float]:
        """A figure of every seed; of the KLs what is above the noise floor."""
        shift = self.about["noise_floor"] if figure in _FIGURES.values() else 0.0
        chosen = (one for one in self.outcomes if (one.method, one.point) == (method, point))
        return [getattr(one, figure) - shift for one in chosen]

    def difference(self, method: str, point: Point, figure: str) -> str:
        """How a figure differs from that of KL + CE at the same point."""
        own, there = (self.values(name, point, figure) for name in (method, REFERENCE))
        if not own or not there:
            return "-"
        if len(own) < 2:
            return f"{own[0] - there[0]:+.4f}"
        return _text(seed_difference(own, there))

    def save(self, path: Path) -> None:
        """Write a JSON file, a judge a line."""
        rows = [[one.method, *one.point, *(round(figure, _DIGITS) for figure in one[2:])] for one in self.outcomes]
        head = {"title": self.title, "about": self.about, "columns": _COLUMNS}
        lines = ",\n".join(json.dumps(row) for row in rows)
        with replacing(path) as temporary:
            temporary.write_text(f'{json.dumps(head)[:-1]}, "rows": [\n{lines}\n]}}\n', encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> LinearStudy:
        """Read such a file.

        Raises:
            [`UserInputError`]: it is damaged, or of another form.
        """
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if content["columns"] != _COLUMNS:
                raise ValueError(content["columns"])
            end = 1 + len(Point._fields)
            rows = [Outcome(row[0], Point(*row[1:end]), *row[end:]) for row in content["rows"]]
            return cls(content["title"], content["about"], rows)
        except (ValueError, KeyError, TypeError):
            raise UserInputError(
                f"{path}: was not written by scripts/benchmarks/linear_judges.py. Run it again with --out {path}."
            ) from None


def _text(found: Estimate) -> str:
    star = "" if found.low <= 0 <= found.high else " *"
    return f"{found.value:+.4f} [{found.low:+.4f}, {found.high:+.4f}]{star}"


def _cut_off(studies: Iterable[LinearStudy], methods: Sequence[str]) -> list[str]:
    """A note on the judges that were still improving at the last step."""
    steps = [o.steps for study in studies for o in study.outcomes if o.method in methods]
    late = sum(step == STEPS for step in steps)
    return (
        [f"{late:,} of these {len(steps):,} judges were still improving at the last step, {STEPS:,}."] if late else []
    )


def read_linear(folder: Path) -> dict[str, LinearStudy]:
    """All files of a folder, by name."""
    return {path.stem: LinearStudy.read(path) for path in sorted(folder.glob("*.json"))}


def points_table(study: LinearStudy) -> Table:
    """Every method at every point."""
    header = ["items", "annotators", "alpha", "epsilon", "method", "excess KL", "+ temperature"]
    header += [f"minus {REFERENCE}, + temperature", "entropy corr.", "accuracy %"]
    rows = [
        [
            *(f"{point.items:,}", str(point.annotators or "all"), f"{point.alpha:g}", f"{point.radius:g}", method),
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
    notes = [tested, _SEEDS, *_cut_off([study], study.methods())]
    return Table("linear", f"{study.title}: linear judges", header, rows, notes)


def yardstick_table(studies: Mapping[str, LinearStudy], data: Mapping[str, Mapping[str, Group]]) -> Table:
    """Excess KL after temperature scaling of linear judges that were trained on all items, beside the study's judges
    of the data set of the same name, which were tested on the same items.
    """
    header = [
        "data",
        "test items",
        "training items",
        "noise floor",
        "training prior",
        "words: single-point",
        f"words: {REFERENCE}",
    ]
    header += [f"words: {PAPER}", f"language model: {REFERENCE}", f"language model: {PAPER}"]
    rows = []
    for key, study in studies.items():
        (point,), about = study.points(), study.about
        rows.append([study.title, f"{about['test_items']:,}", f"{point.items:,}", f"{about['noise_floor']:.3f}"])
        rows[-1].append(f"{about['prior_kl'] - about['noise_floor']:.3f}")
        for method in ("single-point", REFERENCE, PAPER):
            rows[-1].append(number(study.values(method, point, "scaled_kl"), ".3f"))
        for method in (REFERENCE, PAPER):
            group = data.get(key, {}).get(method)
            same = group is not None and _same_items(group, about)
            rows[-1].append(group.text("excess_kl", "temperature") if group is not None and same else "-")
    notes = [
        "Excess KL after temperature scaling; mean ± standard deviation over seeds.",
        "Words: softmaxes over TF-IDF features. The language model is the study's, all weights trained.",
        "Training items of the judges of words; a fifth of them is held out.",
    ]
    return Table("linear-yardstick", "A bag of words and a language model", header, rows, notes)


def _same_items(group: Group, about: Mapping[str, float]) -> bool:
    metrics = group.results[0].results["metrics"]
    own = metrics["num_items"], metrics["noise_floor"] or 0.0
    return bool(np.allclose(own, (about["test_items"], about["noise_floor"]), atol=1e-5))


def linear_gains_table(studies: Mapping[str, LinearStudy], reading: str) -> Table:
    """KL of every method minus that of KL + CE on every data set, trained on all items."""
    methods = [name for name in dict.fromkeys(n for s in studies.values() for n in s.methods()) if name != REFERENCE]
    rows = [
        [study.title, *(study.difference(method, study.points()[0], _FIGURES[reading]) for method in methods)]
        for study in studies.values()
    ]
    title = f"KL minus that of {REFERENCE}" + (", both after temperature scaling" if reading != "plain" else "")
    notes = [f"Negative is better. {_SEEDS}"]
    if reading != "plain":
        notes += _cut_off(studies.values(), [REFERENCE, *methods])
    return Table(f"linear-gains-{reading}", title, ["data", *methods], rows, notes)


def linear_curve_table(name: str, study: LinearStudy) -> Table:
    """KL + CE, and what other methods differ by, for every number of items and of annotators."""
    methods = [method for method in study.methods() if method != REFERENCE]
    header = ["items", "annotators", f"excess KL of {REFERENCE}", *(f"{method} minus it" for method in methods)]
    rows = [
        [
            f"{point.items:,}",
            str(point.annotators or "all"),
            number(study.values(REFERENCE, point, "scaled_kl"), ".3f"),
            *(study.difference(method, point, "scaled_kl") for method in methods),
        ]
        for point in study.points()
    ]
    prior = study.about["prior_kl"] - study.about["noise_floor"]
    notes = [
        f"All after temperature scaling. {_SEEDS}",
        f"The training prior of all items is {prior:.3f} above the floor.",
        *_cut_off([study], study.methods()),
    ]
    return Table(f"linear-{name}", f"{study.title}: items and annotators", header, rows, notes)


def linear_grid_table(name: str, study: LinearStudy) -> Table:
    """Figure 3: excess KL of the paper's loss for every alpha and epsilon, as trained and after scaling."""
    points = study.points()
    alphas, radii = (sorted({getattr(point, field) for point in points}) for field in ("alpha", "radius"))
    means = {
        figure: {(point.alpha, point.radius): np.mean(study.values(PAPER, point, figure)) for point in points}
        for figure in _FIGURES.values()
    }
    rows = [
        [f"{alpha:g}", *(f"{means['kl'][alpha, r]:.4f} / {means['scaled_kl'][alpha, r]:.4f}" for r in radii)]
        for alpha in alphas
    ]
    notes = ["Excess KL as trained / after temperature scaling, mean over seeds."]
    for words, figure in (("As trained", "kl"), ("After temperature scaling", "scaled_kl")):
        alpha, radius = min(means[figure], key=means[figure].__getitem__)
        spread = np.std(list(means[figure].values()), ddof=1)
        seeds = np.mean([np.std(study.values(PAPER, point, figure), ddof=1) for point in points])
        notes.append(
            f"{words}: the lowest is alpha {alpha:g}, epsilon {radius:g}. Standard deviation of the points' means"
            f" {spread:.4f}, of seeds at one point {seeds:.4f}."
        )
    notes += _cut_off([study], [PAPER])
    header = ["alpha", *(f"epsilon {radius:g}" for radius in radii)]
    return Table(f"linear-grid-{name}", f"{study.title}: alpha times epsilon", header, rows, notes)


def linear_tables(studies: Mapping[str, LinearStudy], data: Mapping[str, Mapping[str, Group]]) -> dict[str, Table]:
    """All tables, by name: `grid-NAME` files are alpha times epsilon, files with several other points are curves, and
    those with one are compared.
    """
    grids = {name.removeprefix("grid-"): study for name, study in studies.items() if name.startswith("grid-")}
    single = {name: s for name, s in studies.items() if len(s.points()) == 1 and not name.startswith("grid-")}
    curves = {name: s for name, s in studies.items() if name not in single and not name.startswith("grid-")}
    found: Iterable[Table] = [linear_curve_table(name, study) for name, study in curves.items()]
    found = [*found, *(linear_grid_table(name, study) for name, study in grids.items())]
    if single:
        found = [yardstick_table(single, data), *(linear_gains_table(single, reading) for reading in _FIGURES), *found]
    return {table.name: table for table in found}
