"""Result files: `results.json`, what a run measured and where it comes from, and `predictions.parquet`, its per-item
distributions.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset
from pydantic import ValidationError

from distjudge_trl.errors import UserInputError, first_line
from distjudge_trl.evaluation.schema import Results
from distjudge_trl.files.atomic import check_folder, replacing, write_json


RESULTS_NAME = "results.json"
PREDICTIONS_NAME = "predictions.parquet"
SCHEMA_VERSION = 4

_COLUMNS = ("id", "group", "prompt", "label_distribution", "num_annotators", "judge_distribution")


def results_file(path: str | Path) -> Path:
    """The JSON file that a user means: a file of that name, or the `results.json` of a folder."""
    path = Path(path)
    return path if path.suffix == ".json" else path / RESULTS_NAME


def predictions_file(path: str | Path) -> Path:
    """The Parquet file that belongs to the result file of this path: `predictions.parquet` beside `results.json`,
    `NAME.predictions.parquet` beside `NAME.json`.
    """
    file = results_file(path)
    return file.with_name(PREDICTIONS_NAME if file.name == RESULTS_NAME else f"{file.stem}.{PREDICTIONS_NAME}")


def check_results_path(path: str | Path, *, judge: str | None = None) -> None:
    """Fail before the work, not after it, if results cannot be written there.

    Raises:
        [`UserInputError`]: no such place, no permission, or the folder of the judge itself, whose own results would be
            replaced.
    """
    file = results_file(path)
    if judge is not None and Path(judge).is_dir() and file.parent.resolve() == Path(judge).resolve():
        raise UserInputError(f"{path}: holds the judge and its training run's own results. Choose another --out.")
    if Path(path).is_file() and Path(path).suffix != ".json":
        raise UserInputError(f"{path}: is a file; name a folder or a .json file.")
    if file.is_dir():
        raise UserInputError(f"{file}: is a folder; name a file to write.")
    check_folder(file.parent, "--out", shown=file)


def write_results(path: str | Path, results: dict[str, Any], records: Dataset, log_q: np.ndarray) -> None:
    """Write both files, each whole or not at all; the results last, so that a folder with them is complete.

    Args:
        path (`str` or `Path`): a folder, created if missing, or the name of the JSON file.
        results (`dict`): the keys of the schema; its version is added, and the digest of the Parquet file.
        records (`Dataset`): the test records, N rows.
        log_q (`np.ndarray` of shape `(N, K)`): the judge's label log-probabilities for them, in the same order.
    """
    table = records.select_columns(list(_COLUMNS[:-1])).with_format("arrow")[:]
    table = table.append_column(_COLUMNS[-1], pa.array(np.exp(log_q).tolist(), pa.list_(pa.float64())))
    with replacing(predictions_file(path)) as temporary:
        pq.write_table(table, temporary)
        digest = _digest(temporary)
    write_json(results_file(path), {"schema_version": SCHEMA_VERSION, **results, "predictions_sha256": digest})


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_results(path: str | Path) -> dict[str, Any]:
    """Read a result file, by its name or its folder's.

    Raises:
        [`UserInputError`]: missing, of another schema version, or not as `schema.py` says; the message names the file
            and the key.
    """
    path = results_file(path)
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserInputError(f"{path}: no such file; the run has not finished or is somewhere else.") from None
    except OSError as error:
        raise UserInputError(f"{path}: cannot be read ({error.strerror}).") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserInputError(f"{path}: is damaged ({error}). Run the evaluation again.") from None
    version = results.get("schema_version") if isinstance(results, dict) else None
    if not isinstance(version, int):
        raise UserInputError(f"{path}: is no result file (it has no schema_version).")
    assert isinstance(results, dict)
    if version != SCHEMA_VERSION:
        age, fix = (
            ("older", "Run the evaluation again") if version < SCHEMA_VERSION else ("newer", "Update distjudge-trl")
        )
        raise UserInputError(
            f"{path}: has schema version {version}, {age} than {SCHEMA_VERSION}, which is read. {fix}."
        )
    try:
        Results.model_validate(results)
    except ValidationError as error:
        raise UserInputError(f"{path}: is damaged ({_finding(error)}). Run the evaluation again.") from None
    return results


def _finding(error: ValidationError) -> str:
    """Key and fault of the first thing that pydantic found."""
    first = error.errors(include_url=False, include_context=False)[0]
    keys = ".".join(map(str, first["loc"]))
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "missing":
        return f"`{keys}` is missing"
    value = repr(first["input"])
    return f"`{keys}`: {message[0].lower()}{message[1:]}, got {value[:60]}" if keys else message


def read_predictions(path: str | Path) -> Dataset:
    """Per-item rows of a run: `id`, `group`, `prompt` (list of messages), `label_distribution`, `num_annotators`,
    `judge_distribution` (lists of K floats).

    Raises:
        [`UserInputError`]: missing, damaged, without these columns, or not those of the result file beside it; the
            message names the file.
    """
    results_path, path = path, predictions_file(path)
    if not path.is_file():
        raise UserInputError(f"{path}: no such file; the run has not finished or is somewhere else.")
    try:
        # Not through the library's cache: a file of the same name and time may hold another run.
        dataset = Dataset(pq.read_table(path))
    except (pa.ArrowException, OSError) as error:
        raise UserInputError(f"{path}: is damaged ({first_line(error)}). Run the evaluation again.") from None
    missing = [name for name in _COLUMNS if name not in dataset.column_names]
    if missing:
        raise UserInputError(f"{path}: lacks the columns {', '.join(missing)}. Run the evaluation again.")
    if read_results(results_path)["predictions_sha256"] != _digest(path):
        raise UserInputError(
            f"{path}: is not the one that {results_file(results_path).name} was computed from. Run the evaluation"
            " again."
        )
    return dataset
