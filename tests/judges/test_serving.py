"""docs/serving.md: its snippets read a trained judge and a merged adapter as `Judge` does, with transformers alone and
through llama.cpp's server.
"""

import ast
import json
import re
import shutil

import numpy as np
import pytest
import torch
from conftest import LABELS, ROOT, make_records, make_tiny_model
from huggingface_hub import ModelCard
from peft import LoraConfig
from transformers import AutoModelForCausalLM

from distjudge_trl import Judge
from distjudge_trl.judge_folder.judge_file import JudgeFile
from distjudge_trl.judge_folder.label_tokens import LABEL_TOKENS_NAME
from distjudge_trl.judges.merge import merge
from distjudge_trl.labels import LabelSpace
from distjudge_trl.trainer import DistributionSFTConfig, DistributionSFTTrainer


PAGE = (ROOT / "docs/serving.md").read_text("utf-8")
SNIPPETS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
TEMPLATE = [
    {"role": "system", "content": "The judge rates."},
    {"role": "user", "content": "rate the text: {{ text }}{% if note %} ({{ note }}){% endif %}"},
]
ITEMS = [{"text": "no", "note": ""}, {"text": "yes yes 12 — naïve <b>", "note": "the judge"}]


def train(folder, tokenizer, labels, **settings):
    base = folder / "base"
    make_tiny_model(len(tokenizer), hidden_size=64).save_pretrained(base)
    tokenizer.save_pretrained(base)
    trainer = DistributionSFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32),
        args=DistributionSFTConfig(
            str(folder / "judge"), max_steps=5, learning_rate=1e-2, bf16=False, report_to="none", disable_tqdm=True,
            save_strategy="no",
        ),
        train_dataset=make_records(24, labels.labels),
        processing_class=tokenizer,
        label_space=labels,
        judge_file=JudgeFile(label_space={}, template=TEMPLATE, base_model=str(base)),
        **settings,
    )  # fmt: skip
    trainer.train()
    trainer.save_model()
    return folder / "judge"


@pytest.fixture(scope="module")
def judges(tokenizer, tmp_path_factory):
    """A judge with all weights, whose labels have several spellings, and a merged adapter."""
    words = LabelSpace(["yes", "no"], {"no": ["neutral"]})
    full = train(tmp_path_factory.mktemp("full"), tokenizer, words)
    lora = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    adapter = train(tmp_path_factory.mktemp("lora"), tokenizer, LabelSpace(LABELS), peft_config=lora)
    return {"full": full, "merged": merge(str(adapter), adapter.parent / "merged"), "adapter": adapter}


def run(code, names):
    exec(compile(code, "docs/serving.md", "exec"), names)  # noqa: S102


def run_snippet(folder, item, capsys):
    """What the first snippet prints, and its names."""
    line = f"folder, item = {str(folder)!r}, {item!r}"
    code, found = re.subn(r"^folder, item = .*$", line, SNIPPETS[0], flags=re.MULTILINE)
    assert found == 1
    names = {}
    run(code, names)
    return ast.literal_eval(capsys.readouterr().out), names


@pytest.mark.parametrize("kind", ["full", "merged"])
@pytest.mark.parametrize("item", ITEMS)
def test_transformers_alone_reads_the_same_distribution(judges, kind, item, capsys):
    judge = Judge.from_pretrained(str(judges[kind]))
    read, _ = run_snippet(judges[kind], item, capsys)
    assert tuple(read) == judge.label_space.labels
    np.testing.assert_allclose([*read.values()], judge.judge([item])[0], atol=1e-5)
    if kind == "merged":
        adapter = Judge.from_pretrained(str(judges["adapter"]))
        np.testing.assert_allclose([*read.values()], adapter.judge([item])[0], atol=1e-4)


def test_merging_writes_the_tokens_that_an_earlier_version_did_not(judges, tmp_path):
    adapter = tmp_path / "adapter"
    shutil.copytree(judges["adapter"], adapter)
    expected = (adapter / LABEL_TOKENS_NAME).read_text()
    (adapter / LABEL_TOKENS_NAME).unlink()
    run(SNIPPETS[1], {"folder": str(adapter)})  # for a full model
    assert (adapter / LABEL_TOKENS_NAME).read_text() == expected
    (adapter / LABEL_TOKENS_NAME).unlink()
    assert (merge(str(adapter), tmp_path / "merged") / LABEL_TOKENS_NAME).read_text() == expected


def test_a_merged_judge_has_a_card(judges):
    card = ModelCard.load(judges["merged"] / "README.md")
    assert "The adapter `judge` is merged into its base model" in card.text and "distjudge-trl" in card.data.tags
    assert card.data.eval_results is None, "those of the adapter are not its own"


def test_the_snippet_is_ten_lines_of_work():
    work = [node for node in ast.parse(SNIPPETS[0]).body if not isinstance(node, (ast.Import, ast.ImportFrom))]
    assert len(work) <= 10


def test_the_tokens_are_those_that_the_judge_reads(judges):
    for folder in judges.values():
        judge = Judge.from_pretrained(str(folder))
        judge.judge(ITEMS)
        tokens = json.loads((folder / LABEL_TOKENS_NAME).read_text())
        assert tokens == {
            k: list(v) for k, v in zip(judge.label_space.labels, judge.label_space.token_ids, strict=True)
        }
    assert len(json.loads((judges["full"] / LABEL_TOKENS_NAME).read_text())["no"]) > 1


def test_llama_cpp_serves_a_merged_judge(judges, scripts, tmp_path, monkeypatch, capsys):
    """The page's last snippet but one, on the file that scripts/to_gguf.py writes."""
    monkeypatch.chdir(tmp_path)
    scripts("to_gguf").convert(judges["merged"], tmp_path / "judge.gguf", "f32")
    for item in ITEMS:
        read, names = run_snippet(judges["merged"], item, capsys)
        # A tiny model's labels need not be among the 20 likeliest tokens. This server returns as many as one asks for.
        run(SNIPPETS[2].replace('"top_logprobs": 20', '"top_logprobs": 400'), names)
        shares = np.array([*names["shares"].values()])
        np.testing.assert_allclose(shares / shares.sum(), [*read.values()], atol=5e-3)
        # The probability of all labels together, too: the server divides by all tokens, as `label_mass` does.
        mass = Judge.from_pretrained(str(judges["merged"])).read([item]).mass
        np.testing.assert_allclose(shares.sum(), mass[0], rtol=0.05)
