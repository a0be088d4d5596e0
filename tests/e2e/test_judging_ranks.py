"""`distjudge-trl judge` in two processes of one launch (gloo, on the CPU)."""

import json
import signal
import time

import pytest
from click.testing import CliRunner
from conftest import make_tiny_judge, wait_for_lock
from ranks import run_ranks, start_ranks

from distjudge_trl.cli import main


ON_CPU = {"ACCELERATE_USE_CPU": "true"}
# Windows of 16 rows: two a round, and a last round that does not fill them.
ROWS = 5 * 64 + 37


@pytest.fixture(scope="module")
def folder(tokenizer, tmp_path_factory):
    path = tmp_path_factory.mktemp("judge")
    make_tiny_judge(path, tokenizer)
    rows = [{"id": i, "text": f"the text {i}"} for i in range(ROWS)]
    (path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def alone(folder):
    assert CliRunner().invoke(main, words(folder, folder / "alone.jsonl")).exit_code == 0
    return read(folder / "alone.jsonl")


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def assert_same(path, alone):
    """Up to rounding: a launch sets the number of threads."""
    found = read(path)
    assert [row["id"] for row in found] == list(range(ROWS))
    for mine, other in zip(found, alone, strict=True):
        assert list(mine) == list(other) and mine["label"] == other["label"]
        assert mine["label_distribution"] == pytest.approx(other["label_distribution"], abs=1e-5)


def words(folder, out, source=None):
    words = ["judge", "--model", folder, "--input", source or folder / "in.jsonl", "--out", out, "--batch-size", 1]
    return list(map(str, words))


def launched(python, *args):
    return [python, "-m", "distjudge_trl", *args]


def test_two_processes_write_what_one_writes(folder, alone, warm_python, tmp_path):
    command = launched(warm_python, *words(folder, tmp_path / "out.jsonl"))
    assert run_ranks(command, 2, ON_CPU, tmp_path / "log") == [0, 0], (tmp_path / "log.0").read_text()
    assert_same(tmp_path / "out.jsonl", alone)
    assert f"{ROWS} items judged" in (tmp_path / "log.0").read_text()
    assert "judged" not in (tmp_path / "log.1").read_text()


def test_two_processes_that_are_killed_go_on(folder, alone, warm_python, tmp_path):
    state = tmp_path / "out.jsonl.part/progress.json"
    processes = start_ranks(launched(warm_python, *words(folder, tmp_path / "out.jsonl")), 2, ON_CPU, tmp_path / "log")
    done = 0
    while done < 128:
        assert processes[0].poll() is None
        time.sleep(0.002)
        done = json.loads(state.read_text())["done"] if state.exists() else 0
    for process in processes:
        process.send_signal(signal.SIGKILL)
        process.wait()
    wait_for_lock(state.with_name("lock"))
    assert not (tmp_path / "out.jsonl").exists()
    # What two processes have begun, one may finish.
    finished = CliRunner().invoke(main, words(folder, tmp_path / "out.jsonl"))
    assert finished.exit_code == 0, finished.output
    assert f"of {ROWS} rows in" in finished.output
    assert_same(tmp_path / "out.jsonl", alone)


def test_a_mistake_ends_both_and_is_said_once(folder, warm_python, tmp_path):
    # A prompt that is too long is found by the process that judges it, here the second one.
    rows = (folder / "in.jsonl").read_text().splitlines(True)
    rows[170] = json.dumps({"prompt": [{"role": "user", "content": "rate " * 400}]}) + "\n"
    for source, content, message in (
        ("empty.jsonl", "", "empty.jsonl: holds no items."),
        ("long.jsonl", "".join(rows), "long.jsonl, row 171, field `prompt`: the prompt has"),
    ):
        (tmp_path / source).write_text(content)
        command = launched(warm_python, *words(folder, tmp_path / "out.jsonl", tmp_path / source))
        assert run_ranks(command, 2, ON_CPU, tmp_path / "log") == [2, 2]
        assert f"error: {tmp_path / message}" in (tmp_path / "log.0").read_text()
        assert "error:" not in (tmp_path / "log.1").read_text()
        if content:
            assert f"160 rows of {ROWS} are judged and kept" in (tmp_path / "log.0").read_text()
            assert (tmp_path / "out.jsonl.part/rows.jsonl").read_bytes().count(b"\n") == 160
        assert "Traceback" not in (tmp_path / "log.0").read_text() + (tmp_path / "log.1").read_text()
