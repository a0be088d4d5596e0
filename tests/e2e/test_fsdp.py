"""FSDP2 as the shipped configs set it up, through accelerate, on two real processes: it trains, evaluates and saves
what one process does, and goes on from its checkpoints on two processes or on one.
"""

import itertools
import json

import numpy as np
import pytest
from conftest import ROOT
from ranks import check_ranks, environment_of, start_ranks
from tiny_runs import EIGHT, HALF, LORA, QLORA, SAVING, assert_same_judge, trajectory


KINDS = {"full": (), "lora": LORA, "qlora": QLORA}
TOGETHER = ("--use_cpu", "False")


def start(tiny_runs, count, name, runs):
    """Start processes that make several runs (name to options) one after the other."""
    python = tiny_runs.python
    environment = environment_of(ROOT / "accelerate_configs/fsdp2.yaml", count, python)
    assert environment_of(ROOT / "accelerate_configs/fsdp2_qlora.yaml", count, python) == environment, (
        "one launch serves both"
    )
    commands = [tiny_runs.command(run, (), *options, *TOGETHER)[1:] for run, options in runs.items()]
    arguments = [*itertools.chain.from_iterable(["--next", *command] for command in commands)][1:]
    log = tiny_runs.folder / f"{name}.log"
    script = [python, str(ROOT / "tests/e2e/fsdp_cpu.py")]
    return log, start_ranks([*script, *arguments], count, environment, log)


def finish(tiny_runs, runs, log, processes):
    check_ranks([process.wait(600) for process in processes], log)
    return {run: json.loads((tiny_runs.folder / f"{run}.json").read_text()) for run in runs}


@pytest.fixture(scope="module")
def trained(tiny_runs):
    """What two processes did, uninterrupted."""
    runs = {f"fsdp2_{kind}": (*HALF, *SAVING, *options) for kind, options in KINDS.items()}
    runs["fsdp2_bf16"] = (*HALF, "--bf16", "True", "--max_steps", "4")
    return finish(tiny_runs, runs, *start(tiny_runs, 2, "fsdp2", runs))


@pytest.fixture(scope="module")
def resumed(tiny_runs, trained):
    """What two processes, and one, did from step 4 on."""
    launches, runs = [], {}
    for count, name, batch in ((2, "again", HALF), (1, "shrunk", EIGHT)):
        mine = {}
        for kind, options in KINDS.items():
            checkpoint = str(tiny_runs.folder / f"fsdp2_{kind}" / "checkpoint-4")
            mine[f"fsdp2_{kind}_{name}"] = (*batch, *options, "--resume_from_checkpoint", checkpoint)
        launches.append((mine, *start(tiny_runs, count, f"fsdp2_{name}", mine)))
    for mine, log, processes in launches:
        runs |= finish(tiny_runs, mine, log, processes)
    return runs


@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_follow_the_trajectory_of_one(tiny_runs, trained, kind):
    """10 steps with the adversary on, the evaluation, and the judge that is read from what was saved."""
    result, folder = trained[f"fsdp2_{kind}"], tiny_runs.folder / f"fsdp2_{kind}"
    assert result["world_size"] == 2 and result["distributed_type"] == "DistributedType.FSDP"
    assert result["sharded"] == 1 and result["share"] == pytest.approx(0.5, abs=0.01), "all weights are shared out"
    tiny_runs.assert_follows(f"FSDP2, {kind}", result, folder, KINDS[kind])


@pytest.mark.parametrize("kind", KINDS)
def test_a_save_gathers_what_was_trained_alone(trained, kind):
    """Frozen weights would take host memory and time at every checkpoint, and an adapter keeps none of them."""
    result = trained[f"fsdp2_{kind}"]
    # A tied head is one weight by two names, which transformers keeps for a full model.
    tied = 10_016 if kind == "full" else 0
    assert result["gathered"] == result["trained"] + tied > 0


@pytest.mark.parametrize("kind", KINDS)
def test_it_goes_on_from_a_checkpoint_on_two_processes_or_on_one(tiny_runs, trained, resumed, kind):
    whole = trained[f"fsdp2_{kind}"]
    again, shrunk = (resumed[f"fsdp2_{kind}_{name}"] for name in ("again", "shrunk"))
    assert (again["world_size"], shrunk["world_size"]) == (2, 1)
    assert [result["distributed_type"] for result in (again, shrunk)] == ["DistributedType.FSDP"] * 2
    np.testing.assert_allclose(trajectory(again), trajectory(whole), rtol=1e-6, atol=1e-7)
    assert_same_judge(tiny_runs.folder / f"fsdp2_{kind}_again", tiny_runs.folder / f"fsdp2_{kind}", tolerance=1e-6)
    tiny_runs.assert_follows(
        f"FSDP2, {kind}, then one process", shrunk, tiny_runs.folder / f"fsdp2_{kind}_shrunk", KINDS[kind]
    )


def test_in_bfloat16_labels_stay_apart(tiny_runs, trained):
    """accelerate's own policy rounds logits to bfloat16: label probabilities would come in steps, and losses, too."""
    result = trained["fsdp2_bf16"]
    values, wanted = trajectory(result), trajectory(tiny_runs.reference()[0])[:4]
    np.testing.assert_allclose(values[:, 0], wanted[:, 0], rtol=3e-2)
    assert result["logits"] == "torch.float32"
