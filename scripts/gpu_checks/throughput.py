"""Rows per second and peak memory against TRL's trainer, and against `distjudge-trl plan`."""

from __future__ import annotations

import json
import sys

from gpu_checks.check import Check, Findings, Machine
from gpu_checks.commands import run
from gpu_checks.runner import ROOT


SCRIPT = str(ROOT / "scripts/benchmarks/throughput.py")
# Against TRL's rows per second, and planned against measured peak.
RATIO, PLAN = 0.95, 0.2


def batch(machine: Machine) -> dict[str, int]:
    """Rows, tokens and steps of the runs that are timed."""
    if machine.tiny:
        return {"batch-size": 2, "seq-len": 128, "steps": 4}
    return {"batch-size": 8, "seq-len": 1024, "steps": 10}


def weights_of(machine: Machine, kind: str) -> str:
    """All weights are trained of the small model alone."""
    return machine.small if kind == "full" else machine.large


def throughput(find: Findings, kind: str) -> None:
    """The benchmark's own runs, ours and TRL's, each in a process."""
    import torch
    from benchmarks import throughput as benchmark
    from transformers import AutoConfig, AutoModelForCausalLM

    machine, found = find.machine, {}
    # What the benchmark writes lies beside the weights that it is given.
    weights = find.folder / "weights"
    weights.symlink_to(weights_of(machine, kind), target_is_directory=True)
    settings = batch(machine)
    words = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
    for trainer in ("TRL", "ours"):
        line = [sys.executable, SCRIPT, "--trainer", trainer, "--kind", kind, "--weights", str(weights), *words]
        found[trainer] = json.loads(run(line).out.splitlines()[-1])
    (find.folder / "found.json").write_text(json.dumps(found), encoding="utf-8")
    rows = {trainer: settings["batch-size"] / values["step"] for trainer, values in found.items()}
    find.figure("rows per second", f"{rows['ours']:.2f}, TRL {rows['TRL']:.2f} ({rows['ours'] / rows['TRL']:.2f} x)")
    find.figure("peak, GiB", f"{found['ours']['peak'] / 2**30:.2f}, TRL {found['TRL']['peak'] / 2**30:.2f}")
    if kind != "full":
        with torch.device("meta"):
            sizes = benchmark.count_sizes(AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(weights)))
        flops = benchmark.count_flops(sizes, settings["batch-size"], settings["seq-len"], found["ours"]["read"])
        find.figure("TFLOP per second", flops / found["ours"]["step"] / 1e12)
    if machine.device == "cuda" and not machine.tiny:
        find.expect(rows["ours"] >= RATIO * rows["TRL"], f"slower than {RATIO} x TRL's trainer")


def memory(find: Findings, kind: str) -> None:
    """The peak of `throughput`'s run of ours beside the plan for it."""
    from distjudge_trl.planning import Training, estimate, load_config, measure_footprint, read_sharding

    machine = find.machine
    left = machine.folder(f"throughput-{kind.lower()}") / "found.json"
    measured = json.loads(left.read_text(encoding="utf-8"))["ours"]["peak"]
    settings = batch(machine)
    training = Training(
        settings["seq-len"],
        settings["batch-size"],
        lora_r=0 if kind == "full" else 16,
        bits=4 if kind == "QLoRA" else 16,
        dtype="float32" if kind == "full" else "bfloat16",
    )
    sharding = read_sharding(
        ROOT / "accelerate_configs" / ("cpu.yaml" if machine.device == "cpu" else "single_gpu.yaml"), 1
    )
    result = estimate(measure_footprint(load_config(weights_of(machine, kind)), training), training, sharding)
    moment = result.moments[result.peak_moment]
    # torch counts tensors; the context and the allocator's holes are the plan's allowance.
    planned = result.peak - (moment["runtime"] if machine.device == "cuda" else 0)
    find.figure("peak, GiB", f"{measured / 2**30:.2f}, planned {planned / 2**30:.2f} ({planned / measured:.2f} x)")
    find.figure("planned", f"{result.peak_moment}, the runtime's allowance {moment['runtime'] / 2**30:.1f} GiB")
    if machine.device == "cuda" and not machine.tiny:
        find.close("planned GiB", planned / 2**30, measured / 2**30, rel=PLAN)


def checks(kind: str) -> list[Check]:
    model = "all weights of the small model" if kind == "full" else f"{kind} on the large model"
    name = kind.lower()
    needs = ("bitsandbytes",) if kind == "QLoRA" else ()
    speed = (
        f"{model}, 8 rows of 1,024 tokens: at least {RATIO} x the rows per second of TRL's SFTTrainer (reported with"
        " tiny models)"
    )
    peak = (
        f"{model}: planned peak within {PLAN:.0%} of torch.cuda.max_memory_allocated (reported on CPUs: resident set)"
    )
    return [
        Check(f"throughput-{name}", speed, throughput, (kind,), needs=needs, after=("weights",), limit=400),
        Check(f"memory-{name}", peak, memory, (kind,), needs=needs, after=(f"throughput-{name}",), limit=120),
    ]


CHECKS = [check for kind in ("LoRA", "QLoRA", "full") for check in checks(kind)]
