"""Prompts that repeat: a template that leaves out what tells the items apart makes every item the same question, and
one that leaves out the question asks several in the same words.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from distjudge_trl.data.template import PromptTemplate
from distjudge_trl.errors import JudgmentDataError, UserInputError, listing


# Fewer items may repeat by chance, as in a test of a task's first rows.
_FEWEST = 4


class Repeats:
    """Counts prompts, and the values of the fields that they may be made of."""

    def __init__(self) -> None:
        self._prompts: Counter[bytes] = Counter()
        self._values: dict[str, set[bytes]] = {}

    def add(self, fields: Mapping[str, Any], prompt: Sequence[Mapping[str, str]]) -> None:
        """Count an item's prompt and fields."""
        self._prompts[_digest([message["content"] for message in prompt])] += 1
        for name, value in fields.items():
            self._values.setdefault(name, set()).add(_digest(value))

    @property
    def total(self) -> int:
        return self._prompts.total()

    @property
    def repeated(self) -> int:
        """Prompts that an earlier item has, too."""
        return self.total - len(self._prompts)

    def check(self, name: str, template: PromptTemplate) -> None:
        """Raise [`UserInputError`] if most prompts repeat others: the judge would learn nothing from them.

        Args:
            name (`str`): of the task or its file, for the message.
            template ([`PromptTemplate`]): that rendered the prompts.
        """
        if self.total < _FEWEST or 2 * self.repeated <= self.total:
            return
        shown = [field for field in self._values if field in template.fields]
        left_out = [field for field, values in self._values.items() if field not in shown and len(values) > 1]
        if shown:
            counts = listing(f"{{{{ {field} }}}} ({len(self._values[field]):,} different)" for field in shown)
            shows = f"the prompt template shows {counts}"
        else:
            shows = "the prompt template shows the same of most items"
        fix = "Let it show what tells the items apart"
        if left_out:
            fix += f" (they also have {listing(left_out)})"
        raise UserInputError(
            f"{name}: {self.repeated:,} of {self.total:,} prompts repeat another one: {shows}. {fix}; if the rows are"
            " ratings of the same items, give the column that names the item as `id`."
        )


class Asked:
    """Which question about a thing each prompt asks."""

    def __init__(self) -> None:
        self._questions: dict[bytes, str] = {}

    def add(
        self,
        thing: str,
        question: str,
        fields: Mapping[str, Any],
        prompt: Sequence[Mapping[str, str]],
        *,
        source: str,
        row: int | str,
    ) -> None:
        """Add a prompt that asks a question about a thing.

        Raises:
            [`JudgmentDataError`]: it asks another question about the thing in the same words.
        """
        key = _digest([thing, *(message["content"] for message in prompt)])
        other = self._questions.setdefault(key, question)
        if other != question:
            name = next((name for name, value in fields.items() if value == question), None)
            shown = f"{{{{ {name} }}}}, the name of the question" if name is not None else "which question it is"
            raise JudgmentDataError(
                f"the prompt template asks the questions {other} and {question} in the same words",
                source=source,
                row=row,
                fix=f"Let it show {shown}.",
            )


def _digest(value: Any) -> bytes:
    return hashlib.blake2b(repr(value).encode("utf-8", "surrogatepass"), digest_size=8).digest()
