"""Loading options of a run's model: revision, type, device, and quantised weights that can be sharded."""

from __future__ import annotations

from typing import Any

from transformers import BitsAndBytesConfig
from transformers.integrations import is_deepspeed_zero3_enabled
from trl import ModelConfig, get_quantization_config

from distjudge_trl.errors import UserInputError
from distjudge_trl.runtime.launches import launcher_asks
from distjudge_trl.trainer import DistributionSFTConfig


def loading_options(model_args: ModelConfig, training_args: DistributionSFTConfig) -> dict[str, Any]:
    """Arguments of `from_pretrained`; those in `--model_init_kwargs` take precedence."""
    options: dict[str, Any] = {
        "revision": model_args.model_revision,
        "attn_implementation": model_args.attn_implementation,
        "dtype": model_args.dtype,
    }
    alone = training_args.distributed_state.distributed_type == "NO"
    if alone and training_args.device.type not in ("cpu", "mps"):
        # TRL's default "auto" would silently leave layers in the host's memory if the device is too small.
        options["device_map"] = {"": str(training_args.device)}
    return {**options, **(training_args.model_init_kwargs or {})}


def quantization_config(model_args: ModelConfig, training_args: DistributionSFTConfig) -> BitsAndBytesConfig | None:
    """TRL's quantization config, with 4-bit numbers stored so that ZeRO-3 and FSDP can shard them: in the floating
    type that the run computes in. Both cast sharded weights to that type, and casting 4-bit numbers stored as bytes
    would change them.

    Raises:
        [`UserInputError`]: another storage type is given, or 8-bit weights under FSDP, which cannot shard them.
    """
    fsdp = launcher_asks("ACCELERATE_USE_FSDP")
    if model_args.load_in_8bit and fsdp:
        raise UserInputError(
            "--load_in_8bit does not go with FSDP, which cannot shard 8-bit weights: give --load_in_4bit, or launch it"
            " with ZeRO-3 or multi_gpu."
        )
    if model_args.load_in_4bit and (fsdp or is_deepspeed_zero3_enabled()):
        storage = "bfloat16" if training_args.bf16 else "float16" if training_args.fp16 else model_args.dtype
        if model_args.bnb_4bit_quant_storage not in (None, storage):
            raise UserInputError(
                f"--bnb_4bit_quant_storage {model_args.bnb_4bit_quant_storage} does not go with ZeRO-3 or FSDP, which"
                f" cast what they shard to the type that the run computes in: drop it, or give {storage}."
            )
        model_args.bnb_4bit_quant_storage = storage
    return get_quantization_config(model_args)
