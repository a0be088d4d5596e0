"""Peak memory of a part of a process, for benchmarks that compare several ways in one."""

import ctypes
import gc
from pathlib import Path
from typing import Self


import distjudge_trl  # noqa: F401  # isort: skip (before torch: it says how OpenMP's threads wait)

import torch


class PeakMemory:
    """Bytes that a block needs at its peak beyond what was there before it: `with PeakMemory() as peak: ...`, then
    `peak.bytes`. On CUDA, what torch allocated; else resident memory of the process (Linux).
    """

    bytes = 0

    def __enter__(self) -> Self:
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            self._before = torch.cuda.memory_allocated()
        else:
            # What is free goes back to the system, and the kernel's high-water mark starts anew.
            ctypes.CDLL("libc.so.6").malloc_trim(0)
            Path("/proc/self/clear_refs").write_text("5")
            self._before = _resident("VmRSS")
        return self

    def __exit__(self, *_: object) -> None:
        after = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else _resident("VmHWM")
        self.bytes = after - self._before


def _resident(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024
