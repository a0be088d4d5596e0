"""Tasks that a user defines in a YAML file."""

from distjudge_trl.tasks.custom.task_file import load_task


__all__ = ["load_task"]
