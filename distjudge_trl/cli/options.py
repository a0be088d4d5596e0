"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click


if TYPE_CHECKING:
    from distjudge_trl.tasks import JudgmentTask

BATCH_SIZE = click.option(
    "--batch-size", default=32, show_default=True, type=click.IntRange(min=1), help="Prompts per forward pass."
)
# As recipes take them: --use_peft, --use_peft True.
SWITCH: dict[str, Any] = {
    "is_flag": False,
    "flag_value": "True",
    "default": "False",
    "type": bool,
    "metavar": "[BOOL]",
}
DATA_PATH = click.option(
    "--data-path", help="Official file, archive or folder of the data. Default: it is downloaded once."
)
TRUST_REMOTE_CODE = click.option(
    "--trust-remote-code",
    is_flag=True,
    help="Allow code from the model's repository, which some models need.",
)
MAX_LENGTH = click.option(
    "--max-length", type=click.IntRange(min=1), help="Longest prompt in tokens. Default: as in training."
)
TRUNCATE = click.option(
    "--truncate",
    type=click.Choice(["middle", "end", "error"]),
    help="How to shorten the longest fields of an item that is too long; `error` stops. Default: as in training.",
)
CALIBRATION = click.option(
    "--calibration/--no-calibration",
    default=True,
    help="Apply the judge's own calibration (distjudge-trl calibrate). Default: yes, if it has one.",
)
PROMPT_TEMPLATE = click.option("--prompt-template", help="Use this Jinja file instead of the task's prompt.")
# For commands whose other options depend on the task.
TASK_HELP = click.option("-h", "--help", "help_", is_flag=True, help="Show this text, and the options of TASK.")


def reading_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of device and number types with which a command loads a judge's model."""
    options = (
        click.option(
            "--device",
            help="Device to use, such as cuda:1 or cpu. Default: the GPU (or other accelerator), if there is one.",
        ),
        click.option(
            "--device-map",
            metavar="NAME",
            help="Device map as in transformers, instead of --device: `auto` spreads a model over all GPUs and"
            " host memory.",
        ),
        click.option(
            "--dtype",
            type=click.Choice(["float32", "bfloat16", "float16"]),
            help="Type of the weights. Default: as trained, where the device has it; an untrained model: bfloat16"
            " on a GPU"
            " (float16 where that is emulated, float32 where both are), float32 on the CPU.",
        ),
        click.option(
            "--autocast",
            type=click.Choice(["none", "bfloat16", "float16"]),
            help="Type of autocast. Default: as trained, where the device has it; an untrained model: none.",
        ),
        TRUST_REMOTE_CODE,
    )
    for option in reversed(options):
        command = option(command)
    return command


def check_shared_task(name: str) -> None:
    """Raise unless it is a task of LeWiDi."""
    from distjudge_trl.errors import UserInputError
    from distjudge_trl.tasks.lewidi import SHARED_TASKS

    if name not in SHARED_TASKS:
        raise UserInputError(f"{name!r} is not a task of LeWiDi, whose tasks are {', '.join(SHARED_TASKS)}.")


def echo_task_options(task: JudgmentTask, note: str = "") -> None:
    """Print a task's options for building records."""
    from distjudge_trl.recipe.parsing import make_option_parser

    click.echo(f"\nOptions of {task.name}{note}:\n")
    click.echo(make_option_parser(task).format_help().partition("\n\n")[2])
