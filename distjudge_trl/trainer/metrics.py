"""Means over rows and processes, and metrics of label log-probabilities."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from transformers import EvalPrediction

from distjudge_trl.objective import kl_divergence, reference_nll


if TYPE_CHECKING:
    from accelerate import Accelerator


class RowMeans:
    """Exact means of named quantities over the rows of all processes, in each `mode` (train, eval)."""

    def __init__(self) -> None:
        self.names: tuple[str, ...] = ()
        # In the order of the names; the number of rows comes last.
        self.sums: dict[str, Tensor | None] = {"train": None, "eval": None}

    def clear(self, mode: str) -> None:
        """Discard the sums."""
        self.sums[mode] = None

    def add(self, mode: str, values: dict[str, Tensor], num_rows: int) -> None:
        """Add the first `num_rows` of the quantities `(B,)` of a batch. All batches have the same, in one order."""
        self.names = tuple(values)
        rows = torch.stack([*values.values(), torch.ones_like(values[self.names[0]])])[:, :num_rows]
        sums = rows.double().sum(-1) if rows.device.type != "mps" else rows.sum(-1)
        previous = self.sums[mode]
        self.sums[mode] = sums if previous is None else previous + sums

    def pop(self, mode: str, accelerator: Accelerator) -> dict[str, float]:
        """Means since the last call. This is a collective."""
        sums = self.sums[mode]
        self.sums[mode] = None
        if sums is None:
            return {}
        if accelerator.num_processes > 1:
            sums = accelerator.reduce(sums, "sum")
        *totals, count = sums.tolist()
        return {name: total / count for name, total in zip(self.names, totals, strict=True)} if count else {}


def label_metrics(prediction: EvalPrediction) -> dict[str, float]:
    """Mean KL (eq. 10), cross-entropy on the majority label and accuracy (eq. 11) from arrays `(N, K)`.

    `prediction.predictions` are label log-probabilities, `prediction.label_ids` human distributions; ties go to the
    first label. Nats.
    """
    log_q = torch.from_numpy(np.asarray(prediction.predictions, dtype=np.float64))
    p = torch.from_numpy(np.asarray(prediction.label_ids, dtype=np.float64))
    reference = p.argmax(-1)
    return {
        "kl": kl_divergence(p, log_q).mean().item(),
        "ce": reference_nll(log_q, reference).mean().item(),
        "accuracy": (log_q.argmax(-1) == reference).double().mean().item(),
    }
