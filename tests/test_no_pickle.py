"""Files that would run code when they are unpickled: none of them is, wherever weights or states are loaded."""

import json
import os
import pickle
import shutil

import pytest
import torch
from click.testing import CliRunner
from conftest import LABELS, make_records, make_tiny_model
from peft import LoraConfig, get_peft_model

from distjudge_trl import Judge
from distjudge_trl.cli import main
from distjudge_trl.errors import UserInputError
from distjudge_trl.judge_folder.judge_file import JudgeFile
from distjudge_trl.labels import LabelSpace
from distjudge_trl.trainer import DistributionSFTConfig, DistributionSFTTrainer
from distjudge_trl.trainer.checkpoints import CHECKPOINT_FILE, write_checkpoint_file
from distjudge_trl.trainer.deepspeed_states import check_states


class Malicious:
    """Makes a folder when it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


@pytest.fixture()
def ran(tmp_path):
    """The folder that exists once a pickle has run. It works: the plain reader runs it."""
    mark = tmp_path / "ran"
    pickle.loads(pickle.dumps(Malicious(mark)))
    mark.rmdir()
    yield mark
    assert not mark.exists(), "code of a file has run"


def write_pickle(path, mark, *, plain=False):
    if plain:
        path.write_bytes(pickle.dumps(Malicious(mark)))
    else:
        torch.save({"weight": torch.ones(2), "state": Malicious(mark)}, path)


@pytest.fixture()
def judge(tokenizer, tmp_path):
    folder = tmp_path / "judge"
    make_tiny_model(len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    template = [{"role": "user", "content": "rate the text: {{ text }}"}]
    JudgeFile(label_space=LabelSpace(LABELS).to_dict(), template=template).write(folder)
    (tmp_path / "items.jsonl").write_text('{"text": "no"}\n')
    return folder


def run(tmp_path, folder):
    words = ["--model", folder, "--input", tmp_path / "items.jsonl", "--out", tmp_path / "out.jsonl"]
    return CliRunner().invoke(main, ["judge", *map(str, words)])


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("name", ["pytorch_model.bin", "pytorch_model-00001-of-00002.bin"])
def test_a_judge_with_pickled_weights_is_refused(judge, tmp_path, ran, name, plain):
    (judge / "model.safetensors").unlink()
    write_pickle(judge / name, ran, plain=plain)
    done = run(tmp_path, judge)
    assert done.exit_code == 2 and f"error: {judge / name}: is a pickle" in done.output, done.output
    assert done.output.count("\n") == 1 and not (tmp_path / "out.jsonl").exists()


def test_pickles_beside_a_judge_s_weights_are_not_looked_at(judge, tmp_path, ran):
    names = ("pytorch_model.bin", "adapter_model.bin", "training_args.bin", "optimizer.pt", "scheduler.pt")
    for name in (*names, "rng_state.pth", "scaler.pt", "tokenizer.pkl"):
        write_pickle(judge / name, ran)
    assert run(tmp_path, judge).exit_code == 0


@pytest.mark.parametrize("command", ["judge", "merge"])
def test_an_adapter_that_is_a_pickle_is_refused(judge, tokenizer, tmp_path, ran, command):
    adapter = tmp_path / "adapter"
    tokenizer.save_pretrained(adapter)
    config = LoraConfig(target_modules=["q_proj"], task_type="CAUSAL_LM")
    get_peft_model(make_tiny_model(len(tokenizer)), config).save_pretrained(adapter)
    JudgeFile(label_space=LabelSpace(LABELS).to_dict(), base_model=str(judge), dtype="float32").write(adapter)
    assert Judge.from_pretrained(str(adapter)).judge(make_records(1)).shape == (1, 5)
    (adapter / "adapter_model.safetensors").unlink()
    write_pickle(adapter / "adapter_model.bin", ran)
    if command == "judge":
        (tmp_path / "items.jsonl").write_text('{"prompt": [{"role": "user", "content": "rate"}]}\n')
        done = run(tmp_path, adapter)
    else:
        done = CliRunner().invoke(main, ["merge", "--model", str(adapter), "--out", str(tmp_path / "out")])
    assert done.exit_code == 2 and "adapter_model.bin: is a pickle" in done.output, done.output


@pytest.mark.parametrize("plain", [False, True])
def test_an_untrained_model_s_pickle_is_read_as_tensors_alone(judge, tokenizer, tmp_path, ran, plain):
    """Old models on the hub have no other weights. torch reads tensors from them, and calls nothing."""
    model = make_tiny_model(len(tokenizer))
    (judge / "judge.json").unlink()
    (judge / "model.safetensors").unlink()
    torch.save(model.state_dict(), judge / "pytorch_model.bin")
    space = LabelSpace(LABELS)
    assert Judge.from_pretrained(str(judge), label_space=space).judge(make_records(2)).shape == (2, 5)
    write_pickle(judge / "pytorch_model.bin", ran, plain=plain)
    with pytest.raises(UserInputError, match="cannot be loaded: its weights are a pickle that") as error:
        Judge.from_pretrained(str(judge), label_space=space)
    assert ("is damaged, or holds more than tensors" if plain else "would call posix.mkdir") in str(error.value)


def test_training_does_not_start_from_a_malicious_model(judge, tmp_path, ran):
    (judge / "judge.json").unlink()
    (judge / "model.safetensors").unlink()
    write_pickle(judge / "pytorch_model.bin", ran)
    rows = [{"text": f"the text {i}", "votes": ["1", "2", str(i % 3 + 1)]} for i in range(30)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "task.yaml").write_text(
        "name: t\nlabels: ['1', '2', '3']\ntemplate: 'rate {{ text }}'\nsource: rows.jsonl\nvotes: {list: votes}\n"
    )
    from distjudge_trl.recipe import Recipe

    words = ["--task", str(tmp_path / "task.yaml"), "--output_dir", str(tmp_path / "out"), "--bf16", "False"]
    with pytest.raises(UserInputError, match="its weights are a pickle that would call"):
        Recipe(task=None, model=str(judge)).run(words)


def make_trainer(tokenizer, folder, max_steps):
    settings = {"save_steps": 1, "per_device_train_batch_size": 2, "report_to": "none", "disable_tqdm": True}
    return DistributionSFTTrainer(
        model=make_tiny_model(len(tokenizer)),
        args=DistributionSFTConfig(str(folder), max_steps=max_steps, bf16=False, **settings),
        train_dataset=make_records(8),
        processing_class=tokenizer,
        label_space=LabelSpace(LABELS),
    )


@pytest.fixture(scope="module")
def checkpoint(tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    make_trainer(tokenizer, folder, 1).train()
    return folder / "checkpoint-1"


@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth", "pytorch_model.bin"])
def test_a_run_does_not_resume_from_a_malicious_state(checkpoint, tokenizer, tmp_path, ran, name):
    """Even if `checkpoint.json` says that all is well."""
    folder = tmp_path / "checkpoint-1"
    shutil.copytree(checkpoint, folder)
    if name == "pytorch_model.bin":
        (folder / "model.safetensors").unlink()
    else:
        assert (folder / name).is_file()
    write_pickle(folder / name, ran)
    about = json.loads((folder / CHECKPOINT_FILE).read_text())["run"]
    write_checkpoint_file(folder, about)
    with pytest.raises(UserInputError, match=r"a file in it would call posix\.mkdir\. Delete the folder"):
        make_trainer(tokenizer, tmp_path, 2).train(resume_from_checkpoint=str(folder))


def test_states_of_deepspeed_are_looked_at_before_it_unpickles_them(tmp_path, ran):
    pytest.importorskip("deepspeed")
    from deepspeed.runtime.fp16.loss_scaler import LossScaler
    from deepspeed.runtime.zero.config import ZeroStageEnum
    from deepspeed.utils.tensor_fragment import fragment_address

    folder = tmp_path / "checkpoint-1" / "global_step1"
    folder.mkdir(parents=True)
    state = {"scaler": LossScaler(1), "stage": ZeroStageEnum(2), "map": fragment_address(3, 0), "w": torch.ones(2)}
    torch.save({"optimizer_state_dict": state}, folder / "zero_pp_rank_0_mp_rank_00_optim_states.pt")
    check_states(tmp_path / "checkpoint-1")
    path = folder / "mp_rank_00_model_states.pt"
    for plain, message in ((False, "would call posix.mkdir, so it is not loaded"), (True, "is no state of DeepSpeed")):
        write_pickle(path, ran, plain=plain)
        with pytest.raises(UserInputError) as error:
            check_states(tmp_path / "checkpoint-1")
        assert str(error.value).startswith(f"{path}: {message}")


def test_a_run_resumes_past_arguments_that_are_malicious(checkpoint, tokenizer, tmp_path, ran):
    folder = tmp_path / "checkpoint-1"
    shutil.copytree(checkpoint, folder)
    write_pickle(folder / "training_args.bin", ran)
    write_checkpoint_file(folder, json.loads((folder / CHECKPOINT_FILE).read_text())["run"])
    trainer = make_trainer(tokenizer, tmp_path, 2)
    trainer.train(resume_from_checkpoint=str(folder))
    assert trainer.state.global_step == 2
