"""Which checkpoint a run goes on from, and which it refuses."""

import json
import shutil
import subprocess

import pytest
import torch
from conftest import LABELS, make_records, make_tiny_model
from datasets import Dataset

from distjudge_trl.errors import RunFailedError, UserInputError
from distjudge_trl.labels import LabelSpace
from distjudge_trl.trainer import DistributionSFTConfig, DistributionSFTTrainer
from distjudge_trl.trainer.checkpoints import CHECKPOINT_FILE, check_same_run, find_checkpoint, rows_fingerprint


def make_trainer(folder, tokenizer, *, size=32, rows=8, eval_dataset=None, **options):
    options = {"max_steps": 6, "save_strategy": "steps", "save_steps": 2, **options}
    return DistributionSFTTrainer(
        model=make_tiny_model(len(tokenizer), size),
        args=DistributionSFTConfig(
            output_dir=str(folder),
            per_device_train_batch_size=4,
            report_to="none",
            bf16=False,
            disable_tqdm=True,
            gradient_checkpointing=False,
            **options,
        ),
        train_dataset=make_records(rows),
        eval_dataset=eval_dataset,
        processing_class=tokenizer,
        label_space=LabelSpace(LABELS),
    )


@pytest.fixture(scope="module")
def trained(tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    make_trainer(folder, tokenizer).train()
    return folder


def test_a_later_run_of_fewer_steps_is_gone_on_with(run_folder, tokenizer, capsys):
    """The folder still holds an earlier run's checkpoint-6: it is not revived under the new run's name."""
    make_trainer(run_folder, tokenizer, max_steps=2, learning_rate=1e-3).train()
    assert find_checkpoint("true", run_folder) == (str(run_folder / "checkpoint-2"), [])
    assert find_checkpoint(str(run_folder / "checkpoint-6"), run_folder) == (str(run_folder / "checkpoint-6"), [])


@pytest.mark.parametrize("options", [{"max_steps": 6}, {"max_steps": 5, "save_steps": 5}, {"num_train_epochs": 2}])
def test_a_run_that_is_done_is_not_trained_on(tokenizer, tmp_path, options):
    """Ten rows are three batches: five steps end within an epoch."""
    options = {"max_steps": -1, "save_steps": 3, "save_total_limit": 1, **options}
    whole = make_trainer(tmp_path, tokenizer, rows=10, **options)
    whole.train()
    names = sorted(path.name for path in tmp_path.iterdir())
    again = make_trainer(tmp_path, tokenizer, rows=10, **options)
    again.train(resume_from_checkpoint="true")
    assert again.state.global_step == whole.state.global_step
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    for weight, other in zip(again.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(weight, other)


def test_no_steps_are_refused(tokenizer, tmp_path):
    with pytest.raises(UserInputError, match="`max_steps` is 0: nothing would be trained"):
        make_trainer(tmp_path, tokenizer, max_steps=0).train()


@pytest.fixture()
def run_folder(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "run")


def test_the_newest_whole_checkpoint_is_found(run_folder):
    assert find_checkpoint("true", run_folder) == (str(run_folder / "checkpoint-6"), [])
    assert find_checkpoint(True, run_folder) == (str(run_folder / "checkpoint-6"), [])
    assert find_checkpoint(str(run_folder / "checkpoint-2"), "elsewhere").path == str(run_folder / "checkpoint-2")
    for value in (None, False, "false", "no"):
        assert find_checkpoint(value, run_folder) is None


@pytest.mark.parametrize("damage", ["unmarked", "cut", "lost", "garbled", "state"])
def test_a_half_written_checkpoint_is_passed_over(run_folder, damage):
    newest = run_folder / "checkpoint-6"
    if damage == "unmarked":
        (newest / CHECKPOINT_FILE).unlink()
    elif damage == "garbled":
        (newest / CHECKPOINT_FILE).write_text('{"format_version": 1, "fi')
    elif damage == "state":
        state = newest / "trainer_state.json"
        state.write_bytes(b"\0" * state.stat().st_size)
    elif damage == "lost":
        (newest / "optimizer.pt").unlink()
    else:
        (newest / "optimizer.pt").write_bytes((newest / "optimizer.pt").read_bytes()[:100])
    whole = (str(run_folder / "checkpoint-4"), [str(newest)])
    assert find_checkpoint("true", run_folder) == whole
    assert find_checkpoint(str(newest), "elsewhere") == whole


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth"])
def test_a_damaged_file_of_the_right_size_is_one_line(run_folder, tokenizer, name):
    file = run_folder / "checkpoint-4" / name
    file.write_bytes(b"\x7f" * file.stat().st_size)
    with pytest.raises(UserInputError, match="checkpoint-4: a file in it is damaged.*Delete the folder"):
        make_trainer(run_folder, tokenizer).train(str(run_folder / "checkpoint-4"))


def test_a_checkpoint_that_is_written_anew_is_half_written_until_it_is_whole(run_folder, tokenizer, monkeypatch):
    """A run that goes on from step 2 dies while it replaces the checkpoint of step 4."""
    trainer = make_trainer(run_folder, tokenizer, save_total_limit=None)
    save = trainer._save

    class Died(BaseException):
        pass

    def die(output_dir=None, state_dict=None):
        save(output_dir, state_dict)
        raise Died

    monkeypatch.setattr(trainer, "_save", die)
    with pytest.raises(Died):
        trainer.train(resume_from_checkpoint=str(run_folder / "checkpoint-2"))
    shutil.rmtree(run_folder / "checkpoint-6")
    assert not (run_folder / "checkpoint-4" / "checkpoint.json").exists()
    whole = (str(run_folder / "checkpoint-2"), [str(run_folder / "checkpoint-4")])
    assert find_checkpoint("true", run_folder) == whole


def test_nothing_of_an_older_checkpoint_is_read_beside_the_new_one(tokenizer, tmp_path):
    """Streams of random numbers of two processes, say, in a checkpoint that one process writes anew."""
    old = (
        "rng_state_0.pth",
        "optimizer.bin",
        "pytorch_model_fsdp.bin",
        "latest",
        "global_step2/mp_rank_00_model_states.pt",
    )
    for name in old:
        (tmp_path / "checkpoint-2" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "checkpoint-2" / name).write_text("old")
    (tmp_path / "checkpoint-2" / "notes.txt").write_text("own")
    make_trainer(tmp_path, tokenizer, max_steps=2).train()
    names = {path.name for path in (tmp_path / "checkpoint-2").iterdir()}
    assert not {name.split("/")[0] for name in old} & names and {"notes.txt", "optimizer.pt", "rng_state.pth"} <= names


def test_rows_that_differ_in_the_reference_label_alone_are_other_rows():
    rows = {"input_ids": [[1, 2]], "label_distribution": [[0.5, 0.5]], "num_annotators": [2]}
    fingerprints = [rows_fingerprint(Dataset.from_dict({**rows, "reference": [label]})) for label in (0, 1)]
    assert len(set(fingerprints)) == 2


def test_what_a_killed_save_has_left_is_cleared_away(tokenizer, tmp_path):
    left = tmp_path / ".saving-killed"
    left.mkdir()
    (left / "model.safetensors").write_text("half")
    make_trainer(tmp_path, tokenizer).save_model()
    assert not left.exists() and (tmp_path / "model.safetensors").is_file()


def test_where_nothing_can_be_resumed_the_error_says_what_to_do(run_folder, tokenizer, tmp_path):
    for step in (2, 4):
        shutil.rmtree(run_folder / f"checkpoint-{step}")
    (run_folder / "checkpoint-6" / CHECKPOINT_FILE).unlink()
    with pytest.raises(UserInputError, match="checkpoint-6: is incomplete, and .* has no complete checkpoint"):
        find_checkpoint("true", run_folder)
    with pytest.raises(UserInputError, match="holds no checkpoint to resume from. Train with --save_strategy"):
        find_checkpoint("true", tmp_path / "empty")
    with pytest.raises(UserInputError, match="no such folder"):
        find_checkpoint(str(tmp_path / "nowhere"), run_folder)
    make_trainer(tmp_path / "done", tokenizer).save_model()
    with pytest.raises(UserInputError, match="a finished judge, without optimizer state"):
        find_checkpoint(str(tmp_path / "done"), run_folder)
    make_trainer(tmp_path / "light", tokenizer, save_only_model=True, max_steps=2).train()
    with pytest.raises(UserInputError, match="saved with --save_only_model"):
        find_checkpoint("true", tmp_path / "light")


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"size": 64}, "model architecture"),
        ({"rows": 9}, "its training items, their votes or their order were others. Resume"),
        ({"seed": 1}, "its seed was 42, this run's was 1"),
        ({"gradient_accumulation_steps": 2}, "batch size over all processes"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(run_folder, tokenizer, options, what):
    with pytest.raises(UserInputError, match=what):
        make_trainer(run_folder, tokenizer, **options).train(resume_from_checkpoint=True)


def test_a_checkpoint_of_another_task_model_or_adapter_is_refused(run_folder, tokenizer):
    run = json.loads((run_folder / "checkpoint-6" / CHECKPOINT_FILE).read_text())["run"]
    for key, value in {
        "task": "snli",
        "model": "other/model",
        "labels": ["A", "B"],
        "adapter": "LORA r=8",
        "sharding": "DeepSpeed ZeRO-3",
    }.items():
        with pytest.raises(UserInputError, match="was saved by another run"):
            check_same_run(run_folder / "checkpoint-6", {**run, key: value})
    assert check_same_run(run_folder / "checkpoint-6", {**run, "world_size": 2}) == []


def test_zero_shards_of_another_number_of_processes_are_refused(run_folder):
    path = run_folder / "checkpoint-6" / CHECKPOINT_FILE
    content = json.loads(path.read_text())
    content["run"] |= {"sharding": "DeepSpeed ZeRO-2", "world_size": 4}
    path.write_text(json.dumps(content))
    with pytest.raises(UserInputError, match="shards of 4 processes, and DeepSpeed cannot redistribute them to 1"):
        check_same_run(path.parent, {**content["run"], "world_size": 1})


def test_resuming_says_what_it_passes_over_and_what_changed(run_folder, tokenizer, capsys):
    (run_folder / "checkpoint-6" / CHECKPOINT_FILE).unlink()
    trainer = make_trainer(run_folder, tokenizer, learning_rate=1e-3)
    trainer.train(resume_from_checkpoint=True)
    out = capsys.readouterr().out
    assert f"{run_folder / 'checkpoint-6'} is incomplete and skipped." in out
    assert "Resuming from" in out and "Changed: learning_rate" in out
    assert trainer.state.global_step == 6
    assert find_checkpoint("true", run_folder).path.endswith("checkpoint-6")


def test_old_checkpoints_go_only_once_the_new_one_is_whole(tokenizer, tmp_path, monkeypatch):
    import distjudge_trl.trainer.saving as module

    seen = []
    write = module.write_checkpoint_file

    def record(folder, run):
        seen.append(sorted(path.name for path in tmp_path.glob("checkpoint-*")))
        write(folder, run)

    monkeypatch.setattr(module, "write_checkpoint_file", record)
    make_trainer(tmp_path, tokenizer, save_total_limit=1).train()
    assert seen == [["checkpoint-2"], ["checkpoint-2", "checkpoint-4"], ["checkpoint-4", "checkpoint-6"]]
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-6"]


def test_a_save_that_fails_keeps_the_weights_that_were_there(tokenizer, tmp_path, monkeypatch):
    trainer = make_trainer(tmp_path, tokenizer)
    trainer.save_model()
    before = (tmp_path / "model.safetensors").read_bytes()

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(trainer.model, "save_pretrained", full)
    with pytest.raises(RunFailedError, match=r"cannot be written \(.*No space left"):
        trainer.save_model()
    assert (tmp_path / "model.safetensors").read_bytes() == before
    assert not list(tmp_path.glob(".saving-*"))


@pytest.fixture()
def small_disk(trained, tmp_path):
    """A file system of its own with room for one checkpoint and a half."""
    size = sum(path.stat().st_size for path in (trained / "checkpoint-2").rglob("*") if path.is_file())
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={int(1.5 * size) // 1024}k", "tmpfs", str(disk)]
    try:
        done = subprocess.run(mount, check=False, capture_output=True, text=True)
    except OSError as error:
        pytest.skip(f"mount: {error}")
    if done.returncode:
        pytest.skip(f"a file system of its own cannot be mounted here: {done.stderr.strip()}")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_costs_the_new_checkpoint_alone(small_disk, tokenizer):
    with pytest.raises(RunFailedError, match="checkpoint-4: cannot be written .*Earlier checkpoints are complete"):
        make_trainer(small_disk, tokenizer).train()
    assert sorted(path.name for path in small_disk.iterdir()) == ["README.md", "checkpoint-2"]
    assert find_checkpoint("true", small_disk) == (str(small_disk / "checkpoint-2"), [])
    for path in small_disk.glob("checkpoint-*"):
        trainer = make_trainer(small_disk, tokenizer, save_strategy="no")
        trainer.train(resume_from_checkpoint=str(path))
        assert trainer.state.global_step == 6


def test_a_process_that_does_not_write_touches_nothing(tokenizer, tmp_path, monkeypatch):
    """Every process of a DeepSpeed run is asked to save."""
    trainer = make_trainer(tmp_path, tokenizer)
    trainer.save_model()
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    monkeypatch.setattr(DistributionSFTConfig, "should_save", property(lambda self: False))
    trainer._save(str(tmp_path), state_dict={})
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before


def test_weights_in_other_pieces_do_not_stay_beside_the_new_ones(tokenizer, tmp_path):
    for name in ("model-00001-of-00002.safetensors", "model.safetensors.index.json", "notes.txt"):
        (tmp_path / name).write_text("old")
    make_trainer(tmp_path, tokenizer).save_model()
    names = {path.name for path in tmp_path.iterdir()}
    assert {"model.safetensors", "notes.txt", "judge.json"} <= names
    assert not {"model-00001-of-00002.safetensors", "model.safetensors.index.json"} & names


def test_a_damaged_best_checkpoint_is_named_and_not_the_one_that_is_resumed(tokenizer, tmp_path):
    best = {"load_best_model_at_end": True, "eval_strategy": "steps", "eval_steps": 2}
    trainer = make_trainer(tmp_path, tokenizer, eval_dataset=make_records(4), **best)
    trainer.train()
    state = json.loads((tmp_path / "checkpoint-6/trainer_state.json").read_text())
    state["best_model_checkpoint"] = str(tmp_path / "checkpoint-2")
    text = json.dumps(state).encode()
    size = (tmp_path / "checkpoint-6/trainer_state.json").stat().st_size
    (tmp_path / "checkpoint-6/trainer_state.json").write_bytes(text.ljust(size))
    file = tmp_path / "checkpoint-2/model.safetensors"
    file.write_bytes(b"\x7f" * file.stat().st_size)
    with pytest.raises(UserInputError, match="checkpoint-2: a file in it is damaged"):
        make_trainer(tmp_path, tokenizer, eval_dataset=make_records(4), **best).train("true")
