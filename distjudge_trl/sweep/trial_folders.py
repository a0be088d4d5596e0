"""The folder of a configuration, and what is deleted from it."""

from __future__ import annotations

import hashlib
import re
import shutil
from pathlib import Path
from typing import Any

from distjudge_trl.evaluation.results import PREDICTIONS_NAME, RESULTS_NAME
from distjudge_trl.recipe.trial import FAILURE_NAME, PROGRESS_NAME
from distjudge_trl.sweep.process import LOG_NAME
from distjudge_trl.sweep.space import show


# What stays of a run whose judge is deleted.
_KEPT_FILES = (RESULTS_NAME, PREDICTIONS_NAME, "trainer_state.json", LOG_NAME, PROGRESS_NAME, FAILURE_NAME)


def trial_folder(out: Path, parameters: dict[str, Any]) -> Path:
    """The folder of a configuration, which is the same for every trial of it."""
    text = ",".join(f"{name}={show(value)}" for name, value in parameters.items())
    digest = hashlib.sha256(repr(sorted(parameters.items())).encode()).hexdigest()[:8]
    return out / "trials" / f"{re.sub(r'[^A-Za-z0-9=,._-]+', '_', text)[:100]}-{digest}"


def remove_checkpoints(run: Path) -> None:
    """Delete the checkpoints of a run."""
    for path in run.glob("checkpoint-*"):
        shutil.rmtree(path, ignore_errors=True)


def remove_judge(folder: Path) -> None:
    """Delete the judges and checkpoints of a configuration; results and logs stay."""
    for run in folder.glob("seed-*"):
        for path in run.iterdir():
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            elif path.name not in _KEPT_FILES:
                path.unlink(missing_ok=True)
