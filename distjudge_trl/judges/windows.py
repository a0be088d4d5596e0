"""Judging some rows of a file at once: prompts, readouts, and what becomes of rows that cannot be judged."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Literal, NamedTuple

from distjudge_trl.data.template import PromptTemplate
from distjudge_trl.data.values import as_json
from distjudge_trl.errors import JudgmentDataError
from distjudge_trl.judges.api.client import KEPT
from distjudge_trl.judges.base import Judgments, PromptJudge, checked_prompt
from distjudge_trl.judges.formats import write_lines
from distjudge_trl.judges.inputs import InputRow
from distjudge_trl.judges.readouts import readouts
from distjudge_trl.judges.swapping import OrderCounts, Swap


# The column that says why a row has no results.
ERROR = "error"
OnError = Literal["fail", "mark"]
Prompt = list[dict[str, str]]


class Window(NamedTuple):
    """Judged rows as JSON `lines`: how many `rows`, of which how many `failed` and were `shortened`; the `orders`."""

    lines: bytes
    rows: int
    failed: int
    shortened: int
    orders: OrderCounts


def check_names(row: InputRow, needed: Collection[str]) -> None:
    """Raise [`JudgmentDataError`] if the row has one of the `needed` columns, which will be written."""
    if clash := sorted(row.own.keys() & set(needed)):
        raise JudgmentDataError(
            "is in the input already, and the output would overwrite it",
            source=row.source,
            row=row.number,
            field=clash[0],
            fix="Rename it.",
        )


def check_prompt(row: InputRow, template: PromptTemplate | None, swap: Swap | None = None) -> None:
    """Raise [`JudgmentDataError`] unless a prompt can be made of the row, in both orders if there is a `swap`."""
    contents = [row.content]
    if swap is not None:
        contents.append(swap.other_order(row.content, source=row.source, row=row.number))
    for content in contents:
        if checked_prompt(content, template, source=row.source, row=row.number) is None:
            assert template is not None
            template.render(content, source=row.source, row=row.number)


def writable(row: InputRow, on_error: OnError) -> tuple[dict[str, Any], str | None]:
    """The row's own fields as JSON has them. With `"mark"`, a field that JSON cannot hold is null, and the error is
    the second part.
    """
    try:
        return as_json(row.own, source=row.source, number=row.number), None
    except JudgmentDataError as error:
        if on_error == "fail":
            raise
        assert error.field is not None
        rest, _ = writable(row._replace(content={**row.content, error.field: None}), on_error)
        return rest, told(error)


def told(error: JudgmentDataError) -> str:
    """An error without its place, for the row itself."""
    return str(JudgmentDataError(error.problem, field=error.field, fix=error.fix if error.fix != KEPT else None))


class WindowJudge:
    """Judges rows of a file.

    Args:
        judge ([`PromptJudge`]): reads the prompts.
        columns (`Sequence[str]`): readouts to write.
        risk (`float`): see [`~distjudge_trl.judges.readouts.readouts`].
        on_error (`"fail"` or `"mark"`): what becomes of a row that cannot be judged.
        swap ([`Swap`], *optional*): how pairs are asked in the other order, too.
        batch_size (`int`): prompts in one forward pass.
        progress (`bool`): show a progress bar where rows take a while.
    """

    def __init__(
        self,
        judge: PromptJudge,
        columns: Sequence[str],
        *,
        risk: float,
        on_error: OnError,
        swap: Swap | None,
        batch_size: int,
        progress: bool,
    ) -> None:
        self.judge, self.columns, self.risk = judge, columns, risk
        self.on_error, self.swap, self.batch_size, self.progress = on_error, swap, batch_size, progress

    def read(self, rows: Sequence[InputRow]) -> Window:
        """Judge the rows.

        Raises:
            [`JudgmentDataError`]: a row cannot be judged, and `on_error` is `"fail"`; it names file, row and field.
        """
        shortened = self._num_shortened()
        if self.on_error == "mark":
            for row in rows:  # a run that goes on may have been started without it
                check_names(row, (ERROR,))
        contents, errors = map(list, zip(*(writable(row, self.on_error) for row in rows), strict=True))
        prompts: list[list[Prompt]] = []
        for i, row in enumerate(rows):
            prompts.append([])
            if errors[i] is None:
                try:
                    prompts[i] = self._prompts(row)
                except JudgmentDataError as error:
                    if self.on_error == "fail":
                        raise _placed(error, row) from None
                    errors[i] = told(error)
        while True:
            good = [i for i in range(len(rows)) if errors[i] is None]
            try:
                first, orders = self._judgments([prompts[i] for i in good], [rows[i] for i in good])
                break
            except JudgmentDataError as error:
                bad = [i for i in good if (rows[i].source, rows[i].number) == (error.source, error.row)]
                if self.on_error == "fail" or not bad:
                    raise
                # A server refuses this row. What it has answered of the others is kept, and is not asked again.
                errors[bad[0]] = told(error)
        read = iter(
            readouts(
                first.log_probs,
                first.mass,
                self.judge.label_space,
                self.columns,
                risk=self.risk,
                calibration=self.judge.calibration,
            )
        )
        empty = dict.fromkeys(self.columns)
        results: list[dict[str, Any]] = [next(read) if error is None else empty for error in errors]
        if self.on_error == "mark":
            results = [{**result, ERROR: error} for result, error in zip(results, errors, strict=True)]
        lines = write_lines({**content, **result} for content, result in zip(contents, results, strict=True))
        return Window(lines, len(rows), len(rows) - len(good), self._num_shortened() - shortened, orders)

    def prompts(self, rows: Iterable[InputRow]) -> Iterator[Prompt]:
        """The prompts of the rows that have one."""
        for row in rows:
            with suppress(JudgmentDataError):
                yield from self._prompts(row)

    def _prompts(self, row: InputRow) -> list[Prompt]:
        """The prompts of a row: one, or one of each order."""
        contents = [row.content]
        if self.swap is not None:
            contents.append(self.swap.other_order(row.content, row=row.number))
        made = [self.judge._prompt(content, row.number) for content in contents]
        if self.on_error == "mark":
            for prompt in made:
                self.judge.check_length(prompt, row.number)
        return made

    def _judgments(self, prompts: list[list[Prompt]], rows: Sequence[InputRow]) -> tuple[Judgments, OrderCounts]:
        """Judge prompts that are made already. Both orders of a pair are read together, because they share a start.
        A calibration is applied to their mean, as in an evaluation.
        """
        flat = [prompt for made in prompts for prompt in made]
        try:
            judged = self.judge.read_prompts(flat, self.batch_size, progress=self.progress)
        except JudgmentDataError as error:
            if error.source is not None or not isinstance(error.row, int):
                raise
            # Judges count prompts, but users look for the line.
            orders = 1 if self.swap is None else 2
            raise _placed(error, rows[(error.row - 1) // orders]) from None
        if self.swap is None:
            return self.judge.calibrate(judged), OrderCounts()
        first, second = (_every_second(judged, start) for start in (0, 1))
        return self.judge.calibrate(self.swap.average(first, second)), self.swap.orders(first, second)

    def _num_shortened(self) -> int:
        fitter = getattr(self.judge, "fitter", None)
        return fitter.num_shortened if fitter is not None else 0


def _every_second(judged: Judgments, start: int) -> Judgments:
    """Judgments of one order of pairs whose orders alternate."""
    arrays = ("log_probs", "mass", "floored")
    return replace(judged, **{name: getattr(judged, name)[start::2] for name in arrays}, bounds=None, unparsed=None)


def _placed(error: JudgmentDataError, row: InputRow) -> JudgmentDataError:
    return JudgmentDataError(error.problem, source=row.source, row=row.number, field=error.field, fix=error.fix)
