"""What Optuna alone loses or repeats. Each test is the reason for something that `distjudge_trl.sweep` does itself. If
one fails, Optuna has learnt it, and our part can go.
"""

import signal
import subprocess
import sys
import threading
import time

import optuna
import pytest
from optuna.storages import JournalStorage, RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import TrialState
from sweep.test_store import GRID, POINTS, sampler

from distjudge_trl.files.locks import kernel_lock
from distjudge_trl.sweep.store import Store


def test_a_grid_sampler_repeats_what_another_worker_is_running(tmp_path):
    """Hence all points are enqueued when the study is made."""
    space = {"alpha": [0.0, 0.4, 0.8], "lora_r": [4, 8]}
    study = optuna.create_study(sampler=optuna.samplers.GridSampler(space))
    ran = []

    def objective(trial):
        ran.append(tuple(trial.suggest_categorical(name, values) for name, values in space.items()))
        return 0.0

    objective(study.ask())  # by a worker that is still busy with it when all other points are done
    study.optimize(objective)
    assert len(set(ran)) == 6 < len(ran) and ran.count(ran[0]) == 2

    store = Store(None, tmp_path, "ours")
    store.make(GRID, POINTS)
    with store.claim(sampler):
        for _ in POINTS[1:]:
            with store.claim(sampler) as trial:
                store.study.tell(trial, 0.0)
        with store.claim(sampler) as trial:
            assert trial is None


def test_a_dead_worker_s_trial_runs_for_ever_in_a_journal(tmp_path):
    """Hence a worker holds a lock for its trial."""
    storage = JournalStorage(JournalFileBackend(str(tmp_path / "optuna.journal")))
    study = optuna.create_study(storage=storage)
    study.ask()  # by a worker that dies now
    optuna.storages.fail_stale_trials(study)
    assert study.trials[0].state == TrialState.RUNNING

    store = Store(None, tmp_path, "ours")
    store.make(GRID, POINTS[:1])
    with store.claim(sampler):
        pass
    assert [(trial.number, again) for trial, again in store.reap(lambda _: None)] == [(0, True)]


DIES_WHILE_IT_RETRIES = """
import os, signal, sys
import optuna
from optuna.storages import RDBStorage

def die(study, trial):
    os.kill(os.getpid(), signal.SIGKILL)

storage = RDBStorage(sys.argv[1], heartbeat_interval=1, grace_period=1, heartbeat_stale_trial_callback=die)
optuna.storages.fail_stale_trials(optuna.load_study(study_name="optuna", storage=storage))
"""


@pytest.mark.e2e
def test_a_worker_that_dies_while_it_retries_another_s_trial_loses_it(tmp_path):
    """Hence a retry is enqueued before its trial is failed; that order is tested in `test_store.py`."""
    url = f"sqlite:///{tmp_path}/study.db"
    retry = RetryHeartbeatStaleTrialCallback(max_retry=3)
    storage = RDBStorage(url, heartbeat_interval=1, grace_period=1, heartbeat_stale_trial_callback=retry)
    study = optuna.create_study(study_name="optuna", storage=storage)
    storage.record_heartbeat(study.ask()._trial_id)
    time.sleep(2.5)
    died = subprocess.run([sys.executable, "-c", DIES_WHILE_IT_RETRIES, url], check=False, capture_output=True)
    assert died.returncode == -signal.SIGKILL, died.stderr
    optuna.storages.fail_stale_trials(study)
    assert [trial.state for trial in study.trials] == [TrialState.FAIL], "nobody retries it any more"


HOLDS_A_LOCK = """
import signal, sys
from pathlib import Path
from optuna.storages.journal import JournalFileOpenLock
from distjudge_trl.files.locks import kernel_lock

JournalFileOpenLock(sys.argv[1]).acquire()
kernel_lock(Path(sys.argv[2])).acquire()
print("held", flush=True)
signal.pause()
"""


@pytest.mark.e2e
def test_a_killed_worker_leaves_its_journal_locked(tmp_path):
    """Hence locks are the kernel's."""
    paths = [str(tmp_path / "optuna"), str(tmp_path / "ours")]
    with subprocess.Popen([sys.executable, "-c", HOLDS_A_LOCK, *paths], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        holder.kill()
    theirs = JournalFileOpenLock(paths[0])
    waiting = threading.Thread(target=theirs.acquire, daemon=True)
    waiting.start()
    with kernel_lock(tmp_path / "ours").acquire(timeout=0):
        waiting.join(2)
    assert waiting.is_alive(), "it waits until its grace period is over"
    (tmp_path / "optuna.lock").unlink()
    waiting.join(10)
    theirs.release()
