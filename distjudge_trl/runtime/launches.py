"""Launches on this machine: how many processes they start, and whether the machine meets an accelerate config."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from distjudge_trl.errors import UserInputError
from distjudge_trl.files.yaml import read_mapping
from distjudge_trl.runtime.devices import device_count
from distjudge_trl.runtime.extras import install_hint


def read_accelerate_config(path: Path) -> dict[str, Any]:
    """The content of an accelerate config.

    Raises:
        [`UserInputError`]: no YAML mapping.
    """
    return read_mapping(path, "is not an accelerate config. `accelerate config` writes one.")


def count_processes(content: dict[str, Any], config: Path) -> int:
    """How many processes an accelerate config starts, on all machines together.

    `num_processes: gpu` means one process per GPU of the machine: accelerate passes the word on to torchrun, which
    understands it.

    Raises:
        [`UserInputError`]: it is not a number, or the machine has no GPU.
    """
    wanted = content.get("num_processes")
    if wanted != "gpu":
        try:
            return max(1, int(wanted or 1))
        except (TypeError, ValueError):
            raise UserInputError(
                f"{config}: `num_processes` must be a number, or gpu for all of the machine's; got {wanted!r}."
            ) from None
    if int(content.get("num_machines") or 1) > 1:
        raise UserInputError(f"{config}: for several machines `num_processes` must be the number of all their GPUs.")
    available = device_count()
    if not available:
        raise UserInputError(
            f"{config.stem} starts a process for each GPU of the machine, which has none. On a CPU: cpu, zero2_cpu or"
            " zero3_cpu; for another machine: --num-processes N."
        )
    return available


def check_launch(config: str | Path, num_processes: int | None = None) -> None:
    """Compare an accelerate config with this machine.

    Args:
        config (`str` or `Path`): YAML file of accelerate.
        num_processes (`int`, *optional*): on all machines together, instead of the config's number.

    Raises:
        [`UserInputError`]: the file is not a YAML mapping; the config needs DeepSpeed, which is not installed, or more
            GPUs than the machine has; or it is for several machines and lacks the address of the first.
    """
    config = Path(config)
    content = read_accelerate_config(config)
    if content.get("distributed_type") == "DEEPSPEED" and find_spec("deepspeed") is None:
        raise UserInputError(f"{config.stem} needs DeepSpeed, which is not installed: {install_hint('deepspeed')}.")
    machines = int(content.get("num_machines") or 1)
    count = num_processes or count_processes(content, config)
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
    available = device_count()
    if wanted > available:
        raise UserInputError(
            f"{config.stem} asks for {wanted} GPUs on this machine, which has {available or 'none'}. "
            + (
                f"Give --num-processes {available * machines}."
                if available
                else "On a CPU: cpu, zero2_cpu or zero3_cpu."
            )
        )


def launcher_asks(name: str) -> bool:
    """Whether an environment variable that `accelerate launch` sets for its processes, such as `ACCELERATE_USE_FSDP`,
    is true in one of accelerate's spellings.
    """
    return os.environ.get(name, "").lower() in ("y", "yes", "t", "true", "on", "1")


def check_processes() -> None:
    """Refuse more processes than GPUs on a machine with GPUs: the last processes would end in a CUDA traceback.

    Raises:
        [`UserInputError`]: the launcher started more processes on this machine than it has GPUs.
    """
    wanted = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if wanted == 1 or launcher_asks("ACCELERATE_USE_CPU"):
        return
    available = device_count()
    if available and wanted > available:
        raise UserInputError(
            f"{wanted} processes were launched on this machine, which has {available} GPUs: give the launcher"
            f" --num_processes {available} (torchrun: --nproc_per_node {available})."
        )
