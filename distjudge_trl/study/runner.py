"""Working through a plan: run what is not done, keep its results, say what is left."""

from __future__ import annotations

import fnmatch
import os
import shlex
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from distjudge_trl.errors import UserInputError, counted
from distjudge_trl.evaluation.results import RESULTS_NAME, read_results
from distjudge_trl.files.atomic import replacing
from distjudge_trl.files.shipped_files import find_shipped
from distjudge_trl.runtime.threads import cores_per_process
from distjudge_trl.study.costs import Costs, duration
from distjudge_trl.study.machine import describe_machine
from distjudge_trl.study.plan import Plan, PlannedRun
from distjudge_trl.study.store import StudyResult, is_done, keep, read_study, result_folder


_COMMAND_NAME = "command.txt"


@dataclass
class Study:
    """A plan, and where its data, its results and its unfinished work are.

    Args:
        plan ([`Plan`]): the plan.
        results (`Path`): folder of the results, which are small.
        work (`Path`): folder of trainings, logs and judges.
        data_root (`Path`, *optional*): folder below which the plan's data paths lie.
        launcher (`Sequence[str]`): what starts a recipe, such as `("accelerate", "launch")`.
        keep_judges (`bool`): keep the weights of the judges in `work`.
        jobs (`int`): runs that are made side by side.
        say (`Callable[[str], None]`): receives lines for the user.
    """

    plan: Plan
    results: Path
    work: Path
    data_root: Path | None = None
    launcher: Sequence[str] = (sys.executable,)
    keep_judges: bool = False
    jobs: int = 1
    say: Callable[[str], None] = print
    _stopped: threading.Event = field(default_factory=threading.Event)
    _running: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def select(self, only: Sequence[str] = ()) -> list[PlannedRun]:
        """Runs of the plan whose full name, data set or part matches one of the patterns (all without any).

        Raises:
            [`UserInputError`]: a pattern matches nothing.
        """
        runs = self.plan.runs()
        for pattern in only:
            if not any(_matches(run, pattern) for run in runs):
                raise UserInputError(
                    f"--only {pattern}: matches no run. Runs are called like {runs[0].full_name}; a data set or a part"
                    f" of the plan ({', '.join(self.plan.content.runs)}) can be named, too."
                )
        return [run for run in runs if not only or any(_matches(run, pattern) for pattern in only)]

    def left(self, runs: Sequence[PlannedRun]) -> list[PlannedRun]:
        """Those that are not done, or whose judges were not tested on all their other tasks.

        Raises:
            [`UserInputError`]: a result was made with other options than the plan's.
        """
        return [
            run
            for run in runs
            if not all(is_done(self.results, run, transfer) for transfer in (None, *self._transfers(run)))
        ]

    def costs(self) -> Costs:
        """Estimates for this machine, from the results folder."""
        finished = read_study(self.results) if self.results.is_dir() else []
        return Costs(describe_machine(self.jobs), finished)

    def work_through(self, runs: Sequence[PlannedRun], *, seconds: float | None = None) -> list[PlannedRun]:
        """Make all runs that are left; returns those that failed.

        Args:
            runs (`Sequence[PlannedRun]`): in this order.
            seconds (`float`, *optional*): start no run that would probably end later than this from now. One whose
                duration is not known is started while there is time.
        """
        left, total = self.left(runs), len(runs)
        self.say(f"{counted(total, 'run')} planned, {total - len(left)} done, {len(left)} left")
        if not left:
            return []
        costs, begin = self.costs(), time.monotonic()
        failed: list[PlannedRun] = []
        with ThreadPoolExecutor(self.jobs) as pool:
            active: dict[Future[list[StudyResult]], PlannedRun] = {}
            try:
                while left or active:
                    while left and len(active) < self.jobs:
                        remaining = None if seconds is None else seconds - (time.monotonic() - begin)
                        run = _next(left, costs, remaining)
                        if run is None:
                            break
                        left.remove(run)
                        self._announce(run, [*left, *active.values()], costs)
                        active[pool.submit(self._make, run)] = run
                    if not active:
                        self.say(f"The time is up: {counted(len(left), 'run')} left ({self.time(left, costs)}).")
                        break
                    for done in wait(active, return_when=FIRST_COMPLETED).done:
                        run = active.pop(done)
                        found = done.result()
                        for result in found:
                            costs.learn(result)
                            self.say(_line(result))
                        if not found:
                            failed.append(run)
            except BaseException:
                self._stop()
                raise
        return failed

    def _transfers(self, run: PlannedRun) -> dict[str, str | None]:
        # An untrained model is tested beside the first judge, on the items that this one was not trained on.
        return {} if run.options["method"] == "raw" else self.plan.content.data[run.data].transfer

    def _untrained(self, run: PlannedRun) -> PlannedRun | None:
        """The run of the untrained model on a run's data."""
        found = (other for other in self.plan.runs() if other.data == run.data and other.options["method"] == "raw")
        return next((other for other in found if is_done(self.results, other)), None)

    def _announce(self, run: PlannedRun, others: Sequence[PlannedRun], costs: Costs) -> None:
        expected = costs.seconds(run)
        about = f"about {duration(expected)}" if expected is not None else "duration not known yet"
        self.say(f"{run.full_name}: {about}; then {len(others)} left ({self.time(others, costs)})")

    def time(self, runs: Sequence[PlannedRun], costs: Costs) -> str:
        """How long runs take on this machine, as text."""
        known = [seconds for run in runs if (seconds := costs.seconds(run)) is not None]
        text = f"about {duration(sum(known) / self.jobs)}"
        unknown = len(runs) - len(known)
        return f"{text} and {unknown} of unknown duration" if unknown else text

    def _make(self, run: PlannedRun) -> list[StudyResult]:
        """Train, test, test on other tasks, and keep the results; empty if a command failed."""
        folder = self.work / run.data / run.name
        command = self.command(run)
        begin = time.monotonic()
        about: dict[str, Any] = {"machine": describe_machine(self.jobs), "date": datetime.now(UTC).date().isoformat()}
        if not self._is_finished(folder, command):
            if not self._execute(command, folder):
                return []
            about["seconds"] = round(time.monotonic() - begin, 1)
            with replacing(folder / _COMMAND_NAME) as temporary:
                temporary.write_text(shlex.join(command), encoding="utf-8")
        kept = [] if is_done(self.results, run) else [keep(self.results, run, folder, about)]
        untrained = self._untrained(run)
        for task, path in self._transfers(run).items():
            for judge in filter(None, (run, untrained)):
                if is_done(self.results, judge, task):
                    continue
                made = self.work / f"{task}-from-{run.data}" / judge.name
                if not self._execute(self._transfer_command(judge, run, task, path, made), made):
                    return []
                kept.append(keep(self.results, judge, made, {**about, "seconds": None}, task))
        if not self.keep_judges:
            shutil.rmtree(folder, ignore_errors=True)
        return [StudyResult(path, (found := read_results(path)), found["provenance"]["study"]) for path in kept]

    def command(self, run: PlannedRun) -> list[str]:
        """The command that makes a run."""
        data, task = self.plan.content.data[run.data], self.plan.task(run.data)
        is_own = task.endswith((".yaml", ".yml"))
        recipe = find_shipped("custom" if is_own else task, "recipes", ".py", "recipe")
        return [
            *self.launcher,
            str(recipe),
            *(("--task", task) if is_own else ()),
            *self._data_option("--data_path", data.path),
            *_flags(run.options),
            "--output_dir",
            str(self.work / run.data / run.name),
        ]

    def _transfer_command(
        self, judge: PlannedRun, trained: PlannedRun, task: str, path: str | None, out: Path
    ) -> list[str]:
        """The command that tests a judge on another task; the untrained model on the items that `trained` leaves."""
        folder = str(self.work / trained.data / trained.name)
        options = ["--model", folder, "--calibrated"]
        if judge.options["method"] == "raw":
            model = read_results(result_folder(self.results, judge))["model"]
            options = ["--model", model, "--split", "all", "--leave-out", folder]
        command = [sys.executable, "-m", "distjudge_trl", "evaluate", *options, "--task", task]
        return [*command, *self._data_option("--data-path", path), "--robustness", "--out", str(out)]

    def _data_option(self, name: str, path: str | None) -> list[str]:
        if path is None:
            return []
        found = Path(path) if self.data_root is None else self.data_root / path
        if not found.exists():
            raise UserInputError(
                f"{found}: there is no such data file. --data-root names the folder of the plan's files."
            )
        return [name, str(found)]

    def _is_finished(self, folder: Path, command: Sequence[str]) -> bool:
        """Whether a training that was not kept yet is there, of this very command."""
        before = folder / _COMMAND_NAME
        is_same = before.is_file() and before.read_text(encoding="utf-8") == shlex.join(command)
        return is_same and (folder / RESULTS_NAME).is_file() and any(folder.glob("*model*.safetensors"))

    def _execute(self, command: list[str], folder: Path) -> bool:
        """Run a command; whether it succeeded. What it prints goes to the terminal, or if runs are made side by side
        to a log beside its folder.
        """
        if self._stopped.is_set():
            return False
        log = folder.with_name(f"{folder.name}.log")
        log.parent.mkdir(parents=True, exist_ok=True)
        self.say(f"\n$ {shlex.join(command)}" if self.jobs == 1 else f"  {log}")
        if self.jobs == 1:
            process = subprocess.Popen(command)
            self._running.append(process)
            code = process.wait()
        else:
            with log.open("wb") as file:
                threads = {"OMP_NUM_THREADS": str(cores_per_process(self.jobs))}
                process = subprocess.Popen(
                    command, stdout=file, stderr=subprocess.STDOUT, env={**os.environ, **threads}
                )
                self._running.append(process)
                code = process.wait()
        self._running.remove(process)
        if code and not self._stopped.is_set():
            self.say(f"{folder}: failed with exit code {code}" + (f"; see {log}" if self.jobs > 1 else ""))
        return code == 0

    def _stop(self) -> None:
        self._stopped.set()
        for process in list(self._running):
            process.terminate()


def _matches(run: PlannedRun, pattern: str) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for name in (run.full_name, run.data, *run.parts))


def _next(left: Sequence[PlannedRun], costs: Costs, remaining: float | None) -> PlannedRun | None:
    """The first run that the remaining time is enough for."""
    for run in left:
        if remaining is None or (costs.seconds(run) or 0.0) <= remaining and remaining > 0:
            return run
    return None


def _flags(options: Any) -> list[str]:
    flags: list[str] = []
    for name, value in options.items():
        values = value if isinstance(value, list) else [value]
        flags += [f"--{name}", *map(str, values)]
    return flags


def _line(result: StudyResult) -> str:
    metrics = result.results["metrics"]
    kl, excess = metrics["kl"]["value"], metrics["excess_kl"]
    above = f", {excess['value']:.3f} above the floor" if excess else ""
    return f"{result.path}: KL {kl:.3f}{above} ({duration(result.about['seconds'])})"
