"""Making a run of a plan: training, tests, and what is kept of them."""

from __future__ import annotations

import json
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
from distjudge_trl.judge_folder.judge_file import JUDGE_FILE_NAME
from distjudge_trl.runtime.logs import log_tail
from distjudge_trl.study.commands import Commands, merged_folder
from distjudge_trl.study.machine import describe_machine, dtype_of
from distjudge_trl.study.named_files import named_files
from distjudge_trl.study.planned_run import PlannedRun
from distjudge_trl.study.processes import Processes
from distjudge_trl.study.store import StudyResult, is_done, keep, keep_seen_items, result_folder, seen_items
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

    @cached_property
    def _runs(self) -> dict[str, PlannedRun]:
        return {run.full_name: run for run in self.commands.plan.runs()}

    def start_of(self, run: PlannedRun) -> PlannedRun | None:
        """The run from whose judge a run starts, if it starts from one."""
        return None if run.start is None else self._runs[run.start]

    def starts_of(self, runs: Sequence[PlannedRun]) -> list[PlannedRun]:
        """The runs from whose judges some of these start."""
        names = dict.fromkeys(run.start for run in runs if run.start is not None)
        return [self._runs[name] for name in names]

    def to_train_again(self, run: PlannedRun) -> PlannedRun | None:
        """The run from whose judge a run starts, if that judge is not there (any more)."""
        start = self.start_of(run)
        is_there = start is None or self._is_finished(start, self.commands.training(start))
        return None if is_there else start

    def start_to_make(self, run: PlannedRun) -> PlannedRun | None:
        """The run from whose judge a run starts, if that judge, or the whole model that its adapter is merged into, is
        not there: one process alone may make it.
        """
        start = self.start_of(run)
        if start is None or self.to_train_again(run) is not None:
            return start
        return None if self._is_whole(run, start) else start

    def _is_whole(self, run: PlannedRun, start: PlannedRun) -> bool:
        merged = self.commands.start_folder(run)
        return merged == self.commands.folder(start) or (merged / JUDGE_FILE_NAME).is_file()

    def obstacle(self, run: PlannedRun, missing: Sequence[str | None]) -> str | None:
        """Why nothing of what is missing of a run can be made yet, to be put after "left"; `None` if something can."""
        start = self.start_of(run)
        if start is not None and not is_done(self.results, start):
            return f" to start from the judge of {start.full_name}, once that is done"
        if run.is_trained or None in missing or seen_items(self.results, run) is not None:
            return None
        return " to be tested on another task, once a judge of its data is done"

    def make(self, run: PlannedRun, missing: Sequence[str | None]) -> list[StudyResult]:
        """Train, test, test on other tasks, and keep the results. Empty if a command failed.

        Args:
            run ([`PlannedRun`]): which.
            missing (`Sequence`): `None` for training and test, and the other tasks to test on. A judge that is no
                longer there is trained again for the latter.
        """
        folder, kept, start = self.commands.folder(run), [], self.start_of(run)
        self._check_tasks(run)
        if None in missing or run.is_trained:
            done, seconds = self._train(run)
            if not done:
                return []
            if None in missing:
                kept.append(self._keep(run, folder, seconds))
        others = [task for task in missing if task is not None]
        if run.is_trained and run.transfer:
            keep_seen_items(self.results, run, folder)
        for task in others if self.obstacle(run, others) is None else ():
            result = self._test(run, task)
            if result is None:
                return []
            kept.append(result)
        if not self.keep_judges:
            for each in (run, start):
                if each is not None and not self._is_needed(each):
                    self._delete(each)
        return kept

    def _is_needed(self, run: PlannedRun) -> bool:
        """Whether a run that is left starts from the judge of a run, or the judge is still to be tested elsewhere."""
        after = [(other, None) for other in self._runs.values() if other.start == run.full_name]
        try:
            return not all(is_done(self.results, *each) for each in [*after, *((run, task) for task in run.transfer)])
        except UserInputError:
            return True  # what is wrong with results is said where they are needed

    def _train(self, run: PlannedRun) -> tuple[bool, float | None]:
        """Train a run, unless this was done, and before it the judge that it starts from, if that was deleted; whether
        it is done, and the seconds of the whole training, if known.
        """
        folder, command, start = self.commands.folder(run), self.commands.training(run), self.start_of(run)
        if self._is_finished(run, command):
            if not is_done(self.results, run):
                self.say(
                    f"{run.full_name}: was trained before, and is not trained again. (If it shall be, stop, and delete"
                    f" {folder}, too.)"
                )
            return True, None
        if start is not None and not self._prepare_start(run, start):
            return False, None
        resumed = () if self._prepare(run, command) else ("--resume_from_checkpoint", "true")
        seconds = self._execute([*command, *resumed], folder)
        # The time of a part says nothing about a whole training.
        return seconds is not None, None if resumed else seconds

    def _prepare_start(self, run: PlannedRun, start: PlannedRun) -> bool:
        """Make the whole model from which a run starts, if it is not there; whether it is."""
        if self.to_train_again(run) is not None:
            self.say(
                f"{start.full_name}: trained again, because its judge is not in --work and {run.full_name} starts"
                " from it"
            )
            if not self._train(start)[0]:
                return False
        if self._is_whole(run, start):
            return True
        # From a judge whose adapter was trained before.
        merged = self.commands.start_folder(run)
        shutil.rmtree(merged, ignore_errors=True)  # what is left of a merge that was stopped
        self.say(f"{start.full_name}: its adapter is merged")
        return self.processes.run(self.commands.merging(run), self._log(merged)) == 0

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

    def _check_tasks(self, run: PlannedRun) -> None:
        """Check that the task files of a run, of its start and of its tests elsewhere say what they said when the
        study began, which its result will name.
        """
        plan, start = self.commands.plan, self.start_of(run)
        known = {plan.content.data[each.data].task: each.task for each in (run, start) if each is not None}
        for name, text in {**known, **run.transfer}.items():
            if plan.task_text(name) != text:
                raise UserInputError(f"{name} has changed since the study began. Give the command again.")

    def _keep(self, run: PlannedRun, made: Path, seconds: float | None, task: str | None = None) -> StudyResult:
        self._check_tasks(run)
        machine = {**self.machine, "dtype": self._precision(run, made, task)}
        about = {"seconds": seconds, "machine": machine, "date": datetime.now(UTC).date().isoformat()}
        named = (self.results, self.commands.work, self.commands.data_root, Path.cwd(), Path.home())
        with writing(self.results):
            return keep(self.results, run, made, about, task, places=[place for place in named if place is not None])

    def _precision(self, run: PlannedRun, made: Path, task: str | None) -> str:
        """In what a judge was trained, by what its training says, which may have been on another machine."""
        if run.is_trained and task is not None:
            made = self.commands.folder(run)
        training = read_results(made)["provenance"].get("training", {})
        if "bf16" not in training:
            return dtype_of(run.options, self.machine)
        return "bfloat16" if training["bf16"] else "float16" if training.get("fp16") else "float32"

    def _is_finished(self, run: PlannedRun, command: Sequence[str]) -> bool:
        """Whether a training by this very command is there, with its judge."""
        folder = self.commands.folder(run)
        has_weights = not run.is_trained or any(folder.glob("*model*.safetensors"))
        return _is_of(folder, run, command) and has_weights and (folder / RESULTS_NAME).is_file()

    def _delete(self, run: PlannedRun) -> None:
        """Delete what a training has left, and the model into which its adapter was merged."""
        folder = self.commands.folder(run)
        for each in (folder, merged_folder(folder)):
            shutil.rmtree(each, ignore_errors=True)

    def _prepare(self, run: PlannedRun, command: Sequence[str]) -> bool:
        """Prepare the folder of a training; whether it starts from its beginning, and not from a checkpoint that the
        same command has left.
        """
        folder = self.commands.folder(run)
        if _is_of(folder, run, command):
            try:
                find_checkpoint(True, folder)
            except UserInputError:
                pass
            else:
                return False
        with writing(folder):
            self._delete(run)
            with replacing(folder / _COMMAND_NAME) as temporary:
                temporary.write_text(_identity(run, command), encoding="utf-8")
        return True

    def _execute(self, command: list[str], folder: Path) -> float | None:
        """Run a command that writes results into a folder; its seconds, or `None` if it failed. What it prints goes to
        the terminal, or if runs are made side by side to a log beside the folder.
        """
        line = shlex.join(command)
        log = self._log(folder)
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

    def _log(self, folder: Path) -> Path | None:
        return folder.with_name(f"{folder.name}.log") if self.processes.jobs > 1 else None


def _is_of(folder: Path, run: PlannedRun, command: Sequence[str]) -> bool:
    before = folder / _COMMAND_NAME
    return before.is_file() and before.read_text(encoding="utf-8", errors="replace") == _identity(run, command)


def _identity(run: PlannedRun, command: Sequence[str]) -> str:
    """What a training is: its command, and what the files said that the command names."""
    start = {"options": dict(run.start_options), "task": run.start_task, "files": named_files(run.start_options)}
    says = {"task": run.task, "files": named_files(run.options), "start": start}
    return f"{shlex.join(command)}\n{json.dumps(says)}\n"
