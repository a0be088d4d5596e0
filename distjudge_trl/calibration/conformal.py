"""Label sets with a coverage that is promised: split-conformal prediction for distributions of annotators.

Take a new item, judge it, and ask one of its annotators. A [`LabelSets`] of level 0.9 gives a set of labels that holds
the annotator's label with a chance of at least 0.9, on average over new items and over the items that it was fitted
on. Every item counts the same, however many annotators it has.

How it works. A label's *score* is the judge's probability of the labels that enter the set before it: 0 for the
likeliest label, less than 1 for all others. Labels enter by their probability (adaptive prediction sets, Romano et al.
2020, without randomisation). Of ordinal labels the set is an interval, which grows from the likeliest label towards
the likelier neighbour. The set of an item has all labels with a score of at most a threshold t. So it is never empty.

Let miss_i(t) be the share of item i's votes that are outside its set. It lies in [0, 1] and does not grow with t. The
threshold is the smallest t with (sum_i miss_i(t) + 1) / (n + 1) <= 1 - level. If the n items and the new one are
exchangeable, the expected miss of the new one is at most 1 - level (conformal risk control, Angelopoulos et al. 2024),
also if the votes of an item depend on each other. With one vote per item this is the usual conformal quantile. If
items come in groups (an article, a word family), only groups are exchangeable. Then the promise holds up to an error
of about the size of a group divided by n.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from distjudge_trl.calibration.arrays import as_array


SetKind = Literal["sets", "intervals"]
# The judge's probabilities are rounded sums: votes count as reaching the level up to this share of an item.
_TOLERANCE = 1e-9


def needed_items(level: float) -> int:
    """The fewest items with which sets of this level can be fitted: level / (1 - level), 9 for 0.9 and 99 for 0.99."""
    return math.ceil(level / (1 - level) - _TOLERANCE)


@dataclass(frozen=True)
class LabelSets:
    """A set of labels for every item.

    Args:
        level (`float`): the promised coverage, between 0 and 1.
        kind (`"sets"` or `"intervals"`): any labels, or neighbours on a scale.
        threshold (`float`): the largest score of a label in the set, in [0, 1].
        num_items (`int`): that the threshold was fitted on; a pair in both orders is one.
        num_groups (`int`): of these items.
    """

    level: float
    kind: SetKind
    threshold: float
    num_items: int
    num_groups: int

    def __call__(self, q: Any) -> np.ndarray:
        """Which labels are in the sets of the judge's probabilities q `(N, K)`: bool, at least one in each row."""
        return scores(q, self.kind) <= self.threshold


def scores(q: Any, kind: SetKind) -> np.ndarray:
    """The score of every label: the judge's probability of the labels that enter the set before it, `(N, K)`, in
    [0, 1]. `q` `(N, K)`, rows sum to 1.
    """
    q = as_array(q)
    order = np.argsort(-q, axis=-1, kind="stable") if kind == "sets" else _growing(q)
    mass = np.cumsum(np.take_along_axis(q, order, -1), -1)
    before = np.concatenate([np.zeros_like(mass[:, :1]), mass[:, :-1]], -1)
    found = np.empty_like(q)
    np.put_along_axis(found, order, np.minimum(before, 1.0), -1)
    return found


def _growing(q: np.ndarray) -> np.ndarray:
    """Positions of the labels in the order in which an interval takes them in, `(N, K)`."""
    count, num_labels = q.shape
    rows = np.arange(count)
    # A border on both sides that is never taken while there are labels.
    padded = np.full((count, num_labels + 2), -1.0)
    padded[:, 1:-1] = q
    low = high = q.argmax(-1) + 1
    order = [low - 1]
    for _ in range(num_labels - 1):
        up = padded[rows, np.minimum(high + 1, num_labels + 1)] > padded[rows, np.maximum(low - 1, 0)]
        low, high = np.where(up, low, low - 1), np.where(up, high + 1, high)
        order.append(np.where(up, high, low) - 1)
    return np.stack(order, -1)


def fit_label_sets(
    p: Any, q: Any, items: Sequence[str], groups: Sequence[str], *, level: float, kind: SetKind
) -> LabelSets:
    """Fit the threshold on items that neither training nor scaling has used.

    Args:
        p (array `(N, K)`): shares of the votes.
        q (array `(N, K)`): the judge's probabilities.
        items (`Sequence[str]` of length N): the item of every row. Rows of one item (a pair in both orders) count as
            one together.
        groups (`Sequence[str]` of length N): only counted.
        level (`float`), kind (`"sets"` or `"intervals"`): see [`LabelSets`].

    Raises:
        `ValueError`: fewer items than `needed_items(level)`.
    """
    p, members = as_array(p), Counter(items)
    num_items = len(members)
    if num_items < needed_items(level):
        raise ValueError(f"Sets of level {level} need {needed_items(level)} items, got {num_items}.")
    weight = p / p.sum(-1, keepdims=True) / np.array([members[item] for item in items])[:, None]
    found = scores(q, kind).ravel()
    order = np.argsort(found, kind="stable")
    inside = np.cumsum(weight.ravel()[order])
    # misses = n - inside, so (misses + 1) / (n + 1) <= 1 - level if inside >= level (n + 1).
    reached = int(np.searchsorted(inside, level * (num_items + 1) - _TOLERANCE * num_items))
    threshold = float(found[order][min(reached, len(order) - 1)])
    return LabelSets(level, kind, threshold, num_items, len(set(groups)))


def item_coverage(p: Any, sets: np.ndarray) -> np.ndarray:
    """The share of every item's votes that are in its set, `(N,)`; p and sets `(N, K)`."""
    return (as_array(p) * sets).sum(-1)
