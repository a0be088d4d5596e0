"""The options of recipes, besides those of trainer and model, and the result of parsing a command line."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple

from distjudge_trl.methods import METHODS


if TYPE_CHECKING:
    from trl import ModelConfig

    from distjudge_trl.tasks import JudgmentTask, TaskOptions
    from distjudge_trl.trainer import DistributionSFTConfig


@dataclass
class RecipeArguments:
    """Data and method of a run. The options of the objective, the trainer and the model follow below."""

    method: Literal[tuple(METHODS)] = field(  # type: ignore[valid-type]
        default="distribution",
        metadata={
            "help": "What to train: " + "; ".join(f"'{name}': {way.summary}" for name, way in METHODS.items()) + "."
        },
    )
    data_path: str | None = field(
        default=None,
        metadata={
            "help": (
                "The task's official file, archive or folder. Default: the task's own source, downloaded once into the"
                " cache ($DISTJUDGE_CACHE, or that of the hub)."
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
                " their 'end' (counted and reported; the prompt's end is never cut), or stop with an 'error'."
            )
        },
    )
    split: Literal["official", "group", "paper"] | None = field(
        default=None,
        metadata={
            "help": (
                "'official': the parts that the source of the data names; 'group' keeps related items on one side of"
                " an 8:2 split, so that nothing leaks; 'paper' draws single items. Default: official if the task has"
                " such parts, else group."
            )
        },
    )
    split_seed: int = field(
        default=0,
        metadata={
            "help": "Seed of the 8:2 split. It is separate from --seed, so that runs with other seeds share the split."
        },
    )
    max_train_samples: int | None = field(
        default=None,
        metadata={
            "help": (
                "Train on at most this many records, drawn by a hash of their ids; a pair in both orders counts twice."
                " Default: all."
            )
        },
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
        metadata={
            "help": (
                "Test on at most this many records, drawn by a hash of their ids; a pair in both orders counts twice."
                " Default: all."
            )
        },
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
                "'validation' holds validation items out of training and scores the judge on them instead of the test"
                " items: for choosing settings, as `distjudge-trl sweep` does."
            )
        },
    )
    calibrate: bool = field(
        default=False,
        metadata={
            "help": (
                "Hold validation items out of training, fit temperature and vector scaling on them afterwards, and"
                " score the scaled judges, too. Without training (--method raw) this is always done."
            )
        },
    )


@dataclass
class TaskArgument:
    """The option `--task`, for a recipe without a task."""

    task: str = field(metadata={"help": "A task's name, or the path of a .yaml file that defines your own."})


class ParsedRun(NamedTuple):
    """A parsed command line."""

    task: JudgmentTask
    recipe: RecipeArguments
    options: TaskOptions
    training: DistributionSFTConfig
    model: ModelConfig
