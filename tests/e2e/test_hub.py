"""A judge is pushed while it is trained, and fetched by its name: the real client, a hub on this machine."""

import hashlib
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT, make_records
from hub import REVISION, model_hub
from huggingface_hub import ModelCard
from tiny_runs import EIGHT, LORA, SAVING

from distjudge_trl import Judge
from distjudge_trl.trainer.checkpoints import find_checkpoint


# The hub's address is read as its client is imported: these runs are real interpreters.
FETCH = """
import json, sys
sys.path.insert(0, "tests")
from conftest import make_records
from distjudge_trl import Judge
print(json.dumps(Judge.from_pretrained("me/judge").judge(make_records(5, seed=3)).tolist()))
"""


def test_an_adapter_is_pushed_and_found_again_by_its_name(tiny_runs, tmp_path):
    with model_hub() as (environment, repositories):
        options = ("--push_to_hub", "True", "--hub_model_id", "me/judge")
        process = tiny_runs.start(
            "pushed", [sys.executable], *EIGHT, *LORA, *options, python=sys.executable, **environment
        )
        _, folder = tiny_runs.finish("pushed", process)
        pushed = repositories["me/judge"]
        assert {"adapter_model.safetensors", "adapter_config.json", "judge.json", "README.md"} <= set(pushed)
        seen = (folder / "training_items.json").read_bytes()
        assert pushed["training_items.json"] == seen, "evaluations of the judge by its name leave its items out"
        assert "model.safetensors" not in pushed, "the base model is named, not pushed"
        assert pushed["adapter_model.safetensors"] == (folder / "adapter_model.safetensors").read_bytes()
        assert json.loads(pushed["judge.json"])["base_model"] and "label_tokens.json" in pushed
        done = subprocess.run(
            [sys.executable, "-c", FETCH],
            check=False,
            capture_output=True,
            text=True,
            cwd=ROOT,
            env={**os.environ, **environment, "HF_HOME": str(tmp_path)},
        )
    assert done.returncode == 0, done.stderr[-3000:]
    fetched = json.loads(done.stdout.splitlines()[-1])
    np.testing.assert_allclose(fetched, Judge.from_pretrained(str(folder)).judge(make_records(5, seed=3)), atol=1e-6)


def test_a_recipe_s_results_are_in_the_metadata_of_the_card_that_is_pushed(recipe_model, tmp_path):
    rows = [{"text": f"the text {i}", "votes": ["1", "2", str(i % 3 + 1)]} for i in range(30)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "task.yaml").write_text(
        "name: mine\nlabels: ['1', '2', '3']\ntemplate: 'rate {{ text }}'\nsource: rows.jsonl\nvotes: {list: votes}\n"
    )
    words = [
        "--task",
        tmp_path / "task.yaml",
        "--model_name_or_path",
        recipe_model,
        "--output_dir",
        tmp_path / "judge",
    ]
    words += ["--max_steps", 1, "--bf16", "False", "--save_strategy", "no", "--report_to", "none"]
    words += ["--push_to_hub", "True", "--hub_model_id", "me/mine"]
    with model_hub() as (environment, repositories):
        done = subprocess.run(
            [sys.executable, "recipes/custom.py", *map(str, words)],
            check=False,
            capture_output=True,
            text=True,
            cwd=ROOT,
            env={**os.environ, **environment},
        )
        assert done.returncode == 0, done.stderr[-3000:]
        pushed = repositories["me/mine"]
    card = ModelCard(pushed["README.md"].decode())
    shown = {result.metric_type: result for result in card.data.eval_results}
    metrics = json.loads(pushed["results.json"])["metrics"]
    assert {"kl", "accuracy", "total_variation", "ece"} <= set(shown)
    for name, result in shown.items():
        assert result.metric_value == pytest.approx(metrics[name]["value"], abs=1e-6)
        assert (result.dataset_name, result.dataset_split) == ("mine", "test")
    assert {"judge.json", "label_tokens.json"} <= set(pushed)
    assert "distjudge-trl" in card.data.tags and 'Judge.from_pretrained("me/mine")' in card.text


def test_a_hub_that_takes_nothing_costs_no_checkpoint_and_no_judge(tiny_runs):
    """Training goes on; at the end the error says where the judge is."""
    with model_hub(takes_commits=False) as (environment, repositories):
        options = ("--push_to_hub", "True", "--hub_model_id", "me/judge", "--hub_always_push", "True")
        process = tiny_runs.start(
            "refused", [sys.executable], *EIGHT, *LORA, *SAVING, *options, python=sys.executable, **environment
        )
        assert process.wait(300) == 1
    said = process.log.read_text()
    folder = tiny_runs.folder / "refused"
    errors = [line for line in said.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and "me/judge: cannot be pushed (" in errors[0], said[-3000:]
    assert f"push it later with `hf upload me/judge {folder}" in errors[0] and "Traceback" not in said
    assert find_checkpoint("true", folder) == (str(folder / "checkpoint-10"), [])
    assert Judge.from_pretrained(str(folder)).judge(make_records(5, seed=3)).shape == (5, 5)
    assert repositories == {"me/judge": {}}


def test_a_hub_that_is_away_is_one_line_before_training(tiny_runs):
    options = ("--push_to_hub", "True", "--hub_model_id", "me/judge")
    nowhere = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "0", "HF_TOKEN": "hf_test"}
    process = tiny_runs.start("unreachable", [sys.executable], *EIGHT, *options, python=sys.executable, **nowhere)
    assert process.wait(300) == 1
    said = process.log.read_text()
    errors = [line for line in said.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and "--push_to_hub: me/judge cannot be made (" in errors[0] and "Traceback" not in said, (
        said
    )


FETCH_DATA = """
import sys
from distjudge_trl.data.download import RemoteFile, download
from distjudge_trl.errors import UserInputError
try:
    print(download(RemoteFile("votes.jsonl", *sys.argv[1:], "votes, 1 MB")).read_bytes())
except UserInputError as error:
    print("error:", error)
"""


def test_a_file_of_the_hub_is_fetched_by_its_client_and_read_offline_afterwards(tmp_path):
    content, revision = b'{"votes": [1, 2]}', REVISION
    url = f"https://huggingface.co/datasets/someone/votes/resolve/{revision}/data/votes.jsonl"
    sha256 = hashlib.sha256(content).hexdigest()

    def fetch(environment, *more):
        done = subprocess.run(
            [sys.executable, "-c", FETCH_DATA, url, *more],
            check=True,
            capture_output=True,
            text=True,
            env={**os.environ, **environment, "HF_HOME": str(tmp_path / "hub"), "DISTJUDGE_CACHE": str(tmp_path)},
        )
        return done.stdout.strip()

    nobody = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": "http://127.0.0.1:9"}
    assert fetch(nobody, sha256).startswith(f"error: {url}: ")
    offline = {"HF_HUB_OFFLINE": "1"}
    assert "is not in the hub's cache, and there is no connection" in fetch(offline, sha256)
    with model_hub() as (mirror, repositories):
        missing = fetch(mirror, sha256)
        assert missing.startswith(f"error: {url}: cannot be fetched (404") and "votes, 1 MB" in missing
        repositories["someone/votes"] = {"data/votes.jsonl": content}
        assert fetch(mirror, sha256) == str(content)
    assert fetch(offline, sha256) == str(content)
    assert "another SHA-256 than the recorded 0000" in fetch(offline, "0" * 64)
    # Damaged in the cache: fetched once more where there is a connection.
    (cached,) = (tmp_path / "hub").rglob("votes.jsonl")
    cached.resolve().write_bytes(b"damaged")
    assert "another SHA-256" in fetch(offline, sha256)
    with model_hub() as (mirror, repositories):
        repositories["someone/votes"] = {"data/votes.jsonl": content}
        assert fetch(mirror, sha256) == str(content)
    # What earlier versions fetched is used as it is.
    (tmp_path / "data").mkdir()
    (tmp_path / "data/votes.jsonl").write_bytes(content)
    assert fetch({**offline, "HF_HOME": str(tmp_path / "nowhere")}, sha256) == str(content)
