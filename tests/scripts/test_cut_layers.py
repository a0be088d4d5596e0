"""scripts/cut_layers.py: the first layers of a model are a model."""

import shutil
import sys

import pytest
import torch
from conftest import make_tiny_model, make_tokenizer
from transformers import AutoModelForCausalLM

from distjudge_trl.errors import UserInputError


@pytest.fixture()
def script(scripts):
    return scripts("cut_layers")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    tokenizer = make_tokenizer()
    make_tiny_model(len(tokenizer)).save_pretrained(folder)  # two layers
    tokenizer.save_pretrained(folder)
    return folder


def call(script, monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["cut_layers.py", *map(str, words)])
    script.main()


def test_what_stays_computes_what_it_did(script, monkeypatch, whole, tmp_path, capsys):
    call(script, monkeypatch, whole, "--layers", 1, "--out", tmp_path / "cut")
    assert "1 layer, " in capsys.readouterr().out
    before, after = (AutoModelForCausalLM.from_pretrained(each) for each in (whole, tmp_path / "cut"))
    tokens = torch.arange(5)[None]
    with torch.no_grad():
        hidden = before(tokens, output_hidden_states=True).hidden_states[1]
        expected = before.lm_head(before.get_decoder().norm(hidden))
        found = after(tokens).logits
    assert after.config.num_hidden_layers == 1
    torch.testing.assert_close(found, expected)
    assert not torch.allclose(found, before(tokens).logits)


@pytest.mark.parametrize(("layers", "match"), [(0, "from 1 to 2"), (3, "from 1 to 2, which the model has; got 3")])
def test_layers_that_it_does_not_have(script, monkeypatch, whole, tmp_path, layers, match):
    with pytest.raises(UserInputError, match=match):
        call(script, monkeypatch, whole, "--layers", layers, "--out", tmp_path / "cut")
    assert not (tmp_path / "cut").exists()


def test_nothing_is_overwritten(script, monkeypatch, whole):
    with pytest.raises(UserInputError, match="is not empty"):
        call(script, monkeypatch, whole, "--layers", 1, "--out", whole)


def test_a_model_that_is_not_there(script, monkeypatch, tmp_path):
    with pytest.raises(UserInputError, match="nowhere: cannot be read"):
        call(script, monkeypatch, tmp_path / "nowhere", "--layers", 1, "--out", tmp_path / "cut")


def test_a_damaged_model(script, monkeypatch, whole, tmp_path):
    shutil.copytree(whole, tmp_path / "damaged")
    weights = tmp_path / "damaged/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(UserInputError, match="damaged: cannot be read"):
        call(script, monkeypatch, tmp_path / "damaged", "--layers", 1, "--out", tmp_path / "cut")
    assert not (tmp_path / "cut").exists()
