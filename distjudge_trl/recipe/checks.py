"""Checks for options of a run that do not go together."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from distjudge_trl.errors import UserInputError
from distjudge_trl.runtime.launches import launcher_asks


if TYPE_CHECKING:
    from distjudge_trl.recipe.arguments import ParsedRun
    from distjudge_trl.trainer import DistributionSFTConfig


def check_options(run: ParsedRun) -> None:
    """Refuse options that do not go together, before any data is read.

    Raises:
        [`UserInputError`]: names them.
    """
    _, recipe_args, _, training_args, model_args = run
    if recipe_args.method == "raw" and (Path(training_args.output_dir) / "judge.json").exists():
        raise UserInputError(
            f"{training_args.output_dir}: holds a trained judge, whose results --method raw would replace. Choose"
            " another --output_dir."
        )
    if training_args.max_length is not None and training_args.max_length < 1:
        raise UserInputError(f"--max_length must be at least 1, got {training_args.max_length}.")
    if (
        (model_args.load_in_4bit or model_args.load_in_8bit)
        and recipe_args.method != "raw"
        and not model_args.use_peft
    ):
        raise UserInputError("Quantised weights cannot be trained, only adapters on them: add --use_peft.")
    if model_args.load_in_4bit and model_args.dtype in (None, "auto"):
        raise UserInputError("--load_in_4bit computes in --dtype: give bfloat16, float16 or float32.")
    computes = "bfloat16" if training_args.bf16 else "float16" if training_args.fp16 else "float32"
    if model_args.load_in_4bit and "float32" not in (model_args.dtype, computes) and model_args.dtype != computes:
        # torch's autocast does not mix two half-precision types.
        raise UserInputError(
            f"--load_in_4bit would compute in {model_args.dtype} (--dtype), and the rest of the run in {computes}:"
            f" drop --dtype, or give {computes}."
        )
    trains_nothing = "max_steps" if training_args.max_steps == 0 else None
    if training_args.num_train_epochs <= 0 and training_args.max_steps < 0:
        trains_nothing = "num_train_epochs"
    if recipe_args.method != "raw" and trains_nothing is not None:
        raise UserInputError(
            f"`{trains_nothing}` is {getattr(training_args, trains_nothing):g}: nothing would be trained. --method raw"
            " scores the untrained model."
        )
    if recipe_args.method != "raw" and not model_args.use_peft and model_args.dtype == "float16":
        raise UserInputError(
            "--dtype float16: weights that are trained in float16 lose most of their updates. Drop --dtype (they are"
            " float32 then, whatever a step computes in), or add --use_peft."
        )
    if recipe_args.calibrate and recipe_args.score_on == "validation":
        raise UserInputError(
            "--score_on validation does not go with --calibrate: the scaling would be scored on the items that it was"
            " fitted on."
        )
    if recipe_args.method == "raw" and (needs := _sharding_needing_optimizer(training_args)):
        raise UserInputError(
            f"--method raw trains nothing, and {needs} can only be set up with an optimizer: launch it with ZeRO-3, on"
            " single_gpu or multi_gpu."
        )
    for name in ("max_train_samples", "max_eval_samples", "annotation_budget"):
        value = getattr(recipe_args, name)
        if value is not None and value < 1:
            raise UserInputError(f"`{name}` must be at least 1, got {value}.")


def _sharding_needing_optimizer(training_args: DistributionSFTConfig) -> str | None:
    """The kind of sharding of this launch, if it cannot run a model without an optimizer."""
    plugin = getattr(training_args, "deepspeed_plugin", None)
    if plugin is not None:
        return f"ZeRO-{plugin.zero_stage}" if plugin.zero_stage != 3 else None
    return "FSDP" if launcher_asks("ACCELERATE_USE_FSDP") else None
