"""The plan of a study: a YAML file with data sets, methods, seeds and sizes, and the runs that follow from it."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from distjudge_trl.errors import UserInputError
from distjudge_trl.files.yaml import read_mapping
from distjudge_trl.methods import METHODS
from distjudge_trl.study.plan_checks import check_length, check_parts, check_spelling
from distjudge_trl.study.plan_file import PlanFile, PlannedMethod, PlannedPart
from distjudge_trl.study.planned_run import READING_OPTIONS, PlannedRun, options_apart
from distjudge_trl.tasks import JudgmentTask, get_task, is_task_file


# An untrained model has no seed. One that all parts share, so that it is tested once.
_SEED_OF_RAW = 0


@dataclass(frozen=True)
class Plan:
    """A plan.

    Args:
        content ([`PlanFile`]): what its file holds.
        folder (`Path`): the file's folder, from which paths of YAML tasks are read.
        given (`Mapping`): options of a command line, which come before the plan's; `None` leaves an option to the
            recipe.
        place (`str`): what messages begin with.
    """

    content: PlanFile
    folder: Path = field(default_factory=Path)
    given: Mapping[str, Any] = field(default_factory=dict)
    place: str = ""

    def runs(self) -> list[PlannedRun]:
        """All runs, each once: in the order of the parts, and in a part seed by seed, so that a study that is stopped
        leaves whole comparisons.

        Raises:
            [`UserInputError`]: two parts give one run, or two seeds of one method, different options; a run's name is
                too long for a folder; the judge that a run starts from is made by no part; runs of one data set differ
                in an option that neither their methods set nor their parts vary.
        """
        try:
            return self._runs()
        except UserInputError as error:
            raise UserInputError(f"{self.place}{error}") from None

    def _runs(self) -> list[PlannedRun]:
        found: dict[str, PlannedRun] = {}
        tasks = {data: self.task_text(self.content.data[data].task) for data in self.content.data}
        for part, content in self.content.runs.items():
            for run in self._of_part(part, content, tasks):
                if METHODS[run.options["method"]].ordinal and not self.task_of(run).ordinal:
                    continue
                before = found.get(run.full_name)
                if before is None:
                    check_length(run)
                    found[run.full_name] = run
                    continue
                if dict(before.options) != dict(run.options):
                    apart = options_apart(before.options, run.options)
                    if dict(before.vary) != dict(run.vary):
                        raise UserInputError(
                            f"Two runs would have the name {run.full_name}: {apart}. Vary other values."
                        )
                    raise UserInputError(
                        f"The run {run.full_name} has other options in the part {part!r} than in {before.parts[0]!r}:"
                        f" {apart}. Vary the option, or name another method."
                    )
                if part not in before.parts:
                    found[run.full_name] = replace(before, parts=(*before.parts, part))
        if not found:
            raise UserInputError("The plan has no runs: all its methods need labels with an order, which no task has.")
        check_spelling(found.values())
        check_parts(self.content, found.values())
        return [self._with_start(run, found) for run in found.values()]

    def _with_start(self, run: PlannedRun, runs: Mapping[str, PlannedRun]) -> PlannedRun:
        """A run that knows the options of the run from whose judge it starts."""
        if run.start is None:
            return run
        own = self.content.methods.get(run.method, PlannedMethod(method=run.method))
        of_parts = (self.content.runs[part].options for part in run.parts)
        for options in (run.vary, own.options, self.content.data[run.data].options, *of_parts):
            if "model_name_or_path" in options:
                raise UserInputError(
                    f"The run {run.full_name} has a model_name_or_path of its own, and `data.{run.data}.start_from`"
                    f" lets it start from the judge of {run.start}. Leave one of the two out."
                )
        if run.start not in runs:
            raise UserInputError(
                f"The run {run.full_name} starts from the judge of {run.start} (`data.{run.data}.start_from`), which"
                " no part of the plan makes. Add its data set, method and seed to a part."
            )
        return replace(run, start_options=runs[run.start].options, start_task=runs[run.start].task)

    def check_given(self, runs: Iterable[PlannedRun]) -> None:
        """Check that options of the command line are none that some runs differ in.

        Raises:
            [`UserInputError`]: one is; the message says where the plan gives it.
        """
        for run in runs:
            own = self.content.methods.get(run.method, PlannedMethod(method=run.method))
            for place, options in (
                (f"the part {run.parts[0]!r} varies", run.vary),
                (f"the method {run.method!r} sets", own.options),
            ):
                for name in self.given:
                    if name in options:
                        raise UserInputError(
                            f"--{name} cannot be given: {place} it. Change the plan, or choose other runs with --only."
                        )

    def _of_part(self, part: str, content: PlannedPart, tasks: Mapping[str, str]) -> Iterator[PlannedRun]:
        varied = [dict(zip(content.vary, values, strict=True)) for values in itertools.product(*content.vary.values())]
        every = itertools.product(content.data, content.seeds, content.methods, varied)
        for data, seed, method, values in every:
            own = self.content.methods.get(method, PlannedMethod(method=method))
            values = {name: value for name, value in values.items() if value is not None}
            if own.method == "raw":
                if seed != content.seeds[0]:
                    continue
                seed = _SEED_OF_RAW
                values = {name: value for name, value in values.items() if name in READING_OPTIONS}
            options = {
                "model_name_or_path": self.content.model,  # without one, that of the recipe
                **self.content.options,
                **self.content.data[data].options,
                **content.options,
                **self.given,
                **own.options,
                **values,
                "method": own.method,
                "seed": seed,
            }
            options = {name: value for name, value in options.items() if value is not None}
            # Tables compare judges without varied options on other tasks.
            others = {} if values else {name: self.task_text(name) for name in self.content.data[data].transfer}
            run = PlannedRun(data, tasks[data], method, seed, values, (part,), options, transfer=others)
            start = self.content.data[data].start
            if start is not None and run.is_trained:
                its = replace(run, data=start.data, method=start.method or method, vary={})
                run = replace(run, start=its.full_name)
            yield run

    def find_task(self, name: str) -> str:
        """Name of a task, or the path of its YAML file beside the plan."""
        return str(self.folder / name) if is_task_file(name) else name

    def task(self, data: str) -> str:
        """Name of a data set's task, or the path of its YAML file."""
        return self.find_task(self.content.data[data].task)

    def task_of(self, run: PlannedRun) -> JudgmentTask:
        """The task of a run, with the question that it asks."""
        question = run.options.get("question")
        return get_task(self.task(run.data)).choose(str(question) if question is not None else None)

    def task_text(self, name: str) -> str:
        """A task as results name it: a YAML file with a digest of what it says now."""
        path = self.find_task(name)
        if not is_task_file(path):
            return path
        # A comment or the description changes no result.
        content = {key: value for key, value in read_mapping(path, "is no task.").items() if key != "description"}
        digest = hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()
        return f"{Path(path).name} {digest[:12]}"

    def method_title(self, method: str) -> str:
        """How tables call a method."""
        own = self.content.methods.get(method)
        return own.title if own is not None and own.title else method

    def data_title(self, data: str) -> str:
        """How tables call a data set."""
        return self.content.data[data].title or data


def transfer_names(transfer: Mapping[str, Any], data: str) -> list[str]:
    """What results of a data set's judges on other tasks are called: a folder each."""
    return [f"{Path(task).stem if is_task_file(task) else task}-from-{data}" for task in transfer]
