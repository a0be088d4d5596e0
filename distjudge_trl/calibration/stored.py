"""`Calibration`: the scaling and the label sets of a judge, as `judge.json` keeps them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, get_args

import numpy as np

from distjudge_trl.calibration.conformal import LabelSets, SetKind
from distjudge_trl.calibration.scaling import FITS, Scaling, ScalingKind


_KEYS = {"scaling", "conformal", "fitted_on"}


@dataclass(frozen=True)
class Calibration:
    """What was fitted for a judge on held-out items.

    Args:
        scaling ([`Scaling`]), kind (`"temperature"` or `"vector"`), num_items (`int`): the scaling, its kind, and how
            many records it was fitted on.
        label_sets ([`LabelSets`]): fitted on other items, for the scaled probabilities.
        fitted_on (`dict`): where the items come from: task, options, split, and how many there were.
    """

    scaling: Scaling
    kind: ScalingKind
    num_items: int
    label_sets: LabelSets
    fitted_on: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, log_q: Any) -> np.ndarray:
        """The judge's log-probabilities `(N, K)`, scaled."""
        return self.scaling(log_q)

    def columns(self, probabilities: Any, labels: Sequence[str]) -> list[dict[str, list[str]]]:
        """The column that a judged row gets, for each of N items.

        Args:
            probabilities (array `(N, K)`): of the calibrated judge.
            labels (`Sequence[str]` of length K): their names, in the order of the probabilities.

        Returns:
            `list[dict]`: `{"label_set": [...]}`, the labels in their own order; for ordinal labels `{"interval":
            [lowest, highest]}`.
        """
        columns = []
        for chosen in self.label_sets(probabilities):
            names = [label for label, inside in zip(labels, chosen, strict=True) if inside]
            is_interval = self.label_sets.kind == "intervals"
            columns.append({"interval": [names[0], names[-1]]} if is_interval else {"label_set": names})
        return columns

    def to_dict(self) -> dict[str, Any]:
        """The key `calibration` of `judge.json`."""
        return {
            "scaling": self.scaling.to_dict(self.kind, self.num_items),
            "conformal": {name: getattr(self.label_sets, name) for name in LabelSets.__dataclass_fields__},
            "fitted_on": dict(self.fitted_on),
        }

    @classmethod
    def from_dict(cls, content: Any, num_labels: int) -> Calibration:
        """The inverse of [`to_dict`], for a judge of so many labels.

        Raises:
            `ValueError`: it is damaged; the message says where.
        """
        if not isinstance(content, Mapping) or set(content) != _KEYS:
            raise ValueError("`calibration` must have the keys scaling, conformal and fitted_on")
        scaling, conformal = content["scaling"], content["conformal"]
        try:
            fitted = Scaling.from_dict(scaling)
            kind, num_items = scaling["kind"], int(scaling["num_items"])
            sets = LabelSets(**conformal)
            numbers = [*fitted.weight, *fitted.bias, sets.level, sets.threshold, sets.num_items, sets.num_groups]
            is_sound = (
                kind in FITS
                and fitted.weight.shape == fitted.bias.shape == (num_labels,)
                and np.isfinite(np.array(numbers, dtype=float)).all()
                and sets.kind in get_args(SetKind)
                and 0 < sets.level < 1
                and 0 <= sets.threshold <= 1
                and isinstance(content["fitted_on"], Mapping)
            )
        except (TypeError, KeyError, ValueError, OverflowError) as error:
            raise ValueError(f"`calibration`: {error!r}") from None
        if not is_sound:
            raise ValueError(f"`calibration` does not describe a scaling and label sets for {num_labels} labels")
        return cls(fitted, kind, num_items, sets, content["fitted_on"])
