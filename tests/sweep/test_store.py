"""Who runs which trial: nobody twice, nobody's lost, on every kind of storage."""

import json
import math
import signal
import statistics
import subprocess
import sys
import threading
import time
from dataclasses import replace
from functools import partial

import optuna
import pytest
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import TrialState
from postgres import ServerError, postgres_server
from sweep.test_definition import DEFINITION

from distjudge_trl.errors import UserInputError
from distjudge_trl.files.atomic import read_json
from distjudge_trl.sweep.space import Parameter, grid, parse_parameter
from distjudge_trl.sweep.store import Store
from distjudge_trl.sweep.table import read_rows
from distjudge_trl.sweep.worker import make_sampler


GRID = replace(
    DEFINITION, parameters=(Parameter("alpha", (0.0, 0.4, 0.8)), Parameter("lora_r", (4, 8))), sampler="grid"
)


POINTS = grid(GRID.parameters)


def sampler(number):
    return optuna.samplers.RandomSampler(seed=number)


@pytest.fixture(params=["journal", "sqlite", "postgresql"])
def url(request, tmp_path):
    if request.param == "postgresql":
        return request.getfixturevalue("postgres")
    return None if request.param == "journal" else f"sqlite:///{tmp_path}/study.db"


@pytest.fixture
def open_store(url, tmp_path):
    """Opens the study anew, as another process does."""
    name = f"study {tmp_path.name}"
    return lambda **options: Store(url, tmp_path / "out", name, **options)


def states(store):
    return [trial.state.name for trial in store.trials()]


def test_a_study_is_made_once_and_holds_every_configuration_once(open_store):
    store = open_store()
    assert store.make(GRID, POINTS) == 6
    again = open_store()
    assert again.make(GRID, POINTS) == 6
    assert again.open() == GRID
    assert [trial.system_attrs["fixed_params"] for trial in again.trials()] == grid(GRID.parameters)
    assert states(again) == ["WAITING"] * 6


def test_a_study_keeps_the_day_on_which_it_began(open_store):
    open_store().make(replace(GRID, day="2030-01-02"), POINTS)
    store = open_store()
    store.make(replace(GRID, day="2030-01-03"), POINTS)
    assert store.definition.day == open_store().open().day == "2030-01-02"
    assert read_json(store.out / "sweep.json")["definition"]["day"] == "2030-01-02"
    assert f"{store.name} (2)" not in optuna.get_all_study_names(store.storage)


def test_what_was_half_made_is_completed(open_store, monkeypatch):
    # Some of the points, in another order, and no definition yet: as after a start that died.
    store = open_store()
    study = optuna.create_study(study_name=store.name, storage=store.storage)
    for index in (4, 1):
        study.enqueue_trial(POINTS[index], user_attrs={"index": {4: 0, 1: 1}[index]})
    monkeypatch.setattr("distjudge_trl.sweep.study._SETTING_UP", 0.0)
    short = open_store()
    assert short.make(GRID, POINTS) == 6
    assert [trial.user_attrs["index"] for trial in short.trials()] == list(range(6))
    fixed = [trial.system_attrs["fixed_params"] for trial in short.trials()]
    assert sorted(map(str, fixed)) == sorted(map(str, POINTS)), "by what they are, not by their order"


def test_another_sweep_of_the_same_name_is_refused_and_changes_nothing(open_store):
    store = open_store()
    store.make(GRID, POINTS)
    with pytest.raises(UserInputError, match="differs in its grid"):
        open_store().make(replace(GRID, parameters=GRID.parameters[:1]), [])
    with pytest.raises(UserInputError, match="training data"):
        open_store().make(replace(GRID, train_fingerprint="zz"), POINTS)
    assert len(store.trials()) == 6 and store.open() == GRID


def test_a_grid_that_grew_keeps_its_trials(open_store):
    small = replace(GRID, parameters=(Parameter("alpha", (0.0, 0.4)), GRID.parameters[1]))
    store = open_store()
    store.make(small, grid(small.parameters))
    for value in (0.5, 0.25, None):
        with store.claim(sampler) as trial:
            for parameter in small.parameters:
                trial.suggest_categorical(parameter.name, list(parameter.choices))
            if value is None:
                store.fail(store.storage.get_trial(trial._trial_id), "out of memory", again=False)
            else:
                store.study.tell(trial, value)
    with store.claim(sampler) as running:
        number = running.number
        larger = open_store()
        assert larger.make(GRID, POINTS) == 6
        assert [row.state for row in read_rows(larger)] == ["done", "done", "failed", "waiting", "waiting", "waiting"]
        # What runs is left to its worker, which writes into the same folder.
        with larger.claim(sampler) as trial:
            assert trial.number != number and trial.suggest_categorical("alpha", [0.0, 0.4, 0.8]) == 0.8
            larger.study.tell(trial, 0.125)
    with larger.claim(sampler) as trial:
        assert trial.number == number
    # Found by its name; the values it had cannot be taken away.
    again = open_store()
    assert again.open() == GRID and again.make(GRID, POINTS) == 6
    assert [row.value for row in read_rows(again)[:2]] == [0.5, 0.25]
    with pytest.raises(UserInputError, match="differs in its grid"):
        open_store().make(small, grid(small.parameters))
    largest = replace(GRID, parameters=(GRID.parameters[0], Parameter("lora_r", (4, 8, 16))))
    assert open_store().make(largest, grid(largest.parameters)) == 9
    with pytest.raises(UserInputError, match="differs in its metric"):
        open_store().make(replace(largest, metric="accuracy"), grid(largest.parameters))


def test_a_study_that_is_not_a_sweep_s_is_left_alone(open_store):
    store = open_store()
    study = optuna.create_study(study_name=store.name, storage=store.storage)
    study.add_trial(optuna.trial.create_trial(value=1.0))
    with pytest.raises(UserInputError, match="was not made by"):
        store.make(GRID, POINTS)
    with pytest.raises(UserInputError, match="was not made by"):
        store.open()
    with pytest.raises(UserInputError, match="holds no study 'other'"):
        other = open_store()
        other.name = "other"
        other.open()


def test_threads_take_every_trial_once(open_store):
    store = open_store()
    store.make(GRID, POINTS)
    taken = []

    def work(own):
        while True:
            with own.claim(sampler) as trial:
                if trial is None:
                    return
                taken.append(trial.number)
                time.sleep(0.02)
                own.study.tell(trial, 1.0)

    # Two threads of one worker, two workers.
    other = open_store()
    threads = [threading.Thread(target=work, args=(own,)) for own in (store, store, other, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == list(range(6)) and states(store) == ["COMPLETE"] * 6


WORKER = """
import signal, sys
from pathlib import Path
from optuna.samplers import RandomSampler
from distjudge_trl.sweep.store import Store
from distjudge_trl.sweep.table import read_rows
url, out, name = sys.argv[1:]
store = Store(url or None, Path(out), name)
with store.claim(lambda number: RandomSampler()) as trial:
    print(trial.number, flush=True)
    signal.pause()
"""
MAKER = """
import json, sys
from pathlib import Path
from distjudge_trl.sweep.definition import Definition
from distjudge_trl.sweep.space import grid
from distjudge_trl.sweep.store import Store
from distjudge_trl.sweep.table import read_rows
url, out, name, definition = sys.argv[1:]
definition = Definition.from_dict(json.loads(definition), name)
print(Store(url or None, Path(out), name).make(definition, grid(definition.parameters)))
"""


@pytest.fixture
def start(open_store, url, tmp_path):
    """Starts a script on the storage in a process of its own."""

    def start(script, *more):
        command = [sys.executable, "-c", script, url or "", str(tmp_path / "out"), open_store().name, *more]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    return start


@pytest.mark.e2e
def test_a_killed_worker_s_trial_is_put_back_by_any_other_at_once(open_store, start):
    """A real process that takes a trial and is killed; then its retries, as often as is allowed."""
    store = open_store(retries=2)
    store.make(GRID, POINTS[:1])
    buried = []
    process = start(WORKER)
    assert process.stdout.readline().strip() == "0"
    # While it lives nobody touches its trial.
    assert store.reap(buried.append) == [] and states(store) == ["RUNNING"]
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert [(trial.number, again) for trial, again in open_store(retries=2).reap(buried.append)] == [(0, True)]
    assert store.reap(buried.append) == []
    for attempt in (1, 2):
        with store.claim(sampler) as trial:
            assert trial.number == attempt
        assert [(trial.number, again) for trial, again in store.reap(buried.append)] == [(attempt, attempt < 2)]
    assert [trial.number for trial in buried] == [0, 1, 2]
    assert states(store) == ["FAIL"] * 3
    assert [trial.user_attrs["error"] for trial in store.trials()] == ["its worker was killed"] * 3
    assert [trial.user_attrs["index"] for trial in store.trials()] == [0, 0, 0]
    assert store.unfinished() == 0


def test_a_trial_that_was_stopped_waits_again(open_store):
    store = open_store()
    store.make(GRID, POINTS[:2])
    with store.claim(sampler) as trial:
        trial.suggest_categorical("alpha", [0.0, 0.4, 0.8])
        store.put_back(trial)
    assert states(store) == ["WAITING", "WAITING"]
    with open_store().claim(sampler) as trial:
        assert trial.number == 0 and trial.suggest_categorical("alpha", [0.0, 0.4, 0.8]) == 0.0
        store.study.tell(trial, 0.5)
    assert states(store) == ["COMPLETE", "WAITING"]


def test_a_retry_that_was_enqueued_before_its_worker_died_is_not_enqueued_twice(open_store):
    store = open_store()
    store.make(GRID, POINTS[:1])
    with store.claim(sampler):
        pass
    (frozen,) = store.trials()
    # As if killed between the two steps of `fail`.
    store.retry(frozen)
    assert len(store.reap(lambda _: None)) == 1
    assert states(store) == ["FAIL", "WAITING"]


@pytest.mark.e2e
def test_a_silent_worker_on_another_machine_is_given_up_by_its_heartbeat(postgres, tmp_path):
    store = Store(postgres, tmp_path, "heartbeat", heartbeat=1, retries=1)
    store.make(GRID, POINTS[:1])
    with store.claim(sampler) as trial:
        store.storage.set_trial_user_attr(trial._trial_id, "place", "another machine's")
        assert store.reap(lambda _: None) == [] and states(store) == ["RUNNING"]
        deadline = time.monotonic() + 30
        while states(store) == ["RUNNING"] and time.monotonic() < deadline:
            time.sleep(0.5)
            store.reap(lambda _: None)
        assert states(store) == ["FAIL", "WAITING"]
        # The silent one hears of it at its next sign of life, and its end is not taken for the retry's.
        with pytest.raises(UpdateFinishedTrialError):
            store.beat(trial._trial_id, None)
    retry = store.trials()[1]
    assert retry.user_attrs == {"index": 0}, "where the dead one was is not where the next one is"


def test_workers_that_see_no_common_lock_leave_each_other_s_trials_alone(postgres, tmp_path, monkeypatch):
    """Two machines with the same name and folders of their own."""
    stores = []
    for name in "ab":
        stores.append(Store(postgres, tmp_path / name, "apart", heartbeat=60))
        stores[-1].locks = tmp_path / name / "locks"
    stores[0].make(GRID, POINTS)
    assert stores[1].make(GRID, POINTS) == 6
    with stores[0].claim(sampler) as trial, stores[1].claim(sampler) as other:
        assert (trial.number, other.number) == (0, 1)
        assert stores[1].reap(lambda _: None) == [] == stores[0].reap(lambda _: None)


def test_what_two_machines_enqueue_at_the_same_moment_is_run_once(open_store):
    store = open_store()
    store.make(GRID, POINTS[:2])
    # What a second machine adds that saw none of the first one's.
    for index, point in enumerate(POINTS[:2]):
        store.study.enqueue_trial(point, user_attrs={"index": index})
    taken = []
    for _ in range(3):
        with store.claim(sampler) as trial:
            if trial is not None:
                taken.append(trial.number)
                store.study.tell(trial, 0.0)
    assert taken == [0, 1] and store.unfinished() == 0
    assert [row.state for row in read_rows(store)] == ["done", "done"]


def test_a_torn_line_of_a_journal_is_cut(tmp_path):
    store = Store(None, tmp_path, "torn")
    store.make(GRID, POINTS)
    journal = tmp_path / "study.journal"
    whole = journal.read_bytes()
    journal.write_bytes(whole[:-20])
    again = Store(None, tmp_path, "torn")
    assert again.make(GRID, POINTS) == 6
    assert [trial.system_attrs["fixed_params"] for trial in Store(None, tmp_path, "torn").trials()] == POINTS


@pytest.mark.parametrize("line", [b"garbage", b'{"op_code": 99, "worker_id": "x"}', b'{"op_code": 6}', b"\xff\xfe"])
def test_a_damaged_journal_is_named_and_results_are_safe(tmp_path, line):
    store = Store(None, tmp_path, "damaged")
    store.make(GRID, POINTS)
    journal = tmp_path / "study.journal"
    lines = journal.read_bytes().splitlines(True)
    journal.write_bytes(b"".join([*lines[:5], line + b"\n", *lines[5:]]))
    with pytest.raises(UserInputError) as error:
        Store(None, tmp_path, "damaged").open()
    text = str(error.value)
    assert text.startswith(f"{journal}: is damaged (") and "Move it away" in text and "\n" not in text
    journal.rename(tmp_path / "away")
    assert Store(None, tmp_path, "damaged").make(GRID, POINTS) == 6


def test_a_folder_belongs_to_one_study(open_store, tmp_path):
    """Results that are there would be taken for another sweep's."""
    store = open_store()
    store.make(GRID, POINTS)
    other = Store(None, store.out, "another")
    with pytest.raises(UserInputError, match=f"holds the sweep '{store.name}'. Choose another --out"):
        other.make(GRID, POINTS)
    fresh = Store(f"sqlite:///{tmp_path}/fresh.db", store.out, store.name)
    with pytest.raises(UserInputError, match="differs in its metric"):
        fresh.make(replace(GRID, metric="accuracy"), POINTS)


def test_what_failed_is_tried_again_on_request(open_store):
    store = open_store(retries=0)
    store.make(GRID, POINTS[:2])
    for value in (None, 1.0):
        with store.claim(sampler) as trial:
            if value is None:
                store.fail(store.storage.get_trial(trial._trial_id), "out of memory", again=False)
            else:
                store.study.tell(trial, value)
    assert store.unfinished() == 0 and store.retry_failed() == 1
    with store.claim(sampler) as trial:
        assert trial.suggest_categorical("alpha", [0.0, 0.4, 0.8]) == 0.0
        store.study.tell(trial, 1.0)
    assert store.retry_failed() == 0 and [row.state for row in read_rows(store)] == ["done", "done"]


@pytest.mark.e2e
def test_trials_go_on_while_the_server_restarts(tmp_path):
    try:
        with postgres_server() as server:
            store = Store(server, tmp_path, "patient")
            store.make(GRID, POINTS)
            with store.claim(sampler) as trial:
                server.stop()
                answers = []
                thread = threading.Thread(target=lambda: answers.append(store.beat(trial._trial_id, None)))
                thread.start()
                time.sleep(1.5)
                assert thread.is_alive(), "it waits"
                server.start()
                thread.join(60)
                assert answers == [None]
    except ServerError as error:
        pytest.skip(f"needs PostgreSQL: {error}")


def test_retries_know_the_sampler_s_choice(open_store):
    """A trial of a range is tried again with the same value."""
    store = open_store()
    tpe = replace(DEFINITION, sampler="tpe")
    store.make(tpe, [{}] * 2)
    with store.claim(sampler) as trial:
        rate = trial.suggest_float("learning_rate", 1e-5, 1e-3, log=True)
        assert store.fail(store.storage.get_trial(trial._trial_id), "killed", again=True)
    with store.claim(sampler), store.claim(sampler) as trial:
        assert trial.number == 2 and trial.suggest_float("learning_rate", 1e-5, 1e-3, log=True) == rate
    trial = store.trials()[0]
    assert trial.state == TrialState.FAIL and trial.user_attrs["error"] == "killed"


@pytest.mark.e2e
def test_tpe_learns_from_trials_that_other_workers_ran(open_store):
    """Twenty trials of two workers on a valley in the logarithm of a rate: later ones are nearer to its bottom."""
    definition = replace(DEFINITION, parameters=(parse_parameter("learning_rate=log:1e-6:1"),), sampler="tpe")
    stores = [open_store(), open_store()]
    stores[0].make(definition, [{}] * 40)
    rates = []
    for place in range(40):
        store = stores[place % 2]
        with store.claim(partial(make_sampler, definition)) as trial:
            rates.append(trial.suggest_float("learning_rate", 1e-6, 1, log=True))
            store.study.tell(trial, abs(math.log10(rates[-1]) + 3))
    assert len(set(rates)) == 40
    distances = [abs(math.log10(rate) + 3) for rate in rates]
    assert statistics.fmean(distances[20:]) < 0.6 * statistics.fmean(distances[:10])


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("postgresql://judge:secret@127.0.0.1:1/sweeps", ["postgresql", "judge:***@127.0.0.1:1", "cannot be reached"]),
        ("mysql://judge:secret@127.0.0.1:1/sweeps", ["driver is not installed"]),
        ("nothing://x", ["nothing://"]),
        ("postgresql://:::", ["postgresql://"]),
        ("sqlite://", ["write sqlite:///sweep.db"]),
        ("FOLDER", ["is a folder"]),
        ("FOLDER/file/below", ["there is no folder", "Make it, or correct the path"]),
        ("sqlite:///FOLDER/nowhere/x.db", ["there is no folder", "nowhere"]),
        ("FOLDER/file", ["is no journal file"]),
    ],
)
def test_a_storage_that_cannot_be_used_is_one_line_without_the_password(tmp_path, url, words):
    (tmp_path / "file").write_text("no journal\n")
    with pytest.raises(UserInputError) as error:
        Store(url.replace("FOLDER", str(tmp_path)), tmp_path / "out", "x").make(GRID, POINTS)
    text = str(error.value)
    assert all(word in text for word in words), text
    assert "\n" not in text and "secret" not in text
    assert (tmp_path / "file").read_text() == "no journal\n"


@pytest.mark.e2e
def test_processes_that_make_a_study_at_once_make_one(open_store, start):
    processes = [start(MAKER, json.dumps(GRID.to_dict())) for _ in range(2)]
    assert [process.communicate(timeout=60)[0].strip() for process in processes] == ["6", "6"]
    assert [trial.user_attrs["index"] for trial in open_store().trials()] == list(range(6))
