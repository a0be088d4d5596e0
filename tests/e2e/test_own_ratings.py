"""The worked example of docs/data.md, from a CSV to a judged item, with the commands that stand there."""

import json
import subprocess
import sys

import pytest
from conftest import ROOT


pytestmark = pytest.mark.usefixtures("bundled_model")

TASK = "docs/examples/replies.yaml"


def command(*args, check=True, python=sys.executable):
    return subprocess.run(
        [python, "-m", "distjudge_trl", *args],
        check=check, capture_output=True, text=True, cwd=ROOT, timeout=900,
    )  # fmt: skip


def test_the_csv_example_from_nothing_to_a_judged_item(warm_python, recipe_model, tmp_path):
    refused = command("data", TASK, check=False, python=warm_python)
    assert refused.returncode == 2
    assert refused.stderr.startswith("error: docs/examples/replies.csv, row 29, field `votes`: no votes.")

    looked = command("data", TASK, "--min_annotators", "1", "--stats", "--model", "smollm2-135m").stdout
    assert "28 items read, 27 records" in looked and "left out, fewer than 1 annotators: 1" in looked
    assert "Groups on both sides: 0" in looked

    options = ("--min_annotators", "1", "--model_name_or_path", recipe_model, "--use_peft", "False")
    folder = tmp_path / "judge"
    train = ("train", TASK, *options, "--output_dir", str(folder), "--learning_rate", "1e-2", "--logging_steps", "1")
    train += ("--num_train_epochs", "6", "--save_strategy", "no", "--bf16", "False")
    command(*train, python=warm_python)
    history = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    kls = [entry["kl"] for entry in history if "kl" in entry]
    assert sum(kls[-2:]) < 0.7 * sum(kls[:2])
    report = json.loads((folder / "results.json").read_text())["provenance"]["data_report"]
    assert report["excluded"] == {"fewer than 1 annotators": 1}

    (tmp_path / "new.jsonl").write_text('{"reply": "Certainly, with pleasure!"}\n')
    command(
        "judge", "--model", str(folder), "--input", str(tmp_path / "new.jsonl"), "--out", str(tmp_path / "out.jsonl")
    )
    judged = json.loads((tmp_path / "out.jsonl").read_text())
    assert judged["reply"] == "Certainly, with pleasure!"
    assert list(judged["label_distribution"]) == ["1", "2", "3", "4", "5"]
    assert sum(judged["label_distribution"].values()) == pytest.approx(1, abs=1e-6)
