"""The interface of judges: from items to distributions over the labels."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from distjudge_trl.batching import PromptFitter
from distjudge_trl.calibration.stored import Calibration
from distjudge_trl.data.records import check_messages
from distjudge_trl.data.template import PromptTemplate, finished_prompt
from distjudge_trl.errors import JudgmentDataError
from distjudge_trl.judges.readouts import readouts
from distjudge_trl.judges.uses import JudgeMap, JudgeReward
from distjudge_trl.labels import LabelSpace


@dataclass(frozen=True)
class Judgments:
    """A judge's answers for N items: `log_probs` `(N, K)`, normalised over the labels, in nats; the label `mass`
    `(N,)` in [0, 1]; and `floored` `(N, K)`, bool, the labels that top-k extraction did not find.

    Judges behind a server may add `bounds` `(2, N, K)`, the least and the most that the label's probability can be
    before normalisation, and `unparsed` `(N,)`, the share of sampled answers that are no label.
    """

    log_probs: np.ndarray
    mass: np.ndarray
    floored: np.ndarray
    bounds: np.ndarray | None = None
    unparsed: np.ndarray | None = None

    @property
    def probabilities(self) -> np.ndarray:
        """`(N, K)` float64; rows sum to 1."""
        return np.exp(self.log_probs)


def checked_prompt(
    record: Mapping[str, Any], template: PromptTemplate | None, *, row: int, source: str | None = None
) -> list[dict[str, str]] | None:
    """The finished prompt of a record, or `None` if the template has to render it from the record's fields.

    Raises:
        [`JudgmentDataError`]: the prompt is malformed, or there is neither a prompt nor a template.
    """
    if not isinstance(record, Mapping):
        raise JudgmentDataError(f"is a {type(record).__name__}, not a mapping of fields", source=source, row=row)
    if template is not None and finished_prompt(record) is None:
        # With a `prompt` that is not finished the record has to have the template's fields; else the prompt is
        # malformed.
        own = template.of(record)
        needed = own.fields - own.optional_fields
        if "prompt" not in record or "prompt" in template.fields or needed <= set(record):
            return None
    if "prompt" not in record:
        raise JudgmentDataError(
            "is missing, and this judge has no prompt template to build it from",
            source=source,
            row=row,
            field="prompt",
        )
    check_messages(record["prompt"], "prompt", source, row)
    return list(record["prompt"])


class PromptJudge(ABC):
    """A judge that turns prompts into label distributions.

    `label_space` is the judge's [`LabelSpace`]; the columns of every result follow its order. `template` renders bare
    items, and `fitter` shortens them (`None` if nothing limits their length). `calibration` is applied to all that is
    read; it also makes label sets (`judge.calibration.columns(probabilities, labels)`).
    """

    label_space: LabelSpace
    template: PromptTemplate | None = None
    calibration: Calibration | None = None
    fitter: PromptFitter | None = None
    # Prompts that it should get at once, if it wants many.
    prompts_at_once: int | None = None

    def judge(
        self, records: Iterable[Mapping[str, Any]], batch_size: int = 32, *, progress: bool = False
    ) -> np.ndarray:
        """Distributions over the labels.

        Args:
            records (`Iterable[Mapping]`): judgment records or other mappings with a finished prompt (a list of
                messages under the key `prompt`), or bare items with the fields that the judge's template names. A
                `prompt` that is not a list of messages counts as such a field.
            batch_size (`int`, defaults to 32): prompts in one forward pass.
            progress (`bool`, defaults to `False`): show a progress bar.

        Returns:
            `np.ndarray` of shape `(N, K)`, float64, in the order of the records; rows sum to 1.

        Raises:
            [`JudgmentDataError`]: an item has neither a prompt nor the template's fields, or its prompt is too long.
            [`RunFailedError`]: not even a single prompt fits into memory.
        """
        return self.read(records, batch_size, progress=progress).probabilities

    def read(self, records: Iterable[Mapping[str, Any]], batch_size: int = 32, *, progress: bool = False) -> Judgments:
        """Like [`~PromptJudge.judge`], but log-probabilities and the label mass; warns of items that were
        shortened.
        """
        if batch_size < 1:
            raise ValueError(f"`batch_size` must be at least 1, got {batch_size}.")
        return self.calibrate(self.read_prompts(self._prompts(records), batch_size, progress=progress))

    def _prompts(self, records: Iterable[Mapping[str, Any]]) -> list[list[dict[str, str]]]:
        """The prompts of records; warns if bare items were shortened."""
        before = self.fitter.num_shortened if self.fitter is not None else 0
        prompts = [self._prompt(record, i) for i, record in enumerate(records, start=1)]
        if self.fitter is not None and self.fitter.num_shortened > before:
            warnings.warn(
                f"{self.fitter.num_shortened - before} of {len(prompts)} items were too long for"
                f" {self.fitter.max_length} tokens; their longest fields were shortened ({self.fitter.truncation}).",
                stacklevel=4,
            )
        return prompts

    def expect(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Say which records will be read, by all calls of `read` together, before the first one. A judge that pays for
        each record checks its budget; one on this machine does nothing.
        """
        return

    def expect_prompts(self, prompts: Iterable[list[dict[str, str]]]) -> None:
        """Like [`~PromptJudge.expect`] for finished prompts, which are gone through one by one."""
        return

    def reading(self) -> dict[str, str]:
        """How the judge computes, for result files."""
        return {}

    def findings(self) -> dict[str, Any]:
        """What the judge found out while it read, for result files; empty for a judge on this machine."""
        return {}

    def judge_one(self, /, **fields: Any) -> dict[str, Any]:
        """Judge one item.

        Args:
            fields: those that the judge's template names, or a finished `prompt`.

        Returns:
            `dict`: all readouts that the labels have, by the names of the columns that `distjudge-trl judge` writes:
            `label_distribution`, `label`, `entropy`, `label_mass`, for ordinal labels `mean`, `median` and
            `risk_averse`, and for a calibrated judge `label_set` or `interval`.

        Raises:
            [`JudgmentDataError`]: as [`~PromptJudge.judge`].
        """
        judged = self.read([fields])
        return readouts(judged.log_probs, judged.mass, self.label_space, calibration=self.calibration)[0]

    def as_reward(
        self,
        completion: str | None = None,
        *,
        prompt: str | None = None,
        label: str | None = None,
        readout: str = "mean",
        batch_size: int = 32,
    ) -> JudgeReward:
        """A reward function for TRL's trainers, such as `GRPOTrainer(reward_funcs=judge.as_reward("reply"))`.

        Args:
            completion (`str`, *optional*): the template's field that shows the completion. It may be left out if the
                template has a single field. The other fields are columns of the training data.
            prompt (`str`, *optional*): the field that shows the prompt's text: that of its last message in
                conversational data.
            label (`str`, *optional*): reward the probability of this label. By default the reward is `readout`, which
                needs ordinal labels.
            readout (`str`, defaults to `"mean"`): `"mean"`, `"median"` or `"risk_averse"`.
            batch_size (`int`, defaults to 32): prompts in one forward pass.

        Raises:
            [`UserInputError`]: the judge has no template, or no such field or label; its labels have no order, and no
                label is named.
        """
        return JudgeReward(self, completion, prompt=prompt, label=label, readout=readout, batch_size=batch_size)

    def as_map(self, columns: str | Sequence[str] | None = None, *, batch_size: int = 32) -> JudgeMap:
        """A function for `datasets`: `dataset.map(judge.as_map(), batched=True)` adds the readouts as columns.

        Args:
            columns (`str` or `Sequence[str]`, *optional*): which readouts; by default all that the labels have.
            batch_size (`int`, defaults to 32): prompts in one forward pass.
        """
        return JudgeMap(self, columns, batch_size=batch_size)

    def check_length(self, prompt: list[dict[str, str]], row: int) -> None:  # noqa: B027 (a hook)
        """Raise [`JudgmentDataError`] if a prompt is known to be too long for the model."""

    def _prompt(self, record: Mapping[str, Any], row: int) -> list[dict[str, str]]:
        finished = checked_prompt(record, self.template, row=row)
        return self._render(record, row) if finished is None else finished

    def _render(self, item: Mapping[str, Any], row: int) -> list[dict[str, str]]:
        """The prompt of a bare item."""
        assert self.template is not None
        if self.fitter is not None:
            return self.fitter.fit(self.template.of(item), item, row=row)
        return self.template.render(item, row=row)

    def calibrate(self, judgments: Judgments) -> Judgments:
        """Uncalibrated judgments with the judge's calibration, if it has one."""
        if self.calibration is None:
            return judgments
        return replace(judgments, log_probs=self.calibration(judgments.log_probs))

    def read_prompts(
        self, prompts: list[list[dict[str, str]]], batch_size: int = 32, *, progress: bool = False
    ) -> Judgments:
        """Like [`~PromptJudge.read`] for finished prompts, and uncalibrated."""
        return self._read_prompts(prompts, batch_size, progress)

    @abstractmethod
    def _read_prompts(self, prompts: list[list[dict[str, str]]], batch_size: int, progress: bool) -> Judgments:
        """Judge rendered prompts, in order, uncalibrated."""
