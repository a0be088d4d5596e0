"""Options that several commands share."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click


if TYPE_CHECKING:
    from distjudge_trl.judges.api.options import ApiOptions
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
JUDGE_SPLIT_SEED = click.option(
    "--split-seed", type=int, help="Seed of the split. Default: the one of the training run, else 0."
)
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


def api_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of models behind an OpenAI-compatible server. The command gets those that were given as the
    dictionary `api`, for [`make_api_options`].
    """
    options = (
        click.option(
            "--base-url",
            metavar="URL",
            help="For --model openai:NAME: the server's address, such as http://localhost:8000/v1. Default:"
            " $OPENAI_BASE_URL, else OpenAI's.",
        ),
        click.option(
            "--judge-file",
            metavar="FOLDER",
            help="For a trained judge whose merged weights a server holds: its folder, for labels, template and"
            " calibration.",
        ),
        click.option(
            "--tokenizer",
            metavar="NAME",
            help="Tokenizer of a model behind a server: labels are then bound to tokens exactly, and costs counted.",
        ),
        click.option(
            "--api-key-env", metavar="NAME", help="Environment variable with the key. Default: OPENAI_API_KEY."
        ),
        click.option(
            "--readout",
            type=click.Choice(["logprobs", "samples"]),
            help="Read log-probabilities of one token, or count sampled answers, for models that give no"
            " log-probabilities. Default: logprobs.",
        ),
        click.option(
            "--top-logprobs",
            type=int,
            metavar="N",
            help="Tokens that the server returns: up to 20 at OpenAI, more elsewhere. Default: 5, as in the paper.",
        ),
        click.option(
            "--missing-labels",
            type=click.Choice(["floor", "bound", "error"]),
            help="A label that is not among these tokens gets 1e-6 (floor); bound also reports the lowest and highest"
            " KL; error stops. Default: floor.",
        ),
        click.option("--samples", type=int, metavar="N", help="Answers per item with --readout samples. Default: 20."),
        click.option(
            "--smoothing",
            type=float,
            metavar="X",
            help="With --readout samples: X votes more for each of the labels. Default: 0.5.",
        ),
        click.option(
            "--max-tokens",
            type=int,
            metavar="N",
            help="Longest sampled answer. Models that think first need thousands. Default: 16.",
        ),
        click.option("--concurrency", type=int, metavar="N", help="Requests at once. Default: 8."),
        click.option(
            "--max-requests",
            type=click.IntRange(min=0),
            metavar="N",
            help="Stop before anything is sent if more requests are needed.",
        ),
        click.option("--max-retries", type=int, metavar="N", help="Retries of a failed request. Default: 6."),
        click.option("--timeout", type=float, metavar="SECONDS", help="Of one try of a request. Default: 60."),
        click.option(
            "--cache", metavar="FILE", help="File that keeps all answers. Default: api.sqlite in the cache folder."
        ),
        click.option(
            "--batch", is_flag=True, default=None, help="Use the provider's batch endpoint: cheaper, within a day."
        ),
        click.option("--poll", type=float, metavar="SECONDS", help="Between two looks at a batch. Default: 30."),
        click.option(
            "--price-in", type=float, metavar="PRICE", help="Of a million tokens of prompts, for the estimate."
        ),
        click.option("--price-out", type=float, metavar="PRICE", help="Of a million tokens of answers."),
    )

    @functools.wraps(command)
    def with_api(*args: Any, **kwargs: Any) -> Any:
        given = {name: kwargs.pop(name) for name in API_NAMES}
        return command(*args, api={name: value for name, value in given.items() if value is not None}, **kwargs)

    wrapped: Callable[..., Any] = with_api
    for option in reversed(options):
        wrapped = option(wrapped)
    return wrapped


API_NAMES = (
    *("base_url", "judge_file", "tokenizer", "api_key_env", "readout", "top_logprobs", "missing_labels", "samples"),
    *("smoothing", "max_tokens", "concurrency", "max_requests", "max_retries", "timeout", "cache", "batch", "poll"),
    *("price_in", "price_out"),
)


def make_api_options(model: str, api: dict[str, Any]) -> ApiOptions | None:
    """The options of the server of `openai:MODEL`; `None` for a model on this machine.

    Raises:
        [`UserInputError`]: a value is wrong, or such options were given for a model on this machine.
    """
    from distjudge_trl.errors import UserInputError
    from distjudge_trl.judges.api.options import ApiOptions, model_of

    if model_of(model) is not None:
        return ApiOptions(**api)
    if api:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in api)
        raise UserInputError(
            f"{names}: for models behind a server, named openai:MODEL; {model} is a model on this machine."
        )
    return None


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
