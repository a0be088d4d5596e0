"""Result files: `results.json`, the figures of a run and where they come from, and `predictions.parquet`, its
distributions item by item. `make_results` assembles the first one, for training runs and for `evaluate` alike.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset
from pydantic import ValidationError

from distjudge_trl.calibration.stored import Calibration
from distjudge_trl.data import fingerprint
from distjudge_trl.errors import UserInputError, first_line, listing
from distjudge_trl.evaluation.schema import Results
from distjudge_trl.evaluation.scoring import TestItems, human_side
from distjudge_trl.files.atomic import check_folder, replacing, write_json
from distjudge_trl.tasks import JudgmentTask


RESULTS_NAME = "results.json"
PREDICTIONS_NAME = "predictions.parquet"
SCHEMA_VERSION = 4
# What follows the name of the method if the judge was calibrated by `distjudge-trl calibrate`.
OWN_CALIBRATION = " + calibration"

_COLUMNS = ("id", "group", "prompt", "label_distribution", "num_annotators", "judge_distribution")
RAW_COLUMN = "raw_distribution"


@dataclass(frozen=True)
class JudgeInfo:
    """How a result file describes its judge. The fields are keys of [`schema.Results`].

    Args:
        method (`str`): by which it was trained, `"raw"` without training.
        model (`str`): name or path of the base model.
        trained_on (`str`, *optional*): name of the task; `None` without training.
        seed (`int`, *optional*): of the training.
        settings (`dict`): of the training, its data and the split.
        top_k_floor (`float`, *optional*): the probability of a label that is not among the five likeliest tokens;
            `None` where all tokens are read.
        extraction (`dict`, *optional*): how a judge behind a server was read; replaces what `top_k_floor` says.
    """

    method: str
    model: str
    trained_on: str | None
    seed: int | None
    settings: dict[str, Any]
    top_k_floor: float | None = None
    extraction: dict[str, Any] | None = None


@dataclass(frozen=True)
class Predictions:
    """A judge's label log-probabilities for N records.

    Args:
        records (`Dataset`): judgment records.
        log_q (`np.ndarray` of shape `(N, K)`): in the order of the records.
        mass (`float`, *optional*): mean probability of all labels together under the full vocabulary, in [0, 1].
        floored (`np.ndarray` of shape `(N, K)`, *optional*): which labels the top-k extraction did not find.
    """

    records: Dataset
    log_q: np.ndarray
    mass: float | None = None
    floored: np.ndarray | None = None


def make_results(
    judge: JudgeInfo,
    task: JudgmentTask,
    predictions: Predictions,
    *,
    train: Dataset | None,
    held_out: Predictions | None = None,
    scalings: Sequence[dict[str, Any]] = (),
    calibration: Calibration | None = None,
    scored_on: Literal["test", "validation"] = "test",
    seed: int = 0,
    provenance: dict[str, Any],
) -> dict[str, Any]:
    """Score a judge, its calibrated variants and the constants on the same records: the content of `results.json`.

    Args:
        judge ([`JudgeInfo`]), task ([`JudgmentTask`]): which judge is scored, and on which task.
        predictions ([`Predictions`]): for the records that it is scored on, uncalibrated.
        train (`Dataset`, *optional*): training records, from which the training prior and majority are computed.
        held_out ([`Predictions`], *optional*): for records that neither training nor test has: temperature and vector
            scaling are fitted on them.
        scalings (`Sequence[dict]`): scalings that were fitted before, as [`TestItems.score_scaled`] takes them.
        calibration ([`Calibration`], *optional*): of the judge. The row of the judge is then that of the calibrated
            judge, and is called `NAME + calibration`; the variants are those of the uncalibrated judge.
        scored_on (`"test"` or `"validation"`): which part of the split the records are.
        seed (`int`, defaults to 0): of bootstrap, floor, ceiling and perturbations.
        provenance (`dict`): versions, options and data of the run.

    Raises:
        [`UserInputError`]: too few held-out records to fit a scaling.
    """
    log_q = predictions.log_q
    items = TestItems.of(predictions.records, ordinal=task.ordinal, seed=seed)
    if calibration is not None:
        predictions = replace(predictions, log_q=calibration(log_q))
    scores = items.score(predictions.log_q, mass=predictions.mass, floored=predictions.floored)
    if calibration is not None:
        scores["metrics"] |= items.measure_sets(predictions.log_q, calibration.label_sets)
    variants = [items.score_scaled(judge.method, log_q, scaling) for scaling in scalings]
    if held_out is not None:
        held_out_p, _ = human_side(held_out.records)
        variants += items.score_calibrated(judge.method, log_q, held_out_p, held_out.log_q)
    variants += items.score_constants(human_side(train)[0] if train is not None else None)
    return {
        "task": task.name,
        "trained_on": judge.trained_on,
        "method": judge.method if calibration is None else f"{judge.method}{OWN_CALIBRATION}",
        "model": judge.model,
        "labels": list(task.labels),
        "ordinal": task.ordinal,
        "seed": judge.seed,
        "settings": judge.settings,
        "extraction": judge.extraction
        or {"kind": "full" if judge.top_k_floor is None else "top5", "floor": judge.top_k_floor},
        **scores,
        **_parts(task, predictions, calibration, seed),
        **({"calibration": calibration.to_dict()} if calibration is not None else {}),
        "variants": variants,
        **items.score_question_prior(task, train),
        "scored_on": scored_on,
        "test_fingerprint": fingerprint(predictions.records),
        "provenance": provenance,
    }


def _parts(task: JudgmentTask, predictions: Predictions, calibration: Calibration | None, seed: int) -> dict[str, Any]:
    """The key `parts`: the metrics of each of a task's questions, if the records have several."""
    rows: dict[str, list[int]] = {}
    for i, name in enumerate(predictions.records["id"][:]):
        rows.setdefault(task.part_of(name), []).append(i)
    if len(rows) < 2:
        return {}
    metrics = {}
    for part in sorted(rows, key=lambda part: task.parts.index(part) if part else -1):
        chosen = rows[part]
        items = TestItems.of(predictions.records.select(chosen), ordinal=task.ordinal, seed=seed)
        floored = predictions.floored[chosen] if predictions.floored is not None else None
        metrics[part] = items.measure(predictions.log_q[chosen], floored=floored)
        if calibration is not None:
            metrics[part] |= items.measure_sets(predictions.log_q[chosen], calibration.label_sets)
    return {"parts": metrics}


def results_file(path: str | Path) -> Path:
    """The JSON file that a path means: the path itself if it ends in `.json`, else the `results.json` of that
    folder.
    """
    path = Path(path)
    return path if path.suffix == ".json" else path / RESULTS_NAME


def predictions_file(path: str | Path) -> Path:
    """The Parquet file that belongs to the result file of this path: `predictions.parquet` beside `results.json`,
    `NAME.predictions.parquet` beside `NAME.json`.
    """
    file = results_file(path)
    return file.with_name(PREDICTIONS_NAME if file.name == RESULTS_NAME else f"{file.stem}.{PREDICTIONS_NAME}")


def check_results_path(path: str | Path, *, judge: str | None = None) -> None:
    """Raise before any work is done if results cannot be written there.

    Raises:
        [`UserInputError`]: the place does not exist or is not writable, or it is the folder of the judge itself, whose
            own results would be replaced.
    """
    file = results_file(path)
    if judge is not None and Path(judge).is_dir() and file.parent.resolve() == Path(judge).resolve():
        raise UserInputError(f"{path}: holds the judge and its training run's own results. Choose another --out.")
    if Path(path).is_file() and Path(path).suffix != ".json":
        raise UserInputError(f"{path}: is a file; name a folder or a .json file.")
    if file.is_dir():
        raise UserInputError(f"{file}: is a folder; name a file to write.")
    check_folder(file.parent, "--out", shown=file)


def write_results(
    path: str | Path,
    results: dict[str, Any],
    records: Dataset,
    log_q: np.ndarray,
    raw_log_q: np.ndarray | None = None,
) -> None:
    """Write both files, each atomically. The results come last, so a folder that has them is complete.

    Args:
        path (`str` or `Path`): a folder, created if missing, or the name of the JSON file.
        results (`dict`): the keys of the schema; the schema's version and the digest of the Parquet file are added.
        records (`Dataset`): the test records, N rows.
        log_q (`np.ndarray` of shape `(N, K)`): the judge's label log-probabilities for them, in the same order.
        raw_log_q (`np.ndarray` of shape `(N, K)`, *optional*): those without the judge's own calibration.
    """
    table = records.select_columns(list(_COLUMNS[:-1])).with_format("arrow")[:]
    for name, answers in ((_COLUMNS[-1], log_q), (RAW_COLUMN, raw_log_q)):
        if answers is not None:
            table = table.append_column(name, pa.array(np.exp(answers).tolist(), pa.list_(pa.float64())))
    with replacing(predictions_file(path)) as temporary:
        pq.write_table(table, temporary)
        digest = digest_of(temporary)
    write_json(results_file(path), {"schema_version": SCHEMA_VERSION, **results, "predictions_sha256": digest})


def digest_of(path: Path) -> str:
    """The SHA-256 of a file, as result files hold that of their predictions."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_results(path: str | Path) -> dict[str, Any]:
    """Read a result file, by its name or its folder's.

    Raises:
        [`UserInputError`]: the file is missing, has another schema version, or does not match `schema.py`; the message
            names the file and the key.
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
        raise UserInputError(f"{path}: is not a result file (it has no schema_version).")
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
    """Key and message of the first error that pydantic found."""
    first = error.errors(include_url=False, include_context=False)[0]
    keys = ".".join(map(str, first["loc"]))
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "missing":
        return f"`{keys}` is missing"
    value = repr(first["input"])
    return f"`{keys}`: {message[0].lower()}{message[1:]}, got {value[:60]}" if keys else message


def read_predictions(path: str | Path) -> Dataset:
    """Per-item rows of a run: `id`, `group`, `prompt` (list of messages), `label_distribution`, `num_annotators`,
    `judge_distribution` (lists of K floats), and `raw_distribution` if the judge is calibrated.

    Raises:
        [`UserInputError`]: the file is missing or damaged, lacks these columns, or does not belong to the result file
            beside it; the message names the file.
    """
    results_path, path = path, predictions_file(path)
    if not path.is_file():
        raise UserInputError(f"{path}: no such file; the run has not finished or is somewhere else.")
    try:
        # Not read through the library's cache, because a file of the same name and time may hold another run.
        dataset = Dataset(pq.read_table(path))
    except (pa.ArrowException, OSError) as error:
        raise UserInputError(f"{path}: is damaged ({first_line(error)}). Run the evaluation again.") from None
    missing = [name for name in _COLUMNS if name not in dataset.column_names]
    if missing:
        raise UserInputError(f"{path}: lacks the columns {listing(missing)}. Run the evaluation again.")
    if read_results(results_path)["predictions_sha256"] != digest_of(path):
        raise UserInputError(
            f"{path}: is not the one that {results_file(results_path).name} was computed from. Run the evaluation"
            " again."
        )
    return dataset
