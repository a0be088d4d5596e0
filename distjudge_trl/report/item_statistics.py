"""Statistics of a task's items: their annotators and how they agree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from distjudge_trl.evaluation import noise_floor, whole_votes
from distjudge_trl.evaluation.agreement import krippendorff_alpha, normalized_entropy, pairwise_agreement
from distjudge_trl.tasks import Item


ENTROPY_BINS = 10


@dataclass(frozen=True)
class ItemStatistics:
    """Figures of a set of items. Each item counts once, even if it is presented in several forms.

    `label_votes` `(K,)`: votes per label. `majority` `(K,)`: items with this reference label. `entropy` `(10,)`: items
    per tenth of the normalised entropy. `annotators`: minimum, median and maximum per item. `noise_floor`: in nats
    (`None` if every item has a single vote). `num_divided`: items whose divided votes are no whole numbers, which
    agreement, alpha and floor leave out.
    """

    num_items: int
    num_groups: int
    annotators: tuple[int, float, int]
    label_votes: np.ndarray
    majority: np.ndarray
    num_ties: int
    entropy: np.ndarray
    mean_entropy: float
    agreement: float | None
    alpha: float | None
    noise_floor: float | None
    num_divided: int


def item_statistics(items: Sequence[Item], *, ordinal: bool) -> ItemStatistics:
    """Statistics of drawn items (a few seconds for 10,000)."""
    counts = np.array([item.counts for item in items])
    n = np.array([item.num_annotators for item in items])
    entropy = normalized_entropy(counts / n[:, None])
    whole = whole_votes(counts / n[:, None], n).counts.astype(int)
    floor = noise_floor(whole) if len(whole) else None
    references = Counter(item.reference for item in items)
    return ItemStatistics(
        num_items=len(items),
        num_groups=len({item.group for item in items}),
        annotators=(int(n.min()), float(np.median(n)), int(n.max())),
        label_votes=counts.sum(0),
        majority=np.array([references[k] for k in range(counts.shape[-1])]),
        num_ties=int(((counts == counts.max(-1, keepdims=True)).sum(-1) > 1).sum()),
        entropy=np.histogram(entropy, bins=ENTROPY_BINS, range=(0, 1))[0],
        mean_entropy=float(entropy.mean()),
        agreement=pairwise_agreement(whole) if len(whole) else None,
        alpha=krippendorff_alpha(whole, ordinal=ordinal) if len(whole) else None,
        noise_floor=floor.value if floor is not None else None,
        num_divided=len(items) - len(whole),
    )
