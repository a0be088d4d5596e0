"""A trained language model and a linear judge, averaged: is their mean closer to people than either?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from distjudge_trl.errors import UserInputError
from distjudge_trl.evaluation.distances import item_accuracy, item_kl
from distjudge_trl.report.cells import Table, number
from distjudge_trl.report.test_sets import value_of
from distjudge_trl.study.groups import (
    DAGGER,
    PAPER,
    REFERENCE,
    Group,
    difference_text,
    fewer_text,
    marks_text,
    read_so,
    same_seeds,
)
from distjudge_trl.study.linear_answers import read_answers
from distjudge_trl.study.linear_study import LinearStudy
from distjudge_trl.study.linear_tables import same_items


_READING = "temperature"
# Figures are kept with so many digits, and answers in single precision.
_ROUNDING = 1e-4


class _Judges(NamedTuple):
    """Probabilities `(seeds, N, K)` for the test items of trained and of linear judges, and their mean."""

    trained: np.ndarray
    linear: np.ndarray

    @property
    def both(self) -> np.ndarray:
        return np.asarray((self.trained + self.linear) / 2)


def mixtures_table(
    studies: Mapping[str, LinearStudy], folder: Path, data: Mapping[str, Mapping[str, Group]]
) -> Table | None:
    """Excess KL of trained and of linear judges and of their mean, seed by seed, for every data set that has answers
    of linear judges with both kinds of features (`both/NAME.parquet` in `folder`) and trained judges of KL + CE that
    were tested on the same items. `None` without such a data set.

    Raises:
        [`UserInputError`]: a file of answers is missing, damaged, or not of the judges whose figures stand beside it.
    """
    rows = []
    for path in sorted(folder.glob("both/*.parquet")):
        if f"both/{path.stem}" not in studies:
            raise UserInputError(f"{path}: its figures, {path.stem}.json, are not there.")
    for key, study in studies.items():
        features, _, name = key.partition("/")
        path, methods = folder / f"{key}.parquet", data.get(name, {})
        if features != "both" or REFERENCE not in methods or not same_items(methods[REFERENCE], study.about):
            continue
        if len(study.points()) > 1 or REFERENCE not in study.methods():
            continue
        answers = read_answers(path)
        trained = read_so(methods[REFERENCE], _READING, answers)
        if trained.results:
            rows.append([study.title, *_cells(trained, methods.get(PAPER), _judges(trained, answers, study, path))])
    header = ["data", "seeds", "trained model", "linear judge", "their mean", "KL of the mean minus trained model"]
    header += [f"KL of the mean minus {PAPER}", "accuracy % of the trained model", "of the mean"]
    notes = [
        "Excess KL of judges after temperature scaling, and of their mean, which is not scaled again; ± over seeds.",
        f"Both are judges of {REFERENCE}; the linear one has both kinds of features. Each weighs one half.",
        marks_text(rows),
    ]
    return (
        Table("linear-mixtures", "A trained model and a linear judge, averaged", header, rows, notes) if rows else None
    )


def _judges(
    trained: Group, answers: Mapping[int, Mapping[str, np.ndarray]], study: LinearStudy, path: Path
) -> _Judges:
    ids, p = trained.results[0].run.items["id"][:], trained.results[0].run.p
    (point,) = study.points()
    figures = {one.seed: one.scaled_kl for one in study.outcomes if (one.method, one.point) == (REFERENCE, point)}
    linear = []
    for seed in (result.about["seed"] for result in trained.results):
        own = np.array([answers[seed].get(name, []) for name in ids]) if set(answers[seed]) == set(ids) else None
        if (
            own is None
            or own.shape != p.shape
            or seed not in figures
            or abs(item_kl(p, np.log(own)).mean() - figures[seed]) > _ROUNDING
        ):
            raise UserInputError(
                f"{path}: these are not the answers of the judges in {path.stem}.json. Make both again:"
                " scripts/benchmarks/linear_judges.py --out."
            )
        linear.append(own)
    return _Judges(np.array([np.exp(result.rows[_READING].log_q) for result in trained.results]), np.array(linear))


def _cells(trained: Group, paper: Group | None, judges: _Judges) -> list[str]:
    p = trained.results[0].run.p
    floor = value_of(trained.results[0].results["metrics"], "noise_floor")
    kls = [np.array([item_kl(p, np.log(q)) for q in each]) for each in (judges.trained, judges.linear, judges.both)]
    accuracies = [[item_accuracy(p, np.log(q)).mean() for q in each] for each in (judges.trained, judges.both)]
    against_paper = "-"
    if paper is not None and (pair := same_seeds(trained, paper, _READING)) is not None:
        own, other = pair
        seeds = [result.about["seed"] for result in own.results]
        rows = [i for i, result in enumerate(trained.results) if result.about["seed"] in seeds]
        against_paper = difference_text(kls[2][rows], other.seed_item_kl(_READING), trained.groups)
        against_paper += fewer_text(len(rows), len(trained.results))
        against_paper += "" if own.precisions == other.precisions else f" {DAGGER}"
    return [
        str(len(judges.trained)),
        *(number((kl.mean(1) - floor).tolist(), ".3f") for kl in kls),
        difference_text(kls[2], kls[0], trained.groups),
        against_paper,
        *(number(values, ".1f", 100) for values in accuracies),
    ]
