"""Judgment tasks, one module a family."""

from __future__ import annotations

import difflib
from importlib import import_module

from distjudge_trl.errors import UserInputError
from distjudge_trl.tasks.base import JudgmentTask


_TASK_MODULES = ("vader",)


def list_tasks() -> list[str]:
    """Names of the tasks that ship with the package."""
    return list(_TASK_MODULES)


def get_task(name: str) -> JudgmentTask:
    """The task of this name.

    Raises:
        [`UserInputError`]: no such task; the message names the nearest one.
    """
    if name not in _TASK_MODULES:
        close = difflib.get_close_matches(name, _TASK_MODULES, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise UserInputError(f"There is no task {name!r}.{hint} Tasks: {', '.join(_TASK_MODULES)}.")
    task: JudgmentTask = import_module(f"distjudge_trl.tasks.{name}").TASK
    return task


__all__ = ["JudgmentTask", "get_task", "list_tasks"]
