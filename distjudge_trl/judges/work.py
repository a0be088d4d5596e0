"""What is known of a file before its rows are judged: mistakes in it, the columns to write, what is done already."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from distjudge_trl.calibration.stored import Calibration
from distjudge_trl.data.reading import Reading
from distjudge_trl.data.template import PromptTemplate
from distjudge_trl.errors import JudgmentDataError, RunFailedError, UserInputError, counted, listing, writing
from distjudge_trl.judges.formats import ArrowTypes, format_of, write_lines
from distjudge_trl.judges.inputs import InputFile
from distjudge_trl.judges.partial import MAKE_ROOM, PartialOutput, Progress
from distjudge_trl.judges.readouts import DISTRIBUTION, READOUTS, RISK, check_risk, choose_columns
from distjudge_trl.judges.swapping import OrderCounts, Swap
from distjudge_trl.judges.windows import ERROR, OnError, Window, check_names, check_prompt, writable
from distjudge_trl.labels import LabelSpace


class KnownJudge(NamedTuple):
    """What is known of a judge before its model is loaded: labels and template, a hash that tells it from others, and
    its calibration. What is `None` is not checked before the model is loaded.
    """

    label_space: LabelSpace | None = None
    template: PromptTemplate | None = None
    fingerprint: str | None = None
    calibration: Calibration | None = None


@dataclass(frozen=True)
class JudgingOptions:
    """How a file is judged.

    Args:
        batch_size (`int`, defaults to 32): prompts in one forward pass.
        columns (`Sequence[str]`, *optional*): readouts to write; by default all that the labels have and the input
            has no column of the same name for.
        risk (`float`, defaults to 0.25): see [`~distjudge_trl.judges.readouts.readouts`].
        on_error (`"fail"` or `"mark"`): whether a row that cannot be judged stops the run, or is written with its
            error and without results.
        swap (`bool`): ask pairs in both orders, and average.
        swap_fields, swap_labels (`str`, *optional*): see [`Swap.find`].
        overwrite (`bool`): begin anew, whatever an earlier run has done.
        settings (`dict`): further options on which the output depends, by their names on the command line. A run goes
            on only if they are the same.
    """

    batch_size: int = 32
    columns: tuple[str, ...] | None = None
    risk: float = RISK
    on_error: OnError = "fail"
    swap: bool = False
    swap_fields: str | None = None
    swap_labels: str | None = None
    overwrite: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_risk(self.risk)


class Work:
    """A file to judge, for the process that writes; the others know its paths and options alone."""

    def __init__(self, input_path: Path, target: Path, options: JudgingOptions, reading: Reading | None) -> None:
        self.input_path, self.target, self.options, self.reading = input_path, target, options, reading
        self.format = format_of(target)
        self.partial = PartialOutput(target)
        self.progress: Progress | None = None

    def find_swap(self, template: PromptTemplate | None, label_space: LabelSpace) -> Swap | None:
        """How pairs are asked in the other order, if they are to be."""
        if not self.options.swap:
            return None
        return Swap.find(template, label_space, self.options.swap_fields, self.options.swap_labels)

    def prepare(
        self, find_judge: Callable[[], KnownJudge] | None, notes: Counter[str], say: Callable[[str], None]
    ) -> Progress:
        """Find mistakes before a model is loaded, and what an earlier run has done."""
        file = InputFile(self.input_path, self.reading)
        _check_target(self.target, self.input_path)
        known = find_judge() if find_judge is not None else KnownJudge()
        swap = self.find_swap(known.template, known.label_space) if known.label_space is not None else None
        if known.label_space is not None:
            choose_columns(self.options.columns, known.label_space, known.calibration)
        found = None
        if self.partial.folder.exists():
            found = self.partial.find(self._made_from(file, known), overwrite=self.options.overwrite)
        if found is not None:
            say(f"Going on behind {found.done:,} of {found.rows:,} rows in {self.partial.folder}")
        else:
            found = self._first_pass(file, known, swap, notes, say, check_prompts=find_judge is not None)
        if swap is not None and known.label_space is not None:
            say(f"Other order: {swap.describe(known.label_space)}")
        self.progress = found
        return found

    def _made_from(self, file: InputFile, known: KnownJudge) -> dict[str, Any]:
        """On what the output depends."""
        options, reading = self.options, self.reading or Reading()
        settings = {
            "--columns": [name for name in READOUTS if name in options.columns] if options.columns else None,
            "--risk": options.risk,
            "--swap": "average" if options.swap else None,
            "--swap-fields": options.swap_fields,
            "--swap-labels": options.swap_labels,
            "--delimiter": reading.delimiter,
            "--encoding": reading.encoding,
            "--quoting": reading.quoting,
            "--sheet": reading.sheet,
            "--header": reading.header,
            "--items": reading.items,
            **options.settings,
        }
        return {"input": file.fingerprint(), "judge": known.fingerprint, "settings": settings}

    def _first_pass(
        self,
        file: InputFile,
        known: KnownJudge,
        swap: Swap | None,
        notes: Counter[str],
        say: Callable[[str], None],
        *,
        check_prompts: bool,
    ) -> Progress:
        options = self.options
        # What is asked for has to be written; of the others those are left out that the input has.
        needed = {*(options.columns or (DISTRIBUTION,)), *([ERROR] if options.on_error == "mark" else [])}
        types = ArrowTypes(self.target) if self.format == "parquet" else None
        names: set[str] = set()
        count = size = 0
        for row in file.rows(notes):
            check_names(row, needed)
            content, error = writable(row, options.on_error)
            if check_prompts and error is None and options.on_error == "fail":
                check_prompt(row, known.template, swap)
            if types is not None:
                types.add(content)
            names.update(content)
            count += 1
            size += len(write_lines([content]))
        if not count:
            raise UserInputError(f"{self.input_path}: holds no items.")
        if types is not None:
            types.schema()
        space = known.label_space or LabelSpace(["?", "??"])
        columns = options.columns or choose_columns(None, space, known.calibration)
        if kept := sorted(set(columns) & names):
            say(
                f"The input has {listing(kept, 'and')}, so the judge's {'is' if len(kept) == 1 else 'are'} not"
                " written. Rename the input's, or choose with --columns."
            )
        columns = tuple(name for name in columns if name not in names)
        _check_room(self.target, (size + count * _line_length(columns, space)) * (1 if self.format == "jsonl" else 2))
        return Progress(self._made_from(file, known), count, list(columns))

    def count(self, done: list[Window], progress: Progress) -> None:
        """Count rows as done."""
        progress.done += sum(window.rows for window in done)
        progress.failed += sum(window.failed for window in done)
        progress.shortened += sum(window.shortened for window in done)
        before = OrderCounts(**progress.orders)
        progress.orders = asdict(sum((window.orders for window in done), before))

    def stop(self, error: BaseException) -> None:
        """Keep what is done, and say so in the error's message."""
        progress = self.progress
        if progress is not None and not progress.size:
            self.partial.discard()
            return
        self.partial.release()
        if progress is None:
            return
        if isinstance(error, (UserInputError, RunFailedError)) and MAKE_ROOM not in str(error):
            kept = f"{counted(progress.done, 'row')} of {progress.rows:,} are judged and kept in {self.partial.folder}"
            marks = isinstance(error, JudgmentDataError) and self.options.on_error == "fail"
            way = " --on-error mark goes on there, and marks such rows." if marks else ""
            error.args = (f"{error} {kept}.{way}",)


def _check_target(target: Path, source: Path) -> None:
    """Raise [`UserInputError`] unless the target can be written and is not the input."""
    if target.exists() and target.samefile(source):
        raise UserInputError(f"{target}: is the input; name another file to write.")
    if target.is_dir():
        raise UserInputError(f"{target}: is a folder; name the file to write.")
    if target.exists() and not target.is_file():
        raise UserInputError(f"{target}: is not a regular file.")
    try:
        with tempfile.TemporaryFile(dir=target.parent):
            pass
    except OSError as error:
        raise UserInputError(f"{target}: cannot be written ({error.strerror}).") from None


def _line_length(columns: Sequence[str], space: LabelSpace) -> int:
    """Bytes that the readouts add to a line at most."""
    longest = sys.float_info.min
    values: dict[str, Any] = dict.fromkeys(columns, longest)
    if DISTRIBUTION in columns:
        values[DISTRIBUTION] = dict.fromkeys(space.labels, longest)
    if "label" in columns:
        values["label"] = max(space.labels, key=len)
    for name in {"label_set", "interval"} & set(columns):
        values[name] = list(space.labels)
    return len(json.dumps(values, ensure_ascii=False).encode())


def _check_room(target: Path, size: int) -> None:
    """Raise [`RunFailedError`] if the disk has too little space. Otherwise that would be found after hours."""
    with writing(target), tempfile.TemporaryFile(dir=target.parent) as file:
        os.truncate(file.fileno(), size)  # files may be limited, too
        if shutil.disk_usage(target.parent).free < size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
