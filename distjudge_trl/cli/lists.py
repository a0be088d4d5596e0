"""`distjudge-trl tasks`, `recipes` and `env`: lists of what is available."""

from __future__ import annotations

import click


@click.command(short_help="List the tasks.")
def tasks() -> None:
    """List the tasks: what is judged, with which labels, by how many people."""
    from distjudge_trl.tasks import get_task, list_tasks

    for name in list_tasks():
        task = get_task(name)
        kind = "ordinal" if task.ordinal else "nominal"
        click.echo(f"{name}\n    {task.description}; {task.size}.\n    Labels ({kind}): {', '.join(task.labels)}")


@click.command(short_help="List the recipes.")
def recipes() -> None:
    """List the recipes: scripts that train and evaluate a judge on a task, with the grid that a sweep tries."""
    import ast
    import runpy

    from distjudge_trl.files.shipped_files import list_shipped, shipped_folder

    for name in list_shipped("recipes", ".py"):
        path = shipped_folder("recipes") / f"{name}.py"
        summary = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split("\n")[0]
        click.echo(f"{name}\n    {summary}\n    {path}")
        for parameter, values in runpy.run_path(str(path))["RECIPE"].grid.items():
            click.echo(f"    {parameter}: {', '.join(map(str, values))}")


@click.command(short_help="Print versions and devices, for bug reports.")
def env() -> None:
    """Versions, devices and what is missing for which feature; paste it into bug reports."""
    from distjudge_trl.runtime.environment import describe_environment

    click.echo(describe_environment())
