"""Making a run of a plan: training, tests, and what is kept of them."""

from __future__ import annotations

import shlex
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from distjudge_trl.errors import UserInputError, clipped, writing
from distjudge_trl.evaluation.results import RESULTS_NAME, read_results
from distjudge_trl.files.atomic import replacing
from distjudge_trl.runtime.logs import log_tail
from distjudge_trl.study.commands import Commands
from distjudge_trl.study.machine import describe_machine
from distjudge_trl.study.plan import PlannedRun
from distjudge_trl.study.processes import Processes
from distjudge_trl.study.store import StudyResult, keep, keep_seen_items, result_folder, seen_items
from distjudge_trl.trainer.checkpoints import find_checkpoint


_COMMAND_NAME = "command.txt"


@dataclass
class Maker:
    """Makes runs, in a thread each.

    Args:
        commands ([`Commands`]): of the plan.
        results (`Path`): the results folder.
        processes ([`Processes`]): run the commands.
        keep_judges (`bool`): keep the weights of judges.
        say (`Callable[[str], None]`): receives lines for the user.
    """

    commands: Commands
    results: Path
    processes: Processes
    keep_judges: bool
    say: Callable[[str], None]

    @cached_property
    def machine(self) -> dict[str, Any]:
        """This machine, measured once, before runs are made that would be in the way."""
        return describe_machine(self.processes.jobs)

    def can_make(self, run: PlannedRun, missing: Sequence[str | None]) -> bool:
        """Whether any of what is missing can be made: an untrained model is tested on another task without the items
        that judges were trained on.
        """
        return run.is_trained or None in missing or seen_items(self.results, run) is not None

    def make(self, run: PlannedRun, missing: Sequence[str | None]) -> list[StudyResult]:
        """Train, test, test on other tasks, and keep the results. Empty if a command failed.

        Args:
            run ([`PlannedRun`]): which.
            missing (`Sequence`): `None` for training and test, and the other tasks to test on. A judge that is no
                longer there is trained again for the latter.
        """
        folder, kept = self.commands.folder(run), []
        if None in missing or run.is_trained:
            command, seconds = self.commands.training(run), None
            if not self._is_finished(run, command):
                resumed = () if self._prepare(folder, command) else ("--resume_from_checkpoint", "true")
                seconds = self._execute([*command, *resumed], folder)
                if seconds is None:
                    return []
                # The time of a part says nothing about a whole training.
                seconds = None if resumed else seconds
            if None in missing:
                kept.append(self._keep(run, folder, seconds))
        others = [task for task in missing if task is not None]
        if run.is_trained and self.commands.plan.tests_elsewhere(run):
            keep_seen_items(self.results, run, folder)
        for task in others if self.can_make(run, others) else ():
            result = self._test(run, task)
            if result is None:
                return []
            kept.append(result)
        if not self.keep_judges:
            shutil.rmtree(folder, ignore_errors=True)
        return kept

    def _test(self, run: PlannedRun, task: str) -> StudyResult | None:
        """Test a judge on another task and keep the results; `None` if that fails."""
        out = result_folder(self.commands.work, run, task)
        model, leave_out = str(self.commands.folder(run)), None
        if not run.is_trained:
            named = run.options.get("model_name_or_path")
            model = str(named or read_results(result_folder(self.results, run))["model"])
            leave_out = seen_items(self.results, run)
        seconds = self._execute(self.commands.test(run, task, out, model, leave_out), out)
        if seconds is None:
            return None
        kept = self._keep(run, out, seconds, task)
        shutil.rmtree(out, ignore_errors=True)
        return kept

    def _keep(self, run: PlannedRun, made: Path, seconds: float | None, task: str | None = None) -> StudyResult:
        about = {"seconds": seconds, "machine": self.machine, "date": datetime.now(UTC).date().isoformat()}
        named = (self.results, self.commands.work, self.commands.data_root, Path.cwd(), Path.home())
        with writing(self.results):
            return keep(self.results, run, made, about, task, places=[place for place in named if place is not None])

    def _is_finished(self, run: PlannedRun, command: Sequence[str]) -> bool:
        """Whether a training by this very command is there, with its judge."""
        folder = self.commands.folder(run)
        has_judge = not run.is_trained or any(folder.glob("*model*.safetensors"))
        return _is_of(folder, command) and (folder / RESULTS_NAME).is_file() and has_judge

    def _prepare(self, folder: Path, command: Sequence[str]) -> bool:
        """Prepare the folder of a training; whether it starts from its beginning, and not from a checkpoint that the
        same command has left.
        """
        if _is_of(folder, command):
            try:
                find_checkpoint(True, folder)
            except UserInputError:
                pass
            else:
                return False
        with writing(folder):
            shutil.rmtree(folder, ignore_errors=True)
            with replacing(folder / _COMMAND_NAME) as temporary:
                temporary.write_text(shlex.join(command), encoding="utf-8")
        return True

    def _execute(self, command: list[str], folder: Path) -> float | None:
        """Run a command that writes results into a folder; its seconds, or `None` if it failed. What it prints goes to
        the terminal, or if runs are made side by side to a log beside the folder.
        """
        line = shlex.join(command)
        log = folder.with_name(f"{folder.name}.log") if self.processes.jobs > 1 else None
        with writing(folder):
            folder.parent.mkdir(parents=True, exist_ok=True)
            (folder / RESULTS_NAME).unlink(missing_ok=True)
        self.say(f"\n$ {line}" if log is None else f"{folder}: what it prints is in {log}")
        begin = time.monotonic()
        code = self.processes.run(command, log)
        if code == 0 and (folder / RESULTS_NAME).is_file():
            return round(time.monotonic() - begin, 1)
        if code is not None:
            reason = f"failed with exit code {code}" if code else "left no results"
            self.say(f"{folder}: {reason}" + (f": {clipped(log_tail(log, 1), 200)} (see {log})" if log else ""))
        return None


def _is_of(folder: Path, command: Sequence[str]) -> bool:
    before = folder / _COMMAND_NAME
    return before.is_file() and before.read_text(encoding="utf-8") == shlex.join(command)
