"""The ready task files of docs/examples: each reads the export beside it, and `data --init` writes the same votes."""

import json
import subprocess

import pytest
import yaml
from click.testing import CliRunner
from conftest import ROOT

from distjudge_trl.cli import main
from distjudge_trl.tasks import LoadReport, get_task


EXAMPLES = ROOT / "docs" / "examples"
# The task file, its data, votes a label, and what is left out.
TOOLS = {
    "label_studio": ("label_studio.json", [11, 13, 10], {}),
    "doccano": ("doccano", [12, 13, 10], {"rows without a vote left out": 1}),
    "prodigy": ("prodigy.jsonl", [10, 14, 10], {"rows left out by `skip`": 2}),
    "argilla": ("argilla.json", [12, 13, 10], {}),
    "spreadsheet": ("spreadsheet.csv", [2, 6, 3, 1, 5, 3, 6, 2, 5], {}),
}


@pytest.mark.parametrize("name", TOOLS)
def test_an_export_is_read(name):
    _, votes, notes = TOOLS[name]
    path = str(EXAMPLES / f"{name}.yaml")
    done = CliRunner().invoke(main, ["data", path, "--stats"])
    assert done.exit_code == 0 and "12 items read, 12 records" in done.output, done.output
    task, report = get_task(path), LoadReport()
    rows = task.load(None, report=report)
    counts = [sum(row["label_distribution"][k] * row["num_annotators"] for row in rows) for k in range(len(votes))]
    assert [round(count) for count in counts] == votes and report.notes == notes


@pytest.mark.parametrize("name", TOOLS)
def test_a_draft_has_the_same_votes(name, tmp_path):
    data, votes, _ = TOOLS[name]
    done = CliRunner().invoke(main, ["data", str(EXAMPLES / data), "--init", str(tmp_path / "task.yaml")])
    assert done.exit_code == 0, done.output
    ready = yaml.safe_load((EXAMPLES / f"{name}.yaml").read_text(encoding="utf-8"))
    drafted = yaml.safe_load((tmp_path / "task.yaml").read_text(encoding="utf-8"))
    for key in ("votes", "id", "group", "skip", "answers"):
        if key != "group" or name != "argilla":  # who a customer is stands among the metadata
            assert drafted.get(key) == ready.get(key), key
    assert drafted["labels"] == [str(label) for label in ready["labels"]]
    rows = get_task(str(tmp_path / "task.yaml")).load(None)
    assert round(sum(row["num_annotators"] for row in rows)) == sum(votes)


def test_an_export_trains_a_judge(warm_python, recipe_model, tmp_path):
    options = ["--model_name_or_path", recipe_model, "--use_peft", "False", "--bf16", "False", "--max_steps", "1"]
    options += ["--per_device_train_batch_size", "4", "--save_strategy", "no", "--output_dir", str(tmp_path / "out")]
    command = [warm_python, "-m", "distjudge_trl", "train", str(EXAMPLES / "spreadsheet.yaml"), *options]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=ROOT, timeout=300)
    assert done.returncode == 0, done.stderr
    judge = json.loads((tmp_path / "out" / "judge.json").read_text(encoding="utf-8"))
    assert judge["label_space"]["answers"]["1.5"] == "B"
