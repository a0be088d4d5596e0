"""ZeRO-2, ZeRO-3 and FSDP2 with the shipped configs, against one process."""

from __future__ import annotations

import sys
from typing import Any

from gpu_checks.check import Check, Findings, Machine
from gpu_checks.commands import launch, logged_steps, read_kl, run, vader
from gpu_checks.runner import ROOT


# All weights in float32, so that what differs is the sharding and not the rounding; 4-bit weights as they are decided.
WAYS: dict[str, dict[str, Any]] = {
    "full": {"use_peft": False, "dtype": "float32", "bf16": False, "learning_rate": 2e-5},
    "qlora": {"use_peft": True, "load_in_4bit": True, "learning_rate": 2e-4},
}
# Relative, of the first losses, of the first step's label mass, and of the KL at the end. 4-bit numbers that were cast
# on their way to the other processes moved the loss of a random model by 7e-3 and its label mass by 8e-2.
LOSS, MASS, KL = {"full": 1e-3, "qlora": 5e-3}, {"full": 1e-3, "qlora": 4e-2}, {"full": 1e-3, "qlora": 2e-2}
# Steps that are compared: adapters on 4-bit weights are in bfloat16, which other sums round otherwise.
STEPS = {"full": 4, "qlora": 1}


def options(machine: Machine, way: str, processes: int) -> dict[str, Any]:
    """Of a run whose batch over all processes is the same, however many they are."""
    rows = machine.processes * max(1, 16 // machine.processes)
    more = {"max_steps": 4, "per_device_train_batch_size": rows // processes, "share_prefixes": False}
    return {**WAYS[way], **more, "max_train_samples": 6 * rows, "gradient_checkpointing": way == "qlora"}


def one_process(find: Findings, way: str) -> None:
    """What the others are compared with."""
    words = vader(find.machine.small, find.folder / "run", options(find.machine, way, 1))
    done = run([sys.executable, str(ROOT / "recipes/vader.py"), *words])
    find.figure("first loss", logged_steps(find.folder / "run")[0]["loss"])
    find.figure("KL", read_kl(find.folder / "run"))
    find.figure("seconds", done.seconds)


def sharded(find: Findings, config: str, way: str) -> None:
    """The same steps under `accelerate launch`."""
    machine = find.machine
    out, one = find.folder / "run", machine.folder(f"one-process-{way}") / "run"
    more, script = options(machine, way, machine.processes), [str(ROOT / "recipes/vader.py")]
    if machine.device == "cpu":
        if config.startswith("fsdp"):
            script.insert(0, str(ROOT / "scripts/gpu_checks/fsdp_on_cpu.py"))
            more["use_cpu"] = False
        else:
            config = f"{config}_cpu"
    done = run(launch(machine, config, *script, *vader(machine.small, out, more)))
    find.figure("processes", machine.processes)
    steps, expected = logged_steps(out), logged_steps(one)
    find.expect(len(steps) == len(expected), f"{len(steps)} steps in place of {len(expected)}")
    find.figure("first loss", f"{steps[0]['loss']:.5f}, one process {expected[0]['loss']:.5f}")
    for i, (step, other) in enumerate(zip(steps[: STEPS[way]], expected, strict=False), 1):
        find.close(f"loss of step {i}", step["loss"], other["loss"], rel=LOSS[way])
    find.close("label mass of step 1", steps[0]["label_mass"], expected[0]["label_mass"], rel=MASS[way])
    find.close("KL", read_kl(out), read_kl(one), rel=KL[way])
    find.figure("KL", read_kl(out))
    find.figure("seconds", done.seconds)


def check(name: str, config: str, way: str, needs: tuple[str, ...]) -> Check:
    kind = {"full": "all weights in float32", "qlora": "adapters on 4-bit weights"}[way]
    steps = f"the first {STEPS[way]} losses" if STEPS[way] > 1 else "the first loss"
    expectation = (
        f"{kind}, {config}.yaml on all GPUs (two processes on a CPU): {steps} as in one process (within"
        f" {LOSS[way]:.1%}), the KL at the end (within {KL[way]:.1%})"
    )
    after = ("weights", f"one-process-{way}")
    return Check(name, expectation, sharded, (config, way), needs=needs, after=after, limit=360, all_gpus=True)


CHECKS = [
    Check(
        "one-process-full",
        "all weights in float32, one process: what ZeRO and FSDP2 are compared with",
        one_process,
        ("full",),
        after=("weights",),
    ),
    check("zero2", "zero2", "full", ("deepspeed",)),
    check("zero3", "zero3", "full", ("deepspeed",)),
    check("fsdp2", "fsdp2", "full", ()),
    Check(
        "one-process-qlora",
        "adapters on 4-bit weights, one process: what ZeRO-3 and FSDP2 are compared with",
        one_process,
        ("qlora",),
        needs=("bitsandbytes",),
        after=("weights",),
    ),
    check("zero3-qlora", "zero3", "qlora", ("deepspeed", "bitsandbytes")),
    check("fsdp2-qlora", "fsdp2_qlora", "qlora", ("bitsandbytes",)),
]
