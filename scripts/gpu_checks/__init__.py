"""The checks of `scripts/gpu_check.py`, a module per theme.

A new check is a function that takes `Findings` and an entry in its module's `CHECKS`; see `check.py`.
"""

import distjudge_trl  # noqa: F401  # isort: skip (before torch: it says how OpenMP's threads wait)

from gpu_checks import adversary, attention, environment, mistakes, models, sharded, throughput, train
from gpu_checks.check import Check


# What matters most comes first: the time budget may end before the last.
_MODULES = (environment, models, train, sharded, attention, throughput, adversary, mistakes)
CHECKS: list[Check] = [check for module in _MODULES for check in module.CHECKS if check not in train.LAST]
CHECKS += train.LAST
