"""Judging a JSONL file: read and check all of it first, then judge, then write whole or not at all."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from distjudge_trl.data.files import find_files, read_rows
from distjudge_trl.errors import JudgmentDataError, UserInputError
from distjudge_trl.judges.base import Judge


OUTPUT_FIELD = "label_distribution"


def read_items(path: str | Path) -> list[dict[str, Any]]:
    """Rows of a file: JSON lines, or any other format of [`~distjudge_trl.data.files.find_files`].

    Raises:
        [`UserInputError`]: the file cannot be read or holds nothing.
        [`JudgmentDataError`]: a broken row; the message names file, row and field.
    """
    if Path(path).is_dir():
        raise UserInputError(f"{path}: is a folder; name the file to judge.")
    items = [row for file in find_files(path, ("*",)) for _, row in read_rows(file)]
    if not items:
        raise UserInputError(f"{path}: holds no items.")
    return items


def judge_jsonl(make_judge: Callable[[], Judge], input_path: str, output_path: str, *, batch_size: int = 32) -> int:
    """Judge every item of a JSONL file and write them with the field `label_distribution` (label to probability).

    Args:
        make_judge (`Callable`): loads the judge; called only once the input has been read and the output is known to
            be writable.
        input_path, output_path (`str`): JSONL files.
        batch_size (`int`, defaults to 32): prompts in one forward pass.

    Returns:
        `int`: how many items were judged.

    Raises:
        [`UserInputError`]: unreadable or malformed input, an output that cannot be written, or items that already have
            the field.
    """
    items = read_items(input_path)
    for number, item in enumerate(items, start=1):
        if OUTPUT_FIELD in item:
            raise JudgmentDataError(
                "is in the input already, and the output would overwrite it",
                source=input_path,
                row=number,
                field=OUTPUT_FIELD,
                fix="Rename it.",
            )
    target = Path(output_path)
    if target.exists() and target.samefile(input_path):
        raise UserInputError(f"{output_path}: is the input; name another file to write.")
    if target.is_dir():
        raise UserInputError(f"{output_path}: is a folder; name the file to write.")
    if target.exists() and not target.is_file():
        raise UserInputError(f"{output_path}: is no regular file.")
    temporary = target.with_name(f".{target.name}.tmp")
    try:
        temporary.touch()
    except OSError as error:
        raise UserInputError(f"{output_path}: cannot be written ({error.strerror}).") from None
    try:
        judge = make_judge()
        try:
            probabilities = judge.judge(items, batch_size, progress=True)
        except JudgmentDataError as error:
            if error.source is not None:
                raise
            raise JudgmentDataError(
                error.problem, source=input_path, row=error.row, field=error.field, fix=error.fix
            ) from None
        with temporary.open("w", encoding="utf-8") as file:
            for item, row in zip(items, probabilities.tolist(), strict=True):
                assert math.isclose(sum(row), 1, abs_tol=1e-6)
                item[OUTPUT_FIELD] = dict(zip(judge.label_space.labels, row, strict=True))
                file.write(json.dumps(item, ensure_ascii=False) + "\n")
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    return len(items)
