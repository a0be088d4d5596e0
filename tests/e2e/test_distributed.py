"""Two real processes give the trajectory of one, whatever shards them; rows that fill up the ranks count nothing."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from conftest import LABELS, ROOT, make_records


SETTINGS = [
    *("--num_train_epochs", "2", "--learning_rate", "1e-3", "--lr_scheduler_type", "constant", "--logging_steps", "1"),
    *(
        "--bf16",
        "False",
        "--use_cpu",
        "True",
        "--report_to",
        "none",
        "--save_strategy",
        "no",
        "--disable_tqdm",
        "True",
    ),
    *("--gradient_checkpointing", "False", "--per_device_eval_batch_size", "2", "--seed", "7"),
]
LOGGED = ("loss", "grad_norm", "kl", "ce", "adversarial_gain", "label_mass", "accuracy")


@pytest.fixture(scope="module")
def run(tokenizer, tmp_path_factory):
    """Launch `tiny_run.py` with a launcher's command; returns what it wrote and the folder of the judge."""
    folder = tmp_path_factory.mktemp("distributed")
    tokenizer.save_pretrained(folder / "tokenizer")

    def launch(name, launcher, *options):
        out = folder / f"{name}.json"
        script = [str(ROOT / "tests/e2e/tiny_run.py"), str(out), str(folder / "tokenizer")]
        command = [*launcher, *script, "--output_dir", str(folder / name), *SETTINGS, *options]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            command, check=False, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=600
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(out.read_text()), folder / name

    return launch


@pytest.fixture(scope="module")
def one_process(run):
    result, folder = run("one", [sys.executable], "--per_device_train_batch_size", "8")
    assert result["world_size"] == 1 and len(result["steps"]) == 6
    return result, folder


def accelerate(config):
    return [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--config_file",
        str(ROOT / f"accelerate_configs/{config}.yaml"),
    ]


TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", "29577"]


@pytest.mark.parametrize(
    ("name", "launcher", "options", "stage"),
    [
        ("ddp", TORCHRUN, ("--per_device_train_batch_size", "4"), None),
        (
            "ddp_accumulation",
            TORCHRUN,
            ("--per_device_train_batch_size", "2", "--gradient_accumulation_steps", "2"),
            None,
        ),
        ("zero2", accelerate("zero2_cpu"), ("--per_device_train_batch_size", "4"), 2),
        ("zero3", accelerate("zero3_cpu"), ("--per_device_train_batch_size", "4"), 3),
    ],
)
def test_two_processes_follow_the_trajectory_of_one(run, one_process, name, launcher, options, stage):
    if stage is not None:
        pytest.importorskip("deepspeed")
    expected, _ = one_process
    result, folder = run(name, launcher, *options)
    assert result["world_size"] == 2 and result["zero_stage"] == stage
    values, wanted = ([[step[k] for k in LOGGED] for step in r["steps"]] for r in (result, expected))
    np.testing.assert_allclose(values, wanted, rtol=1e-4, atol=1e-5)
    assert result["num_predictions"] == 11
    for metric in ("eval_kl", "eval_ce", "eval_accuracy", "eval_label_mass", "eval_loss"):
        assert result["metrics"][metric] == pytest.approx(expected["metrics"][metric], rel=1e-4, abs=1e-5)
    _assert_same_judge(folder, one_process[1])


def test_a_run_resumed_within_an_epoch_still_ignores_the_rows_that_fill_up_the_ranks(run, one_process):
    """21 rows over two processes of 4: step 6 is the uneven end of the epoch in which the resumed run begins."""
    options = ("--per_device_train_batch_size", "4", "--save_strategy", "steps", "--save_steps", "4")
    _, folder = run("resumable", TORCHRUN, *options)
    result, _ = run("resumed", TORCHRUN, *options, "--resume_from_checkpoint", str(folder / "checkpoint-4"))
    values, wanted = ([[step[k] for k in LOGGED] for step in r["steps"]] for r in (result, one_process[0]))
    assert len(values) == 6
    np.testing.assert_allclose(values, wanted, rtol=1e-4, atol=1e-5)


def test_a_user_s_mistake_is_one_line_and_exit_code_2_through_a_launcher(tmp_path):
    command = [
        sys.executable,
        "-m",
        "distjudge_trl.cli",
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


def _assert_same_judge(folder, other):
    from distjudge_trl import Judge

    records = make_records(5, seed=3)
    judged = [Judge.from_pretrained(str(path)).judge(records) for path in (folder, other)]
    assert judged[0].shape == (5, len(LABELS))
    np.testing.assert_allclose(*judged, atol=1e-4)
