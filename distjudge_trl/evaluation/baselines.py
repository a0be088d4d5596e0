"""Baselines for a KL, besides the noise floor: other annotators, and constant judges, which do not read the items.

The *human ceiling* compares half of an item's annotators with the other half. The constants are judges that give every
item the same distribution. A judge that does not beat the training prior has learned nothing about items. Where a task
asks several questions, one that knows no more than the question beats it: there the prior of each question counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from distjudge_trl.evaluation.distances import as_array, item_accuracy, item_kl, item_total_variation


# The predicting half of the annotators gets this many extra votes, distributed like all votes of the data set. Without
# them a label that none of a few people chose would have probability 0, and the KL would be infinite.
PRIOR_VOTES = 1.0


@dataclass(frozen=True)
class HumanCeiling:
    """Means over items and random halves of the annotators: one half is the target p, the other half the prediction q.

    `kl` in nats, `total_variation` and `accuracy` in [0, 1]; `judge_kl`, `judge_total_variation` and `judge_accuracy`
    are the judge's on the same halves. Compare the human figures with these, because half of the annotators are a
    harder target than all of them. `num_items` is the number of items with two or more annotators.
    """

    kl: float
    total_variation: float
    accuracy: float
    judge_kl: float | None
    judge_total_variation: float | None
    judge_accuracy: float | None
    num_items: int


def human_ceiling(counts: Any, log_q: Any = None, *, num_splits: int = 20, seed: int = 0) -> HumanCeiling | None:
    """How well half of the annotators predict the other half.

    Args:
        counts (array `(N, K)`, whole numbers): votes per item and label; items with one vote are left out.
        log_q (array `(N, K)`, *optional*): the judge's label log-probabilities, to be scored on the same halves.
        num_splits (`int`, defaults to 20): random halves per item.
        seed (`int`, defaults to 0): of the halves.

    Returns:
        [`HumanCeiling`], or `None` if no item has two annotators. With n annotators the predicted half has n // 2.
    """
    counts = as_array(counts).astype(int)
    several = counts.sum(-1) > 1
    if not several.any():
        return None
    rows = counts[several]
    judge = as_array(log_q)[several] if log_q is not None else None
    # The votes of all other items. The item's own votes would reveal the half that is to be predicted.
    others = counts.sum(0) - rows
    shares = (others + 1 / counts.shape[1]) / (others.sum(-1, keepdims=True) + 1)
    rng = np.random.default_rng(seed)
    metrics = (item_kl, item_total_variation, item_accuracy)
    sums = np.zeros((2, len(metrics)))
    for _ in range(num_splits):
        half = np.stack([rng.multivariate_hypergeometric(row, row.sum() // 2) for row in rows])
        p = half / half.sum(-1, keepdims=True)
        other = rows - half + PRIOR_VOTES * shares
        log_other = np.log(np.maximum(other / other.sum(-1, keepdims=True), 1e-300))
        sums[0] += [metric(p, log_other).mean() for metric in metrics]
        if judge is not None:
            sums[1] += [metric(p, judge).mean() for metric in metrics]
    (kl, total_variation, accuracy), judged = (sums / num_splits).tolist()
    judge_kl, judge_tv, judge_accuracy = judged if judge is not None else (None, None, None)
    return HumanCeiling(kl, total_variation, accuracy, judge_kl, judge_tv, judge_accuracy, len(rows))


def uniform(num_labels: int) -> np.ndarray:
    """The same probability for every label, `(K,)` log-probabilities."""
    return np.full(num_labels, -np.log(num_labels))


def training_prior(train_p: Any) -> np.ndarray:
    """Mean human distribution of the training items `(N, K)`, as `(K,)` log-probabilities: the constant with the
    smallest KL on them. Labels that nobody chose there get one vote in a hundred thousand.
    """
    mean = np.maximum(as_array(train_p).mean(0), 1e-5)
    return np.log(mean / mean.sum())


def question_priors(train_p: Any, train_parts: Sequence[str], parts: Sequence[str]) -> dict[str, np.ndarray]:
    """[`training_prior`] of the training items of each question in `parts`; of all, where a question has none.

    Args:
        train_p (array `(M, K)`): human distributions of the training items.
        train_parts, parts (`Sequence[str]`): the questions that the training items and others ask.
    """
    train_p, asked = as_array(train_p), np.array(train_parts)
    own = {part: train_p[asked == part] for part in dict.fromkeys(parts)}
    return {part: training_prior(chosen if len(chosen) else train_p) for part, chosen in own.items()}


def training_majority(train_p: Any) -> np.ndarray:
    """The label that is most often the majority of training items, as `(K,)` log-probabilities. It is smoothed: the
    share of items with another majority is split evenly among the other labels.
    """
    train_p = as_array(train_p)
    num_labels = train_p.shape[-1]
    shares = np.bincount(train_p.argmax(-1), minlength=num_labels) / len(train_p)
    best = int(shares.argmax())
    rest = np.clip(1 - shares[best], 1e-5, 1 - 1e-5)
    q = np.full(num_labels, rest / (num_labels - 1))
    q[best] = 1 - rest
    return np.log(q)
