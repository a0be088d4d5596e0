"""How devices share the work of a run: read from an accelerate config."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from distjudge_trl.errors import UserInputError
from distjudge_trl.runtime.launches import count_processes, read_accelerate_config


@dataclass(frozen=True)
class Sharding:
    """How devices share the work according to an accelerate config.

    Args:
        name (`str`): name of the config.
        kind (`"replicas"`, `"zero"` or `"fsdp"`): replicas are one device or DDP.
        stage (`int`): of ZeRO; 3 for FSDP, 0 for replicas.
        devices (`int`): number of devices on all machines together.
        offload_optimizer, offload_weights (`bool`): whether they are kept in the host's memory.
        device (`"gpu"` or `"cpu"`): what computes.
    """

    name: str
    kind: Literal["replicas", "zero", "fsdp"]
    stage: int
    devices: int
    offload_optimizer: bool = False
    offload_weights: bool = False
    device: Literal["gpu", "cpu"] = "gpu"

    @property
    def casts(self) -> bool:
        """Whether half-precision weights are stored beside float32 ones of the optimizer."""
        return self.kind != "replicas"


def read_sharding(path: str | Path, devices: int | None = None) -> Sharding:
    """Read the sharding of an accelerate config.

    Args:
        path (`str` or `Path`): YAML file of accelerate.
        devices (`int`, *optional*): replaces the config's `num_processes`.

    Raises:
        [`UserInputError`]: the file is not an accelerate config, or its kind is not supported here.
    """
    path = Path(path)
    content = read_accelerate_config(path)
    count = devices or count_processes(content, path)
    device: Literal["gpu", "cpu"] = "cpu" if content.get("use_cpu") else "gpu"
    kind = str(content.get("distributed_type", "NO")).upper()
    if kind == "NO" and count > 1:
        raise UserInputError(
            f"{path.stem} starts one process; for {count} GPUs: multi_gpu (DDP), zero2, zero3 or fsdp2."
        )
    if kind in ("NO", "MULTI_GPU", "MULTI_CPU"):
        return Sharding(path.stem, "replicas", 0, count, device=device)
    if kind == "DEEPSPEED":
        options = content.get("deepspeed_config") or {}
        if "deepspeed_config_file" in options:
            raise UserInputError(f"{path}: plans read the settings of accelerate's config, not a DeepSpeed JSON file.")
        return Sharding(
            path.stem,
            "zero",
            int(options.get("zero_stage", 2)),
            count,
            options.get("offload_optimizer_device", "none") != "none",
            options.get("offload_param_device", "none") != "none",
            device,
        )
    if kind == "FSDP":
        options = content.get("fsdp_config") or {}
        offload = _is_true(options.get("fsdp_offload_params", False))
        if not _is_true(options.get("fsdp_reshard_after_forward", True)):
            raise UserInputError(f"{path}: plans know FSDP only with fsdp_reshard_after_forward: true.")
        return Sharding(path.stem, "fsdp", 3, count, offload, offload, device)
    raise UserInputError(f"{path}: distributed_type {kind} is not known to plans: DDP, DeepSpeed and FSDP are.")


def _is_true(value: Any) -> bool:
    """Read a switch as accelerate does: it may be a string, and FSDP 1 has names of strategies."""
    return str(value).lower() in ("true", "1", "yes", "y", "on", "full_shard")
