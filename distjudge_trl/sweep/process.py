"""One run of a recipe in other processes: started, watched, and ended with everything that it started."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from distjudge_trl.errors import RunFailedError
from distjudge_trl.files.atomic import read_json
from distjudge_trl.recipe.trial import FAILURE_NAME, PREPARED, PROGRESS_NAME, RUN_FOLDER, WORKER, this_process
from distjudge_trl.runtime.dates import TODAY
from distjudge_trl.runtime.devices import seeing
from distjudge_trl.runtime.logs import log_tail


LOG_NAME = "log.txt"
_SECONDS_TO_END = 10
_SIGNAL = re.compile(r"Signals\.SIG|Signal \d+ \(SIG|exitcode\s*: -\d|received signal")


@dataclass(frozen=True)
class Launch:
    """How the runs of one worker are started.

    Args:
        script (`Path`): the recipe's script.
        config (`Path`): the accelerate config.
        num_processes (`int`, *optional*): number of processes, in place of the config's.
        devices (`tuple[str, ...]`): GPUs that the runs see; empty on a CPU.
        threads (`int`, *optional*): threads of every process; by default the run decides.
        several (`bool`): whether a run has several processes, which need a port to meet.
    """

    script: Path
    config: Path
    num_processes: int | None
    devices: tuple[str, ...]
    threads: int | None
    several: bool

    def command(self, options: Sequence[str]) -> list[str]:
        """The launch line."""
        words = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(self.config)]
        words += ["--num_processes", str(self.num_processes)] if self.num_processes is not None else []
        # With port 0 accelerate looks for a free one, so that runs side by side do not meet at one port.
        words += ["--main_process_port", "0"] if self.several else []
        return [*words, str(self.script), *options]

    def environment(self, folder: Path, data: Path, day: str | None = None) -> dict[str, str]:
        """Environment variables of a run in `folder` that reads its records from `data`, and takes `day` for today."""
        # DeepSpeed looks for ninja on the path; a virtual environment that is not activated is not on it.
        path = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))
        extra = {"PATH": path, RUN_FOLDER: str(folder.resolve()), WORKER: this_process()}
        extra[PREPARED] = str(data)
        if day is not None:
            extra[TODAY] = day
        if self.threads is not None:
            extra["OMP_NUM_THREADS"] = str(self.threads)
        return {**seeing(self.devices), **extra}


class RunProcess:
    """A started run in `folder`, which prints into `log.txt` there, reads its records from `data` and takes `day` for
    today.

    Raises:
        [`RunFailedError`]: processes of an earlier attempt cannot be killed.
    """

    def __init__(
        self, launch: Launch, options: Sequence[str], folder: Path, data: Path, day: str | None = None
    ) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        # A dead worker may have left a run: two runs must not write into one folder.
        if end_run(folder):
            raise RunFailedError(f"{folder}: processes of an earlier attempt cannot be killed")
        for name in (FAILURE_NAME, PROGRESS_NAME):
            (folder / name).unlink(missing_ok=True)
        with (folder / LOG_NAME).open("ab") as log:
            self._process = subprocess.Popen(
                launch.command(options),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=launch.environment(folder, data, day),
                start_new_session=True,
            )

    def poll(self) -> int | None:
        """The exit code, `None` while it runs."""
        return self._process.poll()

    def progress(self) -> dict[str, Any]:
        """The progress that the run has recorded; see `recipe.trial.make_progress_callback`."""
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

    def failure(self) -> str | None:
        """The reason that a failed run has recorded, if it could."""
        reason = read_json(self.folder / FAILURE_NAME)
        return f"{reason['kind']}: {reason['message']}" if reason else None

    def was_killed(self) -> bool:
        """Whether a signal ended the run, or one of the launcher's processes, as launchers write into the log."""
        code = self._process.poll()
        # Shells report a signal as an exit code above 128.
        return code is not None and (
            code < 0 or code > 128 or _SIGNAL.search(log_tail(self.folder / LOG_NAME)) is not None
        )


def end_run(folder: Path) -> list[psutil.Process]:
    """Kill every process on this machine that belongs to the run of a folder.

    They are found by their environment: launchers start processes in new sessions, and the processes that a killed
    worker leaves behind have no parent any more.

    Returns:
        Processes that do not die, because they wait for a disk or a driver.
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
