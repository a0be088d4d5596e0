"""The settings of a training run that determine its memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


# The adapters that recipes train by default.
ADAPTER_TARGETS = "all-linear"
DEFAULT_RANK = 16


@dataclass(frozen=True)
class Training:
    """The computation of every device.

    Args:
        seq_len (`int`): length of a padded row in tokens.
        batch_size (`int`): rows per device and forward pass.
        gradient_accumulation_steps (`int`): forward passes per step.
        lora_r (`int`): rank of the adapter on all linear layers; 0 trains all weights.
        bits (`int`): 4 or 8 for quantised base weights, 16 for none.
        dtype (`str`): type in which the weights are loaded (`--dtype`).
        bf16 (`bool`): bfloat16 mixed precision (`--bf16`, TRL's default).
        gradient_checkpointing (`bool`): activations of a layer are computed again in the backward pass.
        cast (`bool`): the launcher stores the weights in bfloat16 instead of casting them in every layer.
    """

    seq_len: int
    batch_size: int
    gradient_accumulation_steps: int = 1
    lora_r: int = 0
    bits: Literal[4, 8, 16] = 16
    dtype: str = "bfloat16"
    bf16: bool = True
    gradient_checkpointing: bool = True
    cast: bool = False

    @property
    def compute_dtype(self) -> str:
        return "bfloat16" if self.cast and self.bf16 else self.dtype

    @property
    def autocast(self) -> bool:
        return self.bf16 and not self.cast

    @property
    def adapter_dtype(self) -> str:
        """PEFT keeps adapters in float32, TRL keeps those on quantised weights in bfloat16, and DeepSpeed
        casts them.
        """
        return "bfloat16" if self.bits < 16 or (self.cast and self.bf16) else "float32"
