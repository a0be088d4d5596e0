"""From result files to the rows of a report."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset

from distjudge_trl.errors import UserInputError
from distjudge_trl.evaluation import read_predictions, read_results, row_log_q
from distjudge_trl.evaluation.distances import as_array
from distjudge_trl.evaluation.results import OWN_CALIBRATION, RAW_COLUMN, RESULTS_NAME
from distjudge_trl.methods import METHODS


CONSTANTS = ("uniform", "training-prior", "training-majority")
# The methods in the order of a table's rows.
METHOD_ORDER = (
    *CONSTANTS,
    *(f"{name}{scaling}" for name in METHODS for scaling in ("", " + temperature", " + vector", OWN_CALIBRATION)),
)
# Settings of the objective with the trainer's defaults. All other settings are about how a judge was trained.
OBJECTIVE: dict[str, Any] = {
    "alpha": 0.8,
    "adversary": "pgd",
    "perturbation_radius": 0.25,
    "perturbation_step_size": 0.05,
    "perturbation_steps": 5,
    "radius_scaling": "constant",
    "radius_coverage": 0.9,
    "label_normalization": "labels",
    "label_smoothing": 0.0,
    "target_smoothing": 0.0,
    "ordinal_loss_weight": 0.0,
    "max_annotators": None,
}
# Settings that do not count as a difference in training: seeds are averaged over, and votes follow from items and
# annotators.
_NO_SETUP = ("seed", "num_train_votes")


class Run:
    """A result file, and the Parquet file beside it, which is read only when it is needed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.results = read_results(path)

    @cached_property
    def items(self) -> Dataset:
        """Per-item rows, sorted by id, so that runs on the same items have the same order."""
        rows = read_predictions(self.path)
        if len(rows) != self.results["metrics"].get("num_items"):
            raise UserInputError(
                f"{self.path}: is about {self.results['metrics'].get('num_items')} items, its Parquet file holds"
                f" {len(rows)}. Run the evaluation again."
            )
        if {len(p) for p in rows["label_distribution"][:]} != {len(self.results["labels"])}:
            raise UserInputError(
                f"{self.path}: has {len(self.results['labels'])} labels, its Parquet file others. Run the evaluation"
                " again."
            )
        return rows.select(np.argsort(np.asarray(rows["id"][:]), kind="stable"))

    @cached_property
    def p(self) -> np.ndarray:
        """Human distributions `(N, K)`."""
        return as_array(self.items["label_distribution"][:])

    @cached_property
    def log_q(self) -> np.ndarray:
        """The judge's label log-probabilities `(N, K)`."""
        return self._logs("judge_distribution")

    @cached_property
    def raw_log_q(self) -> np.ndarray | None:
        """Those without the judge's own calibration; `None` if it has none."""
        return self._logs(RAW_COLUMN) if RAW_COLUMN in self.items.column_names else None

    def _logs(self, column: str) -> np.ndarray:
        return np.log(np.maximum(as_array(self.items[column][:]), 1e-300))


@dataclass(frozen=True)
class Row:
    """A judge, a calibrated judge or a constant on one test set. `content` is a row of a result file. `model` is the
    shown name of the model, empty for a constant.
    """

    run: Run
    content: dict[str, Any]
    model: str

    @property
    def method(self) -> str:
        return str(self.content["method"])

    @property
    def is_constant(self) -> bool:
        return "constant" in self.content

    @property
    def is_calibrated(self) -> bool:
        return "scaling" in self.content or "calibration" in self.content

    @property
    def metrics(self) -> dict[str, Any]:
        return dict(self.content["metrics"])

    @property
    def settings(self) -> dict[str, Any]:
        return {} if self.is_constant else self.run.results["settings"]

    @property
    def seed(self) -> int | None:
        return None if self.is_constant else self.run.results["seed"]

    @property
    def is_trained(self) -> bool:
        return not self.is_constant and self.run.results["trained_on"] is not None

    @property
    def objective(self) -> dict[str, Any]:
        """The settings of the objective that have an effect, and the number of annotators."""
        own_settings = {name: self.settings.get(name, default) for name, default in OBJECTIVE.items()}
        if own_settings["adversary"] == "none":
            own_settings |= {
                name: OBJECTIVE[name] for name in own_settings if name.startswith(("perturbation_", "radius_"))
            }
        return own_settings

    @property
    def setup(self) -> str:
        """How the judge was trained, apart from its objective: data, split, schedule, batch, adapter. Empty for an
        untrained model.
        """
        if not self.is_trained:
            return ""
        rest = {name: v for name, v in self.settings.items() if name not in OBJECTIVE and name not in _NO_SETUP}
        return json.dumps(rest, sort_keys=True)

    @property
    def configuration(self) -> str:
        """Two runs that are equal in this are two seeds of the same configuration."""
        return json.dumps(self.objective, sort_keys=True) + self.setup

    @property
    def is_default(self) -> bool:
        """Whether the objective has its defaults, except for settings of the method, and all annotators are used."""
        method = METHODS.get(self.method.split(" + ")[0])
        own_settings = method.own_settings if method is not None else ()
        return all(value == OBJECTIVE[name] or name in own_settings for name, value in self.objective.items())

    @property
    def log_q(self) -> np.ndarray:
        """Label log-probabilities `(N, K)`, items sorted by id."""
        return row_log_q(self.content, self.run.log_q, self.run.raw_log_q if self.is_calibrated else None)


def find_results(paths: Iterable[str | Path]) -> list[Path]:
    """Result files, each once and sorted: the given files, and every `results.json` below the given folders.

    Raises:
        [`UserInputError`]: a path does not exist, or a folder has no results.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            below = sorted(path.rglob(RESULTS_NAME))
            if not below:
                raise UserInputError(f"{path}: holds no {RESULTS_NAME}, nor does a folder below it.")
            found += below
        elif path.is_file() and path.suffix == ".json":
            found.append(path)
        else:
            raise UserInputError(f"{path}: is neither a folder nor a result file (.json).")
    return sorted({path.resolve(): path for path in found}.values())
