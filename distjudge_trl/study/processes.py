"""The processes that make runs: started, logged, and ended with everything that they started."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice
from pathlib import Path

from distjudge_trl.recipe.trial import WORKER, this_process
from distjudge_trl.runtime.devices import device_count, seeing, visible_devices
from distjudge_trl.study.machine import threads_of


_SECONDS_TO_END = 10


@dataclass
class Processes:
    """Processes, at most `jobs` at a time. Side by side, they share the cores and the GPUs: each has one of its own,
    or if there are more jobs than GPUs, one with as few others as possible.

    Recipes and our commands end soon after this process, however that ends.
    """

    jobs: int
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _running: list[subprocess.Popen[bytes]] = field(default_factory=list)
    _devices: list[str] = field(default_factory=list)
    stopped: bool = False

    def __post_init__(self) -> None:
        devices = visible_devices(device_count()) if self.jobs > 1 else []
        self._devices = list(islice(cycle(devices), self.jobs))

    def run(self, command: Sequence[str], log: Path | None) -> int | None:
        """Run a command to its end; its exit code, or `None` if it was stopped or never started.

        Args:
            command (`Sequence[str]`): program and arguments.
            log (`Path`, *optional*): what it prints goes there; by default to the terminal.
        """
        with contextlib.ExitStack() as stack:
            file = stack.enter_context(log.open("wb")) if log is not None else None
            with self._lock:
                if self.stopped:
                    return None
                device = [self._devices.pop(0)] if self._devices else []
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=subprocess.STDOUT if file is not None else None,
                    env=self._environment(device),
                    # Ctrl-C in a terminal reaches this process alone, which ends the others.
                    start_new_session=True,
                )
                self._running.append(process)
            try:
                code = process.wait()
            finally:
                with self._lock:
                    self._running.remove(process)
                    self._devices += device
            return None if self.stopped else code

    def _environment(self, device: list[str]) -> dict[str, str]:
        environment = seeing(device)
        if self.jobs > 1:
            environment["OMP_NUM_THREADS"] = str(threads_of(self.jobs))
        if "None" not in (me := this_process()):  # a system that does not say when a process began
            environment[WORKER] = me
        return environment

    def stop(self) -> None:
        """End all processes, and start none from now on."""
        with self._lock:
            self.stopped = True
            running = list(self._running)
        for number in (signal.SIGTERM, signal.SIGKILL):
            for process in running:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, number)
            for process in running:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(_SECONDS_TO_END)
