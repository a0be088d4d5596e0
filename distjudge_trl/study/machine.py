"""How fast this machine is, for estimates of how long a study takes on it."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distjudge_trl.runtime.precision import decide_precision, resolve_precision, runs_on_cpu
from distjudge_trl.runtime.threads import cores, cores_per_process


def threads_of(jobs: int) -> int:
    """Threads of each of some runs that are made side by side. A user's own `OMP_NUM_THREADS` is kept."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    return int(given) if given.isdigit() and int(given) else cores_per_process(jobs)


def describe_machine(jobs: int = 1) -> dict[str, Any]:
    """Its processor, cores and speed, and how many runs share it: what a result says about where it was made.

    `gflops` is the speed of a matrix product of a small model's shape in the type that trainings compute in, as one of
    `jobs` processes reaches it alone: the fastest of several, in 10^9 multiplications and additions per second. It is
    measured for two seconds.
    """
    import torch

    on_cpu = runs_on_cpu()
    accelerator = None if on_cpu else torch.accelerator.current_accelerator()
    device = accelerator.type if accelerator is not None else "cpu"
    name = _processor() if on_cpu else torch.cuda.get_device_name() if device == "cuda" else device
    dtype = decide_precision(on_cpu).dtype
    before = torch.get_num_threads()
    torch.set_num_threads(threads_of(jobs))
    try:
        rows, width = (512, 576) if on_cpu else (8192, 4096)
        kind = getattr(torch, dtype)
        a, b = (
            torch.ones(rows, width, dtype=kind, device=device),
            torch.ones(width, 4 * width, dtype=kind, device=device),
        )
        best = float("inf")
        end = time.perf_counter() + 2
        while time.perf_counter() < end:
            begin = time.perf_counter()
            for _ in range(10):
                a @ b
            if not on_cpu:
                torch.accelerator.synchronize()
            best = min(best, (time.perf_counter() - begin) / 10)
    finally:
        torch.set_num_threads(before)
    speed = 2 * rows * width * 4 * width / best / 1e9
    return {"name": name, "cores": cores(), "jobs": jobs, "dtype": dtype, "gflops": round(speed, 1)}


def dtype_of(options: Mapping[str, Any], machine: Mapping[str, Any]) -> str:
    """In what a run with these options trains on a machine that [`describe_machine`] has described."""
    bf16, fp16, use_cpu = options.get("bf16"), options.get("fp16"), bool(options.get("use_cpu"))
    if bf16 is None and fp16 is None and not use_cpu:
        return str(machine["dtype"])
    return resolve_precision(bf16, fp16, use_cpu=use_cpu or runs_on_cpu()).dtype


def _processor() -> str:
    """The processor's name; of the ones that share a name (in virtual machines) the flags tell more."""
    info = Path("/proc/cpuinfo")
    if not info.is_file():
        return platform.processor() or platform.machine()
    lines = dict(line.split(":", 1) for line in info.read_text().splitlines() if ":" in line)
    lines = {key.strip(): value.strip() for key, value in lines.items()}
    flags = lines.get("flags", "").split()
    best = next((flag for flag in ("amx_bf16", "avx512_bf16", "avx512f", "avx2") if flag in flags), "")
    return " ".join(filter(None, (lines.get("model name", platform.machine()), best)))
