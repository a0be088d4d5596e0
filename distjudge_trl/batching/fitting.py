"""Prompts that fit the model: if an item is too long, its longest fields are shortened, never the prompt's end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

from distjudge_trl.batching.prompts import count_tokens, render_prompt
from distjudge_trl.data.paths import Branch
from distjudge_trl.data.template import PromptTemplate
from distjudge_trl.errors import JudgmentDataError


if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Truncation = Literal["middle", "end", "error"]

# Marks the place of omitted text, so that the judge can see that something is missing.
OMISSION = " [...] "
# A field is never cut below this many characters, because less would be too little to judge.
MIN_FIELD_LENGTH = 40


class PromptFitter:
    """Renders prompts of at most `max_length` tokens.

    If an item is too long, its longest text field is shortened. If several fields are long, all are cut to one common
    length in characters, so that neither of two long answers keeps more than the other. The instruction, short fields
    and the end of the prompt, which asks for the answer, are never cut.

    Args:
        tokenizer (`PreTrainedTokenizerBase`): the judge's.
        max_length (`int`): in tokens, special tokens and chat template included.
        truncation (`"middle"`, `"end"` or `"error"`, defaults to `"middle"`): which part of a field is removed;
            `"error"` shortens nothing and raises.

    `num_shortened` counts the items that were shortened.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, max_length: int, truncation: Truncation = "middle") -> None:
        if max_length < 1:
            raise ValueError(f"`max_length` must be at least 1, got {max_length}.")
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.truncation = truncation
        self.num_shortened = 0

    def fit(
        self,
        template: PromptTemplate,
        fields: Mapping[str, Any],
        *,
        source: str | None = None,
        row: int | str | None = None,
    ) -> list[dict[str, str]]:
        """The messages of an item, shortened until they fit.

        Raises:
            [`JudgmentDataError`]: as [`PromptTemplate.render`]; also an item that is too long with `"error"`, or whose
                prompt is too long even with all fields cut to 40 characters.
        """
        messages = template.render(fields, source=source, row=row)
        if self._length(messages) <= self.max_length:
            return messages
        texts = dict(_texts(template, fields))
        longest = max(map(len, texts.values()), default=0)
        if self.truncation == "error":
            raise JudgmentDataError(
                f"the prompt has {self._length(messages):,} tokens, more than the {self.max_length:,} allowed",
                source=source,
                row=row,
                field=next((".".join(branch) for branch, text in texts.items() if len(text) == longest), None),
                fix="Raise --max_length, shorten the item, or let --truncate middle do it.",
            )
        # Binary search for the largest length in characters that fits. A longer text has hardly ever fewer tokens.
        low, high, best = MIN_FIELD_LENGTH, longest - 1, None
        while low <= high:
            limit = (low + high) // 2
            candidate = template.render(
                _with_texts(fields, {branch: self._shorten(text, limit) for branch, text in texts.items()}),
                source=source,
                row=row,
            )
            if self._length(candidate) <= self.max_length:
                best, low = candidate, limit + 1
            else:
                high = limit - 1
        if best is None:
            raise JudgmentDataError(
                f"the prompt does not fit into {self.max_length:,} tokens, however much its fields are shortened",
                source=source,
                row=row,
                field="prompt",
                fix="Raise --max_length, or shorten the prompt template.",
            )
        self.num_shortened += 1
        return best

    def _length(self, messages: list[dict[str, str]]) -> int:
        # Tokenizers do not make more tokens than bytes, so most prompts need no count.
        text = render_prompt(self.tokenizer, messages)
        if len(text.encode()) + 2 <= self.max_length:
            return 0
        return count_tokens(self.tokenizer, text)

    def _shorten(self, text: str, limit: int) -> str:
        if len(text) <= limit:
            return text
        keep = limit - len(OMISSION)
        if self.truncation == "end":
            return text[:keep].rstrip() + OMISSION.rstrip()
        head = (keep + 1) // 2
        return text[:head].rstrip() + OMISSION + text[len(text) - (keep - head) :].lstrip()


def _texts(template: PromptTemplate, fields: Mapping[str, Any]) -> Iterator[tuple[Branch, str]]:
    """The texts that a template shows, each with its place: fields, and parts of fields by name."""
    for branch in template.branches:
        part: Any = fields
        depth = 0
        while depth < len(branch) and isinstance(part, Mapping) and branch[depth] in part:
            part, depth = part[branch[depth]], depth + 1
        if isinstance(part, str):
            yield branch[:depth], part


def _with_texts(fields: Mapping[str, Any], texts: Mapping[Branch, str]) -> dict[str, Any]:
    """A copy of the fields with other texts in some places."""
    changed = dict(fields)
    for branch, text in texts.items():
        part = changed
        for name in branch[:-1]:
            part[name] = dict(part[name])
            part = part[name]
        part[branch[-1]] = text
    return changed
