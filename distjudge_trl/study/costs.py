"""How long the runs of a study take: an estimate from those that have finished, on this machine or on others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from distjudge_trl.recipe.definition import PAPER_TRAINING
from distjudge_trl.study.planned_run import PlannedRun
from distjudge_trl.study.store import StudyResult


# The work of reading an item, relative to training on it: a forward pass without a backward pass.
_READ = 1 / 3
# Of recipes without other options.
_ITEMS_A_STEP = 16


@dataclass
class _Size:
    """What is known of the number of items of a data set: the `whole`, or the most that a run was limited to."""

    whole: int | None = None
    most: int = 0

    def learn(self, found: int, limit: int | None) -> None:
        self.most = max(self.most, found)
        if limit is None or found < limit:
            self.whole = max(self.whole or 0, found)

    def of(self, limit: int | None) -> int | None:
        """The number of items of a run with this limit; `None` if it is not known."""
        if self.whole is not None:
            return min(self.whole, limit or self.whole)
        return limit if self.most and limit else None


class Costs:
    """Estimates for one machine.

    Args:
        machine (`Mapping`): as `describe_machine` returns it.
        finished (`Iterable[StudyResult]`): runs whose seconds are known.
    """

    def __init__(self, machine: Mapping[str, Any], finished: Iterable[StudyResult] = ()) -> None:
        self._machine = machine
        # Seconds and work of finished runs, by what they have in common; on this machine, and on others.
        self._here: dict[tuple[str, ...], list[tuple[float, float]]] = {}
        self._elsewhere: dict[tuple[str, ...], list[tuple[float, float]]] = {}
        self._trained: dict[str, _Size] = {}
        self._read: dict[str, _Size] = {}
        for result in finished:
            self.learn(result)

    def learn(self, result: StudyResult) -> None:
        """Take a finished run into account."""
        about, options = result.about, result.about["options"]
        if not about.get("seconds"):
            return
        seconds, is_here = self._own_seconds(about)
        known, kind = self._here if is_here else self._elsewhere, _kind(about["data"], options)
        if "transfer" in about:  # a test, whose work is always the same
            known.setdefault((*kind, about["transfer"]), []).append((seconds, 1.0))
            return
        trained, read = result.results["settings"].get("num_train_items") or 0, result.results["metrics"]["num_items"]
        if trained and not options.get("annotation_budget"):
            self._trained.setdefault(about["data"], _Size()).learn(trained, options.get("max_train_samples"))
        self._read.setdefault(about["data"], _Size()).learn(read, options.get("max_eval_samples"))
        known.setdefault(kind, []).append((seconds, _work(options, trained, read)))

    def _own_seconds(self, about: Mapping[str, Any]) -> tuple[float, bool]:
        """The seconds that a run took, or would have taken on this machine; whether it was this one."""
        machine = about["machine"]
        if all(machine.get(key) == self._machine.get(key) for key in ("name", "cores", "jobs", "dtype")):
            # Its speed, measured beside other work, would add noise.
            return about["seconds"], True
        return about["seconds"] * machine["gflops"] / self._machine["gflops"], False

    def seconds(self, run: PlannedRun) -> float | None:
        """Estimated seconds of a run, with tests on other tasks as far as such have finished anywhere. `None` if no
        similar run has finished: one on its data set with its model, trained or untrained as this one.
        """
        try:
            return self._estimate(run)
        except (TypeError, ValueError):
            return None  # a value that its recipe will refuse

    def _estimate(self, run: PlannedRun) -> float | None:
        kind = _kind(run.data, run.options)
        pace = self._pace(kind)
        read = self._read.get(run.data, _Size()).of(run.options.get("max_eval_samples"))
        trained: int | None = 0
        if run.is_trained:
            trained = self._trained.get(run.data, _Size()).of(run.options.get("max_train_samples"))
            budget, votes = run.options.get("annotation_budget"), run.options.get("max_annotators")
            if trained is None and run.options.get("max_steps", -1) > 0:
                trained = 0  # their number does not matter
            if trained is not None and budget and votes:
                trained = min(trained, budget // votes)
        if pace is None or read is None or trained is None:
            return None
        tests = sum(self._pace((*kind, task)) or 0.0 for task in run.transfer)
        return _work(run.options, trained, read) * pace + tests

    def _pace(self, kind: tuple[str, ...]) -> float | None:
        """Seconds for a unit of work; `None` if nothing of the kind has finished."""
        known = self._here.get(kind) or self._elsewhere.get(kind)
        # The median: a least-squares line through the origin would give long runs all the weight.
        return median(seconds / work for seconds, work in known) if known else None

    def total(self, runs: Sequence[PlannedRun], jobs: int) -> str:
        """How long runs take on this machine, `jobs` of them side by side, as text."""
        known = [seconds for run in runs if (seconds := self.seconds(run)) is not None]
        unknown = len(runs) - len(known)
        if not known:
            return "duration not known yet" if unknown else "nothing"
        text = f"about {duration(max(sum(known) / jobs, *known))}"
        return f"{text} and {unknown} of unknown duration" if unknown else text


def _kind(data: str, options: Mapping[str, Any]) -> tuple[str, ...]:
    model = str(options.get("model_name_or_path"))
    model = Path(model).name if Path(model).is_absolute() else model
    if options["method"] == "raw":
        return data, model, "raw"
    return data, model, "adapter" if options.get("use_peft") else "trained"


def _work(options: Mapping[str, Any], trained: int, read: int) -> float:
    """Work of a run, in items that are trained on once."""
    if options["method"] == "raw":
        return _READ * read
    steps = options.get("max_steps", -1)
    if steps > 0:
        batch, more = options.get("per_device_train_batch_size"), options.get("gradient_accumulation_steps")
        return steps * (batch or _ITEMS_A_STEP) * (more or 1) + _READ * read
    return trained * float(options.get("num_train_epochs", PAPER_TRAINING["num_train_epochs"])) + _READ * read


def duration(seconds: float) -> str:
    """A duration in words: `40 s`, `12 min`, `3.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
