"""A sweep from start to end: check everything, run workers until no trial is left, test the best configuration."""

from __future__ import annotations

import contextlib
import signal
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from distjudge_trl.errors import RunFailedError, UserInputError, counted, first_line
from distjudge_trl.files.atomic import check_folder, read_json
from distjudge_trl.files.shipped_files import find_shipped
from distjudge_trl.recipe.parsing import option_tokens
from distjudge_trl.runtime.dates import today
from distjudge_trl.sweep.best import score_best
from distjudge_trl.sweep.definition import Definition, find_metric
from distjudge_trl.sweep.process import Launch
from distjudge_trl.sweep.request import (
    Checked,
    check_recipe,
    default_study,
    find_trial_parameters,
    make_launches,
    make_points,
)
from distjudge_trl.sweep.settings import SweepSettings
from distjudge_trl.sweep.storages import check_storage, explaining, file_of, losing, open_storage
from distjudge_trl.sweep.store import Store
from distjudge_trl.sweep.study import JOURNAL_NAME, SWEEP_NAME
from distjudge_trl.sweep.table import failures, make_table, ranked, read_rows, summary, write_trials
from distjudge_trl.sweep.worker import Worker


_SHOWN = 5  # of the best, in the live table
_SECONDS_BETWEEN_TABLES = 1.0
_LONGEST_NAME = 100
DATA_NAME = "data"


def run_sweep(settings: SweepSettings, console: Console) -> int:
    """Run or continue a sweep.

    Returns:
        The exit code: 0, or 128 plus the number of the signal that stopped the sweep.

    Raises:
        [`UserInputError`]: something is wrong with the settings; no trial has started.
        [`RunFailedError`]: a configuration failed, the best one could not be tested, or the storage was lost.
    """
    script = find_shipped(settings.recipe, "recipes", ".py", "recipe")
    metric = find_metric(settings.metric)
    parameters = find_trial_parameters(settings, script)
    study = settings.study if settings.study is not None else default_study(settings, script)
    if not study.strip() or study in (".", "..") or "/" in study or len(study) > _LONGEST_NAME:
        raise UserInputError(
            f"--study {study[:80]!r}: name it in one word or several, up to {_LONGEST_NAME} characters and no '/': its"
            " folder has the name, too."
        )
    out = Path(settings.out or f"runs/sweeps/{study}")
    with contextlib.ExitStack() as held:
        launches = make_launches(settings, script, held)
        save = out / DATA_NAME
        if not out.exists():
            # A sweep that is refused leaves no folder behind.
            held.callback(_remove_empty, out)
        if settings.dry_run:
            save = Path(held.enter_context(tempfile.TemporaryDirectory()))
        else:
            check_folder(out, "--out")
        # Report a server that does not answer now; a file is made once everything else is accepted.
        if settings.storage is not None and check_storage(settings.storage) is None and not settings.dry_run:
            open_storage(settings.storage, out, settings.heartbeat)
        console.print(f"Checking the recipe and its data: {script}", highlight=False)
        checked = check_recipe(settings, script, parameters, metric, save, launches[0], _day(settings, out, study))
        definition = checked.definition
        points = make_points(settings, definition.parameters)
        if settings.dry_run:
            for point in points:
                words = option_tokens({**definition.options, **point})
                line = " ".join(launches[0].command(words))
                console.print(line, soft_wrap=True, highlight=False, markup=False)
            return 0
        store = Store(settings.storage, out, study, retries=settings.retries, heartbeat=settings.heartbeat)
        planned = store.make(definition, points)
        console.print(
            f"Study {study!r} in {store.shown}: {planned} configurations,"
            f" {counted(len(definition.seeds), 'seed')} each;"
            f" {checked.num_train} training items, chosen by {metric} on {checked.num_scored} validation items.",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
        if settings.retry_failed:
            console.print(f"{store.retry_failed()} configurations that failed are tried again.", highlight=False)
        with losing(store.shown):
            stopped = _work(settings, store, checked, launches, console)
            write_trials(store)
        if stopped is not None:
            console.print("Stopped. The same command goes on where it was.")
            return 128 + stopped
        # Within the block, because the best configuration is tested on GPUs that this sweep holds.
        _conclude(settings, store, checked, launches[0].devices, console)
    return 0


def _conclude(
    settings: SweepSettings, store: Store, checked: Checked, devices: Sequence[str], console: Console
) -> None:
    """Print the results of the sweep, and test the best configuration."""
    rows = read_rows(store)
    failed = failures(rows)
    done = ranked(store, rows)
    if done:
        console.print(make_table(store, done[:10], ranks=True))
        score_best(store, checked.data_path, lambda line: console.out(line, highlight=False), devices)
    if failed:
        for line in failed:
            console.print(line, markup=False, highlight=False, soft_wrap=True)
        where = [str(store.out)] if settings.storage is None else ["--study", store.name, "--storage", store.shown]
        raise RunFailedError(
            f"{len(failed)} of {len(rows)} configurations failed. `distjudge-trl sweep show {' '.join(where)} --log"
            " TRIAL` prints the end of a trial's log, --retry-failed tries them again."
        )


def _day(settings: SweepSettings, out: Path, study: str) -> str:
    """What the study takes for today: the day on which it began."""
    content = read_json(out / SWEEP_NAME)
    if content.get("study") == study:
        return Definition.from_dict(content.get("definition"), study).day or today()
    # Another machine may have begun it. A file that is not there yet is not made.
    file = file_of(settings.storage) if settings.storage is not None else out / JOURNAL_NAME
    if settings.dry_run or (file is not None and not file.is_file()):
        return today()
    store = Store(settings.storage, out, study, heartbeat=settings.heartbeat)
    with explaining(store.shown):
        begun = store.exists() and "definition" in store.study.user_attrs
    return (store.open().day if begun else None) or today()


def _remove_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):
        folder.rmdir()


def _work(
    settings: SweepSettings, store: Store, checked: Checked, launches: Sequence[Launch], console: Console
) -> int | None:
    """Run the workers to their end; returns the number of the signal that stopped them, if one did."""
    stop, signals = threading.Event(), []
    lock = threading.Lock()
    errors: list[BaseException] = []
    live = console.is_terminal

    def log(line: str) -> None:
        console.print(f"{time.strftime('%H:%M:%S')} {line}", highlight=False, markup=False, soft_wrap=True)

    def updated() -> None:
        with lock:
            write_trials(store)
            if not live:
                log(summary(store, read_rows(store)))

    def work(launch: Launch) -> None:
        try:
            Worker(
                store,
                launch,
                data=checked.data,
                data_path=checked.data_path,
                keep=settings.keep,
                stop=stop,
                log=log,
                updated=updated,
            ).work()
        except BaseException as error:  # noqa: BLE001 (the main thread raises it)
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
            _show(store, threads, console)
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


def _show(store: Store, threads: Sequence[threading.Thread], console: Console) -> None:
    """A table that follows the study while workers run."""

    def render() -> Group:
        rows = read_rows(store)
        active = [row for row in rows if row.state == "running"]
        best = ranked(store, rows)[:_SHOWN]
        parts: list[Any] = [Text(summary(store, rows), style="bold")]
        if active or best:
            parts.append(make_table(store, [*active, *best], ranks=False))
        return Group(*parts)

    with Live(render(), console=console, refresh_per_second=2, transient=True) as view:
        while any(thread.is_alive() for thread in threads):
            time.sleep(_SECONDS_BETWEEN_TABLES)
            view.update(render())
