"""Fine-tune LLM judges whose distribution over the answers matches how humans disagree.

The names below are imported when they are first used, so that importing the package loads neither torch nor
transformers.
"""

from __future__ import annotations

from importlib import import_module, metadata
from typing import TYPE_CHECKING, Any

from distjudge_trl.runtime.openmp import let_threads_sleep


if TYPE_CHECKING:
    from distjudge_trl.judges import Judge
    from distjudge_trl.labels import LabelSpace
    from distjudge_trl.recipe import Recipe
    from distjudge_trl.tasks import JudgmentTask, get_task, list_tasks
    from distjudge_trl.trainer import DistributionSFTConfig, DistributionSFTTrainer

# This has to happen before torch is imported; recipes, commands and scripts import this package first.
let_threads_sleep()

_HOME = {
    "DistributionSFTConfig": "trainer",
    "DistributionSFTTrainer": "trainer",
    "Judge": "judges",
    "JudgmentTask": "tasks",
    "LabelSpace": "labels",
    "Recipe": "recipe",
    "get_task": "tasks",
    "list_tasks": "tasks",
}

__all__ = [
    "DistributionSFTConfig",
    "DistributionSFTTrainer",
    "Judge",
    "JudgmentTask",
    "LabelSpace",
    "Recipe",
    "get_task",
    "list_tasks",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return metadata.version("distjudge-trl")
    if name in _HOME:
        return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
