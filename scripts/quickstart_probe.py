"""How fast this machine trains and evaluates: a few steps of a recipe, timed. Run by quickstart.py as a process of its
own, which gives all memory back.

    python scripts/quickstart_probe.py OUT.json RECIPE.py [options of the recipe]

Writes seconds of a training `step`, of a `batch` that is evaluated, and of all that is `beside` them.
"""

from __future__ import annotations

import itertools
import json
import runpy
import sys
import time
from pathlib import Path


import distjudge_trl  # noqa: F401  # isort: skip (before torch: it says how OpenMP's threads wait)


def main() -> None:
    begin = time.perf_counter()
    out, script, *options = sys.argv[1:]

    from transformers import TrainerCallback
    from transformers.trainer import DEFAULT_CALLBACKS

    class Clock(TrainerCallback):
        """When each step and each batch ended."""

        def __init__(self) -> None:
            self.steps: list[float] = []
            self.batches: list[float] = []

        def on_step_end(self, *_, **__) -> None:
            self.steps.append(time.perf_counter())

        def on_prediction_step(self, *_, **__) -> None:
            self.batches.append(time.perf_counter())

    clock = Clock()
    DEFAULT_CALLBACKS.append(clock)
    runpy.run_path(script)["RECIPE"].main(options)
    # From the end of the first: that one makes kernels and the optimizer's state.
    steps, batches = ([b - a for a, b in itertools.pairwise(ends)] for ends in (clock.steps, clock.batches))
    beside = time.perf_counter() - begin - sum(steps) - sum(batches)
    measured = {"step": sum(steps) / len(steps), "batch": sum(batches) / len(batches), "beside": beside}
    Path(out).write_text(json.dumps(measured), encoding="utf-8")


if __name__ == "__main__":
    main()
