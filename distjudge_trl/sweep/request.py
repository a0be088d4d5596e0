"""What a sweep is asked for, and the recipe's own answer to it."""

from __future__ import annotations

import contextlib
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from distjudge_trl.errors import RunFailedError, UserInputError, first_line
from distjudge_trl.files.atomic import read_json, write_json
from distjudge_trl.files.shipped_files import find_shipped
from distjudge_trl.methods import METHODS
from distjudge_trl.recipe import PREPARE, Recipe
from distjudge_trl.recipe.preflight import ANSWER_NAME, REQUEST_NAME, option_names
from distjudge_trl.runtime.devices import device_count, seeing, visible_devices
from distjudge_trl.runtime.launches import check_launch, count_processes, read_accelerate_config
from distjudge_trl.runtime.threads import cores_per_process
from distjudge_trl.sweep.definition import Definition, Sampler, find_parameters, option_tokens
from distjudge_trl.sweep.devices import reserved_devices
from distjudge_trl.sweep.process import Launch
from distjudge_trl.sweep.space import Parameter, Scalar, check_distinct, draw, grid, make_parameter
from distjudge_trl.sweep.worker import PRUNING_OPTIONS


_DEFAULT_TRIALS = 20


@dataclass(frozen=True)
class SweepSettings:
    """What is asked for; see `distjudge-trl sweep --help`."""

    recipe: str
    params: Sequence[str] = ()
    parameters: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    recipe_arguments: Sequence[str] = ()
    sampler: Sampler = "grid"
    sampler_seed: int = 0
    trials: int | None = None
    seeds: int = 1
    metric: str = "eval_kl"
    method: str | None = None
    pruner: str = "none"
    study: str | None = None
    storage: str | None = None
    out: str | None = None
    jobs: int = 1
    gpus_per_trial: int | None = None
    accelerate_config: str | None = None
    num_processes: int | None = None
    retries: int = 2
    keep: int = 1
    heartbeat: int = 60
    retry_failed: bool = False
    dry_run: bool = False


class Asked(NamedTuple):
    """What a recipe answers to `prepare`."""

    definition: Definition
    num_train: int
    num_scored: int
    data_path: str | None
    data: Path


def make_points(settings: SweepSettings, parameters: Sequence[Parameter]) -> Sequence[dict[str, Scalar]]:
    """The configurations of a sweep; an empty one is chosen when its trial begins."""
    if settings.sampler == "tpe":
        return [{}] * (settings.trials or _DEFAULT_TRIALS)
    if settings.sampler == "grid" and settings.trials is None:
        return grid(parameters)
    return draw(parameters, settings.trials or _DEFAULT_TRIALS, settings.sampler_seed)


def find_trial_parameters(settings: SweepSettings, script: Path) -> tuple[Parameter, ...]:
    """Those that are given, or the recipe's own grid, but for what the method sets itself."""
    methods = [name.strip() for name in settings.method.split(",")] if settings.method else []
    for name in methods:
        if name not in METHODS or name == "raw":
            trained = ", ".join(method for method in METHODS if method != "raw")
            raise UserInputError(f"--method {name}: choose of {trained}; several with commas between.")
    found = find_parameters(settings.params, settings.parameters)
    if not found and not (settings.params or settings.parameters):
        fixed = {name for method in methods for name in METHODS[method].fixed}
        if any(METHODS[method].fixed.get("adversary") == "none" for method in methods):
            fixed.add("perturbation_radius")
        own = load_recipe(script).grid
        found = tuple(make_parameter(name, list(values)) for name, values in own.items() if name not in fixed)
    if len(methods) > 1:
        if any(parameter.name == "method" for parameter in found):
            raise UserInputError("--method and --param method are the same: give one of them.")
        found = (make_parameter("method", methods), *found)
    if not found or settings.sampler == "grid":
        grid(found)
    return found


def load_recipe(script: Path) -> Recipe:
    """What a recipe's script defines.

    Raises:
        [`UserInputError`]: it is no recipe.
    """
    try:
        found = runpy.run_path(str(script)).get("RECIPE")
    except Exception as error:  # noqa: BLE001 (a script may raise anything)
        raise UserInputError(f"{script}: cannot be run ({type(error).__name__}: {first_line(error)}).") from None
    if not isinstance(found, Recipe):
        raise UserInputError(f"{script}: is no recipe: it has no RECIPE = Recipe(...). See recipes/vader.py.")
    return found


def make_launches(settings: SweepSettings, script: Path, held: contextlib.ExitStack) -> list[Launch]:
    """One a job, each with GPUs of its own, which are `held` for the time of the sweep."""
    there = device_count()
    per_trial = settings.gpus_per_trial or (1 if there else 0)
    if per_trial * settings.jobs > there:
        jobs = f"{settings.jobs} jobs with " if settings.jobs > 1 else ""
        raise UserInputError(
            f"{jobs}{per_trial} GPU{'s' if per_trial > 1 else ''} a trial: this machine has {there or 'none'}. Give"
            " --jobs and --gpus-per-trial that fit."
        )
    name = settings.accelerate_config or ("cpu" if not there else "single_gpu" if per_trial == 1 else "multi_gpu")
    config = find_shipped(name, "accelerate_configs", ".yaml", "accelerate config")
    content = read_accelerate_config(config)
    if int(content.get("num_machines") or 1) > 1:
        raise UserInputError(
            f"{config.stem} is for several machines, and a trial runs on one: start `distjudge-trl sweep` with the"
            " same --storage on each of them."
        )
    several = str(content.get("distributed_type", "NO")).upper() != "NO"
    processes = settings.num_processes or (per_trial if several and per_trial else None)
    if per_trial and (processes or 1) > per_trial:
        raise UserInputError(
            f"--num-processes {processes} needs as many GPUs: give --gpus-per-trial {processes}, or fewer processes."
        )
    check_launch(config, processes)
    threads = None
    if (several or settings.jobs > 1) and "OMP_NUM_THREADS" not in os.environ:
        threads = cores_per_process(settings.jobs * (processes or count_processes(content, config)))
    devices = visible_devices(there)
    if per_trial and not settings.dry_run:
        devices = held.enter_context(reserved_devices(devices, settings.jobs * per_trial))
    return [
        Launch(
            script,
            config,
            processes,
            tuple(devices[job * per_trial : (job + 1) * per_trial]),
            threads,
            several,
        )
        for job in range(settings.jobs)
    ]


def ask(
    settings: SweepSettings, script: Path, parameters: Sequence[Parameter], metric: str, save: Path, launch: Launch
) -> Asked:
    """Let the recipe check all values and read the data.

    Args:
        settings ([`SweepSettings`]): what is asked for.
        script (`Path`): the recipe's.
        parameters (`Sequence[Parameter]`): what is swept, as it was written.
        metric (`str`): what chooses.
        save (`Path`): a folder for the records and their token ids.
        launch ([`Launch`]): how every run is started.

    Raises:
        [`UserInputError`]: a value that the recipe does not take, or anything wrong with the data.
        [`RunFailedError`]: the recipe ended otherwise.
    """
    load_recipe(script)
    answer = _answer(settings, script, parameters, save, launch.devices)
    options = {name: value for name, value in answer["options"].items() if name not in ("score_on", "seed")}
    typed = _typed(parameters, answer["parameters"])
    for parameter in typed:
        if parameter.name in options:
            raise UserInputError(f"--{parameter.name} is swept and given: drop one of them.")
    first = int(answer["options"].get("seed", 42))
    data_path = options.pop("data_path", None)
    content = read_accelerate_config(launch.config)
    stage = (content.get("deepspeed_config") or {}).get("zero_stage", "")
    definition = Definition(
        recipe=script.stem,
        task=str(options.get("task") or answer["task"]),
        parameters=typed,
        options=options,
        sampler=settings.sampler,
        sampler_seed=settings.sampler_seed,
        pruner=settings.pruner,
        metric=metric,
        seeds=tuple(range(first, first + settings.seeds)),
        train_fingerprint=answer["train_fingerprint"],
        scored_fingerprint=answer["scored_fingerprint"],
        defaults=answer["defaults"],
        precision=answer["precision"],
        processes=launch.num_processes or count_processes(content, launch.config),
        sharding=f"{content.get('distributed_type', 'NO')}{stage}",
        heartbeat=settings.heartbeat,
        data_path=data_path,
    )
    return Asked(definition, answer["num_train"], answer["num_scored"], data_path, Path(answer["data"]))


def _answer(
    settings: SweepSettings, script: Path, parameters: Sequence[Parameter], save: Path, devices: Sequence[str]
) -> dict[str, Any]:
    """The recipe's answer to `prepare`, in a process of its own: it would take GPU memory (of the sweep's GPUs)."""
    words = [*option_tokens(settings.options), *settings.recipe_arguments]
    if settings.method and "," not in settings.method:
        words += ["--method", settings.method]
    extra = ["--score_on", "validation"]
    if settings.pruner != "none" and "eval_strategy" not in option_names(words):
        extra += PRUNING_OPTIONS
    has_range = any(parameter.is_range for parameter in parameters)
    request = {
        "options": words,
        "extra": extra,
        "parameters": {parameter.name: list(parameter.ends) for parameter in parameters},
        "points": [] if has_range else make_points(settings, parameters),
        "save": str(save.resolve()),
    }
    with tempfile.TemporaryDirectory() as folder:
        write_json(Path(folder, REQUEST_NAME), request)
        done = subprocess.run(
            [sys.executable, str(script)],
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env={**seeing(devices), PREPARE: folder},
        )
        if done.returncode:
            lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
            if done.returncode == 2 and lines:
                raise UserInputError(lines[-1].removeprefix("error: "))
            raise RunFailedError(f"{script} cannot be prepared:\n{done.stderr[-3000:]}")
        answer = read_json(Path(folder, ANSWER_NAME))
    if not answer:
        raise UserInputError(f"{script}: does not call RECIPE.main(), or not with its command line alone.")
    return answer


def _typed(parameters: Sequence[Parameter], answered: dict[str, Sequence[Any]]) -> tuple[Parameter, ...]:
    """Parameters with their values as the recipe reads them."""
    typed = []
    for parameter in parameters:
        values = tuple(answered[parameter.name])
        # What the recipe makes a list of is passed on as it was written.
        if not parameter.is_range and not any(isinstance(value, list | dict) for value in values):
            parameter = Parameter(parameter.name, check_distinct(parameter.name, values))
        typed.append(parameter)
    return tuple(typed)
