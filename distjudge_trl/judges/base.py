"""The interface of judges: from items to distributions over the labels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from distjudge_trl.data.records import check_messages
from distjudge_trl.data.template import PromptTemplate, finished_prompt
from distjudge_trl.errors import JudgmentDataError
from distjudge_trl.labels import LabelSpace


@dataclass(frozen=True)
class Judgments:
    """A judge's answers for N items: `log_probs` `(N, K)`, normalised over the labels, in nats; the label `mass`
    `(N,)` in [0, 1]; and `floored` `(N, K)`, bool, the labels that top-k extraction did not find.
    """

    log_probs: np.ndarray
    mass: np.ndarray
    floored: np.ndarray

    @property
    def probabilities(self) -> np.ndarray:
        """`(N, K)` float64; rows sum to 1."""
        return np.exp(self.log_probs)


class PromptJudge(ABC):
    """A judge that turns prompts into label distributions.

    `label_space` is the judge's [`LabelSpace`]; the columns of every result follow its order. `template` renders bare
    items.
    """

    label_space: LabelSpace
    template: PromptTemplate | None = None

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
        """Like [`~PromptJudge.judge`], but log-probabilities and the label mass."""
        if batch_size < 1:
            raise ValueError(f"`batch_size` must be at least 1, got {batch_size}.")
        prompts = [self._prompt(record, i) for i, record in enumerate(records, start=1)]
        return self._read_prompts(prompts, batch_size, progress)

    def _prompt(self, record: Mapping[str, Any], row: int) -> list[dict[str, str]]:
        if not isinstance(record, Mapping):
            raise JudgmentDataError(f"is a {type(record).__name__}, not a mapping of fields", row=row)
        if finished_prompt(record) is None and self._takes_fields_of(record):
            return self._render(record, row)
        if "prompt" not in record:
            raise JudgmentDataError(
                "is missing, and this judge has no prompt template to build it from", row=row, field="prompt"
            )
        check_messages(record["prompt"], "prompt", None, row)
        return list(record["prompt"])

    def _takes_fields_of(self, record: Mapping[str, Any]) -> bool:
        """Whether a record without a finished prompt has the template's fields; otherwise its `prompt` is
        malformed.
        """
        if self.template is None:
            return False
        used, needed = self.template.fields, self.template.fields - self.template.optional_fields
        return "prompt" not in record or "prompt" in used or needed <= set(record)

    def _render(self, item: Mapping[str, Any], row: int) -> list[dict[str, str]]:
        """The prompt of a bare item."""
        assert self.template is not None
        return self.template.render(item, row=row)

    @abstractmethod
    def _read_prompts(self, prompts: list[list[dict[str, str]]], batch_size: int, progress: bool) -> Judgments:
        """Judge rendered prompts, in order."""
