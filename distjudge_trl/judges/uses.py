"""A judge as the function that other libraries call: TRL's reward function, and the function of `datasets.map`."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence, Sized
from typing import Any, Protocol

import numpy as np

from distjudge_trl.calibration.stored import Calibration
from distjudge_trl.data.template import PromptTemplate, finished_prompt, is_empty
from distjudge_trl.errors import UserInputError, listing
from distjudge_trl.judges.readouts import READOUTS, choose_columns, label_values, readouts
from distjudge_trl.labels import LabelSpace


class Reader(Protocol):
    """What is needed of a judge."""

    label_space: LabelSpace
    template: PromptTemplate | None
    calibration: Calibration | None

    def read(self, records: Any, batch_size: int = 32) -> Any:
        """Judgments of records."""


class JudgeReward:
    """TRL's reward function of a judge; see [`~distjudge_trl.judges.base.PromptJudge.as_reward`].

    Called with `prompts`, `completions` (texts or lists of messages) and the other columns of the training data, it
    returns a list of floats. A completion without text, which no judge can read, gets the lowest reward that there is.
    """

    def __init__(
        self,
        judge: Reader,
        completion: str | None,
        *,
        prompt: str | None,
        label: str | None,
        readout: str,
        batch_size: int,
    ) -> None:
        if judge.template is None:
            raise UserInputError("This judge has no prompt template, so it cannot show a completion: give it one.")
        fields = judge.template.fields
        if completion is None and len(fields) == 1:
            (completion,) = fields
        if completion is None:
            raise UserInputError(f"Which field shows the completion? The template has {listing(sorted(fields))}.")
        for name in (completion, prompt):
            if name is not None and name not in fields:
                raise UserInputError(f"The judge's template has no field {name!r}; it has {listing(sorted(fields))}.")
        self._others = fields - {completion, prompt}
        self._judge, self._completion, self._prompt, self._batch_size = judge, completion, prompt, batch_size
        self._readout, self._index = readout, 0
        if label is not None:
            try:
                self._index = judge.label_space.index(label)
            except KeyError as error:
                raise UserInputError(str(error.args[0])) from None
            self._readout = ""
        elif readout not in READOUTS or not READOUTS[readout].ordinal:
            raise UserInputError(f"readout={readout!r} is no reward: choose mean, median or risk_averse, or a label.")
        elif not judge.label_space.ordinal:
            raise UserInputError(
                f"The labels {listing(judge.label_space.labels, 'and')} have no order, so they have no mean. Name the"
                " label whose probability is the reward: label=..."
            )
        # Under this name TRL logs it.
        self.__name__ = f"judge_{label if label is not None else readout}"

    def __call__(self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[float]:
        """The rewards of completions, in their order.

        Raises:
            [`UserInputError`]: the training data lacks a column that the judge's template shows.
        """
        space = self._judge.label_space
        if missing := sorted(self._others - set(columns) - self._optional()):
            raise UserInputError(
                f"The judge's template shows {listing(missing, 'and')}, and the training data has no such column."
                " The one that shows the prompt is named with prompt=..."
            )
        items = []
        for i, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
            item = {name: columns[name][i] for name in self._others if name in columns}
            item[self._completion] = _text(completion)
            if self._prompt is not None:
                item[self._prompt] = _text(prompt)
            items.append(item)
        lowest = 0.0 if not self._readout else float(label_values(space).min())
        rewards = [lowest] * len(items)
        shown = [i for i, item in enumerate(items) if not is_empty(item[self._completion])]
        if shown:
            judged = self._judge.read([items[i] for i in shown], self._batch_size)
            if self._readout:
                read = readouts(judged.log_probs, judged.mass, space, [self._readout])
                found = [row[self._readout] for row in read]
            else:
                found = np.exp(judged.log_probs[:, self._index]).tolist()
            for i, reward in zip(shown, found, strict=True):
                rewards[i] = reward
        return rewards

    def _optional(self) -> frozenset[str]:
        return self._judge.template.optional_fields if self._judge.template is not None else frozenset()


def _text(value: Any) -> Any:
    """The text of a prompt or completion: that of its last message in conversational data."""
    if isinstance(value, Sequence) and not isinstance(value, str) and value and isinstance(value[-1], Mapping):
        return value[-1].get("content") or ""
    return value


class JudgeMap:
    """A function of batches for `datasets`; see [`~distjudge_trl.judges.base.PromptJudge.as_map`]."""

    def __init__(self, judge: Reader, columns: str | Sequence[str] | None, *, batch_size: int) -> None:
        if isinstance(columns, str):
            columns = [columns]
        self._columns = choose_columns(columns, judge.label_space, judge.calibration)
        self._judge, self._batch_size = judge, batch_size
        self._id = uuid.uuid4().hex

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """The readouts of a batch of rows, given and returned as columns; of a single row without `batched=True`."""
        if not self._is_batch(batch):
            columns = self({name: [value] for name, value in batch.items()})
            return {name: read for name, (read,) in columns.items()}
        count = len(next(iter(batch.values()), ()))
        rows = [{name: values[i] for name, values in batch.items()} for i in range(count)]
        judged = self._judge.read(rows, self._batch_size)
        read = readouts(
            judged.log_probs,
            judged.mass,
            self._judge.label_space,
            self._columns,
            calibration=self._judge.calibration,
        )
        return {name: [row[name] for row in read] for name in self._columns}

    def _is_batch(self, given: Mapping[str, Any]) -> bool:
        """Whether `map` gives columns. In a row, some value is none of the sequences that columns are, or the prompt
        is a list of messages.
        """
        return finished_prompt(given) is None and not any(
            isinstance(value, str) or not isinstance(value, Sized) or isinstance(value, Mapping)
            for value in given.values()
        )

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        # `datasets` pickles a function to recognise it, and would write out all weights.
        return _Elsewhere, (self._id, self._columns)


class _Elsewhere:
    """What a pickled [`JudgeMap`] is in another process."""

    def __init__(self, *_: Any) -> None:
        pass

    def __call__(self, batch: Any) -> Any:
        raise UserInputError("A judge is not sent to other processes: call `map` without `num_proc`.")
