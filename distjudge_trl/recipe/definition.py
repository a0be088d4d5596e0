"""The class `Recipe`: a task, training defaults and a search grid, and the `main` that every recipe script calls."""

from __future__ import annotations

import os
import sys
from argparse import SUPPRESS
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from distjudge_trl.errors import MemoryExhaustedError, RunFailedError, UserInputError, exit_code, listing
from distjudge_trl.files.atomic import removing_if_empty
from distjudge_trl.methods import METHODS
from distjudge_trl.recipe.arguments import ParsedRun, RecipeArguments, TaskArgument
from distjudge_trl.recipe.defaults import derived_defaults
from distjudge_trl.recipe.parsing import (
    auto_or_bool,
    check_config,
    explain,
    find_option,
    parser_error,
    print_grouped_help,
    read_config,
    read_given,
    split_config,
)
from distjudge_trl.recipe.trial import follow_worker, record_failure
from distjudge_trl.runtime.launches import check_processes
from distjudge_trl.runtime.logs import quieten
from distjudge_trl.runtime.precision import runs_on_cpu
from distjudge_trl.runtime.threads import share_cores


if TYPE_CHECKING:
    from trl import TrlParser

    from distjudge_trl.tasks import JudgmentTask


# Set by `distjudge-trl train`: parse the options and stop, so that a mistake in them is reported before anything is
# launched.
CHECK_ONLY = "DISTJUDGE_CHECK_ONLY"

# Set by `distjudge-trl sweep` to a folder: check what is to be swept, read the data, and stop.
PREFLIGHT = "DISTJUDGE_PREFLIGHT"

# The grid of the paper (section 4 and Figure 3).
PAPER_GRID: dict[str, list[Any]] = {
    "alpha": [0.0, 0.2, 0.4, 0.6, 0.8, 1.0],
    "perturbation_radius": [0.0, 0.05, 0.10, 0.15, 0.20, 0.25],
}

# The paper's training settings; alpha 0.8, radius 0.25, step size 0.05 and 5 steps are the trainer's defaults.
# Settings that the paper does not give (rank, schedule, which layers) are ours: TRL's rank, all linear layers except
# the head.
PAPER_TRAINING: dict[str, Any] = {
    "use_peft": True,
    "learning_rate": 5e-5,
    "num_train_epochs": 2,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 0.05,
    "save_strategy": "epoch",
    "logging_steps": 10,
}

# For items of two short sentences, with five or a hundred labels each.
NLI_TRAINING: dict[str, Any] = {
    **PAPER_TRAINING,
    "per_device_train_batch_size": 16,
    "gradient_accumulation_steps": 1,
    "per_device_eval_batch_size": 64,
    "max_length": 512,
    "gradient_checkpointing": True,
}


# The options of TRL and transformers that most runs set.
_USUAL = (
    *("output_dir", "num_train_epochs", "max_steps", "learning_rate", "per_device_train_batch_size"),
    *("gradient_accumulation_steps", "per_device_eval_batch_size", "max_length", "gradient_checkpointing", "bf16"),
    *("eval_strategy", "save_strategy", "save_steps", "save_total_limit", "resume_from_checkpoint", "seed"),
    *("logging_steps", "report_to", "push_to_hub", "hub_model_id"),
)


def _names(options: type) -> list[str]:
    return [item.name for item in fields(options)]


@dataclass(frozen=True)
class Recipe:
    """A task with the settings that differ from the defaults.

    Args:
        task (`str`, *optional*): name of a task; without it the recipe has the option `--task`.
        model (`str`): default for `--model_name_or_path`.
        training (`Mapping[str, Any]`): defaults of [`DistributionSFTConfig`] and `ModelConfig` fields.
        grid (`Mapping[str, Sequence]`): the values that a sweep tries.
    """

    task: str | None
    model: str
    training: Mapping[str, Any] = field(default_factory=dict)
    grid: Mapping[str, Sequence[Any]] = field(default_factory=lambda: dict(PAPER_GRID))

    @property
    def name(self) -> str:
        """Name of the recipe's script, without suffix."""
        return self.task or "custom"

    def main(self, argv: Sequence[str] | None = None) -> None:
        """Parse the command line, run, and exit with 0 on success, 1 if the run failed (one line on stderr if the
        cause is known, else a traceback), 2 if the input is wrong (one line on stderr), 130 after Ctrl-C.
        """
        follow_worker()
        try:
            self.run(argv)
        except (UserInputError, RunFailedError) as error:
            record_failure(error)
            # Print once per machine, because a file may be missing on only one of them. Memory may run out on any
            # device.
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
            [`UserInputError`]: a problem with options, files, data or model names.
        """
        share_cores()
        quieten()
        check_processes()
        if os.environ.get(PREFLIGHT):
            from distjudge_trl.recipe.preflight import CheckedRecipe, run_preflight

            run_preflight(
                CheckedRecipe(self.name, self.parse, {"model": self.model, **self.training}), os.environ[PREFLIGHT]
            )
            return {}
        run = self.parse(argv)
        if os.environ.get(CHECK_ONLY):
            return {}
        from distjudge_trl.recipe.run import run_recipe

        with removing_if_empty(run.training.output_dir):
            return run_recipe(run)

    def parse(self, argv: Sequence[str] | None = None) -> ParsedRun:
        """Parse the command line and the `--config` YAML into dataclasses. Each of these overrides the ones before it:
        recipe defaults, defaults that follow from given options, YAML, flags. `--help` is printed here, and ends the
        process.
        """
        from distjudge_trl.tasks import get_task
        from distjudge_trl.trainer.refused_options import ONLY, check_order

        path, words = split_config(sys.argv[1:] if argv is None else argv)
        config = read_config(path)
        name = self.task or find_option("task", words, config)
        task = get_task(str(name)) if name is not None else None
        parser = self._parser(task)
        config = check_config(parser, config, path)
        given = read_given(parser, words, config)
        if task is not None and not given.get("help"):
            task = task.choose(given.get("question"))
        if unknown := parser.set_defaults_with_config(**self._defaults()):
            raise UserInputError(
                f"The recipe {self.name} has a default for {unknown[0]}, which is not one of its options."
            )
        folder = task.name if task is not None else self.name
        parser.set_defaults_with_config(**derived_defaults(given, self.training, folder))
        parser.set_defaults_with_config(**config)
        if given.get("help"):
            print_grouped_help(parser, self._groups(task), ONLY)
            raise SystemExit(0)
        try:
            parsed = parser.parse_args_into_dataclasses(words, look_for_args_file=False)
        except (ValueError, OSError, TypeError) as error:
            raise explain(error, parser) from error
        # For a recipe without a task, the first dataclass holds --task, which the parser requires.
        recipe_args, options, training_args, model_args = parsed if self.task is not None else parsed[1:]
        assert task is not None
        for name, value in METHODS[recipe_args.method].fixed.items():
            if getattr(training_args, name) != value:
                raise UserInputError(
                    f"--method {recipe_args.method} means {name}={value}, but {name}={getattr(training_args, name)} is"
                    " given: drop one of them."
                )
        if METHODS[recipe_args.method].ordinal and not task.ordinal:
            raise UserInputError(
                f"--method {recipe_args.method} needs labels with an order, and those of {task.name} have none"
                f" ({listing(task.labels)}). If their order means something, its task file says so with"
                " `ordinal: true`; --method no-adversary is the same without the term for the order."
            )
        check_order(training_args.ordinal_loss_weight, task.label_space())
        options.check()
        if recipe_args.split is None:
            recipe_args.split = "official" if task.official_split else "group"
        return ParsedRun(task, recipe_args, options, training_args, model_args)

    def given(self, argv: Sequence[str]) -> dict[str, Any]:
        """The options that the recipe, its `--config` file or the command line name, with parsed values; those that
        are left to a default are absent.
        """
        from distjudge_trl.tasks import get_task

        path, words = split_config(argv)
        config = read_config(path)
        name = self.task or find_option("task", words, config)
        parser = self._parser(get_task(str(name)) if name is not None else None)
        return {**self.training, **read_given(parser, words, check_config(parser, config, path))}

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
            add_help=False,
            description=(
                f"Train and evaluate a judge on {f'the task {self.task!r}' if self.task else 'a task'}. Options may"
                " also be in a YAML file: --config FILE."
            ),
        )
        # argparse would print its help as soon as it meets the option, before the defaults are known.
        parser.add_argument("-h", "--help", action="store_true", default=SUPPRESS, help="show this text and exit")
        parser.error = parser_error
        (sharing,) = (action for action in parser._actions if action.dest == "share_prefixes")
        sharing.choices, sharing.type = None, auto_or_bool
        return parser

    def _groups(self, task: JudgmentTask | None) -> dict[str, list[str]]:
        """Options in the order in which a user chooses them; the others of TRL and transformers follow."""
        from trl import ModelConfig, SFTConfig

        from distjudge_trl.tasks import TaskOptions
        from distjudge_trl.trainer import DistributionSFTConfig

        own = [name for name in _names(DistributionSFTConfig) if name not in _names(SFTConfig)]
        items = task.options if task is not None else TaskOptions
        return {
            "Data and method": ["help", *(() if self.task else ("task",)), *_names(RecipeArguments)],
            f"Items of {task.name}" if task is not None else "Items": _names(items),
            "Objective (docs/objective.md)": own,
            "Where and how long": list(_USUAL),
            "Model, adapter, quantisation, as in TRL's ModelConfig": _names(ModelConfig),
        }

    def _defaults(self) -> dict[str, Any]:
        return {
            "model_name_or_path": self.model,
            "report_to": "none",
            # PEFT's default is two projections of the attention; this takes all linear layers except the head.
            "lora_target_modules": ["all-linear"],
            # Trainer refuses bf16 on a machine without accelerator unless `use_cpu` is set.
            "use_cpu": runs_on_cpu(),
            **self.training,
        }
