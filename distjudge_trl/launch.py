"""What can be told before a launch: whether this machine has what an accelerate config asks for, and which GPUs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from distjudge_trl.errors import UserInputError
from distjudge_trl.yaml_file import read_mapping


def read_accelerate_config(path: Path) -> dict[str, Any]:
    """The content of an accelerate config.

    Raises:
        [`UserInputError`]: no YAML mapping.
    """
    return read_mapping(path, "is no accelerate config. `accelerate config` writes one.")


def check_launch(config: str | Path, num_processes: int | None = None) -> None:
    """Compare an accelerate config with this machine.

    Args:
        config (`str` or `Path`): YAML file of accelerate.
        num_processes (`int`, *optional*): in place of the config's, of all machines together.

    Raises:
        [`UserInputError`]: no YAML mapping, DeepSpeed is asked for and missing, more GPUs than there are, or several
            machines without the address of the first.
    """
    config = Path(config)
    content = read_accelerate_config(config)
    if content.get("distributed_type") == "DEEPSPEED" and find_spec("deepspeed") is None:
        raise UserInputError(
            f"{config.stem} needs DeepSpeed, which is not installed: run `pip install 'distjudge-trl[deepspeed]'`."
        )
    count = int(num_processes or content.get("num_processes") or 1)
    machines = int(content.get("num_machines") or 1)
    if machines > 1 and str(content.get("main_process_ip") or "localhost") in ("localhost", "127.0.0.1"):
        raise UserInputError(
            f"{config.stem} is for {machines} machines, and does not say where the first one is. Start on each of"
            f" them: accelerate launch --config_file {config} --num_machines {machines} --num_processes {count}"
            " --machine_rank RANK --main_process_ip FIRST_HOST --main_process_port 29500 RECIPE.py ... (under SLURM:"
            " scripts/slurm/train.sbatch)."
        )
    wanted = -(-count // machines)
    if content.get("use_cpu") or count == 1:
        return
    there = device_count()
    if wanted > there:
        raise UserInputError(
            f"{config.stem} asks for {wanted} GPUs on this machine, which has {there or 'none'}. "
            + (f"Give --num-processes {there * machines}." if there else "On a CPU: cpu, zero2_cpu or zero3_cpu.")
        )


def check_processes() -> None:
    """Refuse more processes than GPUs, where there are any: the last ones would end in a CUDA traceback.

    Raises:
        [`UserInputError`]: the launcher started more processes on this machine than it has GPUs.
    """
    wanted = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    on_cpu = os.environ.get("ACCELERATE_USE_CPU", "false").lower() in ("true", "1", "yes")
    if wanted == 1 or on_cpu:
        return
    there = device_count()
    if there and wanted > there:
        raise UserInputError(
            f"{wanted} processes were launched on this machine, which has {there} GPUs: give the launcher"
            f" --num_processes {there} (torchrun: --nproc_per_node {there})."
        )


def device_count() -> int:
    import torch

    return torch.accelerator.device_count() if torch.accelerator.is_available() else 0


def visible_devices(count: int) -> list[str]:
    """Names of the GPUs that this process sees, as `CUDA_VISIBLE_DEVICES` takes them.

    Args:
        count (`int`): how many CUDA counts: it leaves out what stands behind a name that it does not know.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return [name.strip() for name in visible.split(",")][:count] if visible else [str(i) for i in range(count)]


def seeing(devices: Sequence[str]) -> dict[str, str]:
    """Environment of a child that sees these GPUs; as this process, if there are none."""
    return {**os.environ, "CUDA_VISIBLE_DEVICES": ",".join(devices)} if devices else dict(os.environ)
