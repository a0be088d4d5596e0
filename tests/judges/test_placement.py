"""Where a judge computes: devices, maps of devices, memory that is too small, attention; and untrained models' types.

What a trained judge is read in on each kind of hardware is tested in tests/runtime/test_precision.py.
"""

import json
import shutil
import warnings

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from conftest import LABELS, make_records, make_tiny_model
from peft import LoraConfig, get_peft_model
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForCausalLM

from distjudge_trl import Judge
from distjudge_trl.batching.pack_attention import PACK_ATTENTION
from distjudge_trl.cli import main
from distjudge_trl.errors import RunFailedError, UserInputError
from distjudge_trl.judge_folder.judge_file import JudgeFile
from distjudge_trl.judges.placement import default_dtype, find_device
from distjudge_trl.labels import LabelSpace
from distjudge_trl.recipe import Recipe
from distjudge_trl.runtime.precision import Precision


RECORDS = make_records(11)


@pytest.fixture(scope="module")
def folder(tokenizer, tmp_path_factory):
    """A model whose head is a weight of its own, so that it can be elsewhere than the embeddings."""
    path = tmp_path_factory.mktemp("model")
    model = make_tiny_model(len(tokenizer))
    model.config.tie_word_embeddings = False
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return str(path)


def untrained(folder, **kwargs):
    return Judge.from_pretrained(folder, label_space=LabelSpace(LABELS), **kwargs)


@pytest.fixture()
def expected(folder):
    return untrained(folder).judge(RECORDS)


# Devices


@pytest.mark.parametrize("kind", ["cuda", "xpu", "mps"])
def test_the_accelerator_is_the_one_that_torch_sees(monkeypatch, kind):
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available: torch.device(kind))
    assert find_device() == torch.device(kind)


def test_without_an_accelerator_the_cpu_computes(monkeypatch):
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available: None)
    assert find_device() == torch.device("cpu") == find_device("cpu")
    with pytest.raises(UserInputError, match="--device cuda: this machine has cpu"):
        find_device("cuda")
    with pytest.raises(UserInputError, match="--device gpu: is not the name of a device such as cpu"):
        find_device("gpu")


def test_a_device_that_is_not_there(monkeypatch):
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available: torch.device("cuda"))
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)
    assert find_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(UserInputError, match="--device cuda:2: this machine has 2 of them"):
        find_device("cuda:2")
    with pytest.raises(UserInputError, match="--device xpu: this machine has cpu and cuda"):
        find_device("xpu")


@pytest.mark.parametrize("decided", ["float32", "float16", "bfloat16"])
def test_untrained_models_are_read_on_a_gpu_in_the_type_that_it_computes_in(monkeypatch, decided):
    monkeypatch.setattr("distjudge_trl.judges.placement.decide_precision", lambda: Precision(decided, "a test"))
    assert default_dtype(torch.device("cuda")) == getattr(torch, decided)
    assert default_dtype(torch.device("cpu")) == torch.float32


def test_that_is_of_the_weights_of_untrained_models_alone(folder, tmp_path, monkeypatch, expected):
    monkeypatch.setattr("distjudge_trl.judges.local.default_dtype", lambda device: torch.bfloat16)
    judge = untrained(folder)
    assert judge.model.dtype == torch.bfloat16 and judge.reading()["dtype"] == "bfloat16"
    # A head in bfloat16 would give the same probability to several labels.
    log_probs = judge.read(make_records(40)).log_probs
    assert all(len(set(row)) == len(LABELS) for row in log_probs.tolist())
    np.testing.assert_allclose(judge.judge(RECORDS), expected, atol=0.05)
    shutil.copytree(folder, tmp_path / "judge")
    JudgeFile(label_space=LabelSpace(LABELS).to_dict()).write(tmp_path / "judge")
    assert Judge.from_pretrained(str(tmp_path / "judge")).model.dtype == torch.float32
    assert Judge.from_pretrained(str(tmp_path / "judge"), dtype="float16").model.dtype == torch.float16


class NoDoubles(TorchDispatchMode):
    """A device without float64, such as MPS."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and result.dtype == torch.float64:
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype")
        return result


@pytest.mark.parametrize("top_k", [None, 2])
def test_a_device_needs_no_float64(folder, top_k):
    judge = untrained(folder, top_k=top_k)
    with NoDoubles():
        judgments = judge.read(RECORDS)
    assert judgments.log_probs.dtype == judgments.mass.dtype == np.float64
    np.testing.assert_allclose(judgments.probabilities.sum(-1), 1, atol=1e-12)


# Models that are spread over devices

ENDS = ("model.embed_tokens", "lm_head")


@pytest.mark.parametrize(
    "device_map",
    [
        "auto",
        {"model": "cpu", "lm_head": "disk"},
        {**dict.fromkeys(("model.layers", "model.norm", "model.rotary_emb"), "cpu"), **dict.fromkeys(ENDS, "disk")},
    ],
)
def test_a_model_that_is_spread_reads_the_same(folder, expected, device_map):
    """The head among what is offloaded: it comes first there, and is read in float32 all the same."""
    judge = untrained(folder, device_map=device_map)
    np.testing.assert_allclose(judge.judge(RECORDS), expected, atol=1e-6)
    if device_map != "auto":
        assert judge.model.lm_head.weight.is_meta


def test_an_adapter_on_a_model_that_is_spread(folder, tmp_path, tokenizer):
    model = AutoModelForCausalLM.from_pretrained(folder)
    adapted = get_peft_model(model, LoraConfig(target_modules=["q_proj"], init_lora_weights=False))
    adapted.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    JudgeFile(label_space=LabelSpace(LABELS).to_dict(), base_model=folder, dtype="float32").write(tmp_path)
    plain, spread = (Judge.from_pretrained(str(tmp_path), device_map=where) for where in (None, "auto"))
    np.testing.assert_allclose(plain.judge(RECORDS), spread.judge(RECORDS), atol=1e-6)
    with pytest.raises(UserInputError, match="an adapter cannot be put on offloaded weights. Merge them first"):
        Judge.from_pretrained(str(tmp_path), device_map={"model": "cpu", "lm_head": "disk"})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"device": "cpu", "device_map": "auto"}, "--device and --device-map: give one of them"),
        ({"device_map": "cuda"}, "--device-map cuda: choose one of auto, balanced"),
    ],
)
def test_maps_that_say_nothing(folder, arguments, message):
    with pytest.raises(UserInputError, match=message):
        untrained(folder, **arguments)


# Memory


def shrink_memory(judge, most, error=torch.OutOfMemoryError):
    """Let the model take batches of at most `most` rows; returns the list of what it was given."""
    given, forward = [], judge.model.forward

    def limited(input_ids, **kwargs):
        given.append(len(input_ids))
        if len(input_ids) > most:
            raise error("CUDA out of memory. Tried to allocate 7.00 GiB.")
        return forward(input_ids=input_ids, **kwargs)

    judge.model.forward = limited
    return given


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, RuntimeError])
def test_batches_that_do_not_fit_are_halved(folder, expected, error):
    judge = untrained(folder, share_prefixes=False)
    given = shrink_memory(judge, 3, error)
    with pytest.warns(UserWarning, match="going on with") as told:
        judged = judge.judge(RECORDS, batch_size=8)
    np.testing.assert_allclose(judged, expected, atol=1e-6)
    assert given == [8, 4, 2, 2, 2, 2, 2, 1]
    assert [str(warning.message)[:29] for warning in told] == [
        "8 prompts in one forward pass",
        "4 prompts in one forward pass",
    ]
    given.clear()
    judge.judge(RECORDS, batch_size=8)
    assert max(given) == 2, "it knows what fits"


def test_a_single_prompt_that_does_not_fit(folder):
    judge = untrained(folder)
    shrink_memory(judge, 0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(RunFailedError, match="Not even a single prompt fits into memory.*--device-map auto"):
            judge.judge(RECORDS)


def test_other_errors_are_not_taken_for_a_lack_of_memory(folder):
    judge = untrained(folder)

    def broken(**kwargs):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    judge.model.forward = broken
    with pytest.raises(RuntimeError, match="illegal memory access"):
        judge.judge(RECORDS)


def test_a_model_that_does_not_fit(folder, monkeypatch):
    from transformers import LlamaForCausalLM

    def full(self, *args, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(LlamaForCausalLM, "to", full)
    with pytest.raises(RunFailedError, match="does not fit into the memory of cpu. Give --dtype bfloat16"):
        untrained(folder, device="cpu")


# Attention


def test_a_judge_reads_with_the_attention_that_it_was_trained_with(folder, tmp_path):
    rows = [{"text": f"the text {i}", "votes": ["1", "2", str(i % 3 + 1)]} for i in range(30)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "task.yaml").write_text(
        "name: t\nlabels: ['1', '2', '3']\ntemplate: 'rate {{ text }}'\nsource: rows.jsonl\nvotes: {list: votes}\n"
    )
    recipe = Recipe(task=None, model=folder, training={"max_steps": 1, "save_strategy": "no"})
    argv = ["--task", str(tmp_path / "task.yaml"), "--output_dir", str(tmp_path / "judge"), "--bf16", "False"]
    recipe.run([*argv, "--attn_implementation", "eager"])
    assert JudgeFile.read(tmp_path / "judge").attn_implementation == "eager"
    judge = Judge.from_pretrained(str(tmp_path / "judge"))
    assert judge.reading()["attn_implementation"] == judge.model.config._attn_implementation == "eager"
    assert Judge.from_pretrained(str(tmp_path / "judge"), attn_implementation="sdpa").reading() == {
        **judge.reading(),
        "attn_implementation": "sdpa",
    }


def test_a_judge_tells_no_attention_that_only_this_process_knows(folder):
    judge = untrained(folder)
    told = judge.reading()
    # As `find_sharing` does on a GPU.
    judge.model.set_attn_implementation(PACK_ATTENTION)
    assert judge.reading() == told and told["attn_implementation"] == "sdpa"


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("flash_attention_2", "not there on this machine"),
        ("no_such_attention", "not there on this machine"),
        # Its code would be fetched and run.
        ("someone/kernel", "not used without --trust-remote-code"),
    ],
)
def test_attention_that_cannot_be_used_is_told(folder, tmp_path, name, why, expected):
    shutil.copytree(folder, tmp_path / "judge")
    JudgeFile(label_space=LabelSpace(LABELS).to_dict(), attn_implementation=name).write(tmp_path / "judge")
    with pytest.warns(
        UserWarning, match=f"attn_implementation={name}, which is {why}: its numbers differ by rounding"
    ):
        judge = Judge.from_pretrained(str(tmp_path / "judge"))
    np.testing.assert_allclose(judge.judge(RECORDS), expected, atol=1e-6)


def test_judge_files_from_before_it_was_kept_are_read(tmp_path):
    JudgeFile(label_space=LabelSpace(LABELS).to_dict()).write(tmp_path)
    content = json.loads((tmp_path / "judge.json").read_text())
    del content["attn_implementation"]
    (tmp_path / "judge.json").write_text(json.dumps(content))
    assert JudgeFile.read(tmp_path).attn_implementation is None


# The commands


def test_commands_take_device_and_type(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "judge")
    template = [{"role": "user", "content": "rate {{ text }}"}]
    JudgeFile(label_space=LabelSpace(LABELS).to_dict(), template=template).write(tmp_path / "judge")
    (tmp_path / "in.jsonl").write_text('{"text": "yes"}\n')
    command = ["judge", "--model", str(tmp_path / "judge"), "--input", str(tmp_path / "in.jsonl")]
    outputs = []
    for options in ((), ("--device", "cpu", "--dtype", "bfloat16"), ("--device-map", "auto")):
        done = CliRunner().invoke(main, [*command, *options, "--out", str(tmp_path / "out.jsonl")])
        assert done.exit_code == 0, done.output
        outputs.append(json.loads((tmp_path / "out.jsonl").read_text())["label_distribution"])
    assert outputs[0] == outputs[2] != outputs[1]
    assert outputs[1] == pytest.approx(outputs[0], abs=0.05)
    for words in (command, ["evaluate", "--model", folder, "--task", "vader"]):
        done = CliRunner().invoke(main, [*words, "--device", "tpu9", "--out", str(tmp_path / "x")])
        assert done.exit_code == 2 and "error: --device tpu9: is not the name of a device" in done.output, done.output
