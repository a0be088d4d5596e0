"""Judgment tasks: one module per task family, and users' own tasks as YAML files."""

from __future__ import annotations

import shlex
from importlib import import_module
from pathlib import Path

from distjudge_trl.errors import UserInputError, nearest
from distjudge_trl.tasks.items import Item, LoadReport, Source, TaskOptions
from distjudge_trl.tasks.task import JudgmentTask


# The module that defines each task. Modules are imported when their task is requested.
_TASKS = {
    "snli": ("nli", "SNLI"),
    "mnli": ("nli", "MNLI"),
    "chaosnli": ("nli", "CHAOSNLI"),
    "summeval": ("summeval", "TASK"),
    "mtbench": ("mtbench", "TASK"),
    "helpsteer2": ("helpsteer2", "RATINGS_TASK"),
    "helpsteer2_pref": ("helpsteer2", "PREFERENCE_TASK"),
    "vader": ("vader", "TASK"),
    "md_agreement": ("lewidi2023", "MD_AGREEMENT"),
    "convabuse": ("lewidi2023", "CONVABUSE"),
    "hs_brexit": ("lewidi2023", "HS_BREXIT"),
    "armis": ("lewidi2023", "ARMIS"),
    "csc": ("lewidi2025", "CSC"),
    "mp": ("lewidi2025", "MP"),
    "par": ("lewidi2025", "PAR"),
    "ven": ("lewidi2025", "VEN"),
}


def list_tasks() -> list[str]:
    """Names of the tasks that ship with the package."""
    return list(_TASKS)


def is_task_file(name: str) -> bool:
    """Whether [`get_task`] takes a name for the path of a YAML file."""
    return name.endswith((".yaml", ".yml"))


def get_task(name: str) -> JudgmentTask:
    """The task of this name, or the one that a YAML file defines.

    Args:
        name (`str`): a name of [`list_tasks`], or the path of a .yaml file (see docs/data.md).

    Raises:
        [`UserInputError`]: there is no such task (the message names the nearest one) or file, or the file is
            malformed.
    """
    if is_task_file(name):
        from distjudge_trl.tasks.custom import load_task

        return load_task(Path(name))
    if name not in _TASKS:
        if Path(name).exists():
            raise UserInputError(
                f"{name}: is no task but may be its data: write a task file first: distjudge-trl data"
                f" {shlex.quote(name)} --init task.yaml"
            )
        close = nearest(name, _TASKS)
        hint = f" Did you mean {close!r}?" if close else ""
        raise UserInputError(
            f"There is no task {name!r}.{hint} Tasks: {', '.join(_TASKS)}; or the path of a .yaml file that defines"
            " your own."
        )
    module, attribute = _TASKS[name]
    task: JudgmentTask = getattr(import_module(f"distjudge_trl.tasks.{module}"), attribute)
    return task


__all__ = ["Item", "JudgmentTask", "LoadReport", "Source", "TaskOptions", "get_task", "is_task_file", "list_tasks"]
