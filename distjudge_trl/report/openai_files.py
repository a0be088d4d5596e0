"""`distjudge-trl export-openai`: files of chat examples, checked before they take their names."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from datasets import Dataset

from distjudge_trl.data.openai_chat import MIN_EXAMPLES, ChatRow, check_chat_file, write_rows
from distjudge_trl.errors import UserInputError
from distjudge_trl.files.atomic import check_folder, replacing
from distjudge_trl.labels import LabelSpace
from distjudge_trl.report.record_files import refuse_inputs


def check_outputs(paths: Sequence[str], inputs: Sequence[str]) -> None:
    """Raise [`UserInputError`] unless these are different names of JSONL files that can be written, none of them one
    of the `inputs`.
    """
    for name in paths:
        path = Path(name)
        if path.suffix != ".jsonl":
            raise UserInputError(f"{path}: fine-tuning takes JSON lines; name a file that ends in .jsonl.")
        refuse_inputs(path, inputs)
        check_folder(path.parent, "--out", shown=path)
    if len({Path(name).resolve() for name in paths}) < len(paths):
        raise UserInputError(f"{paths[0]}: is --out and --validation-out; name two files.")


def write_chat_files(
    files: Sequence[tuple[str, Dataset, Sequence[ChatRow]]], label_space: LabelSpace, *, max_example_bytes: int
) -> None:
    """Write files of rows, each from its records. All of them are checked before the first takes its name, so that
    none is replaced if one is refused.

    Raises:
        [`UserInputError`]: a file does not fit the format or its limits; see [`check_chat_file`]. Only the first one,
            on which is trained, needs a number of examples.
    """
    with ExitStack() as stack:
        written = [(name, stack.enter_context(replacing(name)), records, rows) for name, records, rows in files]
        for number, (name, temporary, records, rows) in enumerate(written):
            write_rows(temporary, records, rows, label_space)
            least = MIN_EXAMPLES if number == 0 else 1
            check_chat_file(temporary, shown=name, min_examples=least, max_example_bytes=max_example_bytes)
