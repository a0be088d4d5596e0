"""Tasks that users define in YAML files."""

from distjudge_trl.tasks.custom.task_file import load_task


__all__ = ["load_task"]
