"""Result files: `results.json`, what a run measured and where it comes from, and `predictions.parquet`, its per-item
distributions.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset

from distjudge_trl.atomic import replacing, write_json
from distjudge_trl.errors import UserInputError


RESULTS_NAME = "results.json"
PREDICTIONS_NAME = "predictions.parquet"
SCHEMA_VERSION = 2

_REQUIRED = ("schema_version", "task", "method", "model", "labels", "metrics", "provenance")


def write_results(folder: str | Path, results: dict[str, Any], records: Dataset, log_q: np.ndarray) -> None:
    """Write both files, each whole or not at all; `results.json` last, so that a folder with one is complete.

    Args:
        folder (`str` or `Path`): created if missing.
        results (`dict`): the keys `task`, `method`, `model`, `labels`, `metrics`, `provenance`; the schema version is
            added.
        records (`Dataset`): the test records, N rows.
        log_q (`np.ndarray` of shape `(N, K)`): the judge's label log-probabilities for them, in the same order.
    """
    folder = Path(folder)
    table = records.select_columns(["id", "group", "label_distribution", "num_annotators"]).add_column(
        "judge_distribution", [row.tolist() for row in np.exp(log_q)]
    )
    with replacing(folder / PREDICTIONS_NAME) as temporary:
        table.to_parquet(str(temporary))
    write_json(folder / RESULTS_NAME, {"schema_version": SCHEMA_VERSION, **results})


def read_results(folder: str | Path) -> dict[str, Any]:
    """Read `results.json` of a run's folder.

    Raises:
        [`UserInputError`]: missing, damaged, of another schema version, or without a required key; the message names
            the file.
    """
    path = Path(folder) / RESULTS_NAME
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserInputError(f"{path}: no such file; the run has not finished or is somewhere else.") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserInputError(f"{path}: is damaged ({error}). Run the evaluation again.") from None
    version = results.get("schema_version") if isinstance(results, dict) else None
    if not isinstance(version, int):
        raise UserInputError(f"{path}: is no result file (it has no schema_version).")
    if version != SCHEMA_VERSION:
        age, fix = (
            ("older", "Run the evaluation again") if version < SCHEMA_VERSION else ("newer", "Update distjudge-trl")
        )
        raise UserInputError(
            f"{path}: has schema version {version}, {age} than {SCHEMA_VERSION}, which is read. {fix}."
        )
    missing = [name for name in _REQUIRED if name not in results]
    if missing:
        raise UserInputError(f"{path}: lacks {', '.join(missing)}. Run the evaluation again.")
    return results


def read_predictions(folder: str | Path) -> Dataset:
    """Per-item rows of a run: `id`, `group`, `label_distribution`, `num_annotators`, `judge_distribution` (lists of K
    floats).
    """
    path = Path(folder) / PREDICTIONS_NAME
    if not path.is_file():
        raise UserInputError(f"{path}: no such file; the run has not finished or is somewhere else.")
    dataset = Dataset.from_parquet(str(path))
    assert isinstance(dataset, Dataset)
    return dataset
