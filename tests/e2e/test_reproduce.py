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


def work_of(out):
    return out.with_name(f"{out.name}-work")


@pytest.fixture(scope="module")
def reproduce(lexicon, recipe_model, warm_python):
    model = ("--model_name_or_path", recipe_model, "--bf16", "False")

    def reproduce(out, *options):
        script = ("scripts/reproduce.py", "vader", "--methods", "raw", "distribution", "--out", out)
        script += ("--work", work_of(out), "--keep-judges")
        data = ("--data-path", f"vader={lexicon}")
        return run(warm_python, *script, *data, "--", *SMALL, *model, "--num_train_epochs", "1", *options)

    return reproduce


@pytest.fixture(scope="module")
def reproduced(reproduce, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs")
    # A mistake in the options is found before anything is started.
    wrong = reproduce(out, "--learning_rate", "nonsense")
    assert wrong.returncode == 2 and "The run vader/raw-seed0" in wrong.stderr and "learning_rate" in wrong.stderr
    # One that only the runs notice: the others go on, and the script says which failed.
    failed = reproduce(out, "--max_length", "8", "--truncate", "error")
    assert failed.returncode == 1, failed.stderr
    last = failed.stderr.splitlines()[-1]
    assert last == "error: 2 runs failed: vader/raw-seed0, vader/distribution-seed0."
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
    assert again.returncode == 0 and "2 runs planned, 2 done, 0 left" in again.stdout
    assert (reproduced / "vader" / "distribution-seed0" / "results.json").stat().st_mtime_ns == stamp
    other = reproduce(reproduced, "--learning_rate", "1e-4")
    assert other.returncode == 2 and "made with other options than the plan's: learning_rate" in other.stderr


def test_reproduce_names_what_it_cannot_do(warm_python, tmp_path):
    for words, match in (
        (("vader", "--parts", "transfer"), "name it among the tasks"),
        (("snly",), "There is no task 'snly'. Did you mean 'snli'"),
        (("vader", "--data-path", "vader=nowhere.txt"), "nowhere.txt: there is no such file"),
        (("vader", "--time-budget", "2"), "must be a duration like 90min or 2h, got '2'"),
        (("recipes/studies/paper.yaml", "--seeds", "1"), "--seeds is for the tables of tasks"),
        (("vader", "--work", str(tmp_path / "inside")), "--work lies in --out"),
        (("recipes/studies/paper.yaml", "vader"), "A plan stands alone: drop vader"),
    ):
        done = run(warm_python, "scripts/reproduce.py", *words, "--out", tmp_path)
        assert done.returncode == 2 and match in done.stderr and len(done.stderr.splitlines()) == 1


def test_evaluate_finds_the_recipe_s_numbers_again(warm_python, reproduced, lexicon, tmp_path):
    judge = work_of(reproduced) / "vader/distribution-seed0"
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
