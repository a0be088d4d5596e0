"""Distribution-aligned fine-tuning on top of TRL's SFTTrainer."""

from distjudge_trl.trainer.distribution_sft_config import DistributionSFTConfig
from distjudge_trl.trainer.distribution_sft_trainer import DistributionSFTTrainer
from distjudge_trl.trainer.metrics import label_metrics


__all__ = ["DistributionSFTConfig", "DistributionSFTTrainer", "label_metrics"]
