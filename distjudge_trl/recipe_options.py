"""What a recipe can be asked for beside the trainer's and the model's options, and the defaults that follow from what
is asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from distjudge_trl.errors import UserInputError
from distjudge_trl.precision import resolve_precision, runs_on_cpu


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


def derived_defaults(given: Mapping[str, Any], own: Mapping[str, Any], folder: str) -> dict[str, Any]:
    """Defaults that depend on other options, to be laid over the recipe's own and below what is given.

    Args:
        given (`Mapping[str, Any]`): options by name, as they were read from the command line and `--config`, whatever
            their spelling; what is not given is absent.
        own (`Mapping[str, Any]`): the recipe's own defaults ([`Recipe`]`.training`). They hold unless something that
            is given says otherwise.
        folder (`str`): the first part of the name of the output folder.

    Raises:
        [`UserInputError`]: there is no such method.
    """
    asked = {**own, **given}
    method = asked.get("method", "distribution")
    if not isinstance(method, str) or method not in METHODS:
        raise UserInputError(f"There is no method {method!r}. Methods: {', '.join(METHODS)}.")
    defaults = {**METHODS[method], **METHOD_DEFAULTS.get(method, {})}
    if "method" not in given:
        # The recipe's own, and so are the values beside it: a contradiction is told, not settled.
        defaults = {name: value for name, value in defaults.items() if name not in own}
    if "output_dir" not in own:
        defaults["output_dir"] = f"runs/{folder}-{method}"

    asked_precision = given if {"bf16", "fp16"} & given.keys() else own
    precision = resolve_precision(
        asked_precision.get("bf16"), asked_precision.get("fp16"), use_cpu=bool(asked.get("use_cpu", runs_on_cpu()))
    )
    defaults |= {"bf16": precision.bf16, "fp16": precision.fp16}
    # The recipe's type of weights is for its own way to train.
    if "dtype" not in own or _is_frozen(asked) != _is_frozen(own):
        # Quantised weights are computed with in the same type: float32 would forfeit what 4 bits save where half
        # precision is fast, and half precision would be emulated elsewhere.
        defaults["dtype"] = precision.of_weights(frozen=_is_frozen(asked))
    if asked.get("load_in_4bit") and "use_bnb_nested_quant" not in own:
        defaults["use_bnb_nested_quant"] = True  # part of QLoRA

    strategy = asked.get("eval_strategy")
    strategy = getattr(strategy, "value", strategy)
    if strategy in ("steps", "epoch") and ("eval_strategy" in given or "save_strategy" not in own):
        # The two must agree for --load_best_model_at_end.
        defaults["save_strategy"] = strategy
    elif "save_steps" in given:
        # TRL's own default, under which it counts; a recipe's is "epoch".
        defaults["save_strategy"] = "steps"
    return defaults


def _is_frozen(options: Mapping[str, Any]) -> bool:
    """Whether the model's own weights are not trained, but adapters on them (or nothing)."""
    return any(options.get(name) for name in ("use_peft", "load_in_4bit", "load_in_8bit"))
