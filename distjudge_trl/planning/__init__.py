"""The memory of a training run by part and device, estimated from the model's config alone, and settings that fit."""

from distjudge_trl.planning.footprint import Footprint, load_config, measure_footprint
from distjudge_trl.planning.memory import Estimate, estimate
from distjudge_trl.planning.remedies import Change, find_changes
from distjudge_trl.planning.sharding import Sharding, read_sharding
from distjudge_trl.planning.training import Training


__all__ = [
    "Change",
    "Estimate",
    "Footprint",
    "Sharding",
    "Training",
    "estimate",
    "find_changes",
    "load_config",
    "measure_footprint",
    "read_sharding",
]
