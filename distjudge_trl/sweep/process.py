"""One run of a recipe as processes of its own: started, watched, and ended with all that it started."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from filelock import Timeout

from distjudge_trl.errors import RunFailedError
from distjudge_trl.files.atomic import read_json
from distjudge_trl.recipe.trial import FAILURE_NAME, PREPARED, PROGRESS_NAME, RUN_FOLDER, WORKER, this_process
from distjudge_trl.runtime.devices import seeing
from distjudge_trl.runtime.logs import log_tail
from distjudge_trl.sweep.backends import kernel_lock, machine_folder


LOG_NAME = "log.txt"
_SECONDS_TO_END = 10
_SIGNAL = re.compile(r"Signals\.SIG|Signal \d+ \(SIG|exitcode\s*: -\d|received signal")


@dataclass(frozen=True)
class Launch:
    """How the runs of one worker are started.

    Args:
        script (`Path`): of the recipe.
        config (`Path`): of accelerate.
        num_processes (`int`, *optional*): in place of the config's.
        devices (`tuple[str, ...]`): GPUs that the runs see; empty on a CPU.
        threads (`int`, *optional*): of every process; `None` leaves them to the run.
        several (`bool`): whether a run has several processes, which meet at a port.
    """

    script: Path
    config: Path
    num_processes: int | None
    devices: tuple[str, ...]
    threads: int | None
    several: bool

    def command(self, options: Sequence[str], port: int | None = None) -> list[str]:
        """The launch line."""
        words = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(self.config)]
        words += ["--num_processes", str(self.num_processes)] if self.num_processes is not None else []
        words += ["--main_process_port", str(port)] if port is not None else []
        return [*words, str(self.script), *options]

    def environment(self, folder: Path, data: Path) -> dict[str, str]:
        """Of a run in a folder, with records that have been read into `data`."""
        # DeepSpeed looks for ninja on the path, where an environment that is not activated is missing.
        path = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))
        extra = {"PATH": path, RUN_FOLDER: str(folder.resolve()), WORKER: this_process()}
        extra[PREPARED] = str(data)
        if self.threads is not None:
            extra["OMP_NUM_THREADS"] = str(self.threads)
        return {**seeing(self.devices), **extra}


class RunProcess:
    """A run that has been started in `folder`; what it prints goes to `log.txt` there. `data` holds its records.

    Raises:
        [`RunFailedError`]: processes of an earlier attempt are still there.
    """

    def __init__(self, launch: Launch, options: Sequence[str], folder: Path, data: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        # Of a worker that died: two runs must not write into one folder.
        if end_run(folder):
            raise RunFailedError(f"{folder}: processes of an earlier attempt cannot be killed")
        for name in (FAILURE_NAME, PROGRESS_NAME):
            (folder / name).unlink(missing_ok=True)
        self._port = contextlib.ExitStack()
        port = self._port.enter_context(reserved_port()) if launch.several else None
        with (folder / LOG_NAME).open("ab") as log:
            self._process = subprocess.Popen(
                launch.command(options, port),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=launch.environment(folder, data),
                start_new_session=True,
            )

    def poll(self) -> int | None:
        """Exit code, `None` while it runs."""
        code = self._process.poll()
        if code is not None:
            self._port.close()
        return code

    def progress(self) -> dict[str, Any]:
        """What the run has said of itself; see `recipe.trial.make_progress_callback`."""
        return read_json(self.folder / PROGRESS_NAME)

    def end(self) -> None:
        """End it and everything that it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_SECONDS_TO_END)
        end_run(self.folder)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_SECONDS_TO_END)
        self._port.close()

    def failure(self) -> str | None:
        """The reason that a failed run left; `None` if it could not."""
        reason = read_json(self.folder / FAILURE_NAME)
        return f"{reason['kind']}: {reason['message']}" if reason else None

    def was_killed(self) -> bool:
        """Whether a signal ended it, or the processes that its launcher started, as launchers write into the log."""
        code = self._process.poll()
        # More than 128: a shell's way to say so.
        return code is not None and (
            code < 0 or code > 128 or _SIGNAL.search(log_tail(self.folder / LOG_NAME)) is not None
        )


def end_run(folder: Path) -> list[psutil.Process]:
    """Kill every process on this machine that belongs to the run of a folder, told by its environment: launchers start
    workers in sessions of their own, and what a killed worker leaves has no parent any more. Returns those that do not
    die (waiting for a disk or a driver).
    """
    mark = str(folder.resolve())
    deadline = time.monotonic() + _SECONDS_TO_END
    while members := [process for process in psutil.process_iter() if _belongs(process, mark)]:
        for process in members:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(members, timeout=1)
        if time.monotonic() > deadline:
            return members
    return []


def _belongs(process: psutil.Process, mark: str) -> bool:
    try:
        return process.environ().get(RUN_FOLDER) == mark and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.Error, OSError):
        return False  # another user's, or gone


@contextlib.contextmanager
def reserved_port() -> Iterator[int]:
    """A free port of this machine that no other sweep's run gets within the block."""
    while True:
        with socket.socket() as probe:
            probe.bind(("", 0))
            port = probe.getsockname()[1]
        lock = kernel_lock(machine_folder() / f"port-{port}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            continue
        try:
            yield port
            return
        finally:
            lock.release()
