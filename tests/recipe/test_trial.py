"""A run that a sweep started ends with its worker, and tells why it failed unless others were the reason."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from distjudge_trl.errors import LostProcessError, RunFailedError
from distjudge_trl.files.atomic import read_json
from distjudge_trl.recipe.trial import RUN_FOLDER, WORKER, record_failure, this_process


WORKER_SCRIPT = """
import os, subprocess, sys, time
from distjudge_trl.recipe.trial import WORKER, this_process
lines = ("from distjudge_trl.recipe.trial import follow_worker", "follow_worker()", "print(1, flush=True)")
run = "; ".join((*lines, "import time", "time.sleep(60)"))
environment = {**os.environ, WORKER: this_process()}
child = subprocess.Popen([sys.executable, "-c", run], env=environment, start_new_session=True)
print(child.pid, flush=True)
time.sleep(60)
"""


@pytest.mark.e2e
def test_a_run_ends_soon_after_its_worker_was_killed():
    worker = subprocess.Popen([sys.executable, "-c", WORKER_SCRIPT], stdout=subprocess.PIPE, text=True)
    run = psutil.Process(int(worker.stdout.readline()))
    assert worker.stdout.readline() == "1\n"
    time.sleep(1.5)
    assert run.is_running(), "it lives as long as its worker"
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    assert not psutil.wait_procs([run], timeout=10)[1]


IN_A_COMMAND = """
import time
from distjudge_trl.cli import main
main.command("nap")(lambda: time.sleep(60))
main(["nap"])
"""


@pytest.mark.parametrize(
    "run",
    [
        "from distjudge_trl.recipe.trial import follow_worker; follow_worker(); import time; time.sleep(60)",
        IN_A_COMMAND,
    ],
    ids=["recipe", "command"],
)
def test_another_process_with_the_worker_s_number_is_not_the_worker(run):
    gone = f"{os.getpid()} 1"
    process = subprocess.Popen([sys.executable, "-c", run], env={**os.environ, WORKER: gone})
    assert process.wait(30) == -signal.SIGKILL
    assert this_process().startswith(f"{os.getpid()} ") and this_process() != gone


@pytest.mark.parametrize(
    ("error", "recorded"),
    [
        (RunFailedError("a full disk"), {"kind": "RunFailedError", "message": "a full disk"}),
        (RuntimeError("CUDA out of memory\nmore"), {"kind": "RuntimeError", "message": "CUDA out of memory"}),
        (LostProcessError("step 3: lost the connection"), {}),
        (RuntimeError("[gloo/transport/tcp/pair.cc:534] Connection closed by peer"), {}),
        (SystemExit(1), {}),
    ],
)
def test_the_reason_is_recorded_unless_it_is_another_process(tmp_path, monkeypatch, error, recorded):
    record_failure(error)  # outside a sweep: nowhere
    monkeypatch.setenv(RUN_FOLDER, str(tmp_path))
    monkeypatch.setenv("WORLD_SIZE", "2")
    record_failure(error)
    assert read_json(tmp_path / "failure.json") == recorded
    record_failure(ValueError("later"))
    if recorded:
        assert read_json(tmp_path / "failure.json") == recorded, "the first reason stays"
