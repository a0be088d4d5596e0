"""How much annotators agree, computed from vote counts alone (records do not name annotators)."""

from __future__ import annotations

import numpy as np
from scipy.special import entr


# Krippendorff's alpha is computed from every vote; beyond this many items a sample is enough.
MAX_ITEMS_FOR_ALPHA = 20_000


def pairwise_agreement(counts: np.ndarray) -> float | None:
    """Probability that two different annotators of an item chose the same label, averaged over items with two or more.

    Args:
        counts (`np.ndarray` of shape `(N, K)`, whole numbers): votes per item and label.

    Returns:
        `float` in [0, 1], or `None` if no item has two votes.
    """
    n = counts.sum(-1)
    several = n > 1
    if not several.any():
        return None
    same = (counts * (counts - 1)).sum(-1)[several]
    return float((same / (n * (n - 1))[several]).mean())


def krippendorff_alpha(counts: np.ndarray, *, ordinal: bool = False, seed: int = 0) -> float | None:
    """Krippendorff's alpha: 1 minus observed over expected disagreement, computed by NLTK.

    Args:
        counts (`np.ndarray` of shape `(N, K)`, whole numbers): votes per item and label.
        ordinal (`bool`, defaults to `False`): use the ordinal distance, in which the distance of two labels is the
            number of votes between them (Krippendorff 2004, chapter 11); otherwise labels are only equal or different.
        seed (`int`, defaults to 0): of the sample of 20,000 items that larger data sets are reduced to.

    Returns:
        `float`, at most 1; 0 is chance. `None` if it is undefined because no item has two votes, or all votes are for
        one label.
    """
    from nltk.metrics.agreement import AnnotationTask
    from nltk.metrics.distance import binary_distance

    counts = np.asarray(counts)[np.asarray(counts).sum(-1) > 1].astype(int)
    if len(counts) > MAX_ITEMS_FOR_ALPHA:
        chosen = np.random.default_rng(seed).choice(len(counts), MAX_ITEMS_FOR_ALPHA, replace=False)
        counts = counts[np.sort(chosen)]
    votes = counts.sum(0)
    if (votes > 0).sum() < 2:
        return None

    def ordinal_distance(a: int, b: int) -> float:
        low, high = min(a, b), max(a, b)
        return float((votes[low : high + 1].sum() - (votes[low] + votes[high]) / 2) ** 2) if low != high else 0.0

    triples = [
        (coder, item, label)
        for item, row in enumerate(counts)
        for coder, label in enumerate(np.repeat(np.arange(len(row)), row).tolist())
    ]
    return float(AnnotationTask(triples, distance=ordinal_distance if ordinal else binary_distance).alpha())


def normalized_entropy(distribution: np.ndarray) -> np.ndarray:
    """Entropy of distributions `(N, K)` over log K: `(N,)` in [0, 1]; 0 is unanimity, 1 an even spread."""
    # Rounding may exceed 1 in the last digit.
    return np.clip(entr(distribution).sum(-1) / np.log(distribution.shape[-1]), 0, 1)
