"""Sweeps in a report: a table of their configurations, and the importance of their parameters."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from distjudge_trl.errors import UserInputError, counted
from distjudge_trl.report.cells import Table
from distjudge_trl.report.plots import Line, Panel, Plot


TRIALS_NAME = "trials.json"
FORMAT_VERSION = 1
_SHOWN = 20
_LEAST_TRIALS = 4  # fewer would give importances that are only noise


class Sweep(NamedTuple):
    """The content of a `trials.json`."""

    study: str
    metric: str
    maximize: bool
    num_seeds: int
    distributions: dict[str, str]
    trials: list[dict[str, Any]]

    @property
    def done(self) -> list[dict[str, Any]]:
        """Finished configurations, the best first."""
        found = [trial for trial in self.trials if trial["value"] is not None]
        return sorted(found, key=lambda trial: -trial["value"] if self.maximize else trial["value"])


def load_sweeps(paths: Iterable[str | Path]) -> list[Sweep]:
    """Load all sweeps below folders.

    Raises:
        [`UserInputError`]: a file is damaged or has another version.
    """
    files = {file.resolve(): file for path in map(Path, paths) if path.is_dir() for file in path.rglob(TRIALS_NAME)}
    return [_read(file) for _, file in sorted(files.items())]


def _read(path: Path) -> Sweep:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format_version"] != FORMAT_VERSION:
            raise UserInputError(
                f"{path}: has format version {content['format_version']}, {FORMAT_VERSION} is read. Write it again"
                " with `distjudge-trl sweep export --json`."
            )
        definition = content["definition"]
        return Sweep(
            str(content["study"]),
            str(definition["metric"]),
            bool(content["maximize"]),
            len(definition["seeds"]),
            dict(content["distributions"]),
            [{name: trial[name] for name in ("parameters", "value", "std", "state")} for trial in content["trials"]],
        )
    except UserInputError:
        raise
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserInputError(
            f"{path}: is damaged ({type(error).__name__}: {error}). Write it again with `distjudge-trl sweep export"
            " --json`."
        ) from None


def sweep_tables(sweeps: Sequence[Sweep]) -> list[Table]:
    """A table of the best configurations of every sweep, and how many there were."""
    tables = []
    for sweep in sweeps:
        names = list(sweep.distributions)
        rows = [
            [
                str(place),
                *(f"{trial['parameters'][name]}" for name in names),
                f"{trial['value']:.4f}" + (f" ± {trial['std']:.4f}" if trial.get("std") is not None else ""),
                str(trial["state"]),
            ]
            for place, trial in enumerate(sweep.done[:_SHOWN], 1)
        ]
        states = [trial["state"] for trial in sweep.trials]
        counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
        notes = [f"{len(states)} configurations ({counts}), {counted(sweep.num_seeds, 'seed')} each."]
        notes.append("On validation items, by which the best is chosen: they flatter it, its test score does not.")
        if len(sweep.done) > _SHOWN:
            notes.append(f"The best {_SHOWN}; `distjudge-trl sweep export` has all.")
        if rows:
            name = f"sweep_{''.join(c if c.isalnum() else '_' for c in sweep.study)}"
            tables.append(Table(name, f"Sweep {sweep.study}", ["#", *names, sweep.metric, "state"], rows, notes))
    return tables


def importance_plot(sweeps: Sequence[Sweep]) -> Plot:
    """A plot of how much of the metric's variance over a sweep each parameter explains (functional ANOVA)."""
    panels = []
    for sweep in sweeps:
        shares = _importances(sweep)
        if shares:
            names = sorted(shares, key=lambda name: shares[name])
            values = [shares[name] for name in names]
            hover = [f"{name}: {value:.2f}" for name, value in zip(names, values, strict=True)]
            line = Line("importance", values, [float(i) for i in range(len(names))], 0, values, values, hover)
            panels.append(
                Panel(f"{sweep.study} ({sweep.metric}, {len(sweep.done)} configurations)", [line], ticks=names)
            )
    return Plot(
        "importance",
        "Which parameters mattered",
        "Share of the variance of the metric over a sweep's configurations that a parameter explains (functional"
        " ANOVA, by Optuna). Small sweeps and close values make it mostly noise.",
        "importance",
        "",
        panels,
        "dots",
    )


def _importances(sweep: Sweep) -> dict[str, float]:
    if len(sweep.distributions) < 2 or len(sweep.done) < _LEAST_TRIALS:
        return {}
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(direction="maximize" if sweep.maximize else "minimize")
    distributions = {
        name: optuna.distributions.json_to_distribution(text) for name, text in sweep.distributions.items()
    }
    for trial in sweep.done:
        study.add_trial(
            optuna.trial.create_trial(params=trial["parameters"], distributions=distributions, value=trial["value"])
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
            return optuna.importance.get_param_importances(study, evaluator=evaluator)
        except (RuntimeError, ValueError):
            return {}  # all values are equal
