"""How a process of a distributed run ends: without an abort, and in time if another host is gone."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import torch


if TYPE_CHECKING:
    from transformers import TrainingArguments

_SECONDS_BETWEEN_LOOKS = 0.01
_QUIET_LOOKS = 5


def set_timeout_on_cpu(args: TrainingArguments) -> None:
    """Apply `ddp_timeout` to processes on CPUs, for which transformers ignores it. Without it a process would wait for
    a dead host for half an hour.
    """
    if args.use_cpu and torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.distributed_c10d._set_pg_timeout(args.ddp_timeout_delta)


def let_threads_finish(limit: float = 10.0) -> None:
    """Wait until torch's threads in this process are idle, at most `limit` seconds. Without /proc nothing is done.

    A thread of Gloo frees the tensors of a collective after all processes have continued, and needs the interpreter to
    do so. If the interpreter is already shutting down, the process aborts ("terminate called without an active
    exception", https://github.com/pytorch/pytorch/pull/179291). On a busy machine the thread may not have run yet when
    the script ends. Such a thread is runnable. A thread that waits for work, or for the interpreter, which is free
    while this function sleeps, is not.
    """
    deadline, quiet = time.monotonic() + limit, 0
    while quiet < _QUIET_LOOKS and time.monotonic() < deadline:
        time.sleep(_SECONDS_BETWEEN_LOOKS)
        quiet = 0 if _is_busy() else quiet + 1


def _is_busy() -> bool:
    for stat in Path("/proc/self/task").glob("*/stat"):
        try:
            name, _, rest = stat.read_text().partition("(")[2].rpartition(")")
        except OSError:
            continue  # it has ended
        if name.startswith(("pt_", "gloo_")) and rest.split()[0] != "S":
            return True
    return False
