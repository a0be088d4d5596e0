"""Cores of this machine, and how many of them a process takes."""

from __future__ import annotations

import os

import psutil


def share_cores() -> None:
    """Give this process its share of the machine's cores if a launcher has limited it to one thread by default.

    accelerate (except on CPUs) and torchrun set `OMP_NUM_THREADS` to 1 if it is not set: on a machine with 64 cores
    and 8 GPUs, each process would use one core of its eight. A user's own setting, in the variable or with
    `--num_cpu_threads_per_process`, is kept.
    """
    launched = "TORCHELASTIC_RUN_ID" in os.environ or "ACCELERATE_DYNAMO_BACKEND" in os.environ
    if not launched or os.environ.get("OMP_NUM_THREADS") != "1":
        return
    try:
        launcher = psutil.Process(os.getppid())
        words = [word.replace("-", "_") for word in launcher.cmdline()]
        if "OMP_NUM_THREADS" in launcher.environ() or any("num_cpu_threads_per_process" in word for word in words):
            return
    except (psutil.Error, OSError):
        return
    threads = cores_per_process(int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    # For libraries that are loaded later; torch may be loaded already.
    os.environ["OMP_NUM_THREADS"] = str(threads)
    import torch

    torch.set_num_threads(threads)


def cores() -> int:
    """How many cores this process may use; all cores of the machine if the system does not say (macOS, Windows)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cores_per_process(processes: int) -> int:
    """The share of this machine's cores that each of some processes has."""
    return max(1, cores() // processes)
