"""Changes of a run's settings with which it would fit, the cheapest first."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from distjudge_trl.planning.footprint import Footprint
from distjudge_trl.planning.memory import Estimate, estimate
from distjudge_trl.planning.sharding import Sharding
from distjudge_trl.planning.training import DEFAULT_RANK, Training


# The cost of a change, in slower steps and in quality. It is a ranking and not a measurement. Recomputing activations
# costs a third of a step, smaller batches with accumulation a little, more sharding more traffic. Adapters train fewer
# weights. The host's memory is an order of magnitude slower.
_COST = {"checkpointing": 1.0, "halving": 0.6, "stage": 2.0, "lora": 4.0, "offload": 5.0, "qlora": 6.0, "devices": 8.0}


@dataclass(frozen=True)
class Change:
    """Settings under which a run fits.

    Args:
        flags (`tuple[str, ...]`): options to add to the command.
        training (`Training`), sharding (`Sharding`), estimate (`Estimate`): of the changed run.
        trains_the_same (`bool`): whether the trained judge would be the same up to rounding.
    """

    flags: tuple[str, ...]
    training: Training
    sharding: Sharding
    estimate: Estimate
    trains_the_same: bool


def find_changes(
    training: Training, sharding: Sharding, memory: int, footprint: Callable[[Training], Footprint]
) -> list[Change]:
    """The cheapest settings that fit, and the cheapest that train the same judge, if those differ.

    Args:
        training (`Training`): as planned.
        sharding (`Sharding`): as planned.
        memory (`int`): bytes of a device.
        footprint (`Callable`): measures the memory of a replica.
    """
    options = itertools.product(_smaller(training), _sharded(sharding))
    found: list[Change] = []
    for (_, train_flags, changed), (_, shard_flags, shards) in sorted(options, key=lambda o: o[0][0] + o[1][0]):
        changed = replace(changed, cast=shards.casts)
        same = changed.lora_r == training.lora_r and changed.bits == training.bits
        if found and not same:
            continue
        result = estimate(footprint(changed), changed, shards)
        if result.peak <= memory:
            found.append(Change((*train_flags, *shard_flags), changed, shards, result, same))
            if same:
                break
    return found


def _smaller(training: Training) -> list[tuple[float, tuple[str, ...], Training]]:
    """Computations that need less memory, each with its cost and its options."""
    adapters: list[tuple[float, tuple[str, ...], dict[str, Any]]] = [(0.0, (), {})]
    frozen = {"lora_r": training.lora_r or DEFAULT_RANK, "dtype": "bfloat16"}  # recipes' type of frozen weights
    if not training.lora_r:
        adapters.append((_COST["lora"], ("--use_peft",), frozen))
    if training.bits == 16:
        flags = ("--load_in_4bit",) if training.lora_r else ("--use_peft", "--load_in_4bit")
        adapters.append((_COST["qlora"], flags, {**frozen, "bits": 4}))
    checkpoints = [True] if training.gradient_checkpointing else [False, True]
    found = []
    for (cost, flags, fields), checkpointing in itertools.product(adapters, checkpoints):
        rows, steps, halvings = training.batch_size, training.gradient_accumulation_steps, 0
        while True:
            changed_flags: list[str] = []
            total = cost
            if checkpointing != training.gradient_checkpointing:
                changed_flags += ["--gradient_checkpointing", "true"]
                total += _COST["checkpointing"]
            if halvings:
                changed_flags += ["--batch-size", str(rows), "--gradient_accumulation_steps", str(steps)]
                total += _COST["halving"] * halvings
            changed = replace(
                training,
                batch_size=rows,
                gradient_accumulation_steps=steps,
                gradient_checkpointing=checkpointing,
                **fields,
            )
            found.append((total, (*flags, *changed_flags), changed))
            if rows % 2:
                break
            rows, steps, halvings = rows // 2, steps * 2, halvings + 1
    return found


def _sharded(sharding: Sharding) -> list[tuple[float, tuple[str, ...], Sharding]]:
    """Ways to shard more, on the same number of devices and on more."""
    cpu = "_cpu" if sharding.device == "cpu" else ""
    ways: list[tuple[float, str, Sharding]] = []
    for stage in (2, 3):
        if sharding.kind != "fsdp" and stage > sharding.stage:
            shards = replace(sharding, name=f"zero{stage}{cpu}", kind="zero", stage=stage)
            ways.append((_COST["stage"] * (1 if stage == 2 else 1.5), shards.name, shards))
    if sharding.device == "gpu" and not sharding.offload_weights:
        for stage, weights in ((2, False), (3, True)):
            if stage >= sharding.stage and not (sharding.offload_optimizer and not weights):
                name = f"zero{stage}_offload"
                shards = replace(
                    sharding, name=name, kind="zero", stage=stage, offload_optimizer=True, offload_weights=weights
                )
                ways.append((_COST["offload"] + stage, name, shards))
    found: list[tuple[float, tuple[str, ...], Sharding]] = [(0.0, (), sharding)]
    found += [
        (cost, ("--accelerate-config", name), shards)
        for cost, name, shards in ways
        if sharding.devices > 1 or shards.offload_optimizer
    ]
    for doubling in range(1, 8):
        devices = sharding.devices * 2**doubling
        cost = _COST["devices"] * doubling
        base = replace(sharding, devices=devices)
        # On one device a launcher's config does not shard; on several it has to.
        if sharding.kind != "replicas":
            found.append((cost, ("--gpus", str(devices)), base))
        found += [
            (cost + more, ("--accelerate-config", name, "--gpus", str(devices)), replace(shards, devices=devices))
            for more, name, shards in ways
        ]
    return found
