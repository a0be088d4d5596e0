"""What is refused before a launch, or before training in one process among several GPUs."""

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
from conftest import LABELS, ROOT, make_records

from distjudge_trl.errors import UserInputError
from distjudge_trl.labels import LabelSpace
from distjudge_trl.runtime import launches
from distjudge_trl.runtime import threads as runtime_threads
from distjudge_trl.runtime.launches import check_launch, check_processes


def config(name):
    return ROOT / "accelerate_configs" / f"{name}.yaml"


@pytest.mark.parametrize(
    ("name", "processes", "there", "message"),
    [
        (
            "zero2",
            None,
            0,
            "zero2 starts a process for each GPU of the machine, which has none. On a CPU: cpu, zero2_cpu",
        ),
        ("zero2", 4, 0, "zero2 asks for 4 GPUs on this machine, which has none. On a CPU: cpu, zero2_cpu"),
        ("zero2", None, 1, None),
        ("fsdp2", None, 8, None),
        ("zero2", 4, 2, "asks for 4 GPUs on this machine, which has 2. Give --num-processes 2."),
        ("multi_node_zero3", None, 8, "is for 2 machines, .*--machine_rank RANK --main_process_ip FIRST_HOST"),
        ("zero2", 2, 2, None),
        ("zero2_cpu", 8, 0, None),
        ("single_gpu", None, 0, None),
    ],
)
def test_a_config_for_more_gpus_than_there_are_is_refused(monkeypatch, name, processes, there, message):
    monkeypatch.setattr(launches, "device_count", lambda: there)
    if message is None:
        check_launch(config(name), processes)
    else:
        with pytest.raises(UserInputError, match=message):
            check_launch(config(name), processes)


def test_a_config_of_several_machines_that_names_the_first_is_taken(monkeypatch, tmp_path):
    path = tmp_path / "ours.yaml"
    path.write_text(config("multi_node_zero3").read_text().replace("127.0.0.1", "10.0.0.7"))
    monkeypatch.setattr(launches, "device_count", lambda: 8)
    check_launch(path)
    monkeypatch.setattr(launches, "device_count", lambda: 4)
    with pytest.raises(UserInputError, match="asks for 8 GPUs on this machine, which has 4. Give --num-processes 8."):
        check_launch(path)


def test_deepspeed_that_is_not_installed_is_one_line(monkeypatch):
    monkeypatch.setattr(launches, "find_spec", lambda name: None)
    with pytest.raises(UserInputError, match=r"needs DeepSpeed, .* run `pip install 'distjudge-trl\[deepspeed\]'`"):
        check_launch(config("zero2_cpu"))
    check_launch(config("cpu"))


def test_what_is_no_config_is_refused(tmp_path):
    path = tmp_path / "my.yaml"
    wrong = (
        ("- 1", "is not an accelerate config"),
        ("a: [", "holds no valid YAML"),
        ("a: 1\na: 2", "the key .a. occurs twice"),
    )
    several = "num_machines: 2\nnum_processes: gpu"
    wrong += (("num_processes: many", "must be a number, or gpu"), (several, "must be the number of all their GPUs"))
    for content, message in wrong:
        path.write_text(content)
        with pytest.raises(UserInputError, match=message):
            check_launch(path)


def test_more_processes_than_gpus_are_refused(monkeypatch):
    monkeypatch.setattr(launches, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    with pytest.raises(UserInputError, match="4 processes were launched on this machine, which has 2 GPUs"):
        check_processes()
    for yes in ("True", "1", "yes"):
        monkeypatch.setenv("ACCELERATE_USE_CPU", yes)
        check_processes()


def test_several_gpus_and_no_launcher_are_refused(tiny_model, tokenizer, tmp_path):
    from distjudge_trl.trainer import DistributionSFTConfig, DistributionSFTTrainer

    args = DistributionSFTConfig(output_dir=str(tmp_path), bf16=False, report_to="none")
    args._n_gpu = 4
    with pytest.raises(UserInputError, match="4 GPUs are visible to one process"):
        DistributionSFTTrainer(
            model=tiny_model,
            args=args,
            train_dataset=make_records(4),
            processing_class=tokenizer,
            label_space=LabelSpace(LABELS),
        )


def test_nccl_s_own_failures_are_no_lost_process():
    from distjudge_trl.errors import lost_connection

    where = "NCCL error in: ../NCCLUtils.cpp:94, "
    wrong = where + "invalid usage, NCCL version 2.27\nLast error:\nDuplicate GPU detected : rank 1 and rank 0"
    assert lost_connection(RuntimeError(wrong)) is None
    gone = where + "remote process exited or there was a network error\nLast error:\nConnection closed"
    assert lost_connection(RuntimeError(gone)) == "Connection closed"
    assert lost_connection(RuntimeError("[gloo/pair.cc:5] Timed out\nmore")) == "[gloo/pair.cc:5] Timed out"
    assert lost_connection(RuntimeError("CUDA out of memory")) is None


@pytest.mark.e2e
def test_train_refuses_before_it_launches(monkeypatch):
    from click.testing import CliRunner

    from distjudge_trl.cli import main

    monkeypatch.setattr(launches, "device_count", lambda: 0)
    done = CliRunner().invoke(main, ["train", "vader", "--accelerate-config", "zero2"])
    assert done.exit_code == 2 and "which has none" in done.output, done.output


# What accelerate and torchrun make of the shipped configs, with their own code


GPU_CONFIGS = ["multi_gpu", "zero1", "zero2", "zero3", "zero2_offload", "zero3_offload", "fsdp2", "fsdp2_qlora"]


@pytest.fixture()
def started(monkeypatch):
    """Processes on this machine that a launch line starts, given a number of GPUs."""
    import torch
    from accelerate.commands import launch as accelerate_launch
    from torch.distributed import run as torchrun

    def count(gpus, *words):
        seen = []
        monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
        monkeypatch.setattr(accelerate_launch, "check_cuda_p2p_ib_support", lambda: True)
        monkeypatch.setattr(torchrun, "run", lambda args: seen.append(torchrun.config_from_args(args)[0]))
        parser = accelerate_launch.launch_command_parser()
        accelerate_launch.launch_command(parser.parse_args([*words, "recipes/summeval.py"]))
        return seen[0].nproc_per_node

    return count


@pytest.mark.parametrize("name", GPU_CONFIGS)
@pytest.mark.parametrize("gpus", [1, 8])
def test_a_launch_as_it_is_typed_starts_a_process_for_each_gpu(started, name, gpus):
    if "zero" in name:
        pytest.importorskip("deepspeed")
    assert started(gpus, "--config_file", str(config(name))) == gpus
    assert started(gpus, "--config_file", str(config(name)), "--num_processes", "1") == 1


@pytest.mark.parametrize("name", GPU_CONFIGS)
def test_what_a_config_says_of_several_machines_is_so(started, name):
    if "zero" in name:
        pytest.importorskip("deepspeed")
    # accelerate divides the number by that of the machines.
    assert "\n# With --num_machines accelerate needs a number: --num_processes " in config(name).read_text("utf-8")
    words = ("--config_file", str(config(name)), "--num_machines", "2", "--main_process_ip", "host")
    words += ("--main_process_port", "29500", "--machine_rank", "1", "--deepspeed_multinode_launcher", "standard")
    with pytest.raises(TypeError):
        started(8, *words)
    assert started(8, *words, "--num_processes", "16") == 8


def test_every_config_for_gpus_of_one_machine_counts_them():
    names = {path.stem for path in config("x").parent.glob("*.yaml")}
    one = {name for name in names if "cpu" not in name and "multi_node" not in name} - {"single_gpu"}
    assert one == set(GPU_CONFIGS)


# Cores


def test_cores_are_counted_where_the_system_does_not_tell_which_are_ours(monkeypatch):
    """As on macOS and Windows. Nothing else asks the system by itself."""
    if hasattr(os, "sched_getaffinity"):
        assert runtime_threads.cores() == len(os.sched_getaffinity(0))
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert runtime_threads.cores() == 6 and runtime_threads.cores_per_process(2) == 3
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert runtime_threads.cores() == 1
    asking = [
        path
        for folder in ("distjudge_trl", "scripts", "recipes", "tests")
        for path in (ROOT / folder).rglob("*.py")
        if "os.sched_getaffinity(" in path.read_text(encoding="utf-8")
    ]
    assert {path.name for path in asking} == {"threads.py", "test_launch.py"}


SHOWS = """
import os
from distjudge_trl.runtime.threads import share_cores
share_cores()
import torch
print(f"{os.environ['OMP_NUM_THREADS']} {torch.get_num_threads()}\\n", end="")
"""
ACCELERATE = f"accelerate.commands.launch --config_file {config('multi_gpu')} --main_process_port 0 --num_processes 1"
TORCHRUN = "torch.distributed.run --standalone --nproc_per_node 2"


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("launcher", "processes", "given"), [(ACCELERATE, 1, None), (ACCELERATE, 1, "1"), (TORCHRUN, 2, None)]
)
def test_processes_share_the_cores_that_a_launcher_leaves_idle(tmp_path, launcher, processes, given):
    """Both set OMP_NUM_THREADS to 1 by themselves; what a user has set stays."""
    script = tmp_path / "shows.py"
    script.write_text(SHOWS)
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    environment |= {"PYTHONPATH": str(ROOT)} | ({"OMP_NUM_THREADS": given} if given else {})
    command = [sys.executable, "-m", *launcher.split(), str(script)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    expected = given or str(max(1, runtime_threads.cores() // processes))
    assert done.stdout.splitlines() == [f"{expected} {expected}"] * processes


@pytest.mark.parametrize(
    ("environment", "words", "threads"),
    [
        ({}, [], "16"),
        ({"LOCAL_WORLD_SIZE": "4"}, [], "4"),
        ({"TORCHELASTIC_RUN_ID": None}, [], "1"),
        ({"OMP_NUM_THREADS": "3"}, [], "3"),
        ({}, ["--num-cpu-threads-per-process=1"], "1"),
        ({}, ["--num_cpu_threads_per_process", "1"], "1"),
    ],
)
def test_only_a_launcher_s_own_single_thread_is_changed(monkeypatch, environment, words, threads):
    """Of 16 cores."""
    launcher = SimpleNamespace(environ=dict, cmdline=lambda: ["accelerate", "launch", *words])
    monkeypatch.setattr(runtime_threads.psutil, "Process", lambda pid: launcher)
    monkeypatch.setattr(runtime_threads, "cores", lambda: 16)
    monkeypatch.setattr("torch.set_num_threads", lambda count: None)
    for name, value in ({"TORCHELASTIC_RUN_ID": "x", "OMP_NUM_THREADS": "1"} | environment).items():
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    runtime_threads.share_cores()
    assert os.environ["OMP_NUM_THREADS"] == threads
