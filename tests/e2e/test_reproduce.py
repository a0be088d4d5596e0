"""Training, evaluating again and reporting, as a researcher does, by the shipped commands: of a tiny model in warm
processes, and once of the real bundled model in an interpreter as a user starts it.
"""

import csv
import subprocess
import sys

import pytest
from conftest import ROOT

from distjudge_trl.evaluation import read_results


SMALL = ("--max_train_samples", "40", "--max_eval_samples", "24", "--per_device_train_batch_size", "8")


def run(python, *command):
    return subprocess.run(
        [python, *map(str, command)], check=False, capture_output=True, text=True, cwd=ROOT, timeout=900
    )


@pytest.fixture(scope="module")
def reproduce(lexicon, recipe_model, warm_python):
    model = ("--model_name_or_path", recipe_model, "--bf16", "False")

    def reproduce(out, *options):
        script = ("scripts/reproduce.py", "vader", "--methods", "raw", "distribution", "--out", out)
        data = ("--data-path", f"vader={lexicon}")
        return run(warm_python, *script, *data, "--", *SMALL, *model, "--num_train_epochs", "1", *options)

    return reproduce


@pytest.fixture(scope="module")
def reproduced(reproduce, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs")
    # A mistake in one run: the others go on, and the script says which failed.
    failed = reproduce(out, "--learning_rate", "nonsense")
    assert failed.returncode == 1 and "2 of the runs failed" in failed.stderr.splitlines()[-1], failed.stderr
    done = reproduce(out)
    assert done.returncode == 0, done.stderr[-3000:]
    return out


def test_reproduce_trains_reports_and_repeats_nothing(reproduce, reproduced):
    page = (reproduced / "report" / "index.html").read_text()
    assert "raw + temperature" in page and "distribution + vector" in page
    with (reproduced / "report" / "all_runs.csv").open(newline="") as file:
        rows = {row["method"]: row for row in csv.DictReader(file)}
    for method in ("raw", "distribution"):
        results = read_results(reproduced / "vader" / f"{method}-seed0")
        assert float(rows[method]["kl"]) == results["metrics"]["kl"]["value"]
    stamp = (reproduced / "vader" / "distribution-seed0" / "results.json").stat().st_mtime_ns
    again = reproduce(reproduced)
    assert again.returncode == 0 and again.stdout.count("done before") == 2
    assert (reproduced / "vader" / "distribution-seed0" / "results.json").stat().st_mtime_ns == stamp
    other = reproduce(reproduced, "--learning_rate", "1e-4")
    assert other.returncode == 2 and "holds the results of another command" in other.stderr


def test_reproduce_names_what_it_cannot_do(warm_python, tmp_path):
    for tasks, match in ((("vader",), "name it among the tasks"), (("snli",), "holds no judges")):
        done = run(warm_python, "scripts/reproduce.py", *tasks, "--parts", "transfer", "--out", tmp_path)
        assert done.returncode == 2 and match in done.stderr and "Traceback" not in done.stderr


def test_evaluate_finds_the_recipe_s_numbers_again(warm_python, reproduced, lexicon, tmp_path):
    judge = reproduced / "vader" / "distribution-seed0"
    options = ("--data-path", lexicon, "--max-eval-samples", 24, "--calibrated", "--robustness")
    command = ("-m", "distjudge_trl", "evaluate", "--model", judge, "--task", "vader", "--out", tmp_path, *options)
    done = run(warm_python, *command)
    assert done.returncode == 0, done.stderr[-3000:]
    trained, found = read_results(judge), read_results(tmp_path)
    assert found["test_fingerprint"] == trained["test_fingerprint"]
    assert found["metrics"]["kl"]["value"] == pytest.approx(trained["metrics"]["kl"]["value"], abs=1e-5)
    assert found["metrics"]["noise_floor"] == trained["metrics"]["noise_floor"]
    methods = [row["method"] for row in found["variants"]]
    assert methods == [row["method"] for row in trained["variants"]]
    assert len(found["robustness"]) == 6 and "| 0.25" in done.stdout


def test_an_untrained_model_is_scored_by_the_five_likeliest_tokens(bundled_model, lexicon, tmp_path):
    options = ("--data-path", lexicon, "--max-eval-samples", 16, "--extraction", "top5", "--out", tmp_path)
    command = ("-m", "distjudge_trl", "evaluate", "--model", bundled_model, "--task", "vader", *options)
    done = run(sys.executable, *command)
    assert done.returncode == 0, done.stderr[-3000:]
    found = read_results(tmp_path)
    # Nine ratings do not fit into five tokens: some item rests on the floor.
    assert found["method"] == "raw" and found["metrics"]["floor_items"] > 0
