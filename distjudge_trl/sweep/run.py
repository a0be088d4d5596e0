"""A sweep from its start to the winner's score: all is checked first, then workers run until nothing is left."""

from __future__ import annotations

import contextlib
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from distjudge_trl.atomic import check_folder, write_json
from distjudge_trl.errors import RunFailedError, UserInputError, first_line
from distjudge_trl.launch import check_launch, device_count, read_accelerate_config
from distjudge_trl.prepare import ANSWER_NAME, REQUEST_NAME, option_names
from distjudge_trl.recipe import METHODS, PREPARE, Recipe
from distjudge_trl.shipped import find_shipped
from distjudge_trl.supervised import read_json
from distjudge_trl.sweep.backends import losing, open_storage
from distjudge_trl.sweep.best import score_best
from distjudge_trl.sweep.definition import Definition, Sampler, find_metric, find_parameters, option_tokens
from distjudge_trl.sweep.process import Launch, reserved_devices
from distjudge_trl.sweep.space import Parameter, Scalar, check_distinct, draw, grid, make_parameter
from distjudge_trl.sweep.store import Store
from distjudge_trl.sweep.table import failures, make_table, ranked, read_rows, summary, write_trials
from distjudge_trl.sweep.worker import PRUNING_OPTIONS, Worker


_SHOWN = 5  # of the best, in the live table
_SECONDS_BETWEEN_TABLES = 1.0
_DEFAULT_TRIALS = 20
DATA_NAME = "data"


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


class _Asked(NamedTuple):
    """What a recipe answers to `prepare`."""

    definition: Definition
    num_train: int
    num_scored: int
    data_path: str | None
    data: Path


def run_sweep(settings: SweepSettings, console: Console) -> int:
    """Run or go on with a sweep; the exit code: 0, or 128 and the signal that stopped it.

    Raises:
        [`UserInputError`]: anything wrong with what is asked for, before any trial starts.
        [`RunFailedError`]: a configuration failed, the winner could not be tested, or the storage was lost.
    """
    script = find_shipped(settings.recipe, "recipes", ".py", "recipe")
    metric = find_metric(settings.metric)
    parameters = _find_parameters(settings, script)
    study = settings.study or script.stem
    out = Path(settings.out or f"runs/sweeps/{study}")
    with contextlib.ExitStack() as held:
        launches = _make_launches(settings, script, held)
        save = out / DATA_NAME
        if settings.dry_run:
            save = Path(held.enter_context(tempfile.TemporaryDirectory()))
        else:
            check_folder(out, "--out")
            # A server that is away is told at once; a file is made when all else is well.
            if settings.storage is not None and "://" in settings.storage:
                open_storage(settings.storage, out, settings.heartbeat)
        console.print(f"Checking the recipe and its data: {script}", highlight=False)
        asked = _ask(settings, script, parameters, metric, save, launches[0])
        definition = asked.definition
        points = _points(settings, definition.parameters, definition.sampler_seed)
        if settings.dry_run:
            for point in points:
                words = option_tokens({**definition.options, **point})
                line = " ".join(launches[0].command(words))
                console.print(line, soft_wrap=True, highlight=False, markup=False)
            return 0
        store = Store(settings.storage, out, study, retries=settings.retries, heartbeat=settings.heartbeat)
        planned = store.make(definition, points)
        console.print(
            f"Study {study!r} in {store.shown}: {planned} configurations, {len(definition.seeds)} seed(s) each;"
            f" {asked.num_train} training items, chosen by {metric} on {asked.num_scored} validation items.",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
        if settings.retry_failed:
            console.print(f"{store.retry_failed()} configurations that failed are tried again.", highlight=False)
        with losing(store.shown):
            stopped = _work(settings, store, asked, launches, console)
            rows = read_rows(store, definition)
            write_trials(store, definition)
    if stopped is not None:
        console.print("Stopped. The same command goes on where it was.")
        return 128 + stopped
    failed = failures(rows)
    done = ranked(rows, definition)
    if done:
        console.print(make_table(done[:10], definition, ranks=True))
        score_best(store, definition, asked.data_path, lambda line: console.out(line, highlight=False))
    if failed:
        for line in failed:
            console.print(line, markup=False, highlight=False, soft_wrap=True)
        where = [str(out)] if settings.storage is None else ["--study", study, "--storage", store.shown]
        raise RunFailedError(
            f"{len(failed)} of {len(rows)} configurations failed. `distjudge-trl sweep show {' '.join(where)} --log"
            " TRIAL` prints the end of a trial's log, --retry-failed tries them again."
        )
    return 0


def _points(
    settings: SweepSettings, parameters: Sequence[Parameter], sampler_seed: int
) -> Sequence[dict[str, Scalar]]:
    """The configurations of a sweep; an empty one is chosen when its trial begins."""
    if settings.sampler == "tpe":
        return [{}] * (settings.trials or _DEFAULT_TRIALS)
    if settings.sampler == "grid" and settings.trials is None:
        return grid(parameters)
    return draw(parameters, settings.trials or _DEFAULT_TRIALS, sampler_seed)


# What is asked for


def _find_parameters(settings: SweepSettings, script: Path) -> tuple[Parameter, ...]:
    """Those that are given, or the recipe's own grid, but for what the method sets itself."""
    methods = [name.strip() for name in settings.method.split(",")] if settings.method else []
    for name in methods:
        if name not in METHODS or name == "raw":
            trained = ", ".join(method for method in METHODS if method != "raw")
            raise UserInputError(f"--method {name}: choose of {trained}; several with commas between.")
    found = find_parameters(settings.params, settings.parameters)
    if not found and not (settings.params or settings.parameters):
        fixed = {name for method in methods for name in METHODS[method]}
        if any(METHODS[method].get("adversary") == "none" for method in methods):
            fixed.add("perturbation_radius")
        own = _load_recipe(script).grid
        found = tuple(make_parameter(name, list(values)) for name, values in own.items() if name not in fixed)
    if len(methods) > 1:
        if any(parameter.name == "method" for parameter in found):
            raise UserInputError("--method and --param method are the same: give one of them.")
        found = (make_parameter("method", methods), *found)
    if not found or settings.sampler == "grid":
        grid(found)
    return found


def _load_recipe(script: Path) -> Recipe:
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


def _make_launches(settings: SweepSettings, script: Path, held: contextlib.ExitStack) -> list[Launch]:
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
    if not there and (several or settings.jobs > 1):
        ways = settings.jobs * (processes or int(content.get("num_processes") or 1))
        threads = max(1, len(os.sched_getaffinity(0)) // ways)
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    devices = [name.strip() for name in visible.split(",")] if visible else [str(i) for i in range(there)]
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


def _ask(
    settings: SweepSettings, script: Path, parameters: Sequence[Parameter], metric: str, save: Path, launch: Launch
) -> _Asked:
    """Let the recipe itself check all values and read the data, in a process of its own: it would take GPU memory."""
    _load_recipe(script)
    words = [*option_tokens(settings.options), *settings.recipe_arguments]
    if settings.method and "," not in settings.method:
        words += ["--method", settings.method]
    extra = ["--score_on", "validation"]
    if settings.pruner != "none" and "eval_strategy" not in option_names(words):
        extra += PRUNING_OPTIONS
    with tempfile.TemporaryDirectory() as folder:
        ends = {parameter.name: list(parameter.ends) for parameter in parameters}
        points = [] if any(p.is_range for p in parameters) else _points(settings, parameters, settings.sampler_seed)
        request = {"options": words, "extra": extra, "parameters": ends, "points": points}
        request["save"] = str(save.resolve())
        write_json(Path(folder, REQUEST_NAME), request)
        done = subprocess.run(
            [sys.executable, str(script)],
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env={**os.environ, PREPARE: folder},
        )
        if done.returncode:
            lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
            if done.returncode == 2 and lines:
                raise UserInputError(lines[-1].removeprefix("error: "))
            raise RunFailedError(f"{script} cannot be prepared:\n{done.stderr[-3000:]}")
        answer = read_json(Path(folder, ANSWER_NAME))
        if not answer:
            raise UserInputError(f"{script}: does not call RECIPE.main(), or not with its command line alone.")
    typed = []
    for parameter in parameters:
        values = tuple(answer["parameters"][parameter.name])
        # What the recipe makes a list of is passed on as it was written.
        if not parameter.is_range and not any(isinstance(value, list | dict) for value in values):
            parameter = Parameter(parameter.name, check_distinct(parameter.name, values))
        typed.append(parameter)
    options = {name: value for name, value in answer["options"].items() if name not in ("score_on", "seed")}
    content = read_accelerate_config(launch.config)
    processes = launch.num_processes or int(content.get("num_processes") or 1)
    stage = (content.get("deepspeed_config") or {}).get("zero_stage", "")
    for parameter in typed:
        if parameter.name in options:
            raise UserInputError(f"--{parameter.name} is swept and given: drop one of them.")
    first = int(answer["options"].get("seed", 42))
    data_path = options.pop("data_path", None)
    definition = Definition(
        recipe=script.stem,
        task=str(options.get("task") or answer["task"]),
        parameters=tuple(typed),
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
        processes=processes,
        sharding=f"{content.get('distributed_type', 'NO')}{stage}",
        heartbeat=settings.heartbeat,
        data_path=data_path,
    )
    return _Asked(definition, answer["num_train"], answer["num_scored"], data_path, Path(answer["data"]))


# Work


def _work(
    settings: SweepSettings, store: Store, asked: _Asked, launches: Sequence[Launch], console: Console
) -> int | None:
    """Run the workers to their end; the number of the signal that stopped them, if one did."""
    stop, signals = threading.Event(), []
    lock = threading.Lock()
    errors: list[BaseException] = []
    live = console.is_terminal

    def say(line: str) -> None:
        console.print(f"{time.strftime('%H:%M:%S')} {line}", highlight=False, markup=False, soft_wrap=True)

    def updated() -> None:
        with lock:
            write_trials(store, asked.definition)
            if not live:
                say(summary(read_rows(store, asked.definition), asked.definition))

    def work(launch: Launch) -> None:
        try:
            Worker(
                store,
                asked.definition,
                launch,
                data=asked.data,
                data_path=asked.data_path,
                keep=settings.keep,
                stop=stop,
                say=say,
                updated=updated,
            ).work()
        except BaseException as error:  # noqa: BLE001 (raised by the main thread)
            errors.append(error)
            stop.set()

    def on_signal(number: int, _frame: Any) -> None:
        signals.append(number)
        stop.set()

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    threads = [threading.Thread(target=work, args=(launch,)) for launch in launches]
    try:
        for thread in threads:
            thread.start()
        if live:
            _show(store, asked.definition, threads, console)
        for thread in threads:
            while thread.is_alive():
                thread.join(0.2)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        for number, handler in before.items():
            signal.signal(number, handler)
    for error in errors[:1]:
        if isinstance(error, OSError):
            where = error.filename or store.out
            raise RunFailedError(
                f"{where}: {error.strerror or first_line(error)}. What was done is safe; make room, and give the same"
                " command again."
            ) from error
        raise error
    return signals[0] if signals else None


def _show(store: Store, definition: Definition, threads: Sequence[threading.Thread], console: Console) -> None:
    """A table that follows the study while workers run."""

    def render() -> Group:
        rows = read_rows(store, definition)
        active = [row for row in rows if row.state == "running"]
        best = ranked(rows, definition)[:_SHOWN]
        parts: list[Any] = [Text(summary(rows, definition), style="bold")]
        if active or best:
            parts.append(make_table([*active, *best], definition, store, ranks=False))
        return Group(*parts)

    with Live(render(), console=console, refresh_per_second=2, transient=True) as view:
        while any(thread.is_alive() for thread in threads):
            time.sleep(_SECONDS_BETWEEN_TABLES)
            view.update(render())
