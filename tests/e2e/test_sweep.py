"""Sweeps as people run them: real workers, real trials (of a tiny model), killed at any moment. Most processes are
warm (tests/warm.py); those of one sweep are interpreters as a user starts them.
"""

import csv
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time

import psutil
import pytest
import yaml
from conftest import ROOT
from tiny_runs import cpu_twin

from distjudge_trl.evaluation import read_results
from distjudge_trl.recipe.trial import RUN_FOLDER
from distjudge_trl.sweep.store import Store
from distjudge_trl.sweep.table import read_rows


REAL = [sys.executable, "-m", "distjudge_trl", "sweep"]
SWEEP = REAL.copy()


@pytest.fixture(scope="module", autouse=True)
def warm(warm_python):
    SWEEP[0] = warm_python


@pytest.fixture(scope="module")
def options(recipe_model, lexicon):
    """Of the recipe: a tiny model, few words, a checkpoint every few steps."""
    return (
        *("--model_name_or_path", recipe_model, "--data_path", str(lexicon), "--bf16", "False"),
        *("--max_train_samples", "160", "--max_eval_samples", "30", "--per_device_train_batch_size", "4"),
        *("--num_train_epochs", "3", "--save_strategy", "steps", "--save_steps", "20"),
    )


def sweep(*words):
    return subprocess.run([*SWEEP, *words], check=False, capture_output=True, text=True, cwd=ROOT, timeout=900)


def start(log, *words, command=SWEEP):
    with log.open("a") as file:
        return subprocess.Popen([*command, *words], cwd=ROOT, stdout=file, stderr=file, start_new_session=True)


def rows_of(out, storage=None, study="vader"):
    store = Store(storage, out, study)
    store.open()
    return read_rows(store)


def processes_of(out):
    """Processes of the sweep's runs, whoever started them."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(RUN_FOLDER, "").startswith(str(out)) and process.status() != "zombie":
                found.append(process)
        except psutil.Error:
            continue
    return found


def wait_for(condition, *processes, seconds=300):
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        assert all(process.poll() is None for process in processes), "ended before its time"
        time.sleep(0.05)
    return value


def stamps(out):
    return {path: path.stat().st_mtime_ns for path in out.glob("trials/*/seed-*/results.json")}


def test_killed_three_times_nothing_is_repeated_and_nothing_is_missing(options, tmp_path):
    out, log = tmp_path / "out", tmp_path / "log"
    grid = ("--param", "alpha=0.4,0.8", "--param", "perturbation_radius=0,0.25")
    words = ("vader", *grid, "--out", str(out), "--jobs", "2", *options)
    seed = random.randrange(10_000)
    print("moments of death drawn with seed", seed)
    moments = random.Random(seed)
    finished = {}
    for death in range(3):
        process = start(log, *words)
        wait_for(lambda: list(out.glob("trials/*/seed-*/log.txt")) and processes_of(out), process)
        if death == 0:
            # Once within a trial that has something to go on from.
            wait_for(lambda: list(out.glob("trials/*/seed-*/checkpoint-*/checkpoint.json")), process)
        else:
            time.sleep(moments.uniform(0, 3))
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        # What the worker started is in sessions of its own, and ends when it sees that nobody waits for it.
        wait_for(lambda: not processes_of(out), seconds=30)
        now = stamps(out)
        assert all(now[path] == stamp for path, stamp in finished.items())
        finished = now
    done = sweep(*words)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = rows_of(out)
    assert [row.state for row in rows] == ["done"] * 4
    trials = [trial for trial in Store(None, out, "vader").trials() if trial.state.name == "COMPLETE"]
    points = {tuple(sorted(trial.params.items())) for trial in trials}
    assert len(trials) == len(points) == 4
    assert all(stamps(out)[path] == stamp for path, stamp in finished.items()), "a finished trial was repeated"
    logs = "".join(path.read_text() for path in out.glob("trials/*/seed-*/log.txt"))
    assert "Resuming from" in logs
    # The same command once more has nothing to do.
    again = sweep(*words)
    assert again.returncode == 0 and " begins" not in again.stdout and len(stamps(out)) == 4
    # One judge stays, and it was tested on items that chose nothing.
    kept = [path.parent for path in out.glob("trials/*/seed-*/judge.json")]
    assert len(kept) == 1 and (kept[0] / "model.safetensors").is_file()
    best = read_results(out / "best" / kept[0].name)
    chosen = read_results(kept[0])
    assert chosen["scored_on"] == "validation" and best["scored_on"] == "test"
    assert best["test_fingerprint"] != chosen["test_fingerprint"]


def test_three_workers_on_postgresql_share_a_sweep_and_one_of_them_dies(options, postgres, tmp_path):
    out = tmp_path / "out"
    words = ("vader", "--param", "alpha=0,0.3,0.6,0.9", "--out", str(out), "--storage", postgres, "--study", "shared")
    logs = [tmp_path / f"log{i}" for i in range(3)]
    workers = [start(log, *words, *options) for log in logs]
    wait_for(lambda: sum(" begins: " in log.read_text() for log in logs) == 3, *workers)
    victim = workers[0]
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    assert [worker.wait(600) for worker in workers[1:]] == [0, 0], logs[1].read_text() + logs[2].read_text()
    rows = rows_of(out, postgres, "shared")
    assert [row.state for row in rows] == ["done"] * 4
    begun = [
        [line.split(" begins: ")[1] for line in log.read_text().splitlines() if " begins: " in line] for log in logs
    ]
    # Every configuration once; the one that the dead worker had in hand once more.
    points = ["alpha=0", "alpha=0.3", "alpha=0.6", "alpha=0.9"]
    assert sorted(itertools.chain(*begun)) == sorted([*points, begun[0][-1]])
    assert sum(row.attempts for row in rows) == 5
    assert "its worker was killed; it is tried again" in "".join(log.read_text() for log in logs[1:])
    # The test items are read once, by whoever comes last.
    assert sum("On test items" in log.read_text() for log in logs) >= 1
    assert sweep("status", "shared", "--storage", postgres, "--out", str(out)).stdout.count("done") >= 4


def test_a_trial_one_of_whose_processes_is_killed_is_tried_again_from_its_checkpoint(options, tmp_path):
    """Two processes (DDP): the one that is left loses its connection, which is no reason of the trial's own."""
    out, log = tmp_path / "out", tmp_path / "log"
    config = ("--accelerate-config", str(cpu_twin("multi_gpu", tmp_path)))
    longer = ("--num_train_epochs", "20", "--save_steps", "50")
    process = start(log, "vader", "--param", "alpha=0.8", *config, "--out", str(out), *options, *longer)
    wait_for(lambda: list(out.glob("trials/*/seed-*/checkpoint-*/checkpoint.json")), process)
    # Not the launcher.
    (first,) = [member for member in processes_of(out) if member.environ().get("RANK") == "0"]
    first.kill()
    assert process.wait(300) == 0, log.read_text()
    (row,) = rows_of(out)
    assert row.state == "done" and row.attempts == 2
    assert "its processes were killed (exit code 1); it is tried again" in log.read_text()
    (run_log,) = out.glob("trials/*/seed-*/log.txt")
    assert "Resuming from" in run_log.read_text()
    assert read_results(run_log.parent)["provenance"]["world_size"] == 2


@pytest.fixture(scope="module")
def diverging(options, tmp_path_factory):
    """A sweep of two seeds, one of whose configurations turns to NaN."""
    out = tmp_path_factory.mktemp("diverging") / "out"
    words = ("--param", "learning_rate=1e-3,1e30", "--seeds", "2", "--jobs", "2", "--out", str(out))
    words += ("--max_grad_norm", "0")
    return out, sweep("vader", *words, *options, "--logging_steps", "1")


def test_a_trial_that_fails_is_recorded_with_its_log_and_the_others_go_on(diverging):
    out, done = diverging
    assert done.returncode == 1, done.stdout + done.stderr
    (error,) = done.stderr.splitlines()
    assert error.startswith("error: 1 of 2 configurations failed.")
    assert "trial 1 (learning_rate=1e+30) failed: seed 42: RunFailedError: step" in done.stdout
    good, bad = rows_of(out)
    assert (good.state, bad.state) == ("done", "failed") and good.std is not None
    assert bad.attempts == 1, "what fails by itself is not tried again"
    assert set(good.trial.user_attrs["scores"]) == {"42", "43"}
    shown = sweep("show", str(out), "--log", str(bad.number))
    assert shown.returncode == 0 and "training has diverged" in shown.stdout
    status = sweep("status", str(out)).stdout
    assert "1 done, 1 failed" in status and "failed: seed 42: RunFailedError: step" in status


def test_another_sweep_under_the_same_name_is_refused(diverging, options):
    out, _ = diverging
    before = stamps(out)
    done = sweep("vader", "--param", "learning_rate=1e-3,1e-4", "--seeds", "2", "--out", str(out), *options)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
    assert "The study 'vader' differs in its grid: learning_rate=0.001,1e+30 there, learning_rate=0.001" in done.stderr
    assert stamps(out) == before


def test_a_sweep_is_exported(diverging, tmp_path):
    out, _ = diverging
    assert sweep("export", str(out), "--csv", str(tmp_path / "t.csv")).returncode == 0
    with (tmp_path / "t.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["state"] for line in lines] == ["done", "failed"] and lines[0]["learning_rate"] == "0.001"
    assert sweep("export", str(out), "--json", str(tmp_path / "t.json")).returncode == 0
    content = json.loads((tmp_path / "t.json").read_text())
    assert content == json.loads((out / "trials.json").read_text())
    seeds = [read_results(path)["metrics"]["kl"]["value"] for path in sorted(out.glob("trials/*/seed-*"))[:2]]
    assert content["trials"][0]["value"] == pytest.approx(sum(seeds) / 2)


def test_the_best_configuration_goes_back_into_its_recipe(diverging, options, tmp_path):
    out, _ = diverging
    config = tmp_path / "my_vader.yaml"
    done = sweep("best", str(out), "--write-recipe", str(config))
    assert done.returncode == 0 and str(config) in done.stdout
    content = yaml.safe_load(config.read_text())
    assert content["learning_rate"] == 0.001 and content["max_train_samples"] == 160 and content["bf16"] is False
    command = [SWEEP[0], str(ROOT / "recipes/vader.py"), "--config", str(config)]
    trained = subprocess.run(
        [*command, "--output_dir", str(tmp_path / "judge"), "--seed", "42"],
        check=False,
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert trained.returncode == 0, trained.stderr[-3000:]
    # Without validation items held out it trains on more, and is tested on the same.
    results, best = read_results(tmp_path / "judge"), read_results(out / "best" / "seed-42")
    assert results["settings"]["learning_rate"] == 0.001
    assert results["test_fingerprint"] == best["test_fingerprint"]


def test_a_lagging_configuration_is_pruned(options, tmp_path):
    out = tmp_path / "out"
    # The first is not compared: it tells the pruner how long trials are.
    grid = ("--param", "learning_rate=1e-8,1e-3,1e-9", "--pruner", "halving", "--num_train_epochs", "8")
    done = sweep("vader", *grid, "--out", str(out), *options[:-6])
    assert done.returncode == 0, done.stdout + done.stderr
    _, good, bad = rows_of(out)
    assert (good.state, bad.state) == ("done", "pruned")
    assert len(good.trial.intermediate_values) > len(bad.trial.intermediate_values) >= 1
    assert "2 done, 1 pruned" in done.stdout and not processes_of(out)


def test_stopped_by_hand_it_puts_its_trials_back(options, tmp_path):
    out, log = tmp_path / "out", tmp_path / "log"
    process = start(log, "vader", "--param", "alpha=0.8", "--out", str(out), *options, command=REAL)
    wait_for(lambda: processes_of(out), process)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 128 + signal.SIGINT
    assert "The same command goes on where it was." in log.read_text()
    assert not processes_of(out)
    (row,) = rows_of(out)
    assert row.state == "waiting"
