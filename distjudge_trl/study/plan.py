"""The plan of a study: a YAML file with data sets, methods, seeds and sizes, and the runs that follow from it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from distjudge_trl.errors import UserInputError, listing, nearest
from distjudge_trl.files.yaml import read_mapping
from distjudge_trl.methods import METHODS
from distjudge_trl.tasks import get_task


_Options = dict[str, bool | int | float | str | list[bool | int | float | str] | None]
_Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
_Names = Annotated[list[_Name], Field(min_length=1)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class PlannedData(_Part):
    """A data set: its task (a name or a YAML file beside the plan), its files below `--data-root`, options of all its
    runs, and the tasks that its judges are tested on besides (`transfer`: task to files).
    """

    task: str
    path: str | None = None
    title: str | None = None
    options: _Options = {}
    transfer: dict[_Name, str | None] = {}


class PlannedMethod(_Part):
    """A method under its own name: a method of the recipes with other options."""

    method: str
    title: str | None = None
    options: _Options = {}


class PlannedPart(_Part):
    """Runs: every method on every data set, for every seed and every combination of the values in `vary`. Methods for
    ordered labels are left out where labels have no order, and an untrained model is tested once.
    """

    data: _Names
    methods: _Names
    seeds: Annotated[list[int], Field(min_length=1)] = [0]
    vary: dict[str, Annotated[list[bool | int | float | str | None], Field(min_length=1)]] = {}
    options: _Options = {}


class PlanFile(_Part):
    """What a plan file holds."""

    model: str | None = None
    options: _Options = {}
    data: Annotated[dict[_Name, PlannedData], Field(min_length=1)]
    methods: dict[_Name, PlannedMethod] = {}
    runs: Annotated[dict[_Name, PlannedPart], Field(min_length=1)]


@dataclass(frozen=True)
class PlannedRun:
    """A run of a plan.

    Args:
        data (`str`): name of the data set in the plan.
        method (`str`): name of the method in the plan.
        seed (`int`): of the training.
        vary (`dict`): the values of the varied options, without those that are `None`.
        parts (`tuple[str, ...]`): names of the parts that list it; a run that several list is made once.
        options (`dict`): all options of its recipe by name, but for the places of data and results.
    """

    data: str
    method: str
    seed: int
    vary: Mapping[str, Any]
    parts: tuple[str, ...]
    options: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Its name among the runs of its data set."""
        varied = "".join(f"-{option.replace('_', '')}{value}" for option, value in sorted(self.vary.items()))
        return f"{self.method}{varied}-seed{self.seed}"

    @property
    def full_name(self) -> str:
        """Data set and name: `--only` matches it, and the folder of its results has it."""
        return f"{self.data}/{self.name}"


@dataclass(frozen=True)
class Plan:
    """A plan: what its file holds, and the file's folder, from which paths of YAML tasks are read."""

    content: PlanFile
    folder: Path = field(default_factory=Path)

    def runs(self) -> list[PlannedRun]:
        """All runs, each once: in the order of the parts, and in a part seed by seed, so that a study that is stopped
        leaves whole comparisons.

        Raises:
            [`UserInputError`]: two parts give one run different options.
        """
        found: dict[str, PlannedRun] = {}
        for part, content in self.content.runs.items():
            for run in self._of_part(part, content):
                before = found.get(run.full_name)
                if before is None:
                    found[run.full_name] = run
                    continue
                if dict(before.options) != dict(run.options):
                    raise UserInputError(
                        f"The run {run.full_name} has other options in the part {part!r} than in {before.parts[0]!r}:"
                        f" {options_apart(before.options, run.options)}. Vary the option, or name another method."
                    )
                found[run.full_name] = PlannedRun(
                    run.data, run.method, run.seed, run.vary, (*before.parts, part), run.options
                )
        return list(found.values())

    def _of_part(self, part: str, content: PlannedPart) -> Iterator[PlannedRun]:
        varied = [dict(zip(content.vary, values, strict=True)) for values in itertools.product(*content.vary.values())]
        for data, seed in itertools.product(content.data, content.seeds):
            for method, values in itertools.product(content.methods, varied):
                own = self.content.methods.get(method, PlannedMethod(method=method))
                if METHODS[own.method].ordinal and not self._is_ordinal(data):
                    continue
                if own.method == "raw" and (seed != content.seeds[0] or values != varied[0]):
                    continue  # an untrained model has neither
                values = {} if own.method == "raw" else {k: v for k, v in values.items() if v is not None}
                options = {
                    "model_name_or_path": self.content.model,  # without one, that of the recipe
                    **self.content.options,
                    **self.content.data[data].options,
                    **content.options,
                    **own.options,
                    **values,
                    "method": own.method,
                    "seed": seed,
                }
                options = {name: value for name, value in options.items() if value is not None}
                yield PlannedRun(data, method, seed, values, (part,), options)

    def task(self, data: str) -> str:
        """Name of a data set's task, or the path of its YAML file."""
        name = self.content.data[data].task
        return str(self.folder / name) if name.endswith((".yaml", ".yml")) else name

    def _is_ordinal(self, data: str) -> bool:
        """Whether the labels of a data set have an order."""
        options = {**self.content.options, **self.content.data[data].options}
        task = str(options["task"]) if self.task(data) == "custom" and "task" in options else self.task(data)
        question = options.get("question")
        return get_task(task).choose(str(question) if question is not None else None).ordinal

    def method_title(self, method: str) -> str:
        """How tables call a method."""
        own = self.content.methods.get(method)
        return own.title if own is not None and own.title else method

    def data_title(self, data: str) -> str:
        """How tables call a data set."""
        return self.content.data[data].title or data


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
    try:
        plan = Plan(PlanFile.model_validate(content), path.parent)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise UserInputError(f"{path}: `{where}`: {first['msg'][0].lower()}{first['msg'][1:]}.") from None
    for part, entry in plan.content.runs.items():
        _check_names(path, f"runs.{part}.data", entry.data, plan.content.data)
        _check_names(path, f"runs.{part}.methods", entry.methods, {**METHODS, **plan.content.methods})
        for taken in {"method", "seed"} & {*entry.vary, *entry.options}:
            raise UserInputError(f"{path}: `runs.{part}`: give {taken} as `{taken}s`, and not as an option.")
    for name, method in plan.content.methods.items():
        if name in METHODS:
            raise UserInputError(f"{path}: `methods.{name}`: is a method of the recipes. Choose another name.")
        _check_names(path, f"methods.{name}.method", [method.method], METHODS)
    for data, planned in plan.content.data.items():
        try:
            get_task(plan.task(data))
            for task in planned.transfer:
                get_task(task)
        except UserInputError as error:
            raise UserInputError(f"{path}: `data.{data}`: {error}") from None
    return plan


def _check_names(path: Path, where: str, names: list[str], known: Mapping[str, Any]) -> None:
    for name in names:
        if name not in known:
            close = nearest(name, known)
            hint = f" Did you mean {close!r}?" if close else ""
            raise UserInputError(f"{path}: `{where}`: there is no {name!r}.{hint} There are: {listing(known)}.")


def options_apart(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """The options in which two runs differ, as text."""
    names = [name for name in dict.fromkeys((*one, *other)) if one.get(name) != other.get(name)]
    return ", ".join(f"{name} {one.get(name, 'unset')} and {other.get(name, 'unset')}" for name in names)
