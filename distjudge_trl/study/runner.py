"""Working through a plan: which run is made when, and what is left."""

from __future__ import annotations

import fnmatch
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from distjudge_trl.errors import UserInputError, counted, listing
from distjudge_trl.files.atomic import check_folder
from distjudge_trl.study.claims import Claims
from distjudge_trl.study.commands import Commands
from distjudge_trl.study.costs import Costs, duration
from distjudge_trl.study.machine import dtype_of
from distjudge_trl.study.making import Maker
from distjudge_trl.study.plan import Plan
from distjudge_trl.study.planned_run import PlannedRun
from distjudge_trl.study.processes import Processes
from distjudge_trl.study.store import StudyResult, is_done, read_study


@dataclass
class Study:
    """A plan, and where its data, its results and its unfinished work are. Several processes, also on several machines
    that share the folders, may work on one study: each claims a run before it makes it.

    Args:
        plan ([`Plan`]): the plan.
        results (`Path`): folder of the results, which are small.
        work (`Path`): folder of trainings, logs and judges.
        data_root (`Path`, *optional*): folder below which the plan's data paths lie.
        launcher (`Sequence[str]`): what starts a recipe, such as `("accelerate", "launch")`.
        keep_judges (`bool`): keep the weights of the judges in `work`.
        jobs (`int`): runs that are made side by side.
        say (`Callable[[str], None]`): receives lines for the user.

    Raises:
        [`UserInputError`]: fewer than one job; `work` lies in `results`; one of them is a file; there is no such
            launcher.
    """

    plan: Plan
    results: Path
    work: Path
    data_root: Path | None = None
    launcher: Sequence[str] = (sys.executable,)
    keep_judges: bool = False
    jobs: int = 1
    say: Callable[[str], None] = print

    def __post_init__(self) -> None:
        if self.jobs < 1:
            raise UserInputError(f"--jobs must be at least 1, got {self.jobs}.")
        if self.work.resolve().is_relative_to(self.results.resolve()):
            raise UserInputError(f"{self.work}: --work lies in --out, where the report would read it, too.")
        for folder, option in ((self.results, "--out"), (self.work, "--work")):
            try:
                is_file = folder.exists() and not folder.is_dir()
            except OSError as error:
                raise UserInputError(f"{folder}: {error.strerror}. Choose another {option}.") from None
            if is_file:
                raise UserInputError(f"{folder}: is no folder. Choose another {option}.")
        if not self.launcher or shutil.which(self.launcher[0]) is None:
            name = self.launcher[0] if self.launcher else "''"
            raise UserInputError(f"--launcher {name}: there is no such program, or it cannot be executed.")
        self.commands = Commands(self.plan, self.work, self.data_root, self.launcher)
        self._claims = Claims((self.results, self.work))
        self._processes = Processes(self.jobs)
        self._maker = Maker(self.commands, self.results, self._processes, self.keep_judges, self.say)
        # Why a run was not started, by its name.
        self._reasons: dict[str, str] = {}

    def select(self, only: Sequence[str] = ()) -> list[PlannedRun]:
        """Runs of the plan whose full name, data set or part matches one of the patterns (all without any).

        Raises:
            [`UserInputError`]: a pattern matches nothing, or the runs differ in an option of the command line.
        """
        runs = self.plan.runs()
        for pattern in only:
            if not any(_matches(run, pattern) for run in runs):
                raise UserInputError(
                    f"--only {pattern}: matches no run. Runs are called like {runs[0].full_name}; a data set or a part"
                    f" of the plan ({', '.join(self.plan.content.runs)}) can be named, too."
                )
        selected = [run for run in runs if not only or any(_matches(run, pattern) for pattern in only)]
        self.plan.check_given(selected)
        return selected

    def left(self, runs: Sequence[PlannedRun]) -> list[PlannedRun]:
        """Those that are not done, or whose judges were not tested on all their other tasks.

        Raises:
            [`UserInputError`]: a result was made with other options than the plan's.
        """
        return [run for run in runs if self._missing(run)]

    def costs(self) -> Costs:
        """Estimates for this machine, from the results folder."""
        return Costs(self._maker.machine, self._results())

    def _results(self) -> list[StudyResult]:
        return read_study(self.results) if self.results.is_dir() else []

    def work_through(self, runs: Sequence[PlannedRun], *, seconds: float | None = None) -> list[PlannedRun]:
        """Make all runs that are left; returns those that failed. Nothing is started before the options and the data
        of all are checked.

        Args:
            runs (`Sequence[PlannedRun]`): in this order.
            seconds (`float`, *optional*): start no run that would probably end later than this from now. One whose
                duration is not known is started while there is time.

        Raises:
            [`UserInputError`]: an option or a file of a run is wrong.
            [`RunFailedError`]: the results cannot be written.
        """
        begin = time.monotonic()
        left = self.left(runs)
        self.say(f"{counted(len(runs), 'run')} planned, {len(runs) - len(left)} done, {len(left)} left")
        if not left:
            return []
        self.commands.check([*left, *self._maker.starts_of(left)])
        check_folder(self.results, "--out")
        check_folder(self.work, "--work")
        results = self._results()
        costs = Costs(self._maker.machine, results)
        self._say_precision(left, results)
        failed: list[PlannedRun] = []
        active: dict[Future[list[StudyResult]], tuple[PlannedRun, ExitStack]] = {}
        self._reasons = {}
        with ThreadPoolExecutor(self.jobs) as pool:
            try:
                while True:
                    remaining = None if seconds is None else seconds - (time.monotonic() - begin)
                    while len(active) < self.jobs and (taken := self._take(left, failed, costs, remaining)):
                        run, claim, missing = taken
                        self._announce(run, [*left, *(other for other, _ in active.values())], costs)
                        active[pool.submit(self._maker.make, run, missing)] = run, claim
                    if not active:
                        break
                    for done in wait(active, return_when=FIRST_COMPLETED).done:
                        run, claim = active.pop(done)
                        try:
                            with claim:  # until the results are kept
                                found = done.result()
                            again = self._missing(run)
                        except UserInputError as error:
                            self.say(f"{run.full_name}: {error}")
                            found = []
                        for result in found:
                            costs.learn(result)
                            self.say(_line(result))
                        if not found:
                            failed.append(run)
                        elif again:
                            left.append(run)  # an untrained model, to be tested once a judge is there
            except BaseException:
                with _undisturbed():
                    try:
                        if active:
                            self.say("Stopping what runs (up to 20 seconds) ...")
                    finally:  # whoever reads what is said may be gone
                        self._processes.stop()
                raise
        self._say_left(left, costs)
        return failed

    def _take(
        self, left: list[PlannedRun], failed: list[PlannedRun], costs: Costs, remaining: float | None
    ) -> tuple[PlannedRun, ExitStack, list[str | None]] | None:
        """Claim the first run that can be made in the remaining time, and take it out of `left`, with what is missing
        of it; put those whose
        results another process has made with other options, or damaged, into `failed`.
        """
        for run in list(left):
            if remaining is not None and (remaining <= 0 or self._expected(run, costs) > remaining):
                self._reasons[run.full_name] = ": the time is up"
                continue
            claim = self._claims.take(run)
            if claim is None:
                self._reasons[run.full_name] = ", which another process is making"
                continue
            try:
                # Another process may have made it meanwhile.
                missing = self._missing(run)
                obstacle = self._maker.obstacle(run, missing) or self._claim_start(run, claim)
            except UserInputError as error:
                claim.close()
                self.say(f"{run.full_name}: {error}")
                left.remove(run)
                failed.append(run)
                continue
            if missing and obstacle is None:
                left.remove(run)
                return run, claim, missing
            claim.close()
            if not missing:
                left.remove(run)
            self._reasons[run.full_name] = obstacle or ""
        return None

    def _expected(self, run: PlannedRun, costs: Costs) -> float:
        """Seconds of a run, and of the judge from which it starts, if that has to be trained again; 0 if not known."""
        again = self._maker.to_train_again(run)
        return sum(costs.seconds(each) or 0.0 for each in (run, again) if each is not None)

    def _claim_start(self, run: PlannedRun, claim: ExitStack) -> str | None:
        """Claim the run from whose judge a run starts as well, if it has to be trained or merged; why that fails."""
        start = self._maker.start_to_make(run)
        if start is None:
            return None
        again = self._claims.take(start)
        if again is None:
            return f" to start from the judge of {start.full_name}, which another process is making"
        claim.enter_context(again)
        return None

    def _missing(self, run: PlannedRun) -> list[str | None]:
        """What is not done of a run: `None` for its training and test, or the other tasks to test it on."""
        return [task for task in (None, *run.transfer) if not is_done(self.results, run, task)]

    def _say_precision(self, left: Sequence[PlannedRun], results: Sequence[StudyResult]) -> None:
        """Say which data sets have judges in another precision than this machine will train in."""
        before: dict[str, set[str]] = {}
        for result in results:
            if result.about["options"].get("method") != "raw" and "transfer" not in result.about:
                before.setdefault(result.about["data"], set()).add(str(result.about["machine"].get("dtype", "")))
        found: dict[tuple[str, str], list[str]] = {}
        for run in left:
            own, others = dtype_of(run.options, self._maker.machine), before.get(run.data, set())
            if run.is_trained and others and own not in others:
                found.setdefault((own, listing(sorted(others), "and")), []).append(run.data)
        for (own, there), names in found.items():
            self.say(
                f"{listing([*dict.fromkeys(names)], 'and')}: trained in {there} so far, here in {own}, which moves KL"
                " as much as another seed or more. Tables mark it with a dagger. Among the plan's options, bf16: false"
                " trains in float32 everywhere, bf16: true in bfloat16."
            )

    def _announce(self, run: PlannedRun, others: Sequence[PlannedRun], costs: Costs) -> None:
        self.say(
            f"{run.full_name}: {costs.total([run], 1)}; besides {len(others)} left"
            + (f" ({costs.total(others, self.jobs)})" if others else "")
        )

    def _say_left(self, left: Sequence[PlannedRun], costs: Costs) -> None:
        """Say what was not started, and why."""
        reasons: dict[str, list[PlannedRun]] = {}
        for run in left:
            reasons.setdefault(self._reasons.get(run.full_name, ""), []).append(run)
        for reason, runs in reasons.items():
            self.say(f"{counted(len(runs), 'run')} left{reason} ({costs.total(runs, self.jobs)})")


def _matches(run: PlannedRun, pattern: str) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for name in (run.full_name, run.data, *run.parts))


def _line(result: StudyResult) -> str:
    metrics, seconds = result.results["metrics"], result.about["seconds"]
    kl, excess = metrics["kl"]["value"], metrics["excess_kl"]
    above = f", {excess['value']:.3f} above the floor" if excess else ""
    return f"{result.path}: KL {kl:.3f}{above}" + (f" ({duration(seconds)})" if seconds else "")


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Ignore Ctrl-C and SIGTERM in the block, while processes end."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
