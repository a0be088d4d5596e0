"""The command line. Thin: every command calls a module above; heavy imports wait until a command needs them."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import click

from distjudge_trl.errors import UserInputError


class _Group(click.Group):
    """Errors that are the user's to mend become one line on stderr and exit code 2."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except UserInputError as error:
            click.echo(f"error: {error}", err=True)
            raise SystemExit(2) from None


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="distjudge-trl")
def main() -> None:
    """Fine-tune LLM judges whose distribution over the answers matches how humans disagree.

    \b
    A first run, on the CPU and without a hub:
        distjudge-trl train vader --max_train_samples 500 --max_eval_samples 200
        distjudge-trl judge --model runs/vader-distribution --input items.jsonl --out judged.jsonl
    """


@main.command()
def tasks() -> None:
    """List the tasks: what is judged, with which labels, by how many people."""
    from distjudge_trl.tasks import get_task, list_tasks

    for name in list_tasks():
        task = get_task(name)
        kind = "ordinal" if task.ordinal else "nominal"
        click.echo(f"{name}\n    {task.description}; {task.size}.\n    Labels ({kind}): {', '.join(task.labels)}")


@main.command()
def recipes() -> None:
    """List the recipes: scripts that train and evaluate a judge on a task."""
    import ast

    from distjudge_trl.shipped import list_shipped, shipped_folder

    for name in list_shipped("recipes", ".py"):
        path = shipped_folder("recipes") / f"{name}.py"
        summary = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split("\n")[0]
        click.echo(f"{name}\n    {summary}\n    {path}")


@main.command(context_settings={"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []})
@click.argument("recipe")
@click.option(
    "--accelerate-config", "--accelerate_config", default=None, help="Shipped name (see accelerate_configs/) or path."
)
@click.option(
    "--num-processes",
    "--num_processes",
    type=click.IntRange(min=1),
    help="With --accelerate-config: how many, in place of its own.",
)
@click.option("--dry-run", is_flag=True, help="Print the launch line and stop.")
@click.pass_context
def train(
    ctx: click.Context, recipe: str, accelerate_config: str | None, num_processes: int | None, dry_run: bool
) -> None:
    """Train and evaluate a judge: build a recipe's launch line, print it and run it.

    \b
    Without --accelerate-config one plain process runs; with it, accelerate launches the recipe:
        distjudge-trl train vader --accelerate-config zero2 --num-processes 2 --use_peft --learning_rate 2e-4
    Everything else goes to the recipe; `distjudge-trl train vader --help` shows its options.
    """
    from distjudge_trl.recipe import CHECK_ONLY
    from distjudge_trl.shipped import find_shipped

    if recipe in ("--help", "-h"):
        click.echo(ctx.get_help())
        return
    script = find_shipped(recipe, "recipes", ".py", "recipe")
    command = [sys.executable, str(script)]
    if accelerate_config is not None:
        config = find_shipped(accelerate_config, "accelerate_configs", ".yaml", "accelerate config")
        command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(config)]
        command += ["--num_processes", str(num_processes)] if num_processes is not None else []
        command.append(str(script))
    elif num_processes is not None:
        raise UserInputError("--num-processes goes with --accelerate-config.")
    command += ctx.args
    click.echo(shlex.join(command), err=True)
    if dry_run:
        return
    # DeepSpeed looks for ninja on the path, where an environment that is not activated is missing.
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))
    environment = {**os.environ, "PATH": path}
    if accelerate_config is not None:
        # accelerate turns a child's exit code 2 into a traceback and a 1: try the options in a plain process first.
        check = [sys.executable, str(script), *ctx.args]
        code = subprocess.run(check, check=False, env={**environment, CHECK_ONLY: "1"}).returncode
        if code or {"-h", "--help"} & set(ctx.args):
            raise SystemExit(code)
    sys.stdout.flush()
    # In place of this process, so that signals reach the training.
    os.execve(command[0], command, environment)


@main.command()
@click.option("--model", required=True, help="Folder of a trained judge, or a hub id of one.")
@click.option("--input", "input_path", required=True, help="JSONL: a `prompt` or the template's fields per line.")
@click.option(
    "--out", "output_path", required=True, help="JSONL to write: the input's lines plus `label_distribution`."
)
@click.option("--batch-size", default=32, show_default=True, type=click.IntRange(min=1), help="Prompts per forward.")
def judge(model: str, input_path: str, output_path: str, batch_size: int) -> None:
    """Judge new items: a distribution over the labels for every line of a JSONL file."""
    from distjudge_trl.judges import Judge
    from distjudge_trl.judges.files import judge_jsonl

    count = judge_jsonl(lambda: Judge.from_pretrained(model), input_path, output_path, batch_size=batch_size)
    click.echo(f"{count} items judged: {output_path}")


@main.command()
def env() -> None:
    """Versions, devices and what is missing for which feature; paste it into bug reports."""
    from distjudge_trl.environment import describe_environment

    click.echo(describe_environment())


if __name__ == "__main__":
    main()
