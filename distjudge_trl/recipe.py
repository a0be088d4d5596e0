"""A recipe: a task, training defaults and a search grid; and the one `main` that every recipe script calls."""

from __future__ import annotations

import difflib
import logging
import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, NoReturn

from distjudge_trl.errors import MemoryExhaustedError, RunFailedError, UserInputError, exit_code
from distjudge_trl.launch import check_processes
from distjudge_trl.supervised import follow_worker, record_failure
from distjudge_trl.yaml_file import read_mapping


if TYPE_CHECKING:
    from transformers import HfArgumentParser
    from trl import ModelConfig, TrlParser

    from distjudge_trl.tasks import JudgmentTask, TaskOptions
    from distjudge_trl.trainer import DistributionSFTConfig


# What each --method fixes; the rest of the objective stays with the user. Names and rows follow the paper's tables,
# and what a reviewer would ask for beside them.
METHODS: dict[str, dict[str, Any]] = {
    "distribution": {"adversary": "pgd"},
    "single-point": {"alpha": 0.0, "adversary": "none", "label_smoothing": 0.0},
    "label-smoothing": {"alpha": 0.0, "adversary": "none"},
    "kl-only": {"alpha": 1.0, "adversary": "none"},
    "no-adversary": {"adversary": "none"},
    "dirichlet": {"adversary": "none"},
    "no-kl": {"alpha": 0.0, "adversary": "pgd"},
    "no-ce": {"alpha": 1.0, "adversary": "pgd"},
    "worst-case": {"adversary": "worst_case"},
    "raw": {},
}
# Defaults that come with a method and that the user may change.
METHOD_DEFAULTS: dict[str, dict[str, Any]] = {"label-smoothing": {"label_smoothing": 0.1}}

# Set by `distjudge-trl train`: parse the options and stop, so that a mistake in them is told before anything is
# launched.
CHECK_ONLY = "DISTJUDGE_CHECK_ONLY"

# Set by `distjudge-trl sweep` to a folder: check what is to be swept, read the data, and stop.
PREPARE = "DISTJUDGE_PREPARE"

# The grid of the paper (section 4 and Figure 3).
PAPER_GRID: dict[str, list[Any]] = {
    "alpha": [0.0, 0.2, 0.4, 0.6, 0.8, 1.0],
    "perturbation_radius": [0.0, 0.05, 0.10, 0.15, 0.20, 0.25],
}

# The paper's training settings; alpha 0.8, radius 0.25, step size 0.05 and 5 steps are the trainer's defaults. Where
# the paper is silent (rank, schedule, which layers) they are ours: TRL's rank, all linear layers but the head.
PAPER_TRAINING: dict[str, Any] = {
    "use_peft": True,
    "learning_rate": 5e-5,
    "num_train_epochs": 2,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 0.05,
    "dtype": "bfloat16",
    "save_strategy": "epoch",
    "logging_steps": 10,
}


@dataclass
class RecipeArguments:
    """Data and method of a run. The objective's, the trainer's and the model's options follow below."""

    method: Literal[
        "distribution",
        "single-point",
        "label-smoothing",
        "kl-only",
        "no-adversary",
        "dirichlet",
        "no-kl",
        "no-ce",
        "worst-case",
        "raw",
    ] = field(
        default="distribution",
        metadata={
            "help": (
                "What to train: 'distribution' is the paper's method (KL + cross-entropy + adversary), 'single-point'"
                " cross-entropy on the majority label, 'label-smoothing' the same on a smoothed label, 'kl-only' KL"
                " alone, 'no-adversary' KL + cross-entropy, 'dirichlet' the same on add-lambda smoothed targets"
                " (lambda chosen on validation items, or --target_smoothing), 'no-kl' and 'no-ce' the paper's"
                " ablations, 'worst-case' a stronger adversary, 'raw' no training at all."
            )
        },
    )
    data_path: str | None = field(
        default=None,
        metadata={
            "help": (
                "The task's official file, archive or folder. Default: the task's own source, downloaded once into the"
                " cache ($DISTJUDGE_CACHE)."
            )
        },
    )
    prompt_template: str | None = field(
        default=None,
        metadata={
            "help": (
                "Jinja file that replaces the task's prompt (.jinja: one user message; .yaml: a list of messages). See"
                " `distjudge-trl data TASK --show 1` for the task's own."
            )
        },
    )
    truncate: Literal["middle", "end", "error"] = field(
        default="middle",
        metadata={
            "help": (
                "An item whose prompt has more than --max_length tokens: cut its longest fields in the 'middle' or at"
                " their 'end' (counted and reported; the prompt's end stays whole), or stop with an 'error'."
            )
        },
    )
    split: Literal["group", "paper"] = field(
        default="group",
        metadata={
            "help": (
                "'group' keeps related items on one side of the split, so that nothing leaks; 'paper' draws single"
                " items."
            )
        },
    )
    split_seed: int = field(
        default=0,
        metadata={"help": "Another seed, another 8:2 split. Apart from --seed, so that seeds of training share it."},
    )
    max_train_samples: int | None = field(
        default=None,
        metadata={"help": "Train on at most this many items (drawn by a hash of their ids). Default: all."},
    )
    annotation_budget: int | None = field(
        default=None,
        metadata={
            "help": (
                "Train on as many items as this many votes pay for (drawn by a hash of their ids): with"
                " --max_annotators, many items with few votes or few with many (the paper's Table 4)."
            )
        },
    )
    max_eval_samples: int | None = field(
        default=None,
        metadata={"help": "Test on at most this many items (drawn by a hash of their ids). Default: all."},
    )
    validation_fraction: float = field(
        default=0.1,
        metadata={
            "help": (
                "Share of the *training* items that --eval_strategy, --calibrate, --score_on validation and --method"
                " dirichlet hold out, so that nothing is ever chosen on test items."
            )
        },
    )
    score_on: Literal["test", "validation"] = field(
        default="test",
        metadata={
            "help": (
                "'validation' holds validation items out of training and scores the judge on them in place of the test"
                " items: for choosing settings, as `distjudge-trl sweep` does."
            )
        },
    )
    calibrate: bool = field(
        default=False,
        metadata={
            "help": (
                "Hold validation items out of training, fit temperature and vector scaling on them afterwards, and"
                " score the scaled judges, too. Without training (--method raw) that is always done."
            )
        },
    )


@dataclass
class TaskArgument:
    """Which task, for a recipe that takes any."""

    task: str = field(metadata={"help": "A task's name, or the path of a .yaml file that defines your own."})


class RecipeRun(NamedTuple):
    """What a command line comes to."""

    task: JudgmentTask
    recipe: RecipeArguments
    options: TaskOptions
    training: DistributionSFTConfig
    model: ModelConfig


@dataclass(frozen=True)
class Recipe:
    """A task with the settings that differ from the defaults.

    Args:
        task (`str`, *optional*): name of a task; without one the recipe takes `--task`.
        model (`str`): default for `--model_name_or_path`.
        training (`Mapping[str, Any]`): defaults of [`DistributionSFTConfig`] and `ModelConfig` fields.
        grid (`Mapping[str, Sequence]`): what a sweep tries.
    """

    task: str | None
    model: str
    training: Mapping[str, Any] = field(default_factory=dict)
    grid: Mapping[str, Sequence[Any]] = field(default_factory=lambda: dict(PAPER_GRID))

    @property
    def name(self) -> str:
        """Of its script, without suffix."""
        return self.task or "custom"

    def main(self, argv: Sequence[str] | None = None) -> None:
        """Parse the command line, run, and exit: 0 done, 1 a run failed (one line on stderr where the cause is known,
        else a traceback), 2 the input is wrong (one line on stderr), 130 it was interrupted by Ctrl-C.
        """
        follow_worker()
        try:
            self.run(argv)
        except (UserInputError, RunFailedError) as error:
            record_failure(error)
            # Once a machine: a file may be missing on one of them. Memory may run out on any device.
            if os.environ.get("LOCAL_RANK", "0") == "0" or isinstance(error, MemoryExhaustedError):
                rank = os.environ.get("RANK", "0")
                print(f"error: {error}" if rank == "0" else f"error (rank {rank}): {error}", file=sys.stderr)
            raise SystemExit(exit_code(error)) from None
        except KeyboardInterrupt:
            if os.environ.get("RANK", "0") == "0":
                print(
                    "Stopped. --resume_from_checkpoint true goes on from a checkpoint, if it saved one.",
                    file=sys.stderr,
                )
            raise SystemExit(130) from None
        except BaseException as error:
            record_failure(error)
            raise

    def run(self, argv: Sequence[str] | None = None) -> dict[str, Any]:
        """Train, save and evaluate; returns the content of `results.json`.

        Raises:
            [`UserInputError`]: anything wrong with flags, files, data or model names.
        """
        quieten()
        check_processes()
        if os.environ.get(PREPARE):
            from distjudge_trl.prepare import prepare

            prepare(self, os.environ[PREPARE])
            return {}
        run = self.parse(argv)
        if os.environ.get(CHECK_ONLY):
            return {}
        from distjudge_trl.recipe_run import run_recipe

        return run_recipe(run)

    def parse(self, argv: Sequence[str] | None = None) -> RecipeRun:
        """Command line (and `--config` YAML under it) to dataclasses: recipe defaults < method < YAML < flags."""
        from distjudge_trl.tasks import get_task

        args = list(sys.argv[1:] if argv is None else argv)
        config = _read_config(args)
        name = self.task or _peek(args, "--task") or config.get("task")
        task = get_task(str(name)) if name is not None else None
        parser = self._parser(task)
        parser.set_defaults_with_config(**self._defaults())
        method = _peek(args, "--method") or config.get("method", "distribution")
        if str(_peek(args, "--use_peft") or config.get("use_peft")).lower() in ("false", "no", "0"):
            # A recipe's bfloat16 is for frozen weights; trained ones need float32 to keep small updates.
            parser.set_defaults_with_config(dtype="float32")
        four_bit = _peek(args, "--load_in_4bit") or ("--load_in_4bit" in args) or config.get("load_in_4bit")
        if four_bit and str(four_bit).lower() not in ("false", "no", "0"):
            # TRL computes in the weights' dtype under quantisation, and float32 would forfeit what 4 bits save. Double
            # quantisation is part of QLoRA.
            parser.set_defaults_with_config(dtype="bfloat16", use_bnb_nested_quant=True)
        if not isinstance(method, str) or method not in METHODS:
            raise UserInputError(f"There is no method {method!r}. Methods: {', '.join(METHODS)}.")
        strategy = _peek(args, "--eval_strategy") or config.get("eval_strategy")
        if strategy in ("steps", "epoch"):
            # The two must agree for --load_best_model_at_end.
            parser.set_defaults_with_config(save_strategy=strategy)
        folder = f"runs/{task.name if task is not None else self.name}-{method}"
        parser.set_defaults_with_config(**METHODS[method], **METHOD_DEFAULTS.get(method, {}), output_dir=folder)
        try:
            parsed = parser.parse_args_and_config(args)
        except (ValueError, OSError, TypeError) as error:
            raise _explain(error, parser) from error
        # A recipe without a task of its own has --task as first dataclass, required by the parser.
        recipe_args, options, training_args, model_args = parsed if self.task is not None else parsed[1:]
        assert task is not None
        for name, value in METHODS[recipe_args.method].items():
            if getattr(training_args, name) != value:
                raise UserInputError(
                    f"--method {recipe_args.method} means {name}={value}, but {name}={getattr(training_args, name)} is"
                    " given: drop one of them."
                )
        options.check()
        return RecipeRun(task, recipe_args, options, training_args, model_args)

    def _parser(self, task: JudgmentTask | None) -> TrlParser:
        from trl import ModelConfig, TrlParser

        from distjudge_trl.tasks import TaskOptions
        from distjudge_trl.trainer import DistributionSFTConfig

        options = task.options if task is not None else TaskOptions
        parser = TrlParser(
            (
                *(() if self.task is not None else (TaskArgument,)),
                RecipeArguments,
                options,
                DistributionSFTConfig,
                ModelConfig,
            ),
            prog=f"{self.name}.py",
            allow_abbrev=False,
            description=(
                f"Train and evaluate a judge on {f'the task {self.task!r}' if self.task else 'a task'}. Options may"
                " also stand in a YAML file: --config FILE."
            ),
        )
        # argparse prints the usage, 150 lines of it, before the one that matters.
        parser.error = _parser_error
        return parser

    def _defaults(self) -> dict[str, Any]:
        return {
            "model_name_or_path": self.model,
            "report_to": "none",
            # PEFT's own default is two projections of the attention; this leaves out the head alone.
            "lora_target_modules": ["all-linear"],
            "bf16": _has_fast_bfloat16(),
            # Trainer refuses bf16 on a machine without accelerator unless it is told that the CPU is meant.
            "use_cpu": not _has_accelerator(),
            **self.training,
        }


def make_option_parser(task: JudgmentTask) -> HfArgumentParser:
    """Parser of a task's own options ([`~distjudge_trl.tasks.TaskOptions`])."""
    from transformers import HfArgumentParser

    parser = HfArgumentParser((task.options,), prog=task.name, allow_abbrev=False, add_help=False)
    parser.error = _parser_error
    return parser


def parse_task_options(
    task: JudgmentTask, args: Sequence[str], defaults: Mapping[str, Any] | None = None
) -> TaskOptions:
    """A task's options from command line arguments, over `defaults` in place of the task's own.

    Raises:
        [`UserInputError`]: an unknown option (the nearest known one is named) or a value out of range.
    """
    parser = make_option_parser(task)
    known = {action.dest for action in parser._actions}
    parser.set_defaults(**{name: value for name, value in (defaults or {}).items() if name in known})
    options, rest = parser.parse_args_into_dataclasses(
        list(args), look_for_args_file=False, return_remaining_strings=True
    )
    if rest:
        raise _explain(ValueError(f"Unknown arguments: {' '.join(rest)}"), parser)
    options.check()
    return options


def quieten() -> None:
    """Drop messages of the libraries that say nothing about the run and that a user cannot act on."""
    # TRL 1.16 sets the name that transformers 5.23 deprecates.
    warnings.filterwarnings("ignore", message="`gradient_checkpointing` is deprecated", category=FutureWarning)
    # Optional CPU kernels from the hub; their absence costs nothing here.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    if not _has_accelerator():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # DeepSpeed warns when it has to find that out by itself


def _parser_error(message: str) -> NoReturn:
    raise UserInputError(f"{message}. See --help.")


def _has_accelerator() -> bool:
    import torch

    return torch.accelerator.is_available()


def _has_fast_bfloat16() -> bool:
    """Whether bf16 autocast is a gain: on GPUs that have it and on CPUs with bf16 instructions; elsewhere it is
    emulated and slow.
    """
    import torch

    from distjudge_trl.environment import cpu_has_bfloat16

    return torch.cuda.is_bf16_supported(including_emulation=False) if torch.cuda.is_available() else cpu_has_bfloat16()


def _peek(args: list[str], flag: str) -> str | None:
    """Value of `flag` in `--flag value` or `--flag=value` form, before the real parser runs."""
    value = None
    for position, arg in enumerate(args):
        if arg == flag and position + 1 < len(args):
            value = args[position + 1]
        elif arg.startswith(flag + "="):
            value = arg.split("=", 1)[1]
    return value


def _read_config(args: list[str]) -> dict[str, Any]:
    """Content of the `--config` file, checked early: TRL's parser would end in a traceback. Rewrites `--config=F` to
    the form it knows.
    """
    for position, arg in enumerate(args):
        if arg.startswith("--config="):
            args[position : position + 1] = ["--config", arg.split("=", 1)[1]]
    if "--config" not in args:
        return {}
    if args.index("--config") + 1 >= len(args):
        raise UserInputError("--config needs the path of a YAML file.")
    path = args[args.index("--config") + 1]
    return read_mapping(path, "must be a mapping of option names to values, such as `alpha: 0.8`.")


def _explain(error: Exception, parser: HfArgumentParser) -> UserInputError:
    """A parser's exception as one line; unknown options get the nearest known one."""
    if isinstance(error, UserInputError):
        return error
    message = " ".join(str(error).split())
    if "HfArgumentParser" not in message and "Unknown arguments" not in message:
        return UserInputError(message)
    known = [option for action in parser._actions for option in action.option_strings]
    for word in message.replace("'", " ").replace(",", " ").replace("]", " ").split():
        if word.startswith("--") and word not in known:
            close = difflib.get_close_matches(word, known, n=1)
            return UserInputError(f"Unknown option {word}.{f' Did you mean {close[0]}?' if close else ' See --help.'}")
    return UserInputError(message)
