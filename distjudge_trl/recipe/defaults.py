"""Defaults of a recipe's options that follow from other options."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from distjudge_trl.errors import UserInputError
from distjudge_trl.methods import METHODS
from distjudge_trl.runtime.precision import resolve_precision, runs_on_cpu


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
    defaults = {**METHODS[method].fixed, **METHODS[method].defaults}
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
