"""Distribution-aligned fine-tuning on top of TRL's SFTTrainer.

The names below are imported when they are first used, so that code that only looks at checkpoints does not wait for
TRL.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from distjudge_trl.trainer.distribution_sft_config import DistributionSFTConfig
    from distjudge_trl.trainer.distribution_sft_trainer import DistributionSFTTrainer
    from distjudge_trl.trainer.metrics import label_metrics

_HOME = {
    "DistributionSFTConfig": "distribution_sft_config",
    "DistributionSFTTrainer": "distribution_sft_trainer",
    "label_metrics": "metrics",
}

__all__ = ["DistributionSFTConfig", "DistributionSFTTrainer", "label_metrics"]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return list(__all__)
