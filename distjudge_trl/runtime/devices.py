"""Accelerators that a process sees, and that it lets others see."""

from __future__ import annotations

import os
from collections.abc import Sequence


def device_count() -> int:
    import torch

    return torch.accelerator.device_count() if torch.accelerator.is_available() else 0


def visible_devices(count: int) -> list[str]:
    """Names of the GPUs that this process sees, as `CUDA_VISIBLE_DEVICES` takes them.

    Args:
        count (`int`): how many CUDA counts: it leaves out what stands behind a name that it does not know.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return [name.strip() for name in visible.split(",")][:count] if visible else [str(i) for i in range(count)]


def seeing(devices: Sequence[str]) -> dict[str, str]:
    """Environment of a child that sees these GPUs; as this process, if there are none."""
    return {**os.environ, "CUDA_VISIBLE_DEVICES": ",".join(devices)} if devices else dict(os.environ)
