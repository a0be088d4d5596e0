"""A plan as text: the memory of a device at the possible peaks, whether the run fits, and settings that would."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

from distjudge_trl.planning.footprint import Sizes, measure_footprint
from distjudge_trl.planning.memory import Estimate, describe, estimate
from distjudge_trl.planning.remedies import Change, find_changes
from distjudge_trl.planning.sharding import Sharding
from distjudge_trl.planning.training import Training


if TYPE_CHECKING:
    from transformers import PretrainedConfig

_ONE_MACHINE = 8  # GPUs


def describe_plan(
    model: str,
    config: PretrainedConfig,
    training: Training,
    sharding: Sharding,
    memory: int | None,
    *,
    launch: str = "RECIPE",
    trust_remote_code: bool = False,
) -> tuple[list[str], bool]:
    """A run's plan, line by line, and whether it fits into a device's `memory` in bytes (yes if that is unknown).
    `launch` stands behind `distjudge-trl train` where a command is suggested.
    """
    measure = cache(lambda settings: measure_footprint(config, settings, trust_remote_code=trust_remote_code))
    result = estimate(measure(training), training, sharding)
    lines = [describe_run(model, measure(training).sizes, training, sharding), "", plan_table(result), ""]
    if result.host:
        lines.append(f"Host memory, of all devices together: {describe(result.host)}.")
    if result.loading:
        lines.append(
            f"Host memory while the model is loaded, of all devices together: {describe(result.loading)} (every"
            f" process loads all of it, in {training.dtype})."
        )
    if sharding.devices > 1:
        lines.append(f"Each device sends {describe(result.sent)} per optimizer step.")
    if memory is None:
        lines.append(f"Needs {describe(result.peak)} per device. Give --gpu-memory to see whether it fits.")
        return lines, True
    fits = result.peak <= memory
    verdict = "Fits" if fits else "Does not fit"
    lines.append(f"{verdict}: {describe(result.peak)} of {describe(memory)} per device.")
    if not fits:
        lines += describe_changes(find_changes(training, sharding, memory, measure), memory, training, launch)
    return lines, fits


def plan_table(plan: Estimate) -> str:
    """A table of the bytes per device by part (rows) and moment (columns); the column of the peak is marked."""
    moments = list(plan.moments)
    parts = [part for part in plan.moments[moments[0]] if any(plan.moments[m][part] for m in moments)]
    lines = [f"{'per device':20}" + "".join(f"{moment:>18}" for moment in moments)]
    for part in parts:
        lines.append(f"{part:20}" + "".join(f"{describe(plan.moments[m][part]):>18}" for m in moments))
    sums = [describe(sum(plan.moments[m].values())) for m in moments]
    marked = [f"{total}{' *' if m == plan.peak_moment else ''}" for m, total in zip(moments, sums, strict=True)]
    lines.append(f"{'together':20}" + "".join(f"{total:>18}" for total in marked))
    return "\n".join(lines)


def describe_run(model: str, sizes: Sizes, training: Training, sharding: Sharding) -> str:
    """The run in one line: the trained weights and the devices."""
    trained = sizes.adapter or sizes.base
    kind = {16: "LoRA", 8: "LoRA on 8-bit weights", 4: "QLoRA"}[training.bits] if training.lora_r else "all weights"
    how = f"{kind}, rank {training.lora_r}" if training.lora_r else kind
    devices = f"{sharding.devices} {'CPU process' if sharding.device == 'cpu' else 'GPU'}"
    plural = ("es" if sharding.device == "cpu" else "s") if sharding.devices > 1 else ""
    steps = training.gradient_accumulation_steps
    accumulated = f" x {steps} accumulated" if steps > 1 else ""
    return (
        f"{model}: {sizes.base / 1e9:.3g} billion parameters, {trained / 1e9:.3g} billion trained ({how});"
        f" {sharding.name} on {devices}{plural}; {training.batch_size} rows{accumulated} of {training.seq_len} tokens"
        f" per device; gradient checkpointing {'on' if training.gradient_checkpointing else 'off'}."
    )


def describe_changes(changes: Sequence[Change], memory: int, training: Training, launch: str) -> list[str]:
    """Settings with which the run would fit, one line each, and the launch line of the first."""
    if not changes:
        return [f"Nothing that this command knows makes it fit into {describe(memory)}: a shorter --seq-len may."]
    lines = []
    for change in changes:
        other = "trains on quantised weights" if training.lora_r else "trains an adapter instead of all weights"
        note = "" if change.trains_the_same else f" ({other})"
        host = f", and {describe(change.estimate.host)} of host memory" if change.estimate.host else ""
        lines.append(f"Fits with {' '.join(change.flags)}: {describe(change.estimate.peak)}{host}{note}.")
    first = changes[0]
    if first.sharding.devices <= _ONE_MACHINE:
        which = "The first of these" if len(changes) > 1 else "That is"
        return [*lines, f"{which}: {launch_line(first.training, first.sharding, launch)}"]
    return [*lines, "  (On several machines; docs/scaling.md has the launch lines.)"]


def launch_line(training: Training, sharding: Sharding, launch: str = "RECIPE") -> str:
    """The `distjudge-trl train` line of a plan; `launch` is the recipe, with options that the plan does not know."""
    words = [f"distjudge-trl train {launch}", f"--accelerate-config {sharding.name}"]
    words += [f"--num-processes {sharding.devices}", f"--per_device_train_batch_size {training.batch_size}"]
    words.append(f"--gradient_accumulation_steps {training.gradient_accumulation_steps}")
    words.append(f"--gradient_checkpointing {training.gradient_checkpointing}")
    words.append(f"--use_peft {bool(training.lora_r)}")
    words += [f"--lora_r {training.lora_r}"] if training.lora_r else []
    words += [f"--load_in_{training.bits}bit"] if training.bits < 16 else []
    # Half precision is named only if recipes would not choose it. On some GPUs they choose float16, which has the same
    # size.
    frozen = training.lora_r or training.bits < 16
    words += (
        [f"--dtype {training.dtype}"]
        if training.dtype != ("bfloat16" if frozen and training.bf16 else "float32")
        else []
    )
    words += ["--bf16 False"] if not training.bf16 else []
    words.append(f"--max_length {training.seq_len}")
    return " ".join(words)
