"""The plan of a study: a YAML file with data sets, methods, seeds and sizes, and the runs that follow from it."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from distjudge_trl.errors import UserInputError, clipped, listing, nearest
from distjudge_trl.files.yaml import read_mapping
from distjudge_trl.methods import METHODS
from distjudge_trl.study.plan_file import PlanFile, PlannedMethod, PlannedPart, finding
from distjudge_trl.tasks import get_task, is_task_file


# Varied options that change what an untrained model does. It has neither a seed nor a training.
_READING = (
    *("model_name_or_path", "model_revision", "prompt_template", "max_length", "truncate"),
    *("split", "split_seed", "max_eval_samples"),
)


# Characters of data set and name; file systems take 255, and logs and locks have endings.
_LONGEST_NAME = 200


@dataclass(frozen=True)
class PlannedRun:
    """A run of a plan.

    Args:
        data (`str`): name of the data set in the plan.
        task (`str`): the data set's task: its name, or that of its YAML file with a digest of what the file says.
        method (`str`): name of the method in the plan.
        seed (`int`): of the training.
        vary (`dict`): the values of the varied options, without those that are `None`.
        parts (`tuple[str, ...]`): names of the parts that list it; a run that several list is made once.
        options (`dict`): all options of its recipe by name, but for the places of data and results.
        start (`str`, *optional*): full name of the run whose judge it trains further, in place of the plan's model.
    """

    data: str
    task: str
    method: str
    seed: int
    vary: Mapping[str, Any]
    parts: tuple[str, ...]
    options: Mapping[str, Any]
    start: str | None = None

    @property
    def is_trained(self) -> bool:
        return self.options["method"] != "raw"

    @property
    def name(self) -> str:
        """Its name among the runs of its data set."""
        varied = "".join(
            f"-{option.replace('_', '')}{re.sub(r'[^A-Za-z0-9_.+-]+', '-', str(value))}"
            for option, value in sorted(self.vary.items())
        )
        return f"{self.method}{varied}-seed{self.seed}"

    @property
    def full_name(self) -> str:
        """Data set and name: `--only` matches it, and the folder of its results has it."""
        return f"{self.data}/{self.name}"


@dataclass(frozen=True)
class Plan:
    """A plan.

    Args:
        content ([`PlanFile`]): what its file holds.
        folder (`Path`): the file's folder, from which paths of YAML tasks are read.
        given (`Mapping`): options of a command line, which come before the plan's; `None` leaves an option to the
            recipe.
    """

    content: PlanFile
    folder: Path = field(default_factory=Path)
    given: Mapping[str, Any] = field(default_factory=dict)

    def runs(self) -> list[PlannedRun]:
        """All runs, each once: in the order of the parts, and in a part seed by seed, so that a study that is stopped
        leaves whole comparisons.

        Raises:
            [`UserInputError`]: two parts give one run different options, an option of the command line is one that
                the runs differ in, or a run's name is too long for a folder.
        """
        found: dict[str, PlannedRun] = {}
        ordinal = {data for data in self.content.data if self._is_ordinal(data)}
        tasks = {data: self._task_text(data) for data in self.content.data}
        for part, content in self.content.runs.items():
            self._check_given(part, content)
            for run in self._of_part(part, content, tasks):
                if METHODS[run.options["method"]].ordinal and run.data not in ordinal:
                    continue
                before = found.get(run.full_name)
                if before is None:
                    _check_length(run)
                    found[run.full_name] = run
                    continue
                if dict(before.options) != dict(run.options):
                    if dict(before.vary) != dict(run.vary):
                        raise UserInputError(
                            f"Two runs would have the name {run.full_name}:"
                            f" {options_apart(before.options, run.options)}. Vary other values."
                        )
                    raise UserInputError(
                        f"The run {run.full_name} has other options in the part {part!r} than in {before.parts[0]!r}:"
                        f" {options_apart(before.options, run.options)}. Vary the option, or name another method."
                    )
                if part not in before.parts:
                    found[run.full_name] = replace(before, parts=(*before.parts, part))
        if not found:
            raise UserInputError("The plan has no runs: all its methods need labels with an order, which no task has.")
        for run in found.values():
            if run.start is not None and run.start not in found:
                raise UserInputError(
                    f"The run {run.full_name} starts from the judge of {run.start}, which no part of the plan makes."
                    " Add its data set, method and seed to a part."
                )
        return list(found.values())

    def _check_given(self, part: str, content: PlannedPart) -> None:
        own = {name: self.content.methods[name].options for name in content.methods if name in self.content.methods}
        for place, options in ((f"the part {part!r} varies", content.vary), *_setting(own)):
            for name in self.given:
                if name in options:
                    raise UserInputError(f"--{name} cannot be given: {place} it. Change the plan.")

    def _of_part(self, part: str, content: PlannedPart, tasks: Mapping[str, str]) -> Iterator[PlannedRun]:
        varied = [dict(zip(content.vary, values, strict=True)) for values in itertools.product(*content.vary.values())]
        for data, seed in itertools.product(content.data, content.seeds):
            for method, values in itertools.product(content.methods, varied):
                own = self.content.methods.get(method, PlannedMethod(method=method))
                values = {name: value for name, value in values.items() if value is not None}
                if own.method == "raw":
                    if seed != content.seeds[0]:
                        continue
                    values = {name: value for name, value in values.items() if name in _READING}
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
                run = PlannedRun(data, tasks[data], method, seed, values, (part,), options)
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

    def _is_ordinal(self, data: str) -> bool:
        """Whether the labels of a data set have an order."""
        options = {**self.content.options, **self.content.data[data].options, **self.given}
        question = options.get("question")
        return get_task(self.task(data)).choose(str(question) if question is not None else None).ordinal

    def _task_text(self, data: str) -> str:
        path = self.task(data)
        if not is_task_file(path):
            return path
        # A comment or the description changes no result.
        content = {key: value for key, value in read_mapping(path, "is no task.").items() if key != "description"}
        digest = hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()
        return f"{Path(path).name} {digest[:12]}"

    def tests_elsewhere(self, run: PlannedRun) -> list[str]:
        """The other tasks that a run is tested on. Tables compare judges without varied options there."""
        return [] if run.vary else list(self.content.data[run.data].transfer)

    def method_title(self, method: str) -> str:
        """How tables call a method."""
        own = self.content.methods.get(method)
        return own.title if own is not None and own.title else method

    def data_title(self, data: str) -> str:
        """How tables call a data set."""
        return self.content.data[data].title or data


def _check_length(run: PlannedRun) -> None:
    if len(run.full_name) > _LONGEST_NAME:
        raise UserInputError(
            f"The name of a run would be too long for a folder: {clipped(run.full_name)}. Choose shorter names or, in"
            " place of long values in `vary`, methods with options."
        )


def _setting(methods: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for name, options in methods.items():
        yield f"the method {name!r} sets", options


def read_plan(path: str | Path) -> Plan:
    """Read and check a plan file.

    Raises:
        [`UserInputError`]: the file cannot be read; a key or a type is wrong; a part names a data set, a method or a
            task that does not exist. The message names the file and the key.
    """
    path = Path(path)
    content = read_mapping(
        path, "is not a plan: it has to hold the keys model, data and runs (see docs/reproduce.md)."
    )
    if {"labels", "template"} & set(content):
        raise UserInputError(f"{path}: is a task, and not a plan, which lists it under `data` (docs/reproduce.md).")
    try:
        plan = Plan(PlanFile.model_validate(content), path.parent)
    except ValidationError as error:
        raise UserInputError(f"{path}: {finding(error)}") from None
    check_plan(plan, f"{path}: ")
    return plan


def check_plan(plan: Plan, place: str = "") -> None:
    """Check that everything which a plan names exists.

    Args:
        plan ([`Plan`]): the plan.
        place (`str`): what messages begin with.

    Raises:
        [`UserInputError`]: a part names a data set, a method or a task that does not exist.
    """
    content = plan.content
    for part, entry in content.runs.items():
        _check_names(f"{place}`runs.{part}.data`", entry.data, content.data)
        _check_names(f"{place}`runs.{part}.methods`", entry.methods, {**METHODS, **content.methods})
    for name, method in content.methods.items():
        if name in METHODS:
            raise UserInputError(f"{place}`methods.{name}`: is a method of the recipes. Choose another name.")
        _check_names(f"{place}`methods.{name}.method`", [method.method], METHODS)
    for data, planned in content.data.items():
        if (start := planned.start) is not None:
            where = f"{place}`data.{data}.start_from`"
            _check_names(where, [start.data], content.data)
            _check_names(where, [start.method] if start.method else [], {**METHODS, **content.methods})
            if content.data[start.data].start is not None:
                raise UserInputError(
                    f"{where}: {start.data!r} starts from another judge itself. Name a data set whose judges start"
                    " from the plan's model."
                )
        if data == "report":
            raise UserInputError(f"{place}`data.{data}`: the report's folder has this name. Choose another one.")
        taken = [name for other, entry in content.data.items() for name in transfer_names(entry.transfer, other)]
        if data in taken:
            raise UserInputError(f"{place}`data.{data}`: results of a transfer have this name. Choose another one.")
        for name in (planned.task, *planned.transfer):
            try:
                get_task(plan.find_task(name))
            except UserInputError as error:
                raise UserInputError(f"{place}`data.{data}`: {error}") from None


def transfer_names(transfer: Mapping[str, Any], data: str) -> list[str]:
    """What results of a data set's judges on other tasks are called: a folder each."""
    return [f"{Path(task).stem if is_task_file(task) else task}-from-{data}" for task in transfer]


def _check_names(place: str, names: list[str], known: Mapping[str, Any]) -> None:
    for name in names:
        if name not in known:
            close = nearest(name, known)
            hint = f" Did you mean {close!r}?" if close else ""
            raise UserInputError(f"{place}: there is no {name!r}.{hint} There are: {listing(known)}.")


def options_apart(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """The options in which two runs differ, as text."""
    names = [name for name in dict.fromkeys((*one, *other)) if one.get(name) != other.get(name)]
    return ", ".join(f"{name} {one.get(name, 'unset')} and {other.get(name, 'unset')}" for name in names)
