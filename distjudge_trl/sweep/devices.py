"""The GPUs of a sweep's trials: each for one trial at a time, whatever number it has where."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence

from filelock import Timeout

from distjudge_trl.errors import UserInputError
from distjudge_trl.files.locks import kernel_lock
from distjudge_trl.sweep.locks import machine_folder


# In a process of its own: asking makes a CUDA context, which takes memory of a GPU for as long as the process lives.
_ASK = """import json, torch
print(json.dumps([str(torch.cuda.get_device_properties(i).uuid) for i in range(torch.cuda.device_count())]))
"""
_LONGEST_ANSWER = 120  # seconds; a driver that starts cold takes some ten


def device_ids(visible: Sequence[str]) -> list[str]:
    """What tells each GPU from all others of the machine: its UUID. A job that is confined to some of them (SLURM's
    cgroups, containers) numbers its own from 0. A slice of a GPU (MIG) goes by its name, which is a UUID already.

    Where there are none to be had (no CUDA) the names themselves.
    """
    if all(name.startswith("MIG-") for name in visible):
        return list(visible)
    try:
        done = subprocess.run(
            [sys.executable, "-c", _ASK], check=True, capture_output=True, text=True, timeout=_LONGEST_ANSWER
        )
        found = json.loads(done.stdout.splitlines()[-1])
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return list(visible)
    return found if len(found) == len(visible) else list(visible)


@contextlib.contextmanager
def reserved_devices(visible: Sequence[str], count: int) -> Iterator[list[str]]:
    """`count` GPUs of this machine that no other sweep has, within the block.

    Raises:
        [`UserInputError`]: there are not as many.
    """
    with contextlib.ExitStack() as held:
        free: list[str] = []
        for device, number in zip(visible, device_ids(visible), strict=True):
            if len(free) == count:
                break
            lock = kernel_lock(machine_folder() / f"gpu-{number}.lock")
            with contextlib.suppress(Timeout):
                held.enter_context(lock.acquire(timeout=0))
                free.append(device)
        if len(free) < count:
            raise UserInputError(
                f"{count} GPUs are asked for, and another sweep on this machine leaves {len(free)} of"
                f" {len(visible)} free. Give fewer --jobs, or wait."
            )
        yield free
