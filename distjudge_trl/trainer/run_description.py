"""The description of a run in `judge.json` and in its checkpoints, from which only the same run can be resumed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel
from trl import SFTTrainer

from distjudge_trl.batching import attention_name
from distjudge_trl.judge_folder.judge_file import JudgeFile
from distjudge_trl.runtime.provenance import library_versions
from distjudge_trl.trainer.sampling import Sampling


# Settings that `judge.json` records of the training, so that runs can be distinguished. The batch size and the adapter
# are added.
TRAINING_SETTINGS = (
    "alpha",
    "adversary",
    "perturbation_radius",
    "perturbation_step_size",
    "perturbation_steps",
    "radius_scaling",
    "radius_coverage",
    "label_smoothing",
    "target_smoothing",
    "ordinal_loss_weight",
    "label_normalization",
    "learning_rate",
    "num_train_epochs",
    "max_steps",
    "warmup_steps",
    "weight_decay",
    "max_grad_norm",
    "seed",
)


def describe_run(
    trainer: SFTTrainer, file: JudgeFile, labels: Sequence[str], sampling: Sampling, train_fingerprint: str
) -> dict[str, Any]:
    """The properties that a resuming run must share with this one, and the settings whose changes only cause a
    warning.
    """
    args = trainer.args
    complete_judge_file(file, trainer)
    config = trainer.accelerator.unwrap_model(trainer.model).config.get_text_config()
    settings = dict(file.training)
    plugin = trainer.accelerator.state.deepspeed_plugin if trainer.is_deepspeed_enabled else None
    sharding = f"DeepSpeed ZeRO-{plugin.zero_stage}" if plugin else "FSDP" if trainer.is_fsdp_enabled else "none"
    # The folder of a local model may have moved.
    name = str(file.base_model)
    return {
        "task": file.task,
        "labels": list(labels),
        "model": Path(name).name if Path(name).is_absolute() else name,
        "architecture": {
            key: getattr(config, key, None) for key in ("model_type", "hidden_size", "num_hidden_layers", "vocab_size")
        },
        "adapter": settings.pop("adapter"),
        "quantization": {key: settings.pop(key) for key in ("quantization", "load_in_4bit")},
        "train_fingerprint": train_fingerprint,
        "train_batch_size": settings.pop("train_batch_size"),
        "seed": settings.pop("seed"),
        **sampling.describe(),
        "sharding": sharding,
        "world_size": args.world_size,
        "save_only_model": args.save_only_model,
        "settings": settings,
    }


def complete_judge_file(file: JudgeFile, trainer: SFTTrainer) -> None:
    """Fill in the entries of `judge.json` about the model and its training."""
    args = trainer.args
    model = trainer.accelerator.unwrap_model(trainer.model)
    config = model.config
    if file.base_model is None:
        file.base_model = getattr(config, "_name_or_path", None) or None
    quantization = getattr(config, "quantization_config", None)
    if quantization is not None:
        file.quantization = quantization.to_dict() if hasattr(quantization, "to_dict") else dict(quantization)
        file.quantization = {k: v for k, v in file.quantization.items() if not k.startswith("_")}
    file.dtype = str(model.dtype).removeprefix("torch.")
    file.attn_implementation = attention_name(config)
    file.autocast = {"bf16": "bfloat16", "fp16": "float16"}.get(str(trainer.accelerator.mixed_precision))
    file.training = {name: getattr(args, name) for name in TRAINING_SETTINGS}
    file.training |= {
        "optim": str(args.optim.value),
        "lr_scheduler_type": str(args.lr_scheduler_type.value),
        # With `auto_find_batch_size` this is the size that was found.
        "train_batch_size": trainer._train_batch_size * args.gradient_accumulation_steps * args.world_size,
        "adapter": _adapter_text(model),
        "quantization": (file.quantization or {}).get("quant_method"),
        "load_in_4bit": bool((file.quantization or {}).get("load_in_4bit")),
    }
    file.versions = library_versions()


def _adapter_text(model: PreTrainedModel) -> str | None:
    """Kind and size of a PEFT adapter, such as `LORA r=16 alpha=32 on k_proj, q_proj`; `None` without one."""
    config = getattr(model, "peft_config", {}).get("default")
    if config is None:
        return None
    sizes = "".join(
        f" {name}={getattr(config, key)}"
        for name, key in (("r", "r"), ("alpha", "lora_alpha"))
        if hasattr(config, key)
    )
    modules = getattr(config, "target_modules", None) or ()
    where = modules if isinstance(modules, str) else ", ".join(sorted(modules))
    return f"{config.peft_type.value}{sizes} on {where}"
