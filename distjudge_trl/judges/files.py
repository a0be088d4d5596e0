"""Judging a file of items: all of it is read and checked first, then judged, then written as JSON lines,
atomically.
"""

from __future__ import annotations

import json
import math
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, NamedTuple

from distjudge_trl.data.reading import Reading
from distjudge_trl.data.rows import own_fields, read_rows
from distjudge_trl.data.saved_datasets import saved_dataset
from distjudge_trl.data.source_files import find_files
from distjudge_trl.data.template import PromptTemplate
from distjudge_trl.data.values import as_json
from distjudge_trl.errors import JudgmentDataError, UserInputError, writing
from distjudge_trl.files.atomic import replacing
from distjudge_trl.judges.base import checked_prompt
from distjudge_trl.judges.judge import Judge


OUTPUT_FIELD = "label_distribution"


class InputRow(NamedTuple):
    """A row to judge: its file, its number in the file, and its content."""

    source: str
    number: int
    content: dict[str, Any]


def read_items(path: str | Path, reading: Reading | None = None, notes: Counter[str] | None = None) -> list[InputRow]:
    """Rows of a file: JSON lines, or any other format of [`~distjudge_trl.data.source_files.find_files`].

    Raises:
        [`UserInputError`]: the file cannot be read or is empty.
        [`JudgmentDataError`]: a broken row; the message names file, row and field.
    """
    if Path(path).is_dir() and saved_dataset(Path(path)) is None:
        raise UserInputError(f"{path}: is a folder; name the file to judge.")
    files = [replace(file, reading=reading or file.reading) for file in find_files(path, ("*",))]
    items = [InputRow(file.name, number, row) for file in files for number, row in read_rows(file, notes=notes)]
    if not items:
        raise UserInputError(f"{path}: holds no items.")
    return items


def judge_jsonl(
    make_judge: Callable[[], Judge],
    input_path: str,
    output_path: str,
    *,
    batch_size: int = 32,
    reading: Reading | None = None,
    notes: Counter[str] | None = None,
    find_template: Callable[[], PromptTemplate | None] | None = None,
) -> int:
    """Judge every item of a file and write the items as JSON lines with the field `label_distribution` (label to
    probability). NaN, which stands for an empty cell, is written as null. The pseudo-columns of
    [`~distjudge_trl.data.rows.read_rows`] can be in the prompt; they are not written.

    Args:
        make_judge (`Callable`): loads the judge. It is called after the input has been read, every row is known to be
            JSON-serialisable, and the output is known to be writable. Disk space for the output is reserved before
            judging.
        input_path (`str`): JSON lines, or any other format of [`read_items`].
        output_path (`str`): JSONL file.
        batch_size (`int`, defaults to 32): prompts in one forward pass.
        reading ([`Reading`], *optional*): delimiter, encoding, quoting and sheet of the input, where they cannot be
            seen from it.
        notes (`Counter[str]`, *optional*): counts of what a reader should know of the input.
        find_template (`Callable`, *optional*): finds the judge's template. With it every row's prompt is made before
            the judge is loaded, so that a row without a prompt costs no time.

    Returns:
        `int`: how many items were judged.

    Raises:
        [`UserInputError`]: unreadable or malformed input, an output that cannot be written, or items that already have
            the field.
        [`JudgmentDataError`]: a row that cannot be written as JSON, or that cannot be rendered as a prompt.
        [`RunFailedError`]: the disk has too little space for the output.
    """
    items = read_items(input_path, reading, notes)
    lines = []
    for source, number, item in items:
        if OUTPUT_FIELD in item:
            raise JudgmentDataError(
                "is in the input already, and the output would overwrite it",
                source=source,
                row=number,
                field=OUTPUT_FIELD,
                fix="Rename it.",
            )
        lines.append(as_json(own_fields(item), source=source, number=number))
    target = Path(output_path)
    if target.exists() and target.samefile(input_path):
        raise UserInputError(f"{output_path}: is the input; name another file to write.")
    if target.is_dir():
        raise UserInputError(f"{output_path}: is a folder; name the file to write.")
    if target.exists() and not target.is_file():
        raise UserInputError(f"{output_path}: is not a regular file.")
    with _room_beside(target) as room:
        if find_template is not None:
            _check_prompts(items, find_template())
        judge = make_judge()
        labels = judge.label_space.labels
        with writing(output_path):
            # Placeholders of the greatest length that a probability can have.
            _write_lines(room, lines, labels, [[sys.float_info.min] * len(labels)] * len(lines))
            room.flush()
        try:
            probabilities = judge.judge([item.content for item in items], batch_size, progress=True).tolist()
        except JudgmentDataError as error:
            if error.source is not None or not isinstance(error.row, int):
                raise
            # Judges count items, but users look for the line, which differs if the file has a header or blank lines.
            place = items[error.row - 1]
            raise JudgmentDataError(
                error.problem, source=place.source, row=place.number, field=error.field, fix=error.fix
            ) from None
    assert all(math.isclose(sum(row), 1, abs_tol=1e-6) for row in probabilities)
    with writing(output_path), replacing(target) as temporary, temporary.open("w", encoding="utf-8") as file:
        _write_lines(file, lines, labels, probabilities)
    return len(items)


def _check_prompts(items: Sequence[InputRow], template: PromptTemplate | None) -> None:
    for source, number, item in items:
        if checked_prompt(item, template, source=source, row=number) is None:
            assert template is not None
            template.render(item, source=source, row=number)


@contextmanager
def _room_beside(target: Path) -> Iterator[IO[str]]:
    """An unnamed file beside the target that reserves the disk space for the output. If the disk were full only after
    judging, all of the work would be lost.
    """
    try:
        file = tempfile.TemporaryFile("w", dir=target.parent, encoding="utf-8")  # noqa: SIM115 (closed below)
    except OSError as error:
        raise UserInputError(f"{target}: cannot be written ({error.strerror}).") from None
    try:
        yield file
    finally:
        # Closing tries once more to write data for which there was no space.
        with suppress(OSError):
            file.close()


def _write_lines(
    file: IO[str], lines: Sequence[dict[str, Any]], labels: Sequence[str], probabilities: Sequence[Sequence[float]]
) -> None:
    for line, row in zip(lines, probabilities, strict=True):
        judged = {**line, OUTPUT_FIELD: dict(zip(labels, row, strict=True))}
        file.write(json.dumps(judged, ensure_ascii=False, allow_nan=False) + "\n")
