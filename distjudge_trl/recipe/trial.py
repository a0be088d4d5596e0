"""What a run does for the sweep that started it: record its progress and why it failed, and end with its worker."""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distjudge_trl.errors import LostProcessError, first_line, lost_connection
from distjudge_trl.files.atomic import write_json


if TYPE_CHECKING:
    from transformers import TrainerCallback

# Environment variables that a sweep sets: the run's folder, by which the processes of a run are found; the process id
# of the worker and its start time (ids are used again); the folder of the data that has been read.
RUN_FOLDER = "DISTJUDGE_SWEEP_RUN"
WORKER = "DISTJUDGE_SWEEP_WORKER"
PREPARED = "DISTJUDGE_PREPARED"
PROGRESS_NAME = "progress.json"
FAILURE_NAME = "failure.json"
_SECONDS_BETWEEN_LOOKS = 1.0


def run_folder() -> Path | None:
    """Folder of this run, if a sweep started it."""
    folder = os.environ.get(RUN_FOLDER)
    return Path(folder) if folder else None


def this_process() -> str:
    """The value of `WORKER` for the calling process: its id and start time."""
    return f"{os.getpid()} {_started(os.getpid())}"


def _started(pid: int) -> str | None:
    """When a process began, in ticks since the machine booted (setting the clock does not change it); `None` if the
    process is dead.
    """
    try:
        state, *rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return rest[18] if state not in ("Z", "X") else None


def follow_worker() -> None:
    """End this process soon after the sweep or the study that started it, if one did. Nobody would read its results,
    and the next worker will write into the same folder.
    """
    worker = os.environ.get(WORKER)
    if worker:
        threading.Thread(target=_follow, args=(worker,), daemon=True).start()


def _follow(worker: str) -> None:
    number, started = worker.split()
    while _started(int(number)) == started:
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    # Not `sys.exit`: threads and collectives may delay an exit for ever.
    os.kill(os.getpid(), signal.SIGKILL)


def record_failure(error: BaseException) -> None:
    """Write the reason into the run's folder. A run without a reason was killed and may be tried again, and so may a
    run in which one process lost another.
    """
    folder = run_folder()
    several = os.environ.get("WORLD_SIZE", "1") != "1"
    if folder is None or isinstance(error, SystemExit | LostProcessError):
        return
    if several and lost_connection(error) is not None:
        return
    if (folder / FAILURE_NAME).exists():
        return
    try:
        write_json(folder / FAILURE_NAME, {"kind": type(error).__name__, "message": first_line(error)})
    except OSError:
        pass  # A full disk may be the reason.


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def make_progress_callback() -> TrainerCallback | None:
    """A callback that writes `progress.json`: the step, the number of steps, and all evaluations so far, including
    those before the run was resumed. `None` outside a sweep.
    """
    folder = run_folder()
    if folder is None:
        return None
    path = folder / PROGRESS_NAME
    from transformers import TrainerCallback

    class Progress(TrainerCallback):
        written = 0.0

        def write(self, state: Any) -> None:
            if not state.is_world_process_zero:
                return
            history = state.log_history
            content = {
                "step": state.global_step,
                "max_steps": state.max_steps,
                "evaluations": [
                    {name: value for name, value in entry.items() if _is_finite(value)}
                    for entry in history
                    if "eval_kl" in entry
                ],
            }
            write_json(path, content)
            self.written = time.monotonic()

        def on_step_end(self, args, state, control, **kwargs):
            if time.monotonic() - self.written > _SECONDS_BETWEEN_LOOKS:
                self.write(state)

        def on_log(self, args, state, control, logs=None, **kwargs):
            self.write(state)

    return Progress()
