"""From the settings of a sweep to its definition: points, launches, and the recipe's preflight."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from distjudge_trl.errors import RunFailedError, UserInputError
from distjudge_trl.files.atomic import read_json, write_json
from distjudge_trl.files.shipped_files import find_shipped
from distjudge_trl.methods import METHODS
from distjudge_trl.recipe import PREFLIGHT
from distjudge_trl.recipe.loading import load_recipe
from distjudge_trl.recipe.parsing import find_option, option_tokens
from distjudge_trl.recipe.preflight import ANSWER_NAME, REQUEST_NAME, option_names
from distjudge_trl.runtime.dates import TODAY
from distjudge_trl.runtime.devices import device_count, seeing, visible_devices
from distjudge_trl.runtime.launches import check_launch, count_processes, read_accelerate_config
from distjudge_trl.runtime.threads import cores_per_process
from distjudge_trl.sweep.definition import Definition, find_parameters
from distjudge_trl.sweep.devices import reserved_devices
from distjudge_trl.sweep.process import Launch
from distjudge_trl.sweep.settings import SweepSettings
from distjudge_trl.sweep.space import Parameter, Scalar, check_distinct, draw, grid, make_parameter
from distjudge_trl.sweep.worker import PRUNING_OPTIONS
from distjudge_trl.tasks import get_task


_DEFAULT_TRIALS = 20


class Checked(NamedTuple):
    """A sweep that the recipe accepts.

    Args:
        definition ([`Definition`]): the sweep.
        num_train, num_scored (`int`): numbers of training and of validation items.
        data_path (`str`, *optional*): where this machine read them.
        data (`Path`): the folder that they were saved in for all runs.
    """

    definition: Definition
    num_train: int
    num_scored: int
    data_path: str | None
    data: Path


def default_study(settings: SweepSettings, script: Path) -> str:
    """The name of a study that is given none: the recipe's; of a recipe for any task the task's."""
    name = find_option("task", settings.recipe_arguments, settings.options)
    if load_recipe(script).task is not None or name is None:
        return script.stem
    question = find_option("question", settings.recipe_arguments, settings.options)
    return get_task(str(name)).choose(question).name


def make_points(settings: SweepSettings, parameters: Sequence[Parameter]) -> Sequence[dict[str, Scalar]]:
    """The configurations of a sweep. The sampler chooses the values of an empty one when its trial begins."""
    if settings.sampler == "tpe":
        return [{}] * (settings.trials or _DEFAULT_TRIALS)
    if settings.sampler == "grid" and settings.trials is None:
        return grid(parameters)
    return draw(parameters, settings.trials or _DEFAULT_TRIALS, settings.sampler_seed)


def find_trial_parameters(settings: SweepSettings, script: Path) -> tuple[Parameter, ...]:
    """The parameters that are given, or the recipe's own grid without what the method fixes."""
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


def make_launches(settings: SweepSettings, script: Path, held: contextlib.ExitStack) -> list[Launch]:
    """A launch for every job, each with its own GPUs, which stay reserved until `held` is closed."""
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
    # accelerate starts one process for MULTI_CPU, which needs no port.
    several = str(content.get("distributed_type", "NO")).upper() not in ("NO", "MULTI_CPU")
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


def check_recipe(
    settings: SweepSettings,
    script: Path,
    parameters: Sequence[Parameter],
    metric: str,
    save: Path,
    launch: Launch,
    day: str,
) -> Checked:
    """Let the recipe check all values and read the data.

    Args:
        settings ([`SweepSettings`]): the settings of the sweep.
        script (`Path`): the recipe's script.
        parameters (`Sequence[Parameter]`): the options that are swept, as the user wrote them.
        metric (`str`): the metric that ranks configurations.
        save (`Path`): a folder for the records and their token ids.
        launch ([`Launch`]): how every run is started.
        day (`str`): what all runs take for today.

    Raises:
        [`UserInputError`]: the recipe does not accept a value, or something is wrong with the data.
        [`RunFailedError`]: the recipe failed for another reason.
    """
    load_recipe(script)
    answer = _preflight(settings, script, parameters, save, launch.devices, day)
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
        day=day,
    )
    return Checked(definition, answer["num_train"], answer["num_scored"], data_path, Path(answer["data"]))


def _preflight(
    settings: SweepSettings,
    script: Path,
    parameters: Sequence[Parameter],
    save: Path,
    devices: Sequence[str],
    day: str,
) -> dict[str, Any]:
    """The answer of `recipe.preflight`. The script runs as a trial would run it, in another process: it may take GPU
    memory, and what it sees are the sweep's GPUs.
    """
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
            env={**seeing(devices), PREFLIGHT: folder, TODAY: day},
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
    """The parameters, with values as the recipe reads them."""
    typed = []
    for parameter in parameters:
        values = tuple(answered[parameter.name])
        # A value that the recipe turns into a list is passed on as it was written.
        if not parameter.is_range and not any(isinstance(value, list | dict) for value in values):
            parameter = Parameter(parameter.name, check_distinct(parameter.name, values))
        typed.append(parameter)
    return tuple(typed)
