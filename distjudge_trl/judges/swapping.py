"""Pairs that are judged in both orders, so that no answer gains or loses by the place where it stands."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import logsumexp

from distjudge_trl.data.template import PromptTemplate, finished_prompt
from distjudge_trl.errors import JudgmentDataError, UserInputError, listing
from distjudge_trl.judges.base import Judgments
from distjudge_trl.labels import LabelSpace


# Parts of names by which the two sides of a pair are told apart, in fields (`answer_a_1`, `response_2`) and labels.
_SIDES = (("a", "b"), ("1", "2"), ("left", "right"), ("first", "second"))


@dataclass(frozen=True)
class Swap:
    """What is exchanged when a pair is asked in the other order.

    Args:
        fields (`tuple` of pairs of names): an item's fields.
        labels (`tuple` of int, length K): for each label the position of the label that means the same in the other
            order.
    """

    fields: tuple[tuple[str, str], ...]
    labels: tuple[int, ...]

    @classmethod
    def find(
        cls,
        template: PromptTemplate | None,
        label_space: LabelSpace,
        fields: str | None = None,
        labels: str | None = None,
    ) -> Swap:
        """The exchange for a judge of pairs.

        Args:
            template ([`PromptTemplate`], *optional*): of the judge. Its fields whose names differ only in a part `a`
                and `b`, `1` and `2`, `left` and `right`, or `first` and `second` belong together.
            label_space ([`LabelSpace`]): of the judge. Its labels are paired in the same way, ordinal ones from both
                ends.
            fields (`str`, *optional*), labels (`str`, *optional*): pairs in place of those, such as
                `"answer:other,source:other_source"`.

        Raises:
            [`UserInputError`]: no fields or no labels belong together, or a name is unknown.
        """
        if template is None:
            raise UserInputError("--swap average: this judge has no prompt template, so its prompts have no fields.")
        shown = sorted(template.fields)
        pairs = _given("--swap-fields", fields, shown) if fields is not None else _sides(shown)
        if labels is not None:
            sides = _given("--swap-labels", labels, label_space.labels)
        elif label_space.ordinal:  # from "A is much better" to "B is much better"
            half = len(label_space) // 2
            sides = list(zip(label_space.labels[:half], label_space.labels[::-1], strict=False))
        else:
            sides = _sides(label_space.labels)
        for option, found, names in (("--swap-fields", pairs, shown), ("--swap-labels", sides, label_space.labels)):
            if not found:
                raise UserInputError(
                    f"--swap average: none of {listing(names)} are seen to be the two sides of a pair. Name them with"
                    f" {option} ONE:OTHER."
                )
        other = {**dict(sides), **{b: a for a, b in sides}}
        names = list(label_space.labels)
        return cls(tuple(pairs), tuple(names.index(other.get(label, label)) for label in names))

    def describe(self, label_space: LabelSpace) -> str:
        """What is exchanged, for the user to check."""
        pairs = [f"{a} with {b}" for a, b in self.fields]
        pairs += [
            f"label {label} with {label_space.labels[other]}"
            for label, other in zip(label_space.labels, self.labels, strict=True)
            if label_space.labels.index(label) < other
        ]
        return listing(pairs, "and")

    def other_order(self, item: Mapping[str, Any], *, source: str | None = None, row: int) -> dict[str, Any]:
        """The item with its two sides exchanged.

        Raises:
            [`JudgmentDataError`]: it is a finished prompt.
        """
        if finished_prompt(item) is not None and not any("prompt" in pair for pair in self.fields):
            raise JudgmentDataError(
                "is a finished prompt, which can be asked in one order only",
                source=source,
                row=row,
                field="prompt",
                fix="Give the template's fields, or judge without --swap.",
            )
        exchanged = dict(item)
        for a, b in self.fields:
            for name, other in ((a, b), (b, a)):
                exchanged.pop(name, None)
                if other in item:
                    exchanged[name] = item[other]
        return exchanged

    def average(self, first: Judgments, second: Judgments) -> Judgments:
        """The mean of both orders' probabilities, with the labels of the first."""
        mirror = list(self.labels)
        log_probs = logsumexp([first.log_probs, second.log_probs[:, mirror]], axis=0) - np.log(2)
        return Judgments(log_probs, (first.mass + second.mass) / 2, first.floored | second.floored[:, mirror])

    def orders(self, first: Judgments, second: Judgments) -> OrderCounts:
        """How the judge treats the two orders of the same pairs."""
        return compare_orders(first.probabilities, second.probabilities, self.labels)


@dataclass(frozen=True)
class OrderCounts:
    """Of `pairs` that were asked in both orders: how many are `consistent` (the likeliest label names the same side,
    or the same label without a side; any of equally likely labels may be meant), and the sum of `gains`: what standing
    first gains a side in probability, on average over the two sides of a pair.
    """

    pairs: int = 0
    consistent: int = 0
    gains: float = 0.0

    def __add__(self, other: OrderCounts) -> OrderCounts:
        return OrderCounts(self.pairs + other.pairs, self.consistent + other.consistent, self.gains + other.gains)

    def line(self) -> str:
        """A sentence for the user."""
        if not self.pairs:
            return "no pairs were asked in both orders"
        share, gain = self.consistent / self.pairs, self.gains / self.pairs
        return (
            f"both orders asked: {share:.1%} of {self.pairs:,} pairs had the same answer in both (100% after"
            f" averaging); standing first changed a side's probability by {gain:+.3f} on average (0 after averaging)"
        )


def compare_orders(first: np.ndarray, second: np.ndarray, mirror: Iterable[int]) -> OrderCounts:
    """Compare the distributions `(N, K)` of pairs in one order with those in the other. `mirror` has for each label
    the position of the label that means the same in the other order.
    """
    mirror = list(mirror)
    likeliest, mirrored = (np.isclose(side, side.max(-1, keepdims=True)) for side in (first, second[:, mirror]))
    consistent = (likeliest & mirrored).any(-1)
    firsts = [label for label, other in enumerate(mirror) if label < other]
    seconds = [mirror[label] for label in firsts]
    # What stands first in one order stands second in the other.
    gains = (first[:, firsts] - second[:, seconds] + second[:, firsts] - first[:, seconds]).sum(-1) / 2
    return OrderCounts(len(first), int(consistent.sum()), float(gains.sum()))


def _sides(names: Iterable[str]) -> list[tuple[str, str]]:
    """Names that differ only in a part by which sides are told apart. The first kind of part that pairs some names
    counts alone: of `answer_a_1`, `answer_b_1` and `question_1` the numbers are turns.
    """
    known = list(names)
    for a, b in _SIDES:
        pairs: dict[str, str] = {}
        for name in known:
            for found in re.finditer(rf"(?<![^\W_]){a}(?![^\W_])", name, re.IGNORECASE):
                side = b.upper() if found[0].isupper() else b.title() if found[0].istitle() else b
                other = name[: found.start()] + side + name[found.end() :]
                if other in known and name not in pairs:
                    pairs[name] = other
        if pairs:
            return list(pairs.items())
    return []


def _given(option: str, text: str, known: Iterable[str]) -> list[tuple[str, str]]:
    pairs = []
    for part in text.split(","):
        one, colon, other = (piece.strip() for piece in part.partition(":"))
        if not colon or not one or not other or one == other:
            raise UserInputError(f"{option} {text}: write pairs of names, such as ONE:OTHER,THIRD:FOURTH.")
        for name in (one, other):
            if name not in known:
                raise UserInputError(f"{option}: there is no {name!r}. Known: {listing(known)}.")
        pairs.append((one, other))
    names = [name for pair in pairs for name in pair]
    if len(set(names)) < len(names):
        raise UserInputError(f"{option} {text}: a name occurs twice.")
    return pairs
