"""Memory that runs out is one line with the plan of the run, and exit code 1."""

import shlex

import pytest
import torch
from click.testing import CliRunner
from conftest import LABELS, make_records, make_tiny_model
from peft import LoraConfig

from distjudge_trl import Judge
from distjudge_trl.cli import main
from distjudge_trl.errors import MemoryExhaustedError, RunFailedError, explaining_memory, memory_exhausted
from distjudge_trl.judges import opening
from distjudge_trl.judges.judge import Judge as BaseJudge
from distjudge_trl.labels import LabelSpace
from distjudge_trl.recipe import Recipe
from distjudge_trl.trainer import DistributionSFTConfig, DistributionSFTTrainer
from distjudge_trl.trainer.out_of_memory import plan_command


CUDA = (
    "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 79.11 GiB of which 1.00 GiB is"
    " free. Including non-PyTorch memory, this process has 78.10 GiB memory in use."
)


def exhaust(*args, **kwargs):
    """The host's allocator, really asked for more than any machine has."""
    torch.empty(2**56, dtype=torch.int8)


def test_it_is_told_from_other_errors():
    with pytest.raises(RuntimeError) as host:
        exhaust()
    assert memory_exhausted(host.value).startswith("DefaultCPUAllocator: can't allocate memory: you tried to allocate")
    assert memory_exhausted(torch.OutOfMemoryError(CUDA)) == "CUDA out of memory. Tried to allocate 20.00 GiB."
    assert (
        memory_exhausted(RuntimeError("CUDA error: out of memory\nCUDA kernel errors")) == "CUDA error: out of memory"
    )
    assert memory_exhausted(RuntimeError("mat1 and mat2 shapes cannot be multiplied")) is None
    assert memory_exhausted(ValueError("out of memory")) is None
    inner, outer = explaining_memory(lambda: "inner."), explaining_memory(lambda: "outer")
    with pytest.raises(MemoryExhaustedError) as once, outer, inner:
        raise torch.OutOfMemoryError(CUDA)
    assert str(once.value) == "CUDA out of memory. Tried to allocate 20.00 GiB. inner."


def make_trainer(tokenizer, tmp_path, **settings):
    make_tiny_model(len(tokenizer)).save_pretrained(tmp_path / "model")
    return DistributionSFTTrainer(
        model=str(tmp_path / "model"),
        args=DistributionSFTConfig(
            str(tmp_path / "run"),
            bf16=False,
            report_to="none",
            disable_tqdm=True,
            gradient_accumulation_steps=2,
            per_device_train_batch_size=4,
            **settings,
        ),
        train_dataset=make_records(8),
        processing_class=tokenizer,
        label_space=LabelSpace(LABELS),
        peft_config=LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"),
    )


def test_a_run_that_runs_out_of_memory_names_its_plan(tokenizer, tmp_path, monkeypatch):
    """In training, in evaluation of single rows and as the model is loaded; the line can be run."""
    trainer = make_trainer(tokenizer, tmp_path, per_device_eval_batch_size=1)
    monkeypatch.setattr(DistributionSFTTrainer, "compute_loss", exhaust)
    messages = []
    for act in (trainer.train, lambda: trainer.predict(make_records(2))):
        with pytest.raises(MemoryExhaustedError) as error:
            act()
        messages.append(str(error.value))
    monkeypatch.setattr("trl.trainer.sft_trainer.create_model_from_path", exhaust)
    with pytest.raises(MemoryExhaustedError) as error:
        make_trainer(tokenizer, tmp_path)
    messages.append(str(error.value))
    lines = []
    for message in messages:
        reason, found, line = message.partition("What this run needs, and what would make it fit: distjudge-trl ")
        assert reason.startswith("DefaultCPUAllocator: can't allocate memory") and found and "\n" not in message
        lines.append(shlex.split(line))
    assert lines[0] == lines[1]
    words = dict(zip(lines[0][1::2], lines[0][2::2], strict=True))
    assert words["--model"] == str(tmp_path / "model") and words["--accelerate-config"] == "cpu"
    assert (words["--batch-size"], words["--gradient_accumulation_steps"], words["--lora_r"]) == ("4", "2", "4")
    assert words["--seq-len"] == "32" and words["--dtype"] == "float32" and words["--bf16"] == "False"
    # The data are not tokenized yet as the model is loaded.
    later = dict(zip(lines[2][1::2], lines[2][2::2], strict=True))
    assert {name for name in words if words[name] != later.get(name)} == {"--seq-len", "--dtype"}
    done = CliRunner().invoke(main, lines[0])
    assert done.exit_code == 0 and "LoRA" in done.output and "32 tokens" in done.output, done.output


def test_evaluation_that_runs_out_of_memory_names_its_batch_size(tokenizer, tmp_path, monkeypatch):
    trainer = make_trainer(tokenizer, tmp_path, per_device_eval_batch_size=64)
    monkeypatch.setattr(DistributionSFTTrainer, "prediction_step", exhaust)
    for act in (lambda: trainer.evaluate(trainer.train_dataset), lambda: trainer.predict(make_records(2))):
        with pytest.raises(MemoryExhaustedError, match=r"smaller --per_device_eval_batch_size \(now 64\)\.$"):
            act()


@pytest.mark.parametrize("share", ["auto", True])
def test_memory_that_runs_out_as_packs_are_tried_says_nothing_of_the_model(tokenizer, tmp_path, monkeypatch, share):
    """Neither is sharing turned off in silence, on this process alone, nor is the model said to take no packs."""
    monkeypatch.setattr("distjudge_trl.batching.sharing.pack_mask", exhaust)
    with pytest.raises(MemoryExhaustedError, match="What this run needs, and what would make it fit: distjudge-trl"):
        make_trainer(tokenizer, tmp_path, share_prefixes=share)


def test_the_plan_of_float16_counts_mixed_precision(tmp_path):
    """`plan` knows it as `--bf16`."""
    args = DistributionSFTConfig(str(tmp_path), bf16=False)
    args.fp16 = True
    words = shlex.split(plan_command(args, "m", None, None, None))
    assert words[words.index("--bf16") + 1] == "True"


def test_a_batch_size_that_was_found_is_the_one_that_is_recorded(tokenizer, tmp_path, monkeypatch):
    """`auto_find_batch_size` lowers it until it fits; rows of attempts that failed count nothing in what is logged."""
    from accelerate.utils import memory

    # It collects all garbage before every attempt.
    monkeypatch.setattr(memory, "clear_device_cache", lambda **kwargs: None)
    seen = []
    compute_loss = DistributionSFTTrainer.compute_loss

    def limited(self, model, inputs, *args, **kwargs):
        size = len(inputs["reference"])
        loss = compute_loss(self, model, inputs, *args, **kwargs)
        seen.append(size)
        if len(seen) == 2:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return loss

    monkeypatch.setattr(DistributionSFTTrainer, "compute_loss", limited)
    trainer = make_trainer(tokenizer, tmp_path, auto_find_batch_size=True, max_steps=1, logging_steps=1)
    popped = []
    means = trainer._means
    pop = means.pop
    monkeypatch.setattr(means, "pop", lambda mode, a: popped.append(means.sums[mode][-1].item()) or pop(mode, a))
    trainer.train()
    trainer.save_model()
    # Two batches, accumulated.
    assert seen == [4, 4, 3, 3] and popped == [6]
    assert Judge.from_pretrained(str(tmp_path / "run")).judge_file.training["train_batch_size"] == 6


def test_a_judge_that_runs_out_of_memory_says_what_to_change(tokenizer, tmp_path, monkeypatch):
    trainer = make_trainer(tokenizer, tmp_path)
    trainer.save_model()
    judge = Judge.from_pretrained(str(tmp_path / "run"))
    monkeypatch.setattr(judge.model, "forward", exhaust)
    with pytest.warns(UserWarning, match="going on with 1"), pytest.raises(RunFailedError, match="a single prompt"):
        judge.judge(make_records(2), batch_size=7)


@pytest.mark.parametrize("stage", ["loading", "reading"])
def test_the_command_line_ends_with_one_line_and_exit_code_1(tokenizer, tmp_path, monkeypatch, stage):
    make_trainer(tokenizer, tmp_path).save_model()
    (tmp_path / "items.jsonl").write_text('{"prompt": [{"role": "user", "content": "x"}]}\n')
    monkeypatch.setattr(opening, "open_judge", exhaust if stage == "loading" else lambda *a, **k: _Reader())
    arguments = [
        "judge",
        "--model",
        str(tmp_path / "run"),
        "--input",
        str(tmp_path / "items.jsonl"),
        "--out",
        str(tmp_path / "out.jsonl"),
    ]
    done = CliRunner().invoke(main, arguments)
    error = done.output.splitlines()[-1]  # the bar of the rows may stand before it
    assert done.exit_code == 1 and error.startswith("error: DefaultCPUAllocator: can't allocate memory")
    assert (
        done.output.count("error:") == 1 and "Traceback" not in done.output and not (tmp_path / "out.jsonl").exists()
    )


@pytest.mark.parametrize(
    ("kind", "said"), [(MemoryExhaustedError, "error (rank 3): no memory\n"), (RunFailedError, "")]
)
def test_every_process_of_a_recipe_says_that_its_own_memory_ran_out(monkeypatch, capsys, kind, said):
    """What all processes know is said once a machine."""

    def fail(self, argv=None):
        raise kind("no memory")

    monkeypatch.setattr(Recipe, "run", fail)
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("LOCAL_RANK", "3")
    with pytest.raises(SystemExit) as stopped:
        Recipe(task="vader", model="smollm2-135m").main([])
    assert stopped.value.code == 1 and capsys.readouterr().err == said


class _Reader(BaseJudge):
    label_space = LabelSpace(LABELS)
    _read_prompts = exhaust
