"""The results folder of a study: a small folder for every finished run, fit for a repository.

A folder is one that `distjudge-trl report` reads, without what is large or another's: predictions are in single
precision and carry no prompts, so that no text of a data set is in them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from distjudge_trl.errors import UserInputError
from distjudge_trl.evaluation.results import (
    PREDICTIONS_NAME,
    RESULTS_NAME,
    digest_of,
    read_results,
)
from distjudge_trl.files.atomic import replacing
from distjudge_trl.report.runs import Row, Run
from distjudge_trl.report.tables import rows_of
from distjudge_trl.study.plan import PlannedRun, options_apart


# Of the provenance, what is not in a run's options already.
_KEPT = ("versions", "git_revision", "platform", "world_size", "train_fingerprint", "data_report", "evaluation")
_DECIMALS = 6


@dataclass(frozen=True)
class StudyResult:
    """A finished run. `about` is what the study says of it: `data`, `method`, `seed`, `vary`, `options`, `seconds`,
    `machine`, and `transfer` (a task) if the judge was tested on other data than its own.
    """

    path: Path
    results: dict[str, Any]
    about: dict[str, Any]

    @cached_property
    def run(self) -> Run:
        """With its predictions."""
        return Run(self.path)

    @cached_property
    def rows(self) -> dict[str, Row]:
        """The judge under `"plain"`, its variants under `"temperature"` and `"vector"`, and the constants by name."""
        rows = {}
        for content in rows_of(self.results):
            name = content["method"] if "constant" in content else content["method"].partition(" + ")[2] or "plain"
            rows[name] = Row(self.run, content, self.results["model"])
        return rows


def result_folder(root: Path, run: PlannedRun, transfer: str | None = None) -> Path:
    """Where the results of a run are kept."""
    return root / (run.data if transfer is None else f"{transfer}-from-{run.data}") / run.name


def is_done(root: Path, run: PlannedRun, transfer: str | None = None) -> bool:
    """Whether the results of a run are there.

    Raises:
        [`UserInputError`]: they are, but of a run with other options, or they are damaged.
    """
    folder = result_folder(root, run, transfer)
    if not (folder / RESULTS_NAME).is_file():
        return False
    about = read_results(folder)["provenance"].get("study")
    if about is None:
        raise UserInputError(f"{folder}: holds results that are no study's. Choose another folder for the results.")
    if about["options"] != dict(run.options):
        raise UserInputError(
            f"{folder}: was made with other options than the plan's: {options_apart(about['options'], run.options)}"
            " (there and in the plan). Delete that folder, or give the new run another name in the plan."
        )
    return True


def keep(root: Path, run: PlannedRun, made: Path, about: dict[str, Any], transfer: str | None = None) -> Path:
    """Copy the results of a finished run in the folder `made` into the results folder, predictions first: a folder
    with results is complete. Returns the folder.
    """
    folder = result_folder(root, run, transfer)
    results = read_results(made)
    # As arrow stores them, without the library's notes on the features of columns that change here.
    table = pq.read_table(made / PREDICTIONS_NAME).replace_schema_metadata(None)
    prompts = table.schema.get_field_index("prompt")
    empty = pa.array([[] for _ in range(len(table))], table.schema.field(prompts).type)
    table = table.set_column(prompts, "prompt", empty)
    for name in ("label_distribution", "judge_distribution", "raw_distribution"):
        if (place := table.schema.get_field_index(name)) >= 0:
            table = table.set_column(place, name, table.column(name).cast(pa.list_(pa.float32())))
    with replacing(folder / PREDICTIONS_NAME) as temporary:
        pq.write_table(table, temporary, compression="zstd", compression_level=19)
        digest = digest_of(temporary)
    provenance = {name: results["provenance"][name] for name in _KEPT if name in results["provenance"]}
    results = {
        **results,
        "provenance": {
            **provenance,
            "study": {**_about(run), **about, **({"transfer": transfer} if transfer else {})},
        },
        "predictions_sha256": digest,
    }
    with replacing(folder / RESULTS_NAME) as temporary:
        temporary.write_text(json.dumps(_rounded(results), ensure_ascii=False) + "\n", encoding="utf-8")
    return folder


def _about(run: PlannedRun) -> dict[str, Any]:
    return {
        "data": run.data,
        "method": run.method,
        "seed": run.seed,
        "vary": dict(run.vary),
        "options": dict(run.options),
    }


def _rounded(value: Any) -> Any:
    """Numbers with six significant digits: the predictions beside them tell more."""
    if isinstance(value, float):
        return float(f"{value:.{_DECIMALS}g}") if np.isfinite(value) else value
    if isinstance(value, dict):
        return {key: entry if key == "options" else _rounded(entry) for key, entry in value.items()}
    return [_rounded(entry) for entry in value] if isinstance(value, list) else value


def read_study(root: str | Path, *, names: Iterable[str] | None = None) -> list[StudyResult]:
    """All finished runs of a results folder, sorted by their folders.

    Args:
        root (`str` or `Path`): the folder.
        names (`Iterable[str]`, *optional*): read only these data sets.

    Raises:
        [`UserInputError`]: the folder does not exist, or a result in it is damaged or no study's.
    """
    root = Path(root)
    if not root.is_dir():
        raise UserInputError(f"{root}: no such folder.")
    wanted = set(names) if names is not None else None
    found = []
    for path in sorted(root.glob(f"*/*/{RESULTS_NAME}")):
        if wanted is not None and path.parent.parent.name not in wanted:
            continue
        results = read_results(path)
        about = results["provenance"].get("study")
        if about is None:
            raise UserInputError(f"{path}: is not a result of a study.")
        found.append(StudyResult(path.parent, results, about))
    return found
