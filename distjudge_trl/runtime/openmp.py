"""Make torch's CPU threads sleep while they wait for each other, so that they take no core from another process."""

from __future__ import annotations

import os


# Each of these variables sets how threads wait: OpenMP's, and those of the two implementations that torch ships with.
_USER_SETTINGS = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


def let_threads_sleep() -> None:
    """Make the threads of torch's OpenMP (libgomp) sleep as soon as they wait, in this process and in those it starts.

    By default they spin for some milliseconds first. If more threads than cores are ready to run (another process
    beside the training, two runs at once), a spinning thread takes the core that the thread it waits for needs, and a
    step takes several times as long; see `scripts/benchmarks/openmp.py`.

    A user's own setting is kept. OpenMP reads it once, when torch is first imported; after that, this call changes
    nothing in this process.
    """
    if not any(name in os.environ for name in _USER_SETTINGS):
        os.environ["GOMP_SPINCOUNT"] = "0"
