"""Result files to the rows of a report: found, read, and brought together by what they were tested on."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset

from distjudge_trl.errors import UserInputError
from distjudge_trl.evaluation import read_predictions, read_results, row_log_q
from distjudge_trl.evaluation.distances import as_array
from distjudge_trl.evaluation.results import RESULTS_NAME
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

# What a run is for, with the defaults; all other settings say how it was trained.
_OBJECTIVE: dict[str, Any] = {
    "alpha": 0.8,
    "adversary": "pgd",
    "perturbation_radius": 0.25,
    "perturbation_step_size": 0.05,
    "perturbation_steps": 5,
    "radius_scaling": "constant",
    "label_normalization": "labels",
    "label_smoothing": 0.0,
    "target_smoothing": 0.0,
    "max_annotators": None,
}
# What a method may change and still be itself: its own part of the objective.
_OWN: dict[str, tuple[str, ...]] = {
    "single-point": ("alpha", "adversary"),
    "label-smoothing": ("alpha", "adversary", "label_smoothing"),
    "kl-only": ("alpha", "adversary"),
    "no-adversary": ("adversary",),
    "dirichlet": ("adversary", "target_smoothing"),
    "no-kl": ("alpha",),
    "no-ce": ("alpha",),
    "worst-case": ("adversary",),
}
# Not a matter of how a run was trained: seeds are averaged over, and votes follow from items and annotators.
_NO_SETUP = ("seed", "num_train_votes")


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
        return np.log(np.maximum(as_array(self.items["judge_distribution"][:]), 1e-300))


@dataclass(frozen=True)
class Row:
    """A judge, a calibrated judge or a constant on one test set: `content` is a result file's row; `model` is what to
    call its model, empty for a constant.
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
    def is_trained(self) -> bool:
        return not self.is_constant and self.run.results["trained_on"] is not None

    @property
    def objective(self) -> dict[str, Any]:
        """What the run is for: settings of the objective, as far as they have an effect, and how many annotators."""
        own = {name: self.settings.get(name, default) for name, default in _OBJECTIVE.items()}
        if own["adversary"] == "none":
            own |= {name: _OBJECTIVE[name] for name in own if name.startswith(("perturbation_", "radius_"))}
        return own

    @property
    def setup(self) -> str:
        """How the judge was trained, whatever for: data, split, schedule, batch, adapter. Empty if it was not."""
        if not self.is_trained:
            return ""
        rest = {name: v for name, v in self.settings.items() if name not in _OBJECTIVE and name not in _NO_SETUP}
        return json.dumps(rest, sort_keys=True)

    @property
    def configuration(self) -> str:
        """What must be equal for two runs to be two seeds of the same thing."""
        return json.dumps(self.objective, sort_keys=True) + self.setup

    @property
    def is_default(self) -> bool:
        """Whether the objective has the defaults but for what the method itself sets, and all annotators."""
        own = _OWN.get(self.method.split(" + ")[0], ())
        return all(value == _OBJECTIVE[name] or name in own for name, value in self.objective.items())

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
    """Runs on the same items of a task; `source` is the other task that the judges were trained on, if it was one;
    `is_validation` says that the items chose settings.
    """

    __test__ = False

    name: str
    task: str
    source: str | None
    runs: tuple[Run, ...]
    rows: tuple[Row, ...]

    @property
    def labels(self) -> list[str]:
        return [str(label) for label in self.runs[0].results["labels"]]

    @property
    def is_validation(self) -> bool:
        return _is_validation(self.runs[0])

    @property
    def noise_floor(self) -> float | None:
        return self.rows[0].metrics["noise_floor"]

    @property
    def human_ceiling(self) -> dict[str, Any] | None:
        return self.rows[0].metrics["human_ceiling"]

    @cached_property
    def main_cells(self) -> tuple[Cell, ...]:
        """One cell a model and method, in the order of models and methods; the table of all runs has the others.

        Judges that saw fewer annotators belong to the budget table alone. Of several configurations of a method the
        default objective comes first; then the training setup that most methods of the model share, so that a table
        compares what is comparable; then most seeds, then most training items.
        """
        cells = [cell for cell in self.cells if cell.rows[0].objective["max_annotators"] is None]
        methods: dict[tuple[str, str], set[str]] = {}
        for cell in cells:
            if cell.rows[0].is_trained and cell.rows[0].is_default:
                methods.setdefault((cell.model, cell.rows[0].setup), set()).add(cell.method)

        def rank(cell: Cell) -> tuple[Any, ...]:
            row = cell.rows[0]
            shared = len(methods.get((cell.model, row.setup), ()))
            return row.is_default, shared, len(cell.rows), row.settings.get("num_train_items") or 0

        best: dict[tuple[str, str], Cell] = {}
        for cell in cells:
            key = (cell.model, cell.method)
            if key not in best or rank(cell) > rank(best[key]):
                best[key] = cell
        return tuple(best.values())

    @cached_property
    def cells(self) -> tuple[Cell, ...]:
        """Every configuration, its seeds together, in the order of models and methods."""
        cells = [Cell(tuple(seeds[seed] for seed in sorted(seeds, key=str))) for seeds in self._seeds.values()]
        return tuple(sorted(cells, key=lambda cell: (cell.model, _order(cell.method), cell.method)))

    @cached_property
    def _seeds(self) -> dict[tuple[str, str, str], dict[int | None, Row]]:
        groups: dict[tuple[str, str, str], dict[int | None, Row]] = {}
        for row in self.rows:
            groups.setdefault((row.model, row.method, row.configuration), {}).setdefault(row.seed, row)
        return groups

    @cached_property
    def repeated(self) -> tuple[tuple[Row, Row], ...]:
        """Pairs of judges that equal each other in all settings and in the seed, such as one that was evaluated twice;
        the first of a pair is in the tables.
        """
        pairs = []
        for row in self.rows:
            first = self._seeds[row.model, row.method, row.configuration][row.seed]
            if first is not row and not row.is_calibrated:
                pairs.append((first, row))
        return tuple(pairs)


def value_of(metrics: dict[str, Any], name: str) -> float:
    """A metric's figure, with an interval or without; a dot stands for "of which". NaN where it is not defined."""
    value: Any = metrics
    for part in name.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    if isinstance(value, dict):
        value = value.get("value")
    return float(value) if value is not None else float("nan")


def load_test_sets(paths: Iterable[str | Path]) -> list[TestSet]:
    """All result files of `paths` (files, run folders, folders of such), by what they were tested on.

    Raises:
        [`UserInputError`]: no result file, or one that is damaged or of another version.
    """
    runs = [Run(path) for path in find_results(paths)]
    names = _model_names(runs)
    groups: dict[tuple[str, str, str], list[Run]] = {}
    for run in runs:
        results = run.results
        source = results["trained_on"] if results["trained_on"] not in (None, results["task"]) else ""
        groups.setdefault((results["task"], source, results["test_fingerprint"]), []).append(run)
    # An untrained model on the items of a transfer is its baseline.
    for (task, source, fingerprint), members in groups.items():
        if source:
            members += [run for run in groups.get((task, "", fingerprint), []) if not run.results["trained_on"]]
    # It is shown there, and needs no test set of its own if nobody trained on these items' task.
    transfers = {(task, fingerprint) for task, source, fingerprint in groups if source}
    groups = {
        (task, source, fingerprint): members
        for (task, source, fingerprint), members in groups.items()
        if source or (task, fingerprint) not in transfers or any(run.results["trained_on"] for run in members)
    }
    kinds = {key: (*key[:2], _is_validation(members[0])) for key, members in groups.items()}
    sets = []
    for (task, source, fingerprint), members in sorted(groups.items()):
        name = f"{source} to {task}" if source else task
        if _is_validation(members[0]):
            name += " (validation items)"
        if list(kinds.values()).count(kinds[task, source, fingerprint]) > 1:
            name += f" ({members[0].results['metrics']['num_items']:,} items, {fingerprint[:6]})"
        sets.append(TestSet(name, task, source or None, tuple(members), _rows(members, names)))
    return sets


def _is_validation(run: Run) -> bool:
    return run.results.get("scored_on") == "validation"


def _model_names(runs: Sequence[Run]) -> dict[tuple[str, str], str]:
    """What to call a model and how its answers were read, by both: the last part of its name where that is clear; what
    was read off five tokens is another judge than what was read off all.
    """
    full = {run.results["model"] for run in runs}
    last = [Path(name).name for name in full]
    shown = {name: Path(name).name if last.count(Path(name).name) == 1 else name for name in full}
    kinds = {(run.results["model"], _extraction(run)) for run in runs}
    return {(model, kind): shown[model] + (f" ({kind})" if kind != "full" else "") for model, kind in kinds}


def _extraction(run: Run) -> str:
    return str(run.results["extraction"].get("kind", "full"))


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


def _rows(runs: Sequence[Run], names: Mapping[tuple[str, str], str]) -> tuple[Row, ...]:
    """Rows of all runs; the constants of one of them: they hardly depend on how many items a run trained on."""
    rows: list[Row] = []
    seen: set[str] = set()
    # Those of the run that trained on most items.
    for run in sorted(runs, key=lambda run: -(run.results["settings"].get("num_train_items") or 0)):
        for content in rows_of(run.results):
            is_constant = "constant" in content
            if is_constant and content["method"] in seen:
                continue
            seen |= {content["method"]} if is_constant else set()
            rows.append(Row(run, content, "" if is_constant else names[run.results["model"], _extraction(run)]))
    return tuple(rows)


def _order(method: str) -> int:
    base = method.split(" + ")[0]
    if method in METHOD_ORDER:
        return METHOD_ORDER.index(method)
    return METHOD_ORDER.index(base) if base in METHOD_ORDER else len(METHOD_ORDER)
