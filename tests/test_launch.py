"""What is refused before a launch, or before training in one process among several GPUs."""

import pytest
from conftest import LABELS, ROOT, make_records

from distjudge_trl import launch
from distjudge_trl.errors import UserInputError
from distjudge_trl.labels import LabelSpace
from distjudge_trl.launch import check_launch, check_processes


def config(name):
    return ROOT / "accelerate_configs" / f"{name}.yaml"


@pytest.mark.parametrize(
    ("name", "processes", "there", "message"),
    [
        ("zero2", None, 0, "zero2 asks for 8 GPUs on this machine, which has none. On a CPU: cpu, zero2_cpu"),
        ("zero2", 4, 2, "asks for 4 GPUs on this machine, which has 2. Give --num-processes 2."),
        ("multi_node_zero3", None, 8, "is for 2 machines, .*--machine_rank RANK --main_process_ip FIRST_HOST"),
        ("zero2", 2, 2, None),
        ("zero2_cpu", 8, 0, None),
        ("single_gpu", None, 0, None),
    ],
)
def test_a_config_for_more_gpus_than_there_are_is_refused(monkeypatch, name, processes, there, message):
    monkeypatch.setattr(launch, "device_count", lambda: there)
    if message is None:
        check_launch(config(name), processes)
    else:
        with pytest.raises(UserInputError, match=message):
            check_launch(config(name), processes)


def test_a_config_of_several_machines_that_names_the_first_is_taken(monkeypatch, tmp_path):
    path = tmp_path / "ours.yaml"
    path.write_text(config("multi_node_zero3").read_text().replace("127.0.0.1", "10.0.0.7"))
    monkeypatch.setattr(launch, "device_count", lambda: 8)
    check_launch(path)
    monkeypatch.setattr(launch, "device_count", lambda: 4)
    with pytest.raises(UserInputError, match="asks for 8 GPUs on this machine, which has 4. Give --num-processes 8."):
        check_launch(path)


def test_deepspeed_that_is_not_installed_is_one_line(monkeypatch):
    monkeypatch.setattr(launch, "find_spec", lambda name: None)
    with pytest.raises(UserInputError, match=r"needs DeepSpeed, .* run `pip install 'distjudge-trl\[deepspeed\]'`"):
        check_launch(config("zero2_cpu"))
    check_launch(config("cpu"))


def test_what_is_no_config_is_refused(tmp_path):
    path = tmp_path / "my.yaml"
    wrong = (
        ("- 1", "is no accelerate config"),
        ("a: [", "is no valid YAML"),
        ("a: 1\na: 2", "the key .a. occurs twice"),
    )
    for content, message in wrong:
        path.write_text(content)
        with pytest.raises(UserInputError, match=message):
            check_launch(path)


def test_more_processes_than_gpus_are_refused(monkeypatch):
    monkeypatch.setattr(launch, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    with pytest.raises(UserInputError, match="4 processes were launched on this machine, which has 2 GPUs"):
        check_processes()
    monkeypatch.setenv("ACCELERATE_USE_CPU", "True")
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

    monkeypatch.setattr(launch, "device_count", lambda: 0)
    done = CliRunner().invoke(main, ["train", "vader", "--accelerate-config", "zero2"])
    assert done.exit_code == 2 and "which has none" in done.output, done.output
