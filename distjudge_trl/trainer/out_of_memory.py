"""Advice for a run that does not fit into memory: the `distjudge-trl plan` command that shows what it needs and what
would fit.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from distjudge_trl.files.cache import cache_dir
from distjudge_trl.modeling.bundled import BUNDLED_MODEL
from distjudge_trl.runtime.launches import launcher_asks


if TYPE_CHECKING:
    from distjudge_trl.trainer.distribution_sft_config import DistributionSFTConfig


def advise(
    args: DistributionSFTConfig,
    model: Any,
    *,
    peft_config: Any = None,
    quantization_config: Any = None,
    longest_row: int | None = None,
) -> str:
    """Advice when memory has run out, in one line.

    Args:
        args ([`DistributionSFTConfig`]): of the run.
        model (`str` or `PreTrainedModel`): its name or path, or the model itself.
        peft_config, quantization_config: as the trainer takes them; if the model itself is given, its own are used.
        longest_row (`int`, *optional*): length of the longest row in tokens; by default `args.max_length`.
    """
    command = plan_command(args, model, peft_config, quantization_config, longest_row)
    return f"What this run needs, and what would make it fit: {command}"


def plan_command(
    args: DistributionSFTConfig, model: Any, peft_config: Any, quantization_config: Any, longest_row: int | None
) -> str:
    """The command line that plans a run like this one; see [`advise`]."""
    name, dtype = model, (args.model_init_kwargs or {}).get("dtype")
    if not isinstance(model, str):
        config = model.config
        peft_config = getattr(model, "peft_config", {}).get("default")
        quantization_config = getattr(config, "quantization_config", None)
        name, dtype = getattr(config, "_name_or_path", ""), model.dtype
    if name == str(cache_dir() / BUNDLED_MODEL):
        name = BUNDLED_MODEL
    multiple = args.pad_to_multiple_of if isinstance(args.pad_to_multiple_of, int) else 1
    options: dict[str, Any] = {
        "--model": name or "MODEL",
        "--accelerate-config": _config_name(args),
        "--gpus": args.world_size,
        "--seq-len": -(-(longest_row or args.max_length or 1024) // multiple) * multiple,
        "--batch-size": args.per_device_train_batch_size,
        "--gradient_accumulation_steps": args.gradient_accumulation_steps,
        "--gradient_checkpointing": bool(args.gradient_checkpointing),
        "--bf16": bool(args.bf16 or args.fp16),  # the plan's option for both
    }
    if peft_config is not None:
        options |= {"--use_peft": True, "--lora_r": getattr(peft_config, "r", None)}
    for bits in (4, 8):
        if getattr(quantization_config, f"load_in_{bits}bit", False):
            options[f"--load_in_{bits}bit"] = True
    dtype = str(dtype).removeprefix("torch.")
    if dtype in ("float32", "bfloat16", "float16"):
        options["--dtype"] = dtype
    words = [word for name, value in options.items() if value is not None for word in (name, str(value))]
    return shlex.join(["distjudge-trl", "plan", *words])


def _config_name(args: DistributionSFTConfig) -> str:
    """The shipped accelerate config that distributes the work as this launch does."""
    plugin = getattr(args, "deepspeed_plugin", None)
    if plugin is not None:
        zero = plugin.hf_ds_config
        offloads = zero.get_value("zero_optimization.offload_optimizer.device") in ("cpu", "nvme")
        if offloads:
            return f"zero{max(plugin.zero_stage, 2)}_offload"
        return f"zero{plugin.zero_stage}" + ("_cpu" if args.use_cpu else "")
    if args.fsdp or launcher_asks("ACCELERATE_USE_FSDP"):
        return "fsdp2"
    if args.world_size > 1:
        return "multi_gpu"
    return "cpu" if args.device.type == "cpu" else "single_gpu"
