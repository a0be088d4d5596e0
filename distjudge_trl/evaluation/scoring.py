"""The rows of a result file: a judge, the same judge calibrated, and constants, which do not read the items."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from datasets import Dataset

from distjudge_trl.calibration.arrays import as_array
from distjudge_trl.calibration.conformal import LabelSets, item_coverage
from distjudge_trl.calibration.scaling import FITS, MIN_CALIBRATION_ITEMS, Scaling
from distjudge_trl.errors import UserInputError
from distjudge_trl.evaluation.baselines import question_priors, training_majority, training_prior, uniform
from distjudge_trl.evaluation.metrics import evaluate_judgments, to_dict, whole_votes
from distjudge_trl.evaluation.noise_floor import NoiseFloor, noise_floor
from distjudge_trl.evaluation.protocols import robustness
from distjudge_trl.evaluation.statistics import bootstrap_mean
from distjudge_trl.tasks import JudgmentTask


@dataclass(frozen=True)
class TestItems:
    """The items that judges are scored on.

    Args:
        p (array `(N, K)`): human distributions.
        num_annotators (array `(N,)`).
        ids, groups (`Sequence[str]` of length N).
        ordinal (`bool`): whether the labels' order means something.
        seed (`int`, defaults to 0): of bootstrap, floor, ceiling and perturbations.
    """

    __test__ = False  # not a test case, as pytest would infer from the name

    p: np.ndarray
    num_annotators: np.ndarray
    ids: Sequence[str]
    groups: Sequence[str]
    ordinal: bool = False
    seed: int = field(default=0, kw_only=True)

    @classmethod
    def of(cls, records: Dataset, *, ordinal: bool, seed: int = 0) -> TestItems:
        """Make it from judgment records."""
        return cls(*human_side(records), records["id"][:], records["group"][:], ordinal, seed=seed)

    @cached_property
    def floor(self) -> NoiseFloor | None:
        """The noise floor of the items with whole votes; `None` if it is not defined."""
        counts = whole_votes(self.p, self.num_annotators).counts
        return noise_floor(counts, seed=self.seed) if len(counts) else None

    def score(self, log_q: Any, *, mass: float | None = None, floored: Any = None) -> dict[str, Any]:
        """`metrics` (see [`evaluate_judgments`]) and `robustness` (a list, see [`RobustnessPoint`]) of the label
        log-probabilities `(N, K)`, ready for JSON.
        """
        points = robustness(self.p, as_array(log_q), seed=self.seed)
        return {
            "metrics": self.measure(log_q, mass=mass, floored=floored),
            "robustness": [asdict(point) for point in points],
        }

    def measure(self, log_q: Any, *, mass: float | None = None, floored: Any = None) -> dict[str, Any]:
        """The `metrics` alone."""
        return evaluate_judgments(
            self.p,
            as_array(log_q),
            self.num_annotators,
            self.groups,
            ids=self.ids,
            ordinal=self.ordinal,
            mass=mass,
            floored=floored,
            floor=self.floor,
            seed=self.seed,
        )

    def measure_sets(self, log_q: Any, label_sets: LabelSets) -> dict[str, Any]:
        """The metrics of a calibrated judge's label sets: `coverage`, the share of an item's votes in its set, and
        `set_size`, the number of labels, with intervals.
        """
        sets = label_sets(np.exp(as_array(log_q)))
        return {
            "coverage": to_dict(bootstrap_mean(item_coverage(self.p, sets), self.groups, seed=self.seed)),
            "set_size": to_dict(bootstrap_mean(sets.sum(-1), self.groups, seed=self.seed)),
        }

    def score_constants(self, train_p: Any = None) -> list[dict[str, Any]]:
        """Score the constant judges (see baselines.py), which are computed from the training items' distributions `(M,
        K)`; without these, only the uniform one.
        """
        constants = {"uniform": uniform(self.p.shape[-1])}
        if train_p is not None:
            constants |= {"training-prior": training_prior(train_p), "training-majority": training_majority(train_p)}
        return [
            {
                "method": name,
                "constant": np.exp(log_q).tolist(),
                **self.score(np.broadcast_to(log_q, self.p.shape)),
            }
            for name, log_q in constants.items()
        ]

    def score_question_prior(self, task: JudgmentTask, train: Dataset | None) -> dict[str, Any]:
        """The key `question_prior` of a result file: the training prior of each question of a task, and its metrics on
        all items. Empty if the items ask a single question, or without training records.
        """
        asked = [task.part_of(name) for name in self.ids]
        if train is None or len(set(asked)) < 2:
            return {}
        priors = question_priors(human_side(train)[0], [task.part_of(name) for name in train["id"][:]], asked)
        metrics = self.measure(np.stack([priors[part] for part in asked]))
        return {
            "question_prior": {"parts": {part: np.exp(q).tolist() for part, q in priors.items()}, "metrics": metrics}
        }

    def score_calibrated(self, method: str, log_q: Any, held_out_p: Any, held_out_log_q: Any) -> list[dict[str, Any]]:
        """Score a judge after temperature and after vector scaling, fitted on items that are neither training nor test
        items.

        Args:
            method (`str`): the judge's name; the rows are called `NAME + temperature` and `NAME + vector`.
            log_q (array `(N, K)`): its label log-probabilities for the test items.
            held_out_p, held_out_log_q (arrays `(M, K)`): human distributions and its log-probabilities for the others.

        Raises:
            [`UserInputError`]: too few held-out items.
        """
        if len(held_out_p) < MIN_CALIBRATION_ITEMS:
            raise UserInputError(
                f"Calibration needs at least {MIN_CALIBRATION_ITEMS} items that the judge was not trained on, and"
                f" there are {len(held_out_p)}."
            )
        return [
            self.score_scaled(method, log_q, fit(held_out_p, held_out_log_q).to_dict(kind, len(held_out_p)))
            for kind, fit in FITS.items()
        ]

    def score_scaled(self, method: str, log_q: Any, scaling: dict[str, Any]) -> dict[str, Any]:
        """Score a judge after a scaling that was fitted before, which is the `scaling` of a result file's row."""
        row = {"method": f"{method} + {scaling['kind']}", "scaling": scaling}
        return {**row, **self.score(row_log_q(row, log_q))}


def calibration_records(validation: Dataset | None, *, requested: bool, trained: bool) -> Dataset | None:
    """The validation records if scalings are to be fitted on them, else `None`. They are fitted on request, and for an
    untrained model always unless the records are too few, because it has no use for them in training.
    """
    if validation is None:
        return None
    free = not trained and len(validation) >= MIN_CALIBRATION_ITEMS
    return validation if requested or free else None


def human_side(records: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Human distributions `(N, K)` and numbers of annotators `(N,)` of judgment records."""
    rows = records.with_format("numpy")
    return as_array(rows["label_distribution"][:]), as_array(rows["num_annotators"][:])


def row_log_q(row: dict[str, Any], log_q: Any, raw_log_q: Any = None) -> np.ndarray:
    """Label log-probabilities `(N, K)` of a result file's row, computed from those of its judge: unchanged, scaled, or
    a constant. `raw_log_q` are those without the judge's own calibration, which scalings are about; by default it has
    none.
    """
    log_q = as_array(raw_log_q if "scaling" in row and raw_log_q is not None else log_q)
    if "constant" in row:
        return np.broadcast_to(np.log(as_array(row["constant"])), log_q.shape)
    if "scaling" in row:
        return Scaling.from_dict(row["scaling"])(log_q)
    return log_q
