"""Votes of annotators: counting them (eq. 1), drawing from them, and the reference label (eq. 3)."""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Any, Literal

import numpy as np
from scipy.optimize import minimize_scalar

from distjudge_trl.data.splits import stable_key
from distjudge_trl.errors import JudgmentDataError
from distjudge_trl.labels import LabelSpace


# More votes than any data set has. A larger number is a broken cell, and may not fit into a column of integers.
MAX_COUNT = 1_000_000_000

MajorityRule = Literal["first", "random", "exclude"]


def votes_to_counts(
    votes: Sequence[Any] | Mapping[Any, float],
    label_space: LabelSpace,
    *,
    source: str | None = None,
    row: int | str | None = None,
    field: str = "votes",
) -> list[int]:
    """Count votes per label.

    Args:
        votes (`Sequence` or `Mapping`): one answer per annotator, or answer to count. Synonyms and any case are
            understood, and numbers in any spelling (`1`, `1.0`, `"1.0"` are the label `"1"`).
        label_space ([`LabelSpace`]): K labels.
        source (`str`, *optional*): named in errors, as are `row` and `field`.
        row (`int` or `str`, *optional*): see `source`.
        field (`str`, *optional*): see `source`.

    Returns:
        `list[int]`: K counts, all 0 without votes.

    Raises:
        [`JudgmentDataError`]: an unknown label, a count that is negative, NaN, not whole or more than `MAX_COUNT`.
    """
    counts = [0] * len(label_space)
    items = votes.items() if isinstance(votes, Mapping) else ((vote, 1) for vote in votes)
    for answer, count in items:
        index = _index_of(answer, label_space, source, row, field)
        counts[index] += whole_count(count, answer, source, row, field)
    return counts


def _index_of(answer: Any, label_space: LabelSpace, source: str | None, row: int | str | None, field: str) -> int:
    try:
        return label_space.index(answer)
    except KeyError as error:
        raise JudgmentDataError(
            str(error.args[0]),
            source=source,
            row=row,
            field=field,
            fix="Correct the row.",
        ) from None


def whole_count(
    count: Any, answer: Any, source: str | None, row: int | str | None, field: str, fix: str = "Correct the row."
) -> int:
    """A count of votes for `answer` as an integer.

    Raises:
        [`JudgmentDataError`]: it is no whole number from 0 to `MAX_COUNT`; `fix` ends the message.
    """
    whole = isinstance(count, numbers.Real) and not isinstance(count, bool) and count % 1 == 0
    if whole and 0 <= count <= MAX_COUNT:
        return int(count)
    problem = f"more than {MAX_COUNT:,}" if whole and count > 0 else f"{count!r}, not a whole number of at least 0"
    raise JudgmentDataError(f"the count of {answer!r} is {problem}", source=source, row=row, field=field, fix=fix)


def share_counts(ballots: Iterable[Sequence[int]], num_labels: int) -> list[float]:
    """Votes per label `(K,)` if an annotator who gave several labels gives each an equal share of one vote. The sum is
    the number of annotators.

    Args:
        ballots (`Iterable[Sequence[int]]`): indices of the labels that each annotator gave, at least one.
        num_labels (`int`): K.
    """
    # Exact sums: labels with equal votes are tied, whatever the order of the annotators.
    sums = [Fraction(0)] * num_labels
    for ballot in ballots:
        for label in ballot:
            sums[label] += Fraction(1, len(ballot))
    return [float(total) for total in sums]


def draw_ballots(
    ballots: Sequence[tuple[int, ...]], max_annotators: int, *, item_id: str, seed: int
) -> list[tuple[int, ...]]:
    """At most `max_annotators` annotators' labels, drawn as [`draw_votes`] draws."""
    ballots = sorted(ballots)
    order = sorted(range(len(ballots)), key=lambda i: stable_key(seed, f"vote {i} of {item_id}"))
    return [ballots[i] for i in order[:max_annotators]]


def draw_votes(counts: Sequence[int], max_annotators: int, *, item_id: str, seed: int) -> list[int]:
    """Counts `(K,)` of at most `max_annotators` votes, drawn without replacement from `counts` `(K,)`.

    The draw depends only on the item's id and the seed: it is the same on every machine and in any row order, and a
    larger draw contains a smaller one.
    """
    votes = [label for label, count in enumerate(counts) for _ in range(count)]
    order = sorted(range(len(votes)), key=lambda i: stable_key(seed, f"vote {i} of {item_id}"))
    drawn = [votes[i] for i in order[:max_annotators]]
    return [drawn.count(label) for label in range(len(counts))]


def majority_label(
    counts: Sequence[float], rule: MajorityRule = "first", *, item_id: str = "", seed: int = 0
) -> int | None:
    """Index of the label that most annotators chose (eq. 3; the paper is silent on ties).

    Args:
        counts (`Sequence` of length K): votes per label.
        rule (`"first"`, `"random"` or `"exclude"`, defaults to `"first"`): for a tie, the first of the tied labels in
            the label space's order; one drawn by a hash of `item_id` and `seed`; or `None`, so that the caller leaves
            the item out.
        item_id (`str`, *optional*): for `"random"`.
        seed (`int`, *optional*): for `"random"`.
    """
    largest = max(counts)
    tied = [label for label, count in enumerate(counts) if count == largest]
    if len(tied) == 1 or rule == "first":
        return tied[0]
    if rule == "exclude":
        return None
    return min(tied, key=lambda label: stable_key(seed, f"tie {label} of {item_id}"))


def choose_pseudo_count(counts: Sequence[Sequence[int]]) -> float | None:
    """The λ of add-λ smoothing that best predicts an annotator who is left out: it maximises the mean over votes of
    log((c_k - 1 + λ) / (n - 1 + K λ)), in [0.001, 100].

    Args:
        counts (`Sequence` of K counts each): votes of items that are not trained on.

    Returns:
        `float`, or `None` if no item has two votes.
    """
    votes = np.asarray(counts, dtype=float)
    votes = votes[votes.sum(-1) > 1]
    if not len(votes):
        return None
    n, num_labels = votes.sum(-1, keepdims=True), votes.shape[-1]

    def loss(log_pseudo_count: float) -> float:
        pseudo_count = math.exp(log_pseudo_count)
        rest = np.maximum(votes - 1, 0) + pseudo_count
        return float(-(votes * (np.log(rest) - np.log(n - 1 + num_labels * pseudo_count))).sum())

    return float(math.exp(minimize_scalar(loss, bounds=(math.log(1e-3), math.log(100)), method="bounded").x))
