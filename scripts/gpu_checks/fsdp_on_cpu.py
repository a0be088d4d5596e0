"""A recipe under accelerate's FSDP2 on the CPU.

accelerate launch --config_file accelerate_configs/fsdp2.yaml --num_processes 2 scripts/gpu_checks/fsdp_on_cpu.py \\
    RECIPE.py --use_cpu False OPTIONS OF THE RECIPE
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch


import distjudge_trl  # noqa: F401  # isort: skip (before torch: it says how OpenMP's threads wait)
import torch
import torch.distributed


def allow_fsdp_on_cpu() -> None:
    """Have accelerate start FSDP2 without an accelerator, on gloo.

    Three calls are replaced: which backend and device a process has, and a barrier that names a device. Sharding,
    precision, saving and loading are accelerate's, transformers' and torch's own.
    """
    from accelerate.state import PartialState
    from accelerate.utils import DistributedType

    from distjudge_trl.trainer import DistributionSFTConfig

    barrier = torch.distributed.barrier
    torch.distributed.barrier = lambda *args, device_ids=None, **kwargs: barrier(*args, **kwargs)
    PartialState._prepare_backend = lambda self, *args, **kwargs: ("gloo", DistributedType.MULTI_GPU)

    def set_device(self: Any) -> None:
        self.device = self.device or torch.device("cpu")

    PartialState.set_device = set_device
    check = DistributionSFTConfig.__post_init__

    def post_init(self: Any) -> None:
        # As where there is a GPU: `use_cpu` is for processes that share nothing out.
        with (
            patch.object(torch.accelerator, "is_available", lambda: True),
            patch("transformers.training_args.is_torch_bf16_gpu_available", lambda: True),
        ):
            check(self)

    DistributionSFTConfig.__post_init__ = post_init


if __name__ == "__main__":
    allow_fsdp_on_cpu()
    del sys.argv[0]
    sys.path[0] = str(Path(sys.argv[0]).parent)
    runpy.run_path(sys.argv[0], run_name="__main__")
