"""Result files to the rows of a report: found, read, and brought together by what they were tested on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset

from distjudge_trl.errors import UserInputError
from distjudge_trl.evaluation import read_predictions, read_results, row_log_q
from distjudge_trl.evaluation.distances import as_array
from distjudge_trl.evaluation.results import RESULTS_NAME, SETTINGS
from distjudge_trl.report.tables import rows_of


# Rows of a table, in the order in which a reader compares them.
METHOD_ORDER = (
    "uniform",
    "training-prior",
    "training-majority",
    "raw",
    "raw + temperature",
    "raw + vector",
    "single-point",
    "single-point + temperature",
    "single-point + vector",
    "label-smoothing",
    "kl-only",
    "no-adversary",
    "dirichlet",
    "distribution",
    "worst-case",
    "no-kl",
    "no-ce",
)
CONSTANTS = METHOD_ORDER[:3]

# Settings that make two runs of one method something else than two seeds, with their default.
_DEFAULTS: dict[str, Any] = {
    "alpha": 0.8,
    "perturbation_radius": 0.25,
    "max_annotators": None,
    "radius_scaling": "constant",
}
# How many votes they were follows from the items.
_CONFIGURATION = tuple(name for name in SETTINGS if name != "num_train_votes")


class Run:
    """A result file with the Parquet file beside it, which is read when it is needed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.results = read_results(path)

    @cached_property
    def items(self) -> Dataset:
        """Per-item rows, sorted by id: runs on the same items line up."""
        rows = read_predictions(self.path)
        if len(rows) != self.results["metrics"].get("num_items"):
            raise UserInputError(
                f"{self.path}: is about {self.results['metrics'].get('num_items')} items, its Parquet file holds"
                f" {len(rows)}. Run the evaluation again."
            )
        return rows.select(np.argsort(np.asarray(rows["id"][:]), kind="stable"))

    @cached_property
    def p(self) -> np.ndarray:
        """Human distributions `(N, K)`."""
        return as_array(self.items["label_distribution"][:])

    @cached_property
    def log_q(self) -> np.ndarray:
        """The judge's label log-probabilities `(N, K)`."""
        return np.log(np.maximum(as_array(self.items["judge_distribution"][:]), 1e-300))


@dataclass(frozen=True)
class Row:
    """A judge, a calibrated judge or a constant on one test set: `content` is a result file's row."""

    run: Run
    content: dict[str, Any]

    @property
    def method(self) -> str:
        """Name of the method; what was read off five tokens is another judge than what was read off all."""
        name = str(self.content["method"])
        kind = self.run.results["extraction"].get("kind", "full")
        return name if kind == "full" or self.is_constant else f"{name} ({kind})"

    @property
    def model(self) -> str:
        """Last part of the model's name; the constants have none."""
        return "" if self.is_constant else Path(self.run.results["model"]).name

    @property
    def is_constant(self) -> bool:
        return "constant" in self.content

    @property
    def is_calibrated(self) -> bool:
        return "scaling" in self.content

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
    def configuration(self) -> tuple[Any, ...]:
        """What must be equal for two runs to be two seeds of the same thing."""
        own = self.settings
        used = [own.get(name) for name in _CONFIGURATION]
        if own.get("adversary") == "none":
            used[_CONFIGURATION.index("perturbation_radius")] = None
        return (*used, self.run.results["trained_on"] if not self.is_constant else None)

    @property
    def is_default(self) -> bool:
        """Whether the objective has its method's own settings, all annotators, and no other radius or weight."""
        own, method = self.settings, str(self.content["method"]).split(" + ")[0]
        fixed_alpha = method in ("single-point", "label-smoothing", "kl-only", "no-kl", "no-ce")
        return all(
            own.get(name, default) == default
            or (name == "alpha" and fixed_alpha)
            or (name == "perturbation_radius" and own.get("adversary") == "none")
            for name, default in _DEFAULTS.items()
        )

    @property
    def log_q(self) -> np.ndarray:
        """Label log-probabilities `(N, K)`, items sorted by id."""
        return row_log_q(self.content, self.run.log_q)


@dataclass(frozen=True)
class Cell:
    """What one place of a table shows: the rows of one judge on one test set, which differ in their seed alone."""

    rows: tuple[Row, ...]

    @property
    def method(self) -> str:
        return self.rows[0].method

    @property
    def model(self) -> str:
        return self.rows[0].model

    def values(self, name: str) -> list[float]:
        """A metric of every seed."""
        return [value_of(row.metrics, name) for row in self.rows]


@dataclass(frozen=True)
class TestSet:
    """Runs on the same items of a task. `is_transfer`: the judges were trained on another task."""

    __test__ = False

    name: str
    task: str
    is_transfer: bool
    runs: tuple[Run, ...]
    rows: tuple[Row, ...]

    @property
    def labels(self) -> list[str]:
        return [str(label) for label in self.runs[0].results["labels"]]

    @property
    def noise_floor(self) -> float | None:
        return self.rows[0].metrics["noise_floor"]

    @property
    def human_ceiling(self) -> dict[str, Any] | None:
        return self.rows[0].metrics["human_ceiling"]

    def main_cells(self) -> list[Cell]:
        """One cell a model and method: of several configurations the default one, else the one with most training
        items, then most seeds. The table of all runs has the others.
        """
        chosen: dict[tuple[str, str], list[Cell]] = {}
        for cell in self.cells():
            chosen.setdefault((cell.model, cell.method), []).append(cell)
        best = [
            max(
                cells,
                key=lambda cell: (
                    cell.rows[0].is_default,
                    cell.rows[0].settings.get("num_train_items") or 0,
                    len(cell.rows),
                ),
            )
            for cells in chosen.values()
        ]
        # A judge that saw fewer annotators belongs to the budget table alone.
        return [cell for cell in best if cell.rows[0].settings.get("max_annotators") is None]

    def cells(self) -> list[Cell]:
        """Every configuration, its seeds together, in the order of models and methods."""
        groups: dict[tuple[Any, ...], dict[int | None, Row]] = {}
        for row in self.rows:
            key = (row.model, row.method, row.configuration)
            # A judge that was evaluated twice counts once.
            groups.setdefault(key, {}).setdefault(row.seed, row)
        cells = [Cell(tuple(seeds[seed] for seed in sorted(seeds, key=str))) for seeds in groups.values()]
        return sorted(cells, key=lambda cell: (cell.model, _order(cell.method), cell.method))


def value_of(metrics: dict[str, Any], name: str) -> float:
    """A metric's figure, with an interval or without; NaN where it is not defined."""
    value = metrics.get(name)
    if isinstance(value, dict):
        value = value.get("value")
    return float(value) if value is not None else float("nan")


def load_test_sets(paths: Iterable[str | Path]) -> list[TestSet]:
    """All result files of `paths` (files, run folders, folders of such), by what they were tested on.

    Raises:
        [`UserInputError`]: no result file, or one that is damaged, older or without the parts that a report needs.
    """
    runs = [_checked(Run(path)) for path in find_results(paths)]
    groups: dict[tuple[str, bool, str], list[Run]] = {}
    for run in runs:
        results = run.results
        transfer = results["trained_on"] not in (None, results["task"])
        groups.setdefault((results["task"], transfer, results["test_fingerprint"]), []).append(run)
    # An untrained model on the items of a transfer is its baseline.
    for (task, transfer, fingerprint), members in groups.items():
        if transfer:
            members += [run for run in groups.get((task, False, fingerprint), []) if not run.results["trained_on"]]
    # It is shown there, and needs no test set of its own if nobody trained on these items' task.
    transfers = {(task, fingerprint) for task, transfer, fingerprint in groups if transfer}
    groups = {
        (task, transfer, fingerprint): members
        for (task, transfer, fingerprint), members in groups.items()
        if transfer or (task, fingerprint) not in transfers or any(run.results["trained_on"] for run in members)
    }
    tasks = [(task, transfer) for task, transfer, _ in groups]
    sets = []
    for (task, transfer, fingerprint), members in sorted(groups.items()):
        name = f"{_sources(members)} to {task}" if transfer else task
        if tasks.count((task, transfer)) > 1:
            name += f" ({members[0].results['metrics']['num_items']:,} items, {fingerprint[:6]})"
        sets.append(TestSet(name, task, transfer, tuple(members), _rows(members)))
    return sets


def find_results(paths: Iterable[str | Path]) -> list[Path]:
    """Result files, each once, sorted: files as named, and every `results.json` below a folder.

    Raises:
        [`UserInputError`]: a path that does not exist, or a folder without results.
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


def _sources(runs: Sequence[Run]) -> str:
    return ", ".join(sorted({run.results["trained_on"] for run in runs if run.results["trained_on"]}))


def _rows(runs: Sequence[Run]) -> tuple[Row, ...]:
    """Rows of all runs; the constants of one of them: they hardly depend on how many items a run trained on."""
    rows: list[Row] = []
    seen: set[str] = set()
    # Those of the run that trained on most items.
    for run in sorted(runs, key=lambda run: -(run.results["settings"].get("num_train_items") or 0)):
        for content in rows_of(run.results):
            row = Row(run, content)
            if row.is_constant:
                if row.method in seen:
                    continue
                seen.add(row.method)
            rows.append(row)
    return tuple(rows)


_NEEDED = ("kl", "accuracy", "noise_floor", "excess_kl", "human_ceiling", "num_items", "num_groups")


def _checked(run: Run) -> Run:
    for content in rows_of(run.results):
        metrics = content.get("metrics") if isinstance(content, dict) else None
        missing = [name for name in _NEEDED if name not in metrics] if isinstance(metrics, dict) else ["metrics"]
        if missing or not isinstance(content.get("method"), str) or not isinstance(content.get("robustness"), list):
            raise UserInputError(f"{run.path}: lacks {(missing or ['method'])[0]!r}. Run the evaluation again.")
    return run


def _order(method: str) -> int:
    base = method.split(" + ")[0].split(" (")[0]
    if method in METHOD_ORDER:
        return METHOD_ORDER.index(method)
    return METHOD_ORDER.index(base) if base in METHOD_ORDER else len(METHOD_ORDER)
