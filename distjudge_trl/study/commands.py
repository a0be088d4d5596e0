"""The commands that make the runs of a plan, and what can be wrong with them, found before anything is trained."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from distjudge_trl.errors import UserInputError, listing
from distjudge_trl.evaluation.origin import split_elsewhere
from distjudge_trl.files.shipped_files import find_shipped
from distjudge_trl.recipe.arguments import ParsedRun
from distjudge_trl.recipe.checks import check_options
from distjudge_trl.recipe.loading import load_recipe
from distjudge_trl.recipe.parsing import option_tokens
from distjudge_trl.runtime.logs import quieten
from distjudge_trl.study.plan import Plan
from distjudge_trl.study.planned_run import PlannedRun
from distjudge_trl.tasks import get_task, is_task_file


_load_recipe = cache(load_recipe)


def merged_folder(folder: Path) -> Path:
    """Where the adapter of a training is merged into its model."""
    return folder.with_name(f"{folder.name}-merged")


@dataclass(frozen=True)
class Commands:
    """The commands of a plan.

    Args:
        plan ([`Plan`]): the plan.
        work (`Path`): folder of trainings.
        data_root (`Path`, *optional*): folder below which the plan's data paths lie.
        launcher (`Sequence[str]`): what starts a recipe, such as `("accelerate", "launch")`.
    """

    plan: Plan
    work: Path
    data_root: Path | None = None
    launcher: Sequence[str] = (sys.executable,)

    def folder(self, run: PlannedRun) -> Path:
        """Where a run is trained."""
        return self.work / run.data / run.name

    def training(self, run: PlannedRun) -> list[str]:
        """The command that trains and tests a run.

        Raises:
            [`UserInputError`]: its task has no recipe, or its data are not there.
        """
        return [*self.launcher, str(self._recipe(run.data)), *self._words(run)]

    def start_folder(self, run: PlannedRun) -> Path:
        """The folder of the whole model from which a run starts that starts from a judge."""
        assert run.start is not None
        folder = self.work / run.start
        recipe = _load_recipe(self._recipe(run.start.partition("/")[0]))
        # An adapter is merged into its model: training goes on from whole weights.
        is_adapter = run.start_options.get("use_peft", recipe.training.get("use_peft", False))
        return merged_folder(folder) if is_adapter else folder

    def merging(self, run: PlannedRun) -> list[str]:
        """The command that merges the adapter from which a run starts."""
        command = [sys.executable, "-m", "distjudge_trl", "merge", "--model", str(self.work / str(run.start))]
        return [*command, "--out", str(self.start_folder(run))]

    def test(self, run: PlannedRun, task: str, out: Path, model: str, leave_out: Path | None) -> list[str]:
        """The command that tests a run's judge on another task; an untrained model on the items that were not trained
        on.

        Args:
            run ([`PlannedRun`]): the run.
            task (`str`): a name in `transfer`.
            out (`Path`): where the results go.
            model (`str`): the judge's folder, or the name of an untrained model.
            leave_out (`Path`, *optional*): a folder that lists the items which judges were trained on.

        Raises:
            [`UserInputError`]: the data are not there.
        """
        more = []
        if leave_out is not None:
            # As `evaluate` tests a judge of another task.
            split = split_elsewhere(get_task(self.plan.find_task(task)))
            more = ["--split", split, "--leave-out", str(leave_out)]
            reading = {"max_length": self._parsed(run).training.max_length, **run.options}
            for name in ("max_length", "truncate", "prompt_template"):
                if reading.get(name) is not None:
                    more += [f"--{name.replace('_', '-')}", str(reading[name])]
        elif run.options.get("calibrate"):
            # A judge takes over the scalings that were fitted when it was trained; an untrained model has none.
            more = ["--calibrated"]
        path = self.plan.content.data[run.data].transfer[task]
        data = ["--data-path", self._data(path)] if path is not None else []
        command = [
            sys.executable,
            "-m",
            "distjudge_trl",
            "evaluate",
            "--model",
            model,
            *more,
            "--task",
            self.plan.find_task(task),
        ]
        return [*command, *data, "--robustness", "--out", str(out)]

    def check(self, runs: Iterable[PlannedRun]) -> None:
        """Parse the options of runs as their recipes do, and look for their data.

        Raises:
            [`UserInputError`]: an option that a recipe does not have, a value that it does not take, a task without a
                recipe, or data that are not there. The message names the run.
        """
        quieten()
        done = []
        for run in runs:
            options = {name: value for name, value in run.options.items() if name != "seed"}
            if (run.data, options) in done:
                continue
            done.append((run.data, options))
            try:
                check_options(self._parsed(run))
                planned = self.plan.content.data[run.data]
                for task, path in {self.plan.content.data[run.data].task: planned.path, **planned.transfer}.items():
                    self._find_files(task, path)
                self._check_transfer(run)
            except UserInputError as error:
                raise UserInputError(
                    f"{self.plan.place}The run {run.full_name} (part {run.parts[0]!r}): {error}"
                ) from None

    def _parsed(self, run: PlannedRun) -> ParsedRun:
        return _load_recipe(self._recipe(run.data)).parse(self._words(run))

    def _check_transfer(self, run: PlannedRun) -> None:
        labels = self.plan.task_of(run).labels
        for name in run.transfer:
            others = get_task(self.plan.find_task(name)).choose(None).labels
            if others != labels:
                raise UserInputError(
                    f"`data.{run.data}.transfer`: judges of {run.data} answer with {listing(labels)}, the task"
                    f" {name!r} with {listing(others)}. Name a task with the same labels."
                )

    def _recipe(self, data: str) -> Path:
        return find_shipped("custom" if self._is_own(data) else self.plan.task(data), "recipes", ".py", "recipe")

    def _words(self, run: PlannedRun) -> list[str]:
        path = self.plan.content.data[run.data].path
        return [
            *(("--task", self.plan.task(run.data)) if self._is_own(run.data) else ()),
            *(("--data_path", self._data(path)) if path is not None else ()),
            *option_tokens({**run.options, **self._start(run)}),
            *("--output_dir", str(self.folder(run))),
        ]

    def _find_files(self, task: str, path: str | None) -> None:
        """Look for the files of a task; the YAML of a user's own task may name them."""
        found = None if path is None else Path(self._data(path))
        if is_task_file(task) and (find := get_task(self.plan.find_task(task)).find) is not None:
            find(found)

    def _start(self, run: PlannedRun) -> dict[str, str]:
        return {} if run.start is None else {"model_name_or_path": str(self.start_folder(run))}

    def _is_own(self, data: str) -> bool:
        return is_task_file(self.plan.task(data))

    def _data(self, path: str) -> str:
        if self.data_root is not None and not self.data_root.is_dir():
            raise UserInputError(f"--data-root {self.data_root}: there is no such folder.")
        found = Path(path) if self.data_root is None else self.data_root / path
        if not found.exists():
            hint = "--data-root names the folder below which the plan's files lie."
            raise UserInputError(f"{found}: there is no such file or folder. {hint}")
        return str(found)
