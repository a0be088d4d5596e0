"""Runs that were scored on the same items, side by side."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from distjudge_trl.report.runs import METHOD_ORDER, Row, Run, find_results
from distjudge_trl.report.tables import rows_of


@dataclass(frozen=True)
class Cell:
    """The content of a table's cell: the rows of one judge on one test set, which differ only in their seed."""

    rows: tuple[Row, ...]

    @property
    def method(self) -> str:
        return self.rows[0].method

    @property
    def model(self) -> str:
        return self.rows[0].model

    def values(self, name: str) -> list[float]:
        """The values of a metric, one per seed."""
        return [value_of(row.metrics, name) for row in self.rows]


@dataclass(frozen=True)
class TestSet:
    """Runs on the same items of a task. `source` is the task that the judges were trained on, if it is another one.
    `is_validation` says that settings were chosen by the items.
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
    def ordinal(self) -> bool:
        return bool(self.runs[0].results["ordinal"])

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
        """One cell per model and method, in the order of models and methods. The table of all runs has the others.

        Judges that were trained on fewer annotators are only in the budget table. Of several configurations of a
        method, the one with the default objective is preferred; then the one with the training setup that most methods
        of the model share, so that a table compares comparable judges; then the one with most seeds, then with most
        training items.
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
        """One cell per configuration, with all its seeds, in the order of models and methods."""
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
        """Pairs of judges that are equal in all settings and in the seed, such as one that was evaluated twice. The
        first of a pair is in the tables.
        """
        pairs = []
        for row in self.rows:
            first = self._seeds[row.model, row.method, row.configuration][row.seed]
            if first is not row and "scaling" not in row.content:
                pairs.append((first, row))
        return tuple(pairs)


def value_of(metrics: dict[str, Any], name: str) -> float:
    """The value of a metric with or without an interval. A dot separates nested keys. NaN if it is not defined."""
    value: Any = metrics
    for part in name.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    if isinstance(value, dict):
        value = value.get("value")
    return float(value) if value is not None else float("nan")


def load_test_sets(paths: Iterable[str | Path]) -> list[TestSet]:
    """Load all result files of `paths` (files, run folders, folders of run folders), grouped by the items that they
    were tested on.

    Raises:
        [`UserInputError`]: there is no result file, or one is damaged or has another version.
    """
    runs = [Run(path) for path in find_results(paths)]
    names = _model_names(runs)
    groups: dict[tuple[str, str, str], list[Run]] = {}
    for run in runs:
        results = run.results
        source = results["trained_on"] if results["trained_on"] not in (None, results["task"]) else ""
        groups.setdefault((results["task"], source, results["test_fingerprint"]), []).append(run)
    # An untrained model on the items of a transfer is the baseline of the transfer.
    for (task, source, fingerprint), members in groups.items():
        if source:
            members += [run for run in groups.get((task, "", fingerprint), []) if not run.results["trained_on"]]
    # It is shown there, and needs no separate test set if no judge was trained on the task of these items.
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
    """The shown names of models, by model and extraction. It is the last part of the model's name if that is unique. A
    judge that is read from five tokens gets another name than one that is read from all tokens.
    """
    full = {run.results["model"] for run in runs}
    last = [Path(name).name for name in full]
    shown = {name: Path(name).name if last.count(Path(name).name) == 1 else name for name in full}
    kinds = {(run.results["model"], _extraction(run)) for run in runs}
    return {(model, kind): shown[model] + (f" ({kind})" if kind != "full" else "") for model, kind in kinds}


def _extraction(run: Run) -> str:
    found = run.results["extraction"]
    kind = str(found.get("kind", "full"))
    # Of a judge behind a server the same tokens may be read in two ways.
    return f"{kind}, tokenizer" if kind != "full" and found.get("labels_bound_by") == "tokenizer" else kind


def _rows(runs: Sequence[Run], names: Mapping[tuple[str, str], str]) -> tuple[Row, ...]:
    """Rows of all runs, and the constants of one run, because they hardly depend on the number of training items."""
    rows: list[Row] = []
    seen: set[str] = set()
    # The constants of the run with most training items.
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
