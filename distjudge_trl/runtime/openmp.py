"""How torch's threads on a CPU wait for each other: asleep, so that they take no core from another process."""

from __future__ import annotations

import os


# Each of them says how threads wait: OpenMP's own, and those of the two implementations that torch comes with.
_USER_SETTINGS = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


def let_threads_sleep() -> None:
    """Have the threads of torch's OpenMP (libgomp) sleep as soon as they wait, for this process and those it starts.

    By default they spin some milliseconds first. Where more threads than cores want to run (another process beside
    the training, two runs at once) a thread then spins in the time that the one it waits for needs, and a step takes
    several times as long; see `scripts/benchmarks/openmp.py`.

    A setting of the user's own stays. OpenMP reads it once, when torch is first imported: where that has been done
    this call changes nothing in this process.
    """
    if not any(name in os.environ for name in _USER_SETTINGS):
        os.environ["GOMP_SPINCOUNT"] = "0"
