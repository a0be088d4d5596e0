"""scripts/to_gguf.py: llama.cpp reads what it writes, and gives the distributions that transformers gives."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import ROOT, SHARED, make_tiny_model, make_tokenizer
from llama_server import llama_server
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from distjudge_trl.errors import UserInputError


MESSAGES = [{"role": "user", "content": "rate the text: the judge's 3 yes and 41 no's, naïve — ok?\n\n  1 to 5"}]


@pytest.fixture(scope="module")
def convert(scripts):
    return scripts("to_gguf").convert


def make_qwen2(vocab_size):
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=vocab_size, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=256, tie_word_embeddings=False,
    )  # fmt: skip
    model = Qwen2ForCausalLM(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.add_(0.3 * torch.randn(weight.shape)) if "bias" in name else weight.mul_(4)
    return model


MODELS = {"llama": lambda size: make_tiny_model(size, hidden_size=64), "qwen2": make_qwen2}


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize(("type_", "tolerance"), [("f32", 0.02), ("q8_0", 0.6)])
def test_llama_cpp_reads_the_same_distribution(convert, tokenizer, tmp_path, kind, type_, tolerance):
    model = MODELS[kind](len(tokenizer))
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    convert(tmp_path / "model", tmp_path / "m.gguf", type_)
    inputs = tokenizer.apply_chat_template(MESSAGES, add_generation_prompt=True, return_dict=True, return_tensors="pt")
    with torch.inference_mode():
        expected = model(**inputs).logits[0, -1].log_softmax(-1).numpy()
    assert expected.std() > 1, "tokens can be told apart"
    with llama_server(tmp_path / "m.gguf") as post:
        prompt = tokenizer.apply_chat_template(MESSAGES, add_generation_prompt=True, tokenize=False)
        assert post("/tokenize", {"content": prompt})["tokens"] == inputs["input_ids"][0].tolist()
        body = {"messages": MESSAGES, "max_tokens": 1, "logprobs": True, "top_logprobs": len(tokenizer)}
        answer = post("/v1/chat/completions", body)
    top = answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
    assert len(top) == len(tokenizer)
    found = np.empty(len(tokenizer))
    for token in top:
        found[token["id"]] = token["logprob"]
    np.testing.assert_allclose(found, expected, atol=tolerance)


@pytest.mark.shared
@pytest.mark.parametrize("name", ["llama3", "qwen2.5"])
def test_texts_are_cut_as_the_tokenizer_cuts_them(convert, tmp_path, name):
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(SHARED / f"tokenizers/{name}/tokenizer.json"))
    make_tiny_model(len(tokenizer)).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    convert(tmp_path / "model", tmp_path / "m.gguf", "f16")
    with llama_server(tmp_path / "m.gguf") as post:
        for text in (MESSAGES[0]["content"], "12345 DON'T you'll\t\tGrüße 漢字 🙂\r\n", "x = [1,2]; # 3.14159"):
            tokens = post("/tokenize", {"content": text})["tokens"]
            assert tokens == tokenizer(text, add_special_tokens=False)["input_ids"], text


def test_the_tokenizer_of_the_tests_cuts_as_smollm_does(scripts):
    assert scripts("to_gguf").pre_tokenizer(json.loads(make_tokenizer().backend_tokenizer.to_str())) == "smollm"


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        ("config.json", {"model_type": "gemma3_text"}, "The architecture 'gemma3_text' is not supported here"),
        ("config.json", {"rope_parameters": {"rope_type": "llama3", "rope_theta": 1.0}}, "A scaled rotary embedding"),
        ("config.json", {"quantization_config": {"load_in_4bit": True}}, "A quantised model is not supported"),
        ("tokenizer.json", {"pre_tokenizer": {"type": "Metaspace"}}, "way to cut a text (Metaspace) is not supported"),
        ("tokenizer.json", {"model": {"type": "Unigram"}}, "A tokenizer other than byte-level BPE"),
    ],
)
def test_what_it_does_not_know_is_one_line_and_leaves_nothing(convert, tokenizer, tmp_path, file, changes, message):
    make_tiny_model(len(tokenizer)).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    content = json.loads((tmp_path / "model" / file).read_text())
    if message.startswith("A tokenizer"):
        changes = {"model": {**content["model"], **changes["model"]}}
    (tmp_path / "model" / file).write_text(json.dumps({**content, **changes}))
    (tmp_path / "m.gguf").write_text("kept")
    with pytest.raises(UserInputError) as error:
        convert(tmp_path / "model", tmp_path / "m.gguf", "f16")
    assert message in str(error.value) and "convert_hf_to_gguf.py" in str(error.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.gguf", "model"]
    assert (tmp_path / "m.gguf").read_text() == "kept"


def test_a_model_that_lacks_weights_or_is_damaged_is_not_written(convert, tokenizer, tmp_path):
    make_tiny_model(len(tokenizer)).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    path = tmp_path / "model/config.json"
    config = json.loads(path.read_text())
    for changes, message in (
        ({"num_hidden_layers": 99}, "lacks .* weights, 'blk"),
        ({"num_attention_heads": None}, "is damaged"),
    ):
        path.write_text(json.dumps({**config, **changes}))
        with pytest.raises(UserInputError, match=message):
            convert(tmp_path / "model", tmp_path / "m.gguf", "f16")
    (tmp_path / "model/model.safetensors").write_bytes(b"x" * 100)
    with pytest.raises(UserInputError, match="is damaged"):
        convert(tmp_path / "model", tmp_path / "m.gguf", "f16")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_an_adapter_is_to_be_merged_first(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    words = [sys.executable, "scripts/to_gguf.py", str(tmp_path), "--out", str(tmp_path / "m.gguf")]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stderr.endswith("Merge an adapter first.\n"), done.stderr
