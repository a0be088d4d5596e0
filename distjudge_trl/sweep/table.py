"""The configurations of a sweep with states and scores, as a table, as JSON and as CSV."""

from __future__ import annotations

import csv
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from optuna.distributions import distribution_to_json
from optuna.trial import FrozenTrial, TrialState
from rich import box
from rich.table import Table

from distjudge_trl.files.atomic import read_json, replacing, write_json
from distjudge_trl.report.sweeps import FORMAT_VERSION, TRIALS_NAME
from distjudge_trl.sweep.space import name_of, show
from distjudge_trl.sweep.store import Store


STATES = ("waiting", "running", "done", "failed", "pruned")
_NAMES = {
    TrialState.WAITING: "waiting",
    TrialState.RUNNING: "running",
    TrialState.COMPLETE: "done",
    TrialState.FAIL: "failed",
    TrialState.PRUNED: "pruned",
}


@dataclass(frozen=True)
class Row:
    """A configuration, as its last trial left it.

    Args:
        number (`int`): the number of the trial.
        index (`int`): the number of the configuration.
        state (`str`): one of `STATES`.
        parameters (`dict`): empty until the sampler has chosen values.
        value, std (`float`, *optional*): mean and standard deviation of the metric over the seeds; there is no `std`
            of one seed.
        attempts (`int`): the number of trials so far.
        trial (`FrozenTrial`): Optuna's record of the last trial.
    """

    number: int
    index: int
    state: str
    parameters: dict[str, Any]
    value: float | None
    std: float | None
    attempts: int
    trial: FrozenTrial

    @property
    def error(self) -> str | None:
        """The reason of a failure."""
        return (self.trial.user_attrs.get("error") or "its worker was lost") if self.state == "failed" else None

    def to_dict(self) -> dict[str, Any]:
        """JSON content."""
        attributes = self.trial.user_attrs
        return {
            "number": self.number,
            "index": self.index,
            "state": self.state,
            "parameters": self.parameters,
            "value": self.value,
            "std": self.std,
            "attempts": self.attempts,
            **{
                name: attributes.get(name)
                for name in ("scores", "seconds", "training_seconds", "host", "folder", "log_tail")
            },
            "error": self.error,
        }


def read_rows(store: Store) -> list[Row]:
    """The configurations of an opened study, in their order."""
    metric = store.definition.metric
    last: dict[int, FrozenTrial] = {}
    attempts: Counter[int] = Counter()
    for trial in store.trials():
        if trial.user_attrs.get("twin"):
            continue  # two machines enqueued it at the same moment; it ran once
        index = trial.user_attrs.get("index", -1 - trial.number)
        last[index] = trial
        attempts[index] += trial.state != TrialState.WAITING
    rows = []
    for index, trial in sorted(last.items()):
        scores = trial.user_attrs.get("scores") or {}
        values = [score[metric] for score in scores.values() if metric in score]
        rows.append(
            Row(
                trial.number,
                index,
                _NAMES[trial.state],
                {**trial.system_attrs.get("fixed_params", {}), **trial.params},
                trial.value if trial.state == TrialState.COMPLETE else None,
                statistics.stdev(values) if len(values) > 1 and trial.state == TrialState.COMPLETE else None,
                attempts[index],
                trial,
            )
        )
    return rows


def ranked(store: Store, rows: Sequence[Row] | None = None) -> list[Row]:
    """The configurations that are done, the best first."""
    sign = -1.0 if store.definition.maximize else 1.0
    rows = read_rows(store) if rows is None else rows
    done = [(sign * row.value, row.number, row) for row in rows if row.value is not None]
    return [row for *_, row in sorted(done, key=lambda entry: entry[:2])]


def write_trials(store: Store) -> None:
    """Write `trials.json` into the sweep's folder, which `distjudge-trl report` reads."""
    write_json(store.out / TRIALS_NAME, export(store))


def export(store: Store) -> dict[str, Any]:
    """The JSON content of `trials.json`: everything about a sweep that is not in the result files."""
    definition = store.definition
    return {
        "format_version": FORMAT_VERSION,
        "study": store.name,
        "definition": definition.to_dict(),
        "maximize": definition.maximize,
        "distributions": {p.name: distribution_to_json(p.distribution()) for p in definition.parameters},
        "trials": [row.to_dict() for row in read_rows(store)],
    }


def write_csv(path: str | Path, store: Store) -> int:
    """Write one line for each configuration; returns how many."""
    definition, rows = store.definition, read_rows(store)
    names = [parameter.name for parameter in definition.parameters]
    header = ["number", "state", *names, definition.metric, "std", "attempts", "seconds", "host", "folder", "error"]
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        for row in rows:
            content = row.to_dict()
            values = [row.parameters.get(name) for name in names]
            writer.writerow([row.number, row.state, *values, row.value, *(content[name] for name in header[-6:])])
    return len(rows)


def failures(rows: Sequence[Row]) -> list[str]:
    """A line for every configuration that failed, with the reason."""
    return [f"trial {r.number} ({name_of(r.parameters)}) failed: {r.error}" for r in rows if r.state == "failed"]


def summary(store: Store, rows: Sequence[Row]) -> str:
    """Counts, the best configuration so far and the time left, in one line."""
    counts = Counter(row.state for row in rows)
    parts = [f"{counts[state]} {state}" for state in STATES if counts[state] or state == "done"]
    best = ranked(store, rows)
    if best:
        parts.append(f"best {store.definition.metric} {score_text(best[0])} ({name_of(best[0].parameters)})")
    left = time_left(rows)
    if left is not None:
        parts.append(f"about {_duration(left)} left")
    return ", ".join(parts)


def score_text(row: Row) -> str:
    """Mean and spread."""
    return f"{row.value:.4f}" + (f" ± {row.std:.4f}" if row.std is not None else "")


def time_left(rows: Sequence[Row]) -> float | None:
    """An estimate in seconds, from the trials that are done; `None` before the first and after the last."""
    seconds = [row.trial.user_attrs.get("seconds") for row in rows if row.state == "done"]
    known = [value for value in seconds if value]
    running = [row for row in rows if row.state == "running"]
    waiting = sum(row.state == "waiting" for row in rows)
    if not known or not (running or waiting):
        return None
    mean = statistics.fmean(known)
    now = datetime.now()
    begun = sum(min(mean, (now - (row.trial.datetime_start or now)).total_seconds()) for row in running)
    return max(0.0, mean * (waiting + len(running)) - begun) / max(1, len(running))


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 1:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes / 60:.1f} h"


def progress_of(store: Store, row: Row) -> str:
    """The progress of a running configuration, if its folder is on this machine."""
    folder = row.trial.user_attrs.get("folder")
    runs = sorted((store.out / folder).glob("seed-*")) if folder else []
    begun = [(run, read_json(run / "progress.json")) for run in runs if not (run / "results.json").exists()]
    if not begun:
        return "begins"
    run, content = begun[-1]
    steps = f"step {content['step']}/{content['max_steps']}" if content else "begins"
    return f"{run.name}, {steps}" if len(runs) > 1 else steps


def make_table(store: Store, rows: Sequence[Row], *, ranks: bool) -> Table:
    """A table for a terminal, with the rank of each row or with its state."""
    names = [parameter.name for parameter in store.definition.parameters]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("#" if ranks else "trial", justify="right")
    for name in names:
        table.add_column(name, justify="right", overflow="fold")
    table.add_column(store.definition.metric, justify="right")
    table.add_column("trial" if ranks else "state")
    for place, row in enumerate(rows, 1):
        state = row.state + (f", attempt {row.attempts}" if row.attempts > 1 else "")
        if row.state == "running" and not ranks:
            gone = store.is_orphan(row.trial)
            state = "its worker is gone" if gone else f"{state}, {progress_of(store, row)}"
        values = [show(row.parameters[name]) if name in row.parameters else "-" for name in names]
        table.add_row(
            str(place if ranks else row.number),
            *values,
            score_text(row) if row.value is not None else "-",
            str(row.number) if ranks else state,
        )
    return table
