"""The accelerators that a process sees, and those that it shows to its children."""

from __future__ import annotations

import os
from collections.abc import Sequence


def device_count() -> int:
    import torch

    return torch.accelerator.device_count() if torch.accelerator.is_available() else 0


def visible_devices(count: int) -> list[str]:
    """Names of the GPUs that this process sees, as `CUDA_VISIBLE_DEVICES` takes them.

    Args:
        count (`int`): how many devices CUDA counts. CUDA ignores every name after the first one that it does not know.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return [name.strip() for name in visible.split(",")][:count] if visible else [str(i) for i in range(count)]


def seeing(devices: Sequence[str]) -> dict[str, str]:
    """Environment of a child process that sees these GPUs; this process's environment if there are none."""
    return {**os.environ, "CUDA_VISIBLE_DEVICES": ",".join(devices)} if devices else dict(os.environ)
