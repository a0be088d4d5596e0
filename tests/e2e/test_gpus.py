"""What needs GPUs: every shipped config that fits on this machine's, against one process on the CPU."""

import sys

import numpy as np
import pytest
import torch
from conftest import ROOT
from tiny_runs import EIGHT, HALF, LORA, SAVING, accelerate, assert_same_judge, trajectory

from distjudge_trl import Judge


pytestmark = pytest.mark.gpu

NF4 = (*LORA, "--load_in_4bit", "--use_bnb_nested_quant", "--dtype", "bfloat16")
ON_GPU = ("--use_cpu", "False")


def launch(config):
    """As many processes as a machine of one GPU or several has, two at most."""
    count = min(2, torch.cuda.device_count()) if config != "single_gpu" else 1
    options = ("--gpu_ids", "0") if config == "single_gpu" else ()
    launcher = accelerate(ROOT / "accelerate_configs" / f"{config}.yaml", "--num_processes", str(count), *options)
    return launcher, HALF if count == 2 else EIGHT


@pytest.mark.parametrize(
    ("config", "options"),
    [
        ("single_gpu", ()),
        ("multi_gpu", ()),
        ("zero1", ()),
        ("zero2", ()),
        ("zero3", ()),
        ("zero2_offload", ()),
        ("zero3_offload", ()),
        ("fsdp2", ()),
        ("fsdp2", LORA),
        ("single_gpu", NF4),
        ("zero3", NF4),
        ("fsdp2_qlora", NF4),
    ],
    ids=lambda value: value if isinstance(value, str) else {(): "full", LORA: "lora", NF4: "qlora"}[value],
)
def test_a_run_on_gpus_follows_one_on_the_cpu_is_resumed_and_reloads(tiny_runs, config, options):
    """In float32, as far as kernels round otherwise; 4-bit runs are compared with themselves."""
    name = f"{config}-{len(options)}"
    launcher, batch = launch(config)
    options = (*batch, *SAVING, *ON_GPU, *options)
    result, folder = tiny_runs.run(name, launcher, *options, python=sys.executable)
    values = trajectory(result)
    if "--load_in_4bit" not in options:
        common = LORA if "--use_peft" in options else ()
        np.testing.assert_allclose(values, trajectory(tiny_runs.reference(common)[0]), rtol=1e-3, atol=1e-4)
    assert np.isfinite(values).all()
    checkpoint = ("--resume_from_checkpoint", str(folder / "checkpoint-4"))
    resumed, again = tiny_runs.run(f"{name}-resumed", launcher, *options, *checkpoint, python=sys.executable)
    np.testing.assert_allclose(trajectory(resumed), values, rtol=1e-3, atol=1e-4)
    assert_same_judge(folder, again)
    # The resumed run begins behind checkpoint-4.
    assert_same_judge(folder / "checkpoint-8", again / "checkpoint-8")


@pytest.mark.parametrize("config", ["single_gpu", "fsdp2"])
def test_in_bfloat16_the_judge_reads_what_the_trainer_evaluated(tiny_runs, config):
    """Under FSDP2, too, whose outputs accelerate would round to bfloat16."""
    from conftest import make_records
    from tiny_runs import mean_kl

    launcher, batch = launch(config)
    result, folder = tiny_runs.run(
        f"{config}-bf16", launcher, *batch, *ON_GPU, "--bf16", "True", python=sys.executable
    )
    records = make_records(11, seed=1)
    judged = mean_kl(Judge.from_pretrained(str(folder)).judge(records), records)
    assert judged == pytest.approx(result["metrics"]["eval_kl"], rel=5e-3)
