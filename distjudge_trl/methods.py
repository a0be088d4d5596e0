"""The methods that a judge can be trained by: one table for recipes, sweeps and reports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Method:
    """A way to train. The names follow the paper's tables; further baselines are added.

    Args:
        summary (`str`): a clause for `--help`.
        fixed (`Mapping[str, Any]`): settings of the objective that define the method; users choose the others.
        defaults (`Mapping[str, Any]`): settings that the method sets and that users may change.
        chosen (`tuple[str, ...]`): settings that are chosen on validation items if they are not given.
        ordinal (`bool`): whether it needs labels whose order means something.
    """

    summary: str
    fixed: Mapping[str, Any] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    chosen: tuple[str, ...] = ()
    ordinal: bool = False

    @property
    def own_settings(self) -> frozenset[str]:
        """Names of the settings that may differ from the objective's defaults without making this another method."""
        return frozenset((*self.fixed, *self.defaults, *self.chosen))


# In the order in which a reader compares them.
METHODS: dict[str, Method] = {
    "raw": Method("no training at all"),
    "single-point": Method(
        "cross-entropy on the majority label",
        {"alpha": 0.0, "adversary": "none", "label_smoothing": 0.0, "ordinal_loss_weight": 0.0},
    ),
    "label-smoothing": Method(
        "the same on a smoothed label",
        {"alpha": 0.0, "adversary": "none", "ordinal_loss_weight": 0.0},
        defaults={"label_smoothing": 0.1},
    ),
    "kl-only": Method("KL alone", {"alpha": 1.0, "adversary": "none", "ordinal_loss_weight": 0.0}),
    "no-adversary": Method("KL + cross-entropy", {"adversary": "none"}),
    "dirichlet": Method(
        "the same on add-lambda smoothed targets (lambda chosen on validation items, or --target_smoothing)",
        {"adversary": "none"},
        chosen=("target_smoothing",),
    ),
    "ordinal": Method(
        "KL + cross-entropy + a term that knows the labels' order (--ordinal_loss_weight)",
        {"adversary": "none"},
        defaults={"ordinal_loss_weight": 10.0},
        ordinal=True,
    ),
    "distribution": Method("the paper's method (KL + cross-entropy + adversary)", {"adversary": "pgd"}),
    "worst-case": Method("the same with a stronger adversary", {"adversary": "worst_case"}),
    "minimax": Method(
        "where the adversary leads to, trained on directly, without an inner loop", {"adversary": "minimax"}
    ),
    "no-kl": Method("the paper's ablation without KL", {"alpha": 0.0, "adversary": "pgd"}),
    "no-ce": Method("the paper's ablation without cross-entropy", {"alpha": 1.0, "adversary": "pgd"}),
}
