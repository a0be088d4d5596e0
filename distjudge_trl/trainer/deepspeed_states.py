"""DeepSpeed's checkpoints, which DeepSpeed unpickles without a restriction: their content is checked before."""

from __future__ import annotations

import pickle
from pathlib import Path

import torch

from distjudge_trl.errors import UserInputError, first_line


# The classes that DeepSpeed stores beside tensors.
_CLASSES = frozenset(
    {
        "deepspeed.runtime.fp16.loss_scaler.DynamicLossScaler",
        "deepspeed.runtime.fp16.loss_scaler.LossScaler",
        "deepspeed.runtime.fp16.loss_scaler.LossScalerBase",
        "deepspeed.runtime.zero.config.ZeroStageEnum",
        "deepspeed.utils.tensor_fragment.fragment_address",
        "deepspeed.utils.tensor_fragment.tensor_fragment",
    }
)


def check_states(checkpoint: str | Path) -> None:
    """Refuse a checkpoint with a file that would call anything but DeepSpeed's classes and what torch takes for safe.
    Pickles are disassembled for that and not loaded; tensors are not read.

    Raises:
        [`UserInputError`]: names the file, and what it would call.
    """
    for path in sorted(Path(checkpoint).rglob("*.pt")):
        try:
            called = set(torch.serialization.get_unsafe_globals_in_checkpoint(str(path))) - _CLASSES
            problem = f"would call {min(called)}" if called else None
        except (pickle.UnpicklingError, ValueError, RuntimeError, EOFError) as error:
            problem = f"is no state of DeepSpeed ({first_line(error)})"
        if problem is not None:
            raise UserInputError(
                f"{path}: {problem}, so it is not loaded. Delete the checkpoint; --resume_from_checkpoint true then"
                " takes the one before it."
            )
