"""The quickstart as `make quickstart` runs it, on fewer words; its recipes are warm processes."""

import json
import signal
import subprocess
import sys
import time
from argparse import Namespace

import pytest
from conftest import ROOT

from distjudge_trl.evaluation import read_results


QUICKSTART = str(ROOT / "scripts/quickstart.py")


def test_quickstart_trains_compares_and_draws(tmp_path, bundled_model, warm_python):
    command = [QUICKSTART, "--output-dir", str(tmp_path / "out")]
    command += ["--max-train-samples", "64", "--max-eval-samples", "48"]
    done = subprocess.run([warm_python, *command], check=False, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    kl = {
        name: read_results(tmp_path / "out" / name)["metrics"]["kl"]
        for name in ("raw", "single-point", "distribution")
    }
    assert kl["distribution"]["high"] < kl["raw"]["low"] and kl["single-point"]["high"] < kl["raw"]["low"]
    for expected in ("| raw ", "| single-point ", "| distribution ", "| noise floor ", "What to try next"):
        assert expected in done.stdout
    assert (tmp_path / "out" / "disagreement.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    table = (tmp_path / "out" / "table.md").read_text().strip()
    assert table in done.stdout and "expect a higher KL here" in table
    assert "64 words to train on and 48 to test on, as asked for; seed 42, " in table
    assert "| here: " in done.stdout and "| README: " in done.stdout and "Not to be compared: " in done.stdout
    again = subprocess.run([warm_python, *command], check=False, capture_output=True, text=True, timeout=300)
    assert again.stdout.count("done before") == 3 and again.returncode == 0
    assert "This call took " in again.stdout


def test_stopped_by_hand_it_goes_on_from_its_checkpoint(tmp_path, recipe_model, warm_python):
    out = tmp_path / "out"
    command = [warm_python, QUICKSTART, "--output-dir", str(out), "--model", recipe_model]
    command += ["--max-train-samples", "1920", "--max-eval-samples", "40"]
    with (tmp_path / "log").open("w") as log:
        first = subprocess.Popen(command, stdout=log, stderr=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 200
        # 120 steps, a checkpoint every 40: seconds in which a busy machine cannot miss it.
        while not list((out / "single-point").glob("checkpoint-*/checkpoint.json")):
            assert first.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        first.send_signal(signal.SIGINT)
        said = first.communicate(timeout=60)[1].splitlines()[-1]
    assert first.returncode == 130
    assert said == f"Stopped. The same command goes on where it was: {' '.join(command)}"
    assert not (out / "single-point/results.json").exists()
    raw = (out / "raw/results.json").stat().st_mtime_ns
    again = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)
    assert again.returncode == 0, again.stderr[-3000:]
    assert "[1/3] raw: done before" in again.stdout and (out / "raw/results.json").stat().st_mtime_ns == raw
    lines = [line for line in again.stdout.splitlines() if "--resume_from_checkpoint" in line]
    assert len(lines) == 1 and lines[0].startswith("[2/3] ") and "--method single-point" in lines[0]
    trained = json.loads((out / "single-point/trainer_state.json").read_text())
    assert trained["global_step"] == 120
    assert not list(out.glob("*/checkpoint-*")), "they are large"
    # Another seed takes what is there, and shows how the two differ.
    more = subprocess.run([*command, "--seeds", "2"], check=False, capture_output=True, text=True, timeout=300)
    assert more.returncode == 0, more.stderr[-3000:]
    assert more.stdout.count("done before") == 3 and ", seeds 42, 43 " in more.stdout
    assert read_results(out / "seed-43/distribution")["seed"] == 43
    kls = {read_results(out / name / "distribution")["metrics"]["kl"]["value"] for name in ("", "seed-43")}
    assert len(kls) == 2, "the seeds differ"
    # A tiny model's two seeds may print the same three digits; they are then one number.
    low, high = (f"{value:.3f}" for value in sorted(kls))
    assert (f"{low} to {high} (" if low != high else f"{low} (") in more.stdout


def test_a_few_steps_tell_how_fast_the_machine_is(tmp_path, recipe_model, scripts, warm_python, monkeypatch, capsys):
    monkeypatch.setattr(sys, "executable", warm_python)
    runs = scripts("quickstart_runs")
    began = time.monotonic()
    speed = runs.measure(Namespace(model=recipe_model, float32=True))
    took = time.monotonic() - began
    assert 0 < speed.step < took and 0 < speed.batch < took and 0 < speed.beside < took
    # What it says of a run of the same size is about what that took.
    size = runs.Size(6 * runs.BATCH, 3 * runs.EVAL_BATCH)
    assert speed.part("distribution", size) == pytest.approx(took, rel=0.5)
    with pytest.raises(SystemExit) as ended:
        runs.measure(Namespace(model=str(tmp_path / "none"), float32=True))
    assert ended.value.code == 2 and capsys.readouterr().err.startswith("error: ")
