"""A study as a researcher makes it, by the shipped script: a plan with tasks of its own, a tiny model in warm
processes, two methods and two seeds; and the tables that are drawn of it.
"""

import json
import random
import re
import subprocess

import numpy as np
import pytest
import yaml
from conftest import ROOT

from distjudge_trl.evaluation import read_predictions, read_results
from distjudge_trl.evaluation.lewidi import item_cross_entropy
from distjudge_trl.study import read_plan, read_study
from distjudge_trl.study.groups import group_results
from distjudge_trl.study.tables import all_tables, data_table, gains_table


TASK = {
    "name": "own",
    "labels": ["no", "unsure", "yes"],
    "template": "{{ text }} Answer no, unsure or yes.",
    "source": "x.jsonl",
    "id": "number",
    "votes": {"list": "votes"},
}
OPTIONS = {
    "use_peft": False,
    "gradient_checkpointing": False,
    "bf16": False,
    "calibrate": True,
    "validation_fraction": 0.2,
    "save_strategy": "no",
    "learning_rate": 1.0e-3,
    "num_train_epochs": 1,
    "per_device_train_batch_size": 8,
    "gradient_accumulation_steps": 1,
}


def write_items(path, count, seed):
    rng = random.Random(seed)
    rows = [
        {
            "number": f"{path.stem}{i}",
            "text": f"a secret text {rng.random()}",
            "votes": rng.choices(TASK["labels"], k=5),
        }
        for i in range(count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture(scope="module")
def study(recipe_model, warm_python, tmp_path_factory):
    """Plan, results folder, and what the script printed; and the script to call again."""
    folder = tmp_path_factory.mktemp("study")
    (folder / "data").mkdir()
    content = {
        "model": recipe_model,
        "options": OPTIONS,
        "data": {
            "first": {"task": "own.yaml", "path": "first.jsonl", "title": "Own", "transfer": {"other.yaml": "o.jsonl"}}
        },
        "runs": {"main": {"data": ["first"], "methods": ["raw", "no-adversary", "distribution"], "seeds": [0, 1]}},
    }
    for name, task in (("own", TASK), ("other", {**TASK, "name": "other"})):
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(task), encoding="utf-8")
    (folder / "plan.yaml").write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    write_items(folder / "data/first.jsonl", 60, 0)
    write_items(folder / "data/o.jsonl", 20, 1)

    def run(*options):
        command = [warm_python, "scripts/reproduce.py", folder / "plan.yaml", "--data-root", folder / "data"]
        command += ["--out", folder / "results", "--work", folder / "work", *options]
        return subprocess.run([*map(str, command)], check=False, capture_output=True, text=True, cwd=ROOT, timeout=900)

    done = run()
    assert done.returncode == 0, done.stderr[-3000:]
    return folder, run, done.stdout


def test_all_runs_are_there_with_their_tests_on_another_task(study):
    folder, _, printed = study
    runs = ["distribution-seed0", "distribution-seed1", "no-adversary-seed0", "no-adversary-seed1", "raw-seed0"]
    for data in ("first", "other-from-first"):
        assert sorted(path.name for path in (folder / "results" / data).iterdir() if path.is_dir()) == runs
    transferred = read_results(folder / "results/other-from-first/distribution-seed1")
    assert transferred["trained_on"] == "own" and transferred["task"] == "other" and transferred["seed"] == 1
    assert read_results(folder / "results/other-from-first/raw-seed0")["trained_on"] is None
    assert re.search(r": 10 results, \d+ kB$", printed, re.MULTILINE) and (folder / "work/report/index.html").is_file()
    # Only the report and the lists of commands are left of the work.
    assert not any((folder / "work").rglob("*.safetensors"))


def test_what_is_kept_has_no_texts_and_no_paths(study, recipe_model):
    folder, _, _ = study
    for result in read_study(folder / "results"):
        text = (result.path / "results.json").read_text(encoding="utf-8")
        assert '"/' not in text and "/tmp" not in text and str(folder) not in text
        assert not any(read_predictions(result.path)["prompt"][:])
    assert all(b"secret" not in path.read_bytes() for path in (folder / "results").rglob("*") if path.is_file())


def test_nothing_is_computed_twice_and_other_options_are_refused(study):
    folder, run, _ = study
    before = {path: path.stat().st_mtime_ns for path in (folder / "results").rglob("*.parquet")}
    again = run("--no-report")
    assert again.returncode == 0 and "5 runs planned, 5 done, 0 left" in again.stdout
    assert {path: path.stat().st_mtime_ns for path in (folder / "results").rglob("*.parquet")} == before
    other = run("--", "--learning_rate", "1e-4")
    assert other.returncode == 2 and len(other.stderr.splitlines()) == 1
    assert "other options than the plan's: learning_rate 0.001 and 0.0001" in other.stderr


def test_it_says_what_is_left_and_how_long_that_takes(study):
    folder, run, _ = study
    lost = folder / "results/first/distribution-seed1/results.json"
    content = lost.read_bytes()
    lost.unlink()
    try:
        listed = run("--list")
        late = run("--time-budget", "0s", "--no-report")
    finally:
        lost.write_bytes(content)
    *lines, last = listed.stdout.splitlines()
    assert listed.returncode == late.returncode == 0
    assert [line.split()[:2] for line in lines if line.startswith("left")] == [["left", "first/distribution-seed1"]]
    assert len(lines) == 5 and last.startswith("5 runs, 1 left: about ") and last.endswith(" s on this machine")
    assert "1 run left: the time is up (about " in late.stdout


def by_hand(results, method, seed, variant="plain"):
    """KL of every item, from the kept predictions."""
    folder = results / "first" / f"{method}-seed{seed}"
    rows = read_predictions(folder)
    p, q = (np.array(rows[name][:]) for name in ("label_distribution", "judge_distribution"))
    if variant != "plain":
        scaling = next(row for row in read_results(folder)["variants"] if row["method"] == f"{method} + {variant}")
        logits = np.log(q) * np.array(scaling["scaling"]["weight"]) + np.array(scaling["scaling"]["bias"])
        q = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    order = np.argsort(rows["id"][:])
    return np.where(p > 0, p * np.log(np.where(p > 0, p, 1) / q), 0).sum(1)[order]


def test_tables_have_the_figures_of_the_predictions(study):
    folder = study[0]
    plan, results = read_plan(folder / "plan.yaml"), folder / "results"
    data = group_results(read_study(results, plan=plan))
    table = data_table(plan, data["first"])
    assert table.title == "Own" and [row[0] for row in table.rows[:3]] == [
        "raw",
        "no-adversary (2 seeds)",
        "distribution (2 seeds)",
    ]
    for row, method in zip(table.rows[1:], ("no-adversary", "distribution"), strict=False):
        for cell, variant in ((row[1], "plain"), (row[3], "temperature"), (row[4], "vector")):
            kl = [by_hand(results, method, seed, variant).mean() for seed in (0, 1)]
            assert cell == f"{np.mean(kl):.3f} ± {np.std(kl, ddof=1):.3f}"
    assert table.rows[0][1] == f"{by_hand(results, 'raw', 0).mean():.3f}"
    prior = next(row for row in table.rows if row[0].startswith("training prior"))
    rows = read_predictions(results / "first/raw-seed0")
    constant = next(
        row
        for row in read_results(results / "first/distribution-seed0")["variants"]
        if row["method"] == "training-prior"
    )
    p = np.array(rows["label_distribution"][:])
    entropy = float(item_cross_entropy(p, p).mean())
    assert float(prior[1]) == pytest.approx(
        float(item_cross_entropy(p, np.array([constant["constant"]] * len(p))).mean()) - entropy, abs=6e-4
    )


def test_gains_are_differences_over_the_same_items(study):
    folder = study[0]
    plan, results = read_plan(folder / "plan.yaml"), folder / "results"
    table = gains_table(plan, group_results(read_study(results, plan=plan)))
    seeds = [by_hand(results, "distribution", s).mean() - by_hand(results, "no-adversary", s).mean() for s in (0, 1)]
    (row,) = table.rows
    assert table.header == ["method", "Own"] and row[0] == "distribution"
    found = re.fullmatch(r"(\S+) ± (\S+) \[(\S+), (\S+)\](?: \**)?", row[1])
    value, spread, low, high = map(float, found.groups())
    assert value == pytest.approx(np.mean(seeds), abs=6e-4) and spread == pytest.approx(
        np.std(seeds, ddof=1), abs=6e-4
    )
    assert low <= value <= high and row[1].endswith("*") == (low > 0 or high < 0)


def test_every_table_is_drawn(study):
    folder = study[0]
    plan = read_plan(folder / "plan.yaml")
    tables = all_tables(plan, read_study(folder / "results", plan=plan))
    assert {"data-first", "gains-plain", "gains-temperature", "gains-vector"} <= tables.keys()
    for table in tables.values():
        assert all(len(row) == len(table.header) for row in table.rows) and table.markdown()


def test_a_judge_with_an_adapter_is_trained_further(study, recipe_model, warm_python):
    """The adapter is merged, the items that it has seen are not tested on, and nothing of it stays."""
    folder = study[0]
    data = {"task": "own.yaml", "path": "first.jsonl"}
    content = {
        "model": recipe_model,
        "options": {**OPTIONS, "use_peft": True},
        "data": {"start": data, "further": {**data, "start_from": "start/kl-only", "options": {"split_seed": 5}}},
        "runs": {"main": {"data": ["further", "start"], "methods": ["kl-only"]}},
    }
    (folder / "chain.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    command = [warm_python, "scripts/reproduce.py", folder / "chain.yaml", "--data-root", folder / "data"]
    command += ["--out", folder / "chain", "--work", folder / "chained", "--jobs", "2"]
    done = subprocess.run([*map(str, command)], check=False, capture_output=True, text=True, cwd=ROOT, timeout=900)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "start/kl-only-seed0: its adapter is merged" in done.stdout
    start, further = (read_predictions(folder / "chain" / name / "kl-only-seed0") for name in ("start", "further"))
    assert 0 < len(further) < len(start) and set(further["id"]) < set(start["id"])
    results = read_results(folder / "chain/further/kl-only-seed0")
    assert results["model"].endswith(", from start/kl-only-seed0")
    assert "seen by the judge from which training starts" in results["provenance"]["data_report"]["excluded"]
    assert not any((folder / "chained").rglob("*.safetensors"))
