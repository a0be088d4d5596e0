"""What this machine is, and what the project decides from it."""

from __future__ import annotations

import runpy
from importlib.util import find_spec

from gpu_checks.check import Check, Findings
from gpu_checks.commands import cli, run
from gpu_checks.runner import ROOT


def environment(find: Findings) -> None:
    import torch

    done = run(cli("env"))
    find.expect("torch" in done.out, "distjudge-trl env names no torch")
    lines = []
    if find.machine.device == "cuda":
        for i in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(i)
            lines.append(
                f"gpu {i}: {properties.name}, capability {properties.major}.{properties.minor},"
                f" {properties.multi_processor_count} multiprocessors, free"
                f" {torch.cuda.mem_get_info(i)[0] / 2**30:.1f} of {properties.total_memory / 2**30:.1f} GiB"
            )
        lines.append(f"CUDA {torch.version.cuda}, NCCL {'.'.join(map(str, torch.cuda.nccl.version()))}")
        find.figure("GPUs", find.machine.gpus)
        find.figure("bf16 in hardware", str(torch.cuda.is_bf16_supported(including_emulation=False)))
    for package in ("flash_attn", "flash_attn_interface", "kernels", "deepspeed", "bitsandbytes"):
        lines.append(f"{package}: {'there' if find_spec(package) else 'missing'}")
    find.section("devices and optional packages", "\n".join(lines))
    find.figure("decided", "; ".join(decided_types()))


def decided_types() -> list[str]:
    """What the recipe computes in and keeps weights in, for each way to train, as its own options come out."""
    recipe = runpy.run_path(str(ROOT / "recipes/vader.py"))["RECIPE"]
    found = []
    for name, options in (
        ("full", ["--use_peft", "False"]),
        ("LoRA", ["--use_peft", "True"]),
        ("QLoRA", ["--use_peft", "True", "--load_in_4bit", "True"]),
    ):
        parsed = recipe.parse(options)
        half = "bf16" if parsed.training.bf16 else "fp16" if parsed.training.fp16 else "no autocast"
        found.append(f"{name}: {half}, weights in {parsed.model.dtype}")
    return found


CHECKS = [
    Check(
        "environment",
        "`distjudge-trl env` works; types are decided (bf16 on GPUs of capability 8.0 and more)",
        environment,
        limit=120,
        all_gpus=True,
    ),
]
