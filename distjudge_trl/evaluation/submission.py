"""Submissions to the shared tasks on learning with disagreement (LeWiDi), in the organisers' formats.

- 2023: `<Dataset>_results.tsv`, a line per item in the order of the test file: hard label, P(0), P(1).
- 2025: `<Dataset>_test_soft.tsv`, a line per item: its id and the list of its probabilities, in the labels' order;
  VariErrNLI's list has a pair (not chosen, chosen) for contradiction, entailment and neutral.

Neither has a header. `res.zip` holds the files without folders.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from distjudge_trl.errors import UserInputError
from distjudge_trl.evaluation.distances import as_array
from distjudge_trl.evaluation.options import EvaluationOptions
from distjudge_trl.evaluation.origin import find_origin
from distjudge_trl.evaluation.run import choose_template, load_judge
from distjudge_trl.files.atomic import replacing
from distjudge_trl.judges.loading import FoundJudge
from distjudge_trl.tasks import Item, JudgmentTask, LoadReport, TaskOptions, get_task
from distjudge_trl.tasks.lewidi import SHARED_TASKS, key_of


ARCHIVE_NAME = "res.zip"
_DECIMALS = 10
_MOST_NAMES = 8


class JudgedInputs(NamedTuple):
    """Items in the order of their file, the judge's distributions `(N, K)`, and what was noted about the file."""

    items: list[Item]
    q: np.ndarray
    report: LoadReport


def judge_inputs(
    found: FoundJudge,
    task: JudgmentTask,
    task_options: TaskOptions,
    options: EvaluationOptions,
    *,
    progress: bool = False,
) -> JudgedInputs:
    """Judge all items of the file at `options.data_path`, with votes or without; of a folder, of its test file.

    Raises:
        [`UserInputError`]: judge and task do not go together, the file is malformed or empty, or the folder has no
            test file.
    """
    origin, report = find_origin(found, task), LoadReport()
    items = _of_one_file(list(task.inputs(options.data_path, task_options, report=report)), options.data_path)
    template = choose_template(origin, task, items, options)
    judge = load_judge(found, task, template, options, calibrated=options.calibration)
    prompts = [{"prompt": task.prompt_of(item, template, judge.fitter)} for item in items]
    if judge.fitter is not None and judge.fitter.num_shortened:
        report.notes[f"prompts shortened to {judge.fitter.max_length:,} tokens"] += judge.fitter.num_shortened
    return JudgedInputs(items, judge.judge(prompts, options.batch_size, progress=progress), report)


def _of_one_file(items: list[Item], path: str | None) -> list[Item]:
    if not items:
        raise UserInputError(f"{path}: holds no items.")
    names = list(dict.fromkeys(item.source for item in items))
    if len(names) == 1:
        return items
    tests = {item.source for item in items if item.split == "test"}
    if len(tests) != 1:
        more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
        raise UserInputError(
            f"{path}: holds {len(tests) or 'no'} test files among {', '.join(names[:_MOST_NAMES])}{more}. Name the"
            " file to judge with --data-path."
        )
    return [item for item in items if item.source in tests]


def submission_name(task: str) -> str:
    """The official name of a task's file."""
    shared = SHARED_TASKS[task]
    return f"{shared.dataset}_results.tsv" if shared.edition == 2023 else f"{shared.dataset}_test_soft.tsv"


def write_submission(task: str, items: Sequence[Item], q: Any, folder: str | Path) -> tuple[Path, Path]:
    """Write a task's file and `res.zip`, which holds it and the files of the same edition that are in the folder.

    Args:
        task (`str`): a key of `SHARED_TASKS`.
        items (`Sequence[Item]`), q (array `(N, K)`): as [`judge_inputs`] returns them.
        folder (`str` or `Path`): created if missing.

    Returns:
        `tuple[Path, Path]`: the file and the archive.
    """
    folder = Path(folder)
    path = folder / submission_name(task)
    lines = _lines(task, items, [_rounded(row) for row in as_array(q)])
    with replacing(path) as temporary:
        temporary.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        check_submission(task, temporary, _keys(items))
    edition = [name for name, shared in SHARED_TASKS.items() if shared.edition == SHARED_TASKS[task].edition]
    with replacing(folder / ARCHIVE_NAME) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as file:
        for name in map(submission_name, edition):
            if (folder / name).is_file():
                file.write(folder / name, name)
    return path, folder / ARCHIVE_NAME


def _rounded(row: np.ndarray) -> list[float]:
    """Probabilities with ten decimals that sum to 1."""
    values = [round(float(value), _DECIMALS) for value in row]
    largest = values.index(max(values))
    values[largest] = round(values[largest] + 1 - sum(values), _DECIMALS)
    return values


def _keys(items: Sequence[Item]) -> list[str]:
    """The keys of the file's entries, each once."""
    return list(dict.fromkeys(key_of(item) for item in items))


def _lines(task: str, items: Sequence[Item], rows: list[list[float]]) -> list[str]:
    shared = SHARED_TASKS[task]
    if shared.edition == 2023:
        return [f"{row.index(max(row))}\t{row[0]}\t{row[1]}" for row in rows]
    if not shared.parts:
        return [f"{key_of(item)}\t{json.dumps(row)}" for item, row in zip(items, rows, strict=True)]
    answers = {(key_of(item), item.part): row for item, row in zip(items, rows, strict=True)}
    return [f"{key}\t{json.dumps([answers[key, part] for part in shared.parts])}" for key in _keys(items)]


def check_submission(task: str, path: str | Path, keys: Sequence[str]) -> None:
    """Check a task's file against the documented format.

    Args:
        task (`str`): a key of `SHARED_TASKS`.
        path (`str` or `Path`): the file.
        keys (`Sequence[str]`): of the test file's items, in its order.

    Raises:
        [`UserInputError`]: names the line that is wrong.
    """
    lines = Path(path).read_text(encoding="utf-8").split("\n")[:-1]
    if len(lines) != len(keys):
        raise UserInputError(f"{path}: has {len(lines)} lines for {len(keys)} items.")
    for number, (line, key) in enumerate(zip(lines, keys, strict=True), start=1):
        problem = _problem(task, line.split("\t"), key)
        if problem:
            raise UserInputError(f"{path}, line {number}: {problem}.")


def _problem(task: str, cells: list[str], key: str) -> str | None:
    """What is wrong with a line, if anything."""
    shared, num_labels = SHARED_TASKS[task], len(get_task(task).labels)
    if len(cells) != (3 if shared.edition == 2023 else 2):
        return f"has {len(cells)} columns"
    try:
        if shared.edition == 2023:
            rows = [[float(cell) for cell in cells[1:]]]
            if cells[0] != str(rows[0].index(max(rows[0]))):
                return f"the hard label {cells[0]} is not the likeliest"
        else:
            rows = json.loads(cells[1]) if shared.parts else [json.loads(cells[1])]
            if cells[0] != key:
                return f"has the id {cells[0]!r}, where {key!r} is expected"
    except ValueError as error:
        return str(error)
    if len(rows) != (len(shared.parts) or 1) or any(len(row) != num_labels for row in rows):
        return f"has no {num_labels} probabilities for each of its labels"
    if any(min(row) < 0 or abs(sum(row) - 1) > 1e-6 for row in rows):
        return "has probabilities that do not sum to 1"
    return None
