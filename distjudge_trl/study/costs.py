"""How long the runs of a study take: an estimate from those that have finished, on this machine or on others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from statistics import median
from typing import Any

from distjudge_trl.study.plan import PlannedRun
from distjudge_trl.study.store import StudyResult


# The work of reading an item, relative to training on it: a forward pass without a backward pass.
_READ = 1 / 3


class Costs:
    """Estimates for one machine.

    Args:
        machine (`Mapping`): as `describe_machine` returns it.
        finished (`Iterable[StudyResult]`): runs whose seconds are known.
    """

    def __init__(self, machine: Mapping[str, Any], finished: Iterable[StudyResult]) -> None:
        self._machine = machine
        self._known: dict[str, list[tuple[float, float]]] = {}
        # The most items that a data set is known to have for training and for scoring.
        self._sizes: dict[str, tuple[int, int]] = {}
        for result in finished:
            self.learn(result)

    def learn(self, result: StudyResult) -> None:
        """Take a finished run into account."""
        about, trained = result.about, result.results["settings"].get("num_train_items") or 0
        if "transfer" in about or not about.get("seconds"):
            return
        read = result.results["metrics"]["num_items"]
        before = self._sizes.get(about["data"], (0, 0))
        self._sizes[about["data"]] = max(before[0], trained), max(before[1], read)
        machine = about["machine"]
        # A faster machine would have taken less time.
        seconds = about["seconds"] * machine["gflops"] / self._machine["gflops"]
        work = _work(about["options"], trained, read)
        is_here = all(machine.get(key) == self._machine.get(key) for key in ("name", "cores", "jobs"))
        # Runs on this machine count alone, if there are any.
        key = f"{about['data']}{'' if is_here else ' elsewhere'}"
        self._known.setdefault(key, []).append((seconds, work))

    def seconds(self, run: PlannedRun) -> float | None:
        """Estimated seconds of a run; `None` if no run on its data set has finished anywhere."""
        known = self._known.get(run.data) or self._known.get(f"{run.data} elsewhere")
        if not known:
            return None
        trained, read = self._sizes[run.data]
        options = run.options
        trained = min(trained, int(options.get("max_train_samples") or trained)) if trained else 0
        read = min(read, int(options.get("max_eval_samples") or read))
        work = _work(options, trained, read)
        # A least-squares line through the origin would give long runs all the weight.
        return work * median(seconds / max(done, 1e-9) for seconds, done in known)


def _work(options: Mapping[str, Any], trained: int, read: int) -> float:
    """Work of a run, in items that are trained on once."""
    epochs = 0.0 if options["method"] == "raw" else float(options.get("num_train_epochs", 2))
    return trained * epochs + _READ * read


def duration(seconds: float) -> str:
    """A duration in words: `40 s`, `12 min`, `3.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
