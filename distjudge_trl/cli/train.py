"""`distjudge-trl train`: build, check and run a recipe's launch line."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import click

from distjudge_trl.errors import UserInputError


@click.command(
    short_help="Train and evaluate a judge.",
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []},
)
@click.argument("recipe")
@click.option(
    "--accelerate-config",
    default=None,
    help="Launch with accelerate and this config: a shipped name (see accelerate_configs/) or a path.",
)
@click.option(
    "--num-processes",
    type=click.IntRange(min=1),
    help="Number of processes. Default: what the config says; configs for GPUs take all GPUs of the machine.",
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
    RECIPE is a recipe's name or path, or a .yaml file that defines a task of your own (recipes/custom.py trains it).
    Everything else goes to the recipe; `distjudge-trl train vader --help` shows its options.
    """
    from distjudge_trl.files.shipped_files import find_shipped
    from distjudge_trl.recipe import CHECK_ONLY
    from distjudge_trl.runtime.launches import check_launch

    if recipe in ("--help", "-h"):
        click.echo(ctx.get_help())
        return
    if recipe.startswith("-"):
        raise UserInputError(f"The recipe comes first: distjudge-trl train RECIPE {recipe} ...")
    arguments = list(ctx.args)
    if recipe.endswith((".yaml", ".yml")):
        arguments = ["--task", recipe, *arguments]
        recipe = "custom"
    script = find_shipped(recipe, "recipes", ".py", "recipe")
    command = [sys.executable, str(script)]
    if accelerate_config is not None:
        config = find_shipped(accelerate_config, "accelerate_configs", ".yaml", "accelerate config")
        command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(config)]
        command += ["--num_processes", str(num_processes)] if num_processes is not None else []
        command.append(str(script))
    elif num_processes is not None:
        raise UserInputError("--num-processes goes with --accelerate-config.")
    command += arguments
    click.echo(shlex.join(command), err=True)
    if dry_run:
        return
    # DeepSpeed looks for ninja on the path, where an environment that is not activated is missing.
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))
    environment = {**os.environ, "PATH": path}
    if accelerate_config is not None:
        # accelerate turns a child's exit code 2 into a traceback and a 1: try the options in a plain process first.
        check = [sys.executable, str(script), *arguments]
        code = subprocess.run(check, check=False, env={**environment, CHECK_ONLY: "1"}).returncode
        if code or {"-h", "--help"} & set(ctx.args):
            raise SystemExit(code)
        check_launch(config, num_processes)
    sys.stdout.flush()
    # Replace this process, so that signals reach the training.
    os.execve(command[0], command, environment)
