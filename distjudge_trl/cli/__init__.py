"""The command line, a module a command. Thin: they call the packages; heavy imports wait until they are needed."""

from __future__ import annotations

from typing import Any

import click

from distjudge_trl.cli.calibrate import calibrate
from distjudge_trl.cli.data import data
from distjudge_trl.cli.evaluate import evaluate
from distjudge_trl.cli.export import export_openai
from distjudge_trl.cli.judge import judge, merge
from distjudge_trl.cli.lists import env, recipes, tasks
from distjudge_trl.cli.plan import plan
from distjudge_trl.cli.report import report
from distjudge_trl.cli.submit import submit
from distjudge_trl.cli.sweep import sweep
from distjudge_trl.cli.train import train
from distjudge_trl.errors import RunFailedError, UserInputError, exit_code, full_disk, memory_exhausted
from distjudge_trl.recipe.trial import follow_worker


class _Group(click.Group):
    """Errors that the user can fix become one line on stderr and exit code 2, runs that failed exit code 1."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (UserInputError, RunFailedError) as error:
            click.echo(f"error: {error}", err=True)
            raise SystemExit(exit_code(error)) from None
        except (RuntimeError, OSError) as error:
            reason = full_disk(error) if isinstance(error, OSError) else memory_exhausted(error)
            if reason is None:
                raise
            click.echo(f"error: {reason}", err=True)
            raise SystemExit(1) from None


# Options are written as recipes write theirs, too: --max_length is --max-length. What a command passes on to a recipe
# stays as it is.
@click.group(
    cls=_Group,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "token_normalize_func": lambda word: word.replace("_", "-"),
    },
)
@click.version_option(package_name="distjudge-trl")
def main() -> None:
    """Fine-tune LLM judges whose distribution over the answers matches how humans disagree.

    \b
    A first run, on the CPU and without a hub:
        distjudge-trl train vader --max_train_samples 500 --max_eval_samples 200
        distjudge-trl judge --model runs/vader-distribution --input items.jsonl --out judged.jsonl
    """
    follow_worker()


_COMMANDS = (
    *(tasks, data, recipes, train),
    *(judge, merge, calibrate, evaluate, submit),
    *(report, export_openai, plan, sweep, env),
)
for _command in _COMMANDS:
    main.add_command(_command)
