"""Two real processes give the trajectory of one, whatever shards them; rows that fill up the ranks count nothing; a
killed run goes on as if nothing had been. Most processes are warm ones (tests/warm.py); those of the runs in `REAL`
are interpreters as a user starts them.
"""

import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT
from tiny_runs import (
    CHECKPOINTING,
    EIGHT,
    FOUR,
    HALF,
    LORA,
    ONE_BY_FOUR,
    QLORA,
    SAVING,
    TORCHRUN,
    accelerate,
    cpu_twin,
    trajectory,
)


# Of a run that is killed and resumed.
REAL = ("ddp",)
TWO = ("--per_device_train_batch_size", "2", "--gradient_accumulation_steps", "2")


def python_of(name):
    return sys.executable if name in REAL else None


def launcher_of(config, folder):
    if config is None:
        return TORCHRUN
    pytest.importorskip("deepspeed")
    return accelerate(cpu_twin(config, folder))


@pytest.mark.parametrize(
    ("name", "config", "stage", "batch", "common"),
    [
        ("ddp_accumulation", None, None, TWO, ()),
        ("zero1", "zero1", 1, HALF, ()),
        # Rows to accumulate run out before the epoch's last step is full.
        ("zero2_accumulation_checkpointing", "zero2", 2, ONE_BY_FOUR, CHECKPOINTING),
        ("zero2_offload", "zero2_offload", 2, HALF, ()),
        ("zero3_offload", "zero3_offload", 3, HALF, ()),
        ("zero2_qlora", "zero2", 2, HALF, QLORA),
    ],
)
def test_two_processes_follow_the_trajectory_of_one(tiny_runs, tmp_path, name, config, stage, batch, common):
    """10 optimizer steps with the adversary on, over uneven ends of epochs."""
    launcher = launcher_of(config, tmp_path)
    result, folder = tiny_runs.run(name, launcher, *batch, *common, python=python_of(name))
    assert result["world_size"] == 2 and result["zero_stage"] == stage
    tiny_runs.assert_follows(name, result, folder, common)


@pytest.mark.parametrize(("config", "stage"), [("zero2_cpu", 2), ("zero3_cpu", 3)])
def test_in_bfloat16_as_by_default_deepspeed_follows_float32_as_far_as_it_rounds(tiny_runs, tmp_path, config, stage):
    """Human distributions stay in float32, though DeepSpeed's inputs are cast."""
    result, _ = tiny_runs.run(f"{config}_bf16", launcher_of(config, tmp_path), *HALF, "--bf16", "True")
    assert result["world_size"] == 2 and result["zero_stage"] == stage
    expected, _ = tiny_runs.reference()
    values, wanted = trajectory(result), trajectory(expected)
    change = np.abs(values[:, 0] / wanted[:, 0] - 1).max()
    print(f"{config}, bfloat16: largest relative difference of the loss {change:.1e}")
    np.testing.assert_allclose(values[:, 0], wanted[:, 0], rtol=3e-2)
    np.testing.assert_allclose(result["metrics"]["eval_kl"], expected["metrics"]["eval_kl"], rtol=3e-2)


def test_accumulation_follows_the_trajectory_of_a_large_batch(tiny_runs):
    result, folder = tiny_runs.run("accumulation", [sys.executable], *FOUR)
    assert result["world_size"] == 1
    tiny_runs.assert_follows("accumulation", result, folder)


@pytest.mark.parametrize(
    ("name", "config", "stage", "common"),
    [
        ("ddp", "multi_gpu", None, ()),
        ("ddp_lora", None, None, LORA),
        ("ddp_qlora", None, None, QLORA),
        ("zero2", "zero2_cpu", 2, ()),
        ("zero3", "zero3_cpu", 3, ()),
        ("zero3_lora", "zero3", 3, LORA),
        ("zero3_qlora", "zero3", 3, QLORA),
    ],
)
def test_after_kill_9_between_two_steps_it_goes_on_as_one_process_would(
    tiny_runs, tmp_path, name, config, stage, common
):
    """Steps 1 to 4 are the killed run's, 5 to 10 the resumed one's; 21 rows over two processes of 4: step 6 is the
    uneven end of the epoch in which the resumed run begins.
    """
    launcher, python = launcher_of(config, tmp_path), python_of(name)
    folder = tiny_runs.run_until_killed(name, launcher, *HALF, *common, *SAVING, step=5, python=python)
    assert [path.name for path in folder.glob("checkpoint-*")] == ["checkpoint-4"]
    resumed = (*HALF, *common, *SAVING, "--resume_from_checkpoint", "true")
    result, _ = tiny_runs.run(name, launcher, *resumed, python=python)
    assert result["world_size"] == 2 and result["zero_stage"] == stage
    if common == QLORA:
        # Another number of processes rounds bfloat16 otherwise: the same run, uninterrupted, is the measure.
        whole, _ = tiny_runs.run(f"{name}_whole", launcher, *HALF, *common)
        np.testing.assert_allclose(trajectory(result), trajectory(whole), rtol=1e-4, atol=1e-5)
    tiny_runs.assert_follows(f"{name}, killed and resumed", result, folder, common)


def test_a_run_of_two_processes_goes_on_on_one(tiny_runs):
    tiny_runs.run("shrunk", TORCHRUN, *HALF, *SAVING, "--max_steps", "4")
    result, folder = tiny_runs.run("shrunk", [sys.executable], *EIGHT, *SAVING, "--resume_from_checkpoint", "true")
    assert result["world_size"] == 1
    tiny_runs.assert_follows("two processes, then one", result, folder)


def test_the_page_s_table_of_what_goes_together_is_of_today():
    """`make compat` writes it; it takes a quarter of an hour."""
    import compatibility

    page = compatibility.PAGE.read_text(encoding="utf-8")
    rows = page.split(compatibility.START)[1].split(compatibility.END)[0].splitlines()
    cells = {tuple(row.strip("| ").split(" | ")[:2]): row for row in rows if row.startswith("| ")}
    expected = {(kind, way) for kind in compatibility.KINDS for way in compatibility.WAYS}
    assert {key for key in cells if key[0] in compatibility.KINDS} == expected, "run `make compat`"
    assert "fails" not in "".join(rows)
    (versions,) = [row for row in rows if row.startswith("Versions: ")]
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    for name in ("torch", "transformers", "trl", "accelerate", "peft", "deepspeed", "bitsandbytes"):
        assert f" {name} {pins[name]}" in versions, "run `make compat`"


def test_a_user_s_mistake_is_one_line_and_exit_code_2_through_a_launcher():
    command = [
        sys.executable,
        "-m",
        "distjudge_trl",
        "train",
        "vader",
        "--accelerate-config",
        "cpu",
        "--alpha",
        "7",
    ]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=ROOT)
    errors = [line for line in done.stderr.splitlines() if "error" in line.lower()]
    assert done.returncode == 2 and errors == ["error: `alpha` must lie between 0 and 1, got 7.0."], done.stderr
    assert "Traceback" not in done.stderr
