"""Launches that would produce no judge or a wrong one. They are refused before or after the model is loaded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from transformers import PreTrainedModel

from distjudge_trl.errors import UserInputError
from distjudge_trl.modeling.workarounds import keeping_outputs
from distjudge_trl.runtime.launches import launcher_asks


if TYPE_CHECKING:
    from trl import SFTConfig, SFTTrainer

SEVERAL_GPUS = (
    "{count} GPUs are visible to one process, and the model is on one of them. Launch one process a GPU"
    " (`distjudge-trl train RECIPE --accelerate-config multi_gpu --num-processes {count}`, accelerate launch or"
    " torchrun), choose one with CUDA_VISIBLE_DEVICES=0, or spread a model that is too large for one over all:"
    ' --model_init_kwargs \'{{"device_map": "auto"}}\'.'
)


def check_devices(model: str | PreTrainedModel | Any, args: SFTConfig) -> None:
    """Before the model is loaded, refuse several GPUs in one process unless the model is spread over them.

    Otherwise `Trainer` would wrap it in `nn.DataParallel`, which copies the model's methods without the one that
    computes the head in float32.

    Raises:
        [`UserInputError`]: the model is on one device, or will be. If that is not known yet, TRL raises later.
    """
    if args.n_gpu <= 1:
        return
    if isinstance(model, str):
        where = (args.model_init_kwargs or {}).get("device_map", "auto")
        spread = isinstance(where, str) and where in ("auto", "balanced", "balanced_low_0", "sequential")
        spread = spread or (isinstance(where, dict) and len(_devices(where)) > 1)
    else:
        spread = len(_devices(getattr(model, "hf_device_map", None) or {})) > 1
    if not spread:
        raise UserInputError(SEVERAL_GPUS.format(count=args.n_gpu))


@contextmanager
def refusing_data_parallel(args: SFTConfig) -> Iterator[None]:
    """Reword TRL's own refusal of a model that was loaded onto one device, as in `check_devices`.

    Raises:
        [`UserInputError`]: several GPUs are visible, and the model is on one of them.
    """
    try:
        yield
    except ValueError as error:
        if args.n_gpu <= 1 or "DataParallel" not in str(error):
            raise
        raise UserInputError(SEVERAL_GPUS.format(count=args.n_gpu)) from error


def _devices(device_map: dict[str, Any]) -> set[str]:
    """The accelerators of a device map, as `Trainer` counts them."""
    return {str(device) for device in device_map.values()} - {"cpu", "disk"}


def check_adapters(model: Any) -> None:
    """Raise [`UserInputError`] unless the trained adapter is the one with which a judge is loaded."""
    if not hasattr(model, "peft_config"):
        return
    active = model.active_adapter
    names = [active] if isinstance(active, str) else list(active)
    if names != ["default"]:
        raise UserInputError(
            f"adapter {', '.join(map(repr, names))} is active: a judge is read with 'default', the adapter that PEFT"
            " saves beside `adapter_config.json`. Give this name to the adapter that is trained."
        )


def check_sharding(trainer: SFTTrainer) -> None:
    """Refuse settings of FSDP, DeepSpeed and accelerate with which no judge would be saved, or judgments would be read
    at wrong positions.

    Raises:
        [`UserInputError`]: names the setting.
    """
    parts = {"tp": trainer.get_tp_size(), "cp": trainer.get_cp_size(), "sp": trainer.get_sp_size()}
    refuse_parallelism({kind: size for kind, size in parts.items() if size and size > 1})
    state = trainer.accelerator.state
    requested = launcher_asks("ACCELERATE_USE_FSDP")
    if requested and not trainer.is_fsdp_enabled and trainer.args.device.type == "cpu":
        raise UserInputError(
            "The accelerate config asks for FSDP, which accelerate starts only on GPUs: every process would hold the"
            " full model. On a CPU: cpu, zero2_cpu or zero3_cpu."
        )
    if trainer.is_fsdp_enabled:
        plugin = state.fsdp_plugin
        # Otherwise transformers silently saves no model.
        if "FULL_STATE_DICT" not in str(plugin.state_dict_type):
            raise UserInputError(
                f"fsdp_state_dict_type {plugin.state_dict_type.name}: no judge would be saved, only shards. Set"
                " FULL_STATE_DICT in the accelerate config."
            )
        keeping_outputs(plugin)
    if trainer.is_deepspeed_enabled and not hasattr(trainer.model, "peft_config"):
        settings = state.deepspeed_plugin.hf_ds_config
        # Adapters are always gathered. Without this setting transformers saves only shards of a full model, with a
        # warning.
        if settings.is_zero3() and not settings.is_true("zero_optimization.stage3_gather_16bit_weights_on_model_save"):
            raise UserInputError(
                "zero3_save_16bit_model false: no judge would be saved, only shards. Set zero3_save_16bit_model: true"
                " in the accelerate config (stage3_gather_16bit_weights_on_model_save in a DeepSpeed JSON)."
            )


def refuse_parallelism(sizes: dict[str, int]) -> None:
    """Raise [`UserInputError`] for the first kind of parallelism in `sizes`, which maps `tp`, `cp` or `sp` to its
    size.
    """
    names = {"tp": "tensor", "cp": "context", "sp": "sequence"}
    for kind, size in sizes.items():
        raise UserInputError(
            f"`parallelism_config`: {names[kind]} parallelism ({kind}_size {size}) does not apply: processes would"
            " share rows, and a judgment is read at the last token of a complete row. To shard the model use ZeRO-3"
            " or FSDP2."
        )
