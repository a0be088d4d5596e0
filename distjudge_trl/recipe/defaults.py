"""Defaults of a recipe's options that follow from other options."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from distjudge_trl.errors import UserInputError
from distjudge_trl.methods import METHODS
from distjudge_trl.runtime.precision import resolve_precision, runs_on_cpu


def derived_defaults(given: Mapping[str, Any], recipe_defaults: Mapping[str, Any], folder: str) -> dict[str, Any]:
    """Defaults that depend on other options. They override the recipe's own defaults; given options override them.

    Args:
        given (`Mapping[str, Any]`): the options that were given on the command line or in `--config`, by name.
        recipe_defaults (`Mapping[str, Any]`): the recipe's own defaults ([`Recipe`]`.training`). They apply
            unless a given option says otherwise.
        folder (`str`): the first part of the name of the output folder.

    Raises:
        [`UserInputError`]: there is no such method.
    """
    options = {**recipe_defaults, **given}
    method = options.get("method", "distribution")
    if not isinstance(method, str) or method not in METHODS:
        raise UserInputError(f"There is no method {method!r}. Methods: {', '.join(METHODS)}.")
    defaults = {**METHODS[method].fixed, **METHODS[method].defaults}
    if "method" not in given:
        # This is the recipe's own method, and the values beside it are its own, too: a contradiction is an error.
        defaults = {name: value for name, value in defaults.items() if name not in recipe_defaults}
    if "output_dir" not in recipe_defaults:
        defaults["output_dir"] = f"runs/{folder}-{method}"

    asked_precision = given if {"bf16", "fp16"} & given.keys() else recipe_defaults
    precision = resolve_precision(
        asked_precision.get("bf16"), asked_precision.get("fp16"), use_cpu=bool(options.get("use_cpu", runs_on_cpu()))
    )
    defaults |= {"bf16": precision.bf16, "fp16": precision.fp16}
    # The recipe's type of weights applies only to its own kind of training (full or frozen weights).
    if "dtype" not in recipe_defaults or _is_frozen(options) != _is_frozen(recipe_defaults):
        # Quantised weights compute in the same type. With float32 the savings of 4 bits would be lost where half
        # precision is fast, and elsewhere half precision would be emulated.
        defaults["dtype"] = precision.of_weights(frozen=_is_frozen(options))
    if options.get("load_in_4bit") and "use_bnb_nested_quant" not in recipe_defaults:
        defaults["use_bnb_nested_quant"] = True  # part of QLoRA

    strategy = options.get("eval_strategy")
    strategy = getattr(strategy, "value", strategy)
    if strategy in ("steps", "epoch") and ("eval_strategy" in given or "save_strategy" not in recipe_defaults):
        # The two must agree for --load_best_model_at_end.
        defaults["save_strategy"] = strategy
    elif "save_steps" in given:
        # `save_steps` has an effect only with TRL's default; a recipe's default is "epoch".
        defaults["save_strategy"] = "steps"
    return defaults


def _is_frozen(options: Mapping[str, Any]) -> bool:
    """Whether the model's own weights are frozen, so that at most adapters are trained."""
    return any(options.get(name) for name in ("use_peft", "load_in_4bit", "load_in_8bit"))
