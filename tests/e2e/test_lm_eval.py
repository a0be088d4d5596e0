"""lm-evaluation-harness reads a judge's folder as an ordinary model, with our task file: the same prompts, the same
distributions and the same accuracy as `evaluate`.
"""

import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from conftest import ROOT, make_tiny_model

from distjudge_trl import Judge
from distjudge_trl.batching.prompts import render_prompt
from distjudge_trl.cli import main
from distjudge_trl.evaluation.results import read_results
from distjudge_trl.files.shipped_files import shipped_folder
from distjudge_trl.judge_folder.judge_file import JudgeFile
from distjudge_trl.tasks import get_task
from distjudge_trl.tasks.nli import TEMPLATE
from distjudge_trl.trainer import DistributionSFTConfig, DistributionSFTTrainer


FOLDER = shipped_folder("lm_eval_tasks")
VOTES = {"entailment": [5, 0, 0], "neutral": [0, 4, 1], "contradiction": [1, 1, 3]}
HYPOTHESES = {
    "entailment": "Somebody is in the {place}.",
    "neutral": "The {who} waits for a friend.",
    "contradiction": "The {place} is empty.",
}


def make_pairs(count, first=0):
    """Official rows, and the same pairs as lm-evaluation-harness is given them."""
    labels, rows, pairs = list(VOTES), [], []
    for i in range(first, first + count):
        label = labels[i * 7 % 3]
        words = {"who": ["baker", "nurse", "pilot", "child"][i % 4], "place": ["kitchen", "yard", "hall"][i // 4 % 3]}
        premise = f"The {words['who']} number {i} sits in the {words['place']}."
        hypothesis = HYPOTHESES[label].format(**words)
        votes = [name for name, n in zip(labels, VOTES[label], strict=True) for _ in range(n)]
        rows.append({"annotator_labels": votes, "pairID": str(i), "sentence1": premise, "sentence2": hypothesis})
        pairs.append({"premise": premise, "hypothesis": hypothesis, "label": label})
    return rows, pairs


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture(scope="module")
def world(tokenizer, tmp_path_factory):
    """A tiny judge that was trained on such pairs, and 24 new ones in both forms."""
    folder = tmp_path_factory.mktemp("lm_eval")
    task = get_task("snli")
    train = task.load(write(folder / "snli_1.0_train.jsonl", make_pairs(48)[0]), task.options())
    rows, pairs = make_pairs(24, first=1000)
    write(folder / "snli_1.0_test.jsonl", rows)
    write(folder / "nli.jsonl", pairs)
    trainer = DistributionSFTTrainer(
        model=make_tiny_model(len(tokenizer), context=1024),
        args=DistributionSFTConfig(
            str(folder / "judge"),
            max_steps=30,
            learning_rate=5e-3,
            per_device_train_batch_size=8,
            save_strategy="no",
            bf16=False,
            report_to="none",
            disable_tqdm=True,
        ),
        train_dataset=train,
        processing_class=tokenizer,
        label_space=task.label_space(),
        judge_file=JudgeFile(label_space={}, template=TEMPLATE.messages, task="snli"),
    )
    trainer.train()
    trainer.save_model()
    return folder


def test_the_prompt_is_that_of_the_task():
    text = re.sub(r"!function \S+", "null", (FOLDER / "distjudge_nli.yaml").read_text("utf-8"))
    task = yaml.safe_load(text)
    shown = [{"role": "system", "content": task["description"]}, {"role": "user", "content": task["doc_to_text"]}]
    assert shown == TEMPLATE.messages


def test_the_harness_and_evaluate_agree(world):
    """The command of docs/serving.md, on a file of this test."""
    page = (ROOT / "docs/serving.md").read_text("utf-8").replace("\\\n", " ")
    line = next(line for line in page.splitlines() if line.startswith("lm_eval "))
    line = line.replace("runs/snli-merged", str(world / "judge")).replace("lm_eval_tasks", str(FOLDER))
    line += f" --device cpu --log_samples --output_path {world / 'out'}"
    programs = os.path.dirname(sys.executable)
    done = subprocess.run(
        ["bash", "-c", line],
        cwd=world,
        env={**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "HF_DATASETS_CACHE": str(world / "cache")},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (file,) = (world / "out").rglob("results_*.json")
    accuracy = json.loads(file.read_text())["results"]["distjudge_nli"]["acc,none"]
    words = ["--task", "snli", "--data-path", world / "snli_1.0_test.jsonl", "--split", "all", "--out", world / "ours"]
    ours = CliRunner().invoke(main, ["evaluate", "--model", str(world / "judge"), *map(str, words)])
    assert ours.exit_code == 0, ours.output
    assert accuracy == pytest.approx(read_results(world / "ours")["metrics"]["accuracy"]["value"], abs=1e-9)
    # And item by item: the same text, the same distribution.
    (samples,) = (world / "out").rglob("samples_*.jsonl")
    judge = Judge.from_pretrained(str(world / "judge"))
    chosen = []
    for sample in map(json.loads, samples.read_text().splitlines()):
        item = {name: sample["doc"][name] for name in ("premise", "hypothesis")}
        context = sample["arguments"]["gen_args_0"]["arg_0"]
        assert context == render_prompt(judge.tokenizer, judge.template.render(item))
        scores = np.array([float(answer[0][0]) for answer in sample["resps"]])
        shares = np.exp(scores - scores.max())
        found = np.bincount(sample["doc"]["owners"], shares, minlength=3) / shares.sum()
        np.testing.assert_allclose(found, judge.judge([item])[0], atol=1e-4)
        chosen.append(found.argmax())
    assert len({*chosen}) > 1 and 0 < accuracy < 1, "so agreement means something"


def test_an_untrained_model_is_asked_for_the_words(world, monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    import distjudge_nli

    monkeypatch.setenv("HF_DATASETS_CACHE", str(world / "cache"))
    rows = distjudge_nli.load(data=str(world / "nli.jsonl"), pretrained="someone/model", dtype="float32")["test"]
    assert len(rows) == 24 and rows[0]["choices"] == list(VOTES)
    assert [list(VOTES)[row["label"]] for row in rows] == [pair["label"] for pair in make_pairs(24, first=1000)[1]]
    assert distjudge_nli.score({**rows[0], "label": 1}, [(-3.0, False), (-1.0, True), (-2.0, False)]) == {"acc": 1.0}
    two = {"owners": [0, 0, 1, 2], "label": 0}
    results = [(-1.3, False), (-1.3, False), (-1.0, True), (-5.0, False)]
    assert distjudge_nli.score(two, results) == {"acc": 1.0}, "two spellings together are likelier than the third"
