"""`scripts/gpu_check.py`: checks that crash, hang or are stopped, and the report. The checks themselves: tests/e2e."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from conftest import ROOT


sys.path.insert(0, str(ROOT / "scripts"))

import gpu_check
from gpu_checks import CHECKS
from gpu_checks.check import Findings, Machine, Result
from gpu_checks.report import redact, write_report
from gpu_checks.runner import environment, run_checks, select


MADE = """
import os, subprocess, sys, time
from pathlib import Path
from gpu_checks.check import Check, Skip

def passes(find):
    find.figure("answer", 42.0)
    find.close("number", 1.04, 1.0, rel=0.05)

def wrong(find):
    find.close("number", 1.06, 1.0, rel=0.05)
    find.close("nothing", float("nan"), float("nan"), rel=0.05)
    find.figure("after it", 1)

def raises(find):
    find.figure("before it", 1)
    raise ValueError("it is broken\\nin detail")

def crashes(find):
    find.figure("before it", 1)
    print("last words", flush=True)
    os._exit(3)

def vanishes(find):
    os._exit(0)

def killed(find):
    os.kill(os.getpid(), 9)

def hangs(find):
    # As a launcher does: a process in a session of its own.
    left = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    Path(find.machine.work, "pid").write_text(str(left.pid))
    time.sleep(600)

def wrong_and_hangs(find):
    find.section("kernels", "none")
    find.fail("loss of step 1: 9, expected 1")
    time.sleep(600)

def skips(find):
    raise Skip("no such thing here")

FUNCTIONS = (passes, wrong, raises, crashes, vanishes, killed, skips)
CHECKS = [Check(f.__name__, f"expected of {f.__name__}", f, limit=60) for f in FUNCTIONS]
CHECKS += [
    Check("hangs", "", hangs, limit=1),
    Check("reads", "", passes, after=("hangs",)),
    Check("on-gpus", "", passes, needs=("gpu",)),
    Check("with-more", "", passes, needs=("no_such_module",)),
    Check("last", "", passes),
    Check("slow", "", hangs, limit=60),
    Check("wrong-and-hangs", "", wrong_and_hangs, limit=60),
    Check("after-it", "", passes),
]
"""


@pytest.fixture()
def made(tmp_path, monkeypatch):
    """A module of checks that end in every way."""
    (tmp_path / "made_checks.py").write_text(MADE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("made_checks", None)
    import made_checks

    return made_checks.CHECKS


@pytest.fixture()
def machine(tmp_path):
    (tmp_path / "work").mkdir()
    return Machine("cpu", 0, True, str(tmp_path / "work"))


def run(checks, machine, budget=600.0):
    results = {}

    def done(result):
        results[result.name] = result

    assert run_checks(checks, machine, budget=budget, started=lambda check: None, done=done)
    return results


def is_alive(pid):
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


@pytest.mark.e2e
def test_whatever_becomes_of_a_check_the_next_ones_run(made, machine):
    results = run([check for check in made if check.name not in ("slow", "wrong-and-hangs", "after-it")], machine)
    assert {name: result.status for name, result in results.items()} == {
        **dict.fromkeys(("passes", "last"), "PASS"),
        **dict.fromkeys(("wrong", "raises", "crashes", "vanishes", "killed", "hangs"), "FAIL"),
        **dict.fromkeys(("skips", "reads", "on-gpus", "with-more"), "SKIP"),
    }
    measured = {name: result.measured for name, result in results.items()}
    assert measured["passes"] == "answer 42"
    assert measured["wrong"] == (
        "number: 1.06, expected 1 within 5.0%; nothing: nan, expected nan within 5.0%; after it 1"
    )
    assert measured["raises"] == "ValueError: it is broken; before it 1"
    assert "ValueError: it is broken\nin detail" in results["raises"].log.read_text()
    assert measured["crashes"] == "exit code 3; before it 1"
    assert measured["vanishes"] == "its process ended before the check did"
    assert measured["killed"] == "its process was killed (SIGKILL)"
    assert measured["skips"] == "no such thing here"
    assert measured["hangs"] == "not done after 3 s: stopped"
    assert measured["reads"] == "needs what hangs leaves, which did not pass"
    assert measured["on-gpus"] == "needs a GPU"
    assert measured["with-more"] == "needs no_such_module, which is not installed"
    assert not is_alive(int(Path(machine.work, "pid").read_text())), "what a check has started ends with it"


@pytest.mark.e2e
def test_the_time_budget_ends_the_rest(made, machine):
    chosen = [check for check in made if check.name in ("slow", "last")]
    results = run(chosen[::-1], machine, budget=2.0)
    assert results["slow"].measured == "the time budget ran out" and results["slow"].status == "SKIP"
    assert results["slow"].seconds < 30
    assert results["last"].measured == "not run: the time budget is used up"


@pytest.mark.parametrize(
    ("end", "reason"), [("TimeoutExpired", "the time budget ran out"), ("KeyboardInterrupt", "stopped")]
)
def test_a_failure_that_was_found_stays_one_when_the_check_is_cut_short(made, machine, monkeypatch, end, reason):
    findings = machine.folder("wrong-and-hangs") / Findings.FILE

    class CutShort(subprocess.Popen):
        """Ends as soon as the failure is written down, in place of after some seconds."""

        ended = False

        def wait(self, timeout=None):
            if self.ended:
                return super().wait(timeout)
            while not findings.exists() or "expected 1" not in findings.read_text():
                assert self.poll() is None
                time.sleep(0.02)
            self.ended = True
            raise subprocess.TimeoutExpired("check", timeout) if end == "TimeoutExpired" else KeyboardInterrupt

    monkeypatch.setattr(subprocess, "Popen", CutShort)
    results = []
    chosen = [check for check in made if check.name == "wrong-and-hangs"]
    went_on = run_checks(chosen, machine, budget=50.0, started=lambda check: None, done=results.append)
    assert went_on == (end == "TimeoutExpired")
    (result,) = results
    assert result.status == "FAIL" and result.measured == f"loss of step 1: 9, expected 1; {reason}"
    assert result.sections == [("kernels", "none")]


@pytest.mark.e2e
def test_ctrl_c_writes_the_report_and_leaves_no_process(made, tmp_path):
    script = tmp_path / "check.py"
    script.write_text(
        "import sys\n"
        f"sys.path[:0] = [{str(ROOT / 'scripts')!r}, {str(tmp_path)!r}]\n"
        "import gpu_check, made_checks\n"
        "raise SystemExit(gpu_check.main(sys.argv[1:], made_checks.CHECKS))\n"
    )
    work = tmp_path / "work"
    options = ("--cpu", "--tiny", "--only", "passes,slow,after-it", "--out", tmp_path / "out", "--work", work)
    process = subprocess.Popen([sys.executable, script, *options], stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not (work / "pid").exists() or not (work / "pid").read_text():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130, out
    assert not is_alive(int((work / "pid").read_text()))
    report = (tmp_path / "out" / "gpu_check_report.md").read_text()
    assert "Stopped before its end." in report and "1 passed, 0 failed, 2 skipped" in report
    rows = [line.split(" | ") for line in report.splitlines() if line.startswith("| ")]
    assert [(row[0].strip("| "), row[1], row[-1]) for row in rows[1:]] == [
        ("passes", "PASS", "answer 42 |"),
        ("slow", "SKIP", "stopped |"),
        ("after-it", "SKIP", "not run: stopped before |"),
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--cpu",), "--cpu goes with --tiny"),
        (("--cpu", "--tiny", "--only", "lora,nothing"), "there is no check 'nothing'"),
        (("--cpu", "--tiny", "--time-budget", "0"), "give a positive number"),
        (("--cpu", "--tiny", "--out", "/proc/nothing"), "--out /proc/nothing"),
    ],
)
def test_wrong_options_are_exit_code_2(options, message, capsys):
    with pytest.raises(SystemExit) as caught:
        gpu_check.main(options)
    assert caught.value.code == 2 and message in capsys.readouterr().err


def test_a_failure_is_exit_code_1_and_the_report_is_there(made, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(gpu_check, "probe", lambda machine: {"gpus": 0, "environment": "torch: 1"})
    options = ("--cpu", "--tiny", "--out", str(tmp_path / "out"))
    assert gpu_check.main([*options, "--only", "passes,skips"], made) == 0
    assert not (tmp_path / "out" / "gpu_check_logs").exists()
    assert gpu_check.main([*options, "--only", "passes,crashes"], made) == 1
    assert "1 passed, 1 failed (crashes), 0 skipped" in capsys.readouterr().out.splitlines()[-1]
    report = (tmp_path / "out" / "gpu_check_report.md").read_text()
    assert "Not finished yet" not in report and "torch: 1" in report
    assert "| crashes | FAIL |" in report and "last words" in report.partition("end of its log")[2]
    assert (tmp_path / "out" / "gpu_check_logs" / "crashes.log").read_text() == "before it: 1\nlast words\n"


@pytest.mark.parametrize(
    ("gpus", "message"), [(0, "--cpu --tiny runs what a CPU can do"), (1, "choose another folder with --work")]
)
def test_without_a_gpu_or_room_one_line_says_what_can_be_done(tmp_path, monkeypatch, capsys, gpus, message):
    monkeypatch.setattr(gpu_check, "probe", lambda machine: {"gpus": gpus, "environment": ""})
    monkeypatch.setattr(gpu_check, "DISK", 2**60)
    with pytest.raises(SystemExit) as caught:
        gpu_check.main(["--out", str(tmp_path)])
    assert caught.value.code == 2 and message in capsys.readouterr().err


def test_the_report_can_be_pasted_and_tells_no_secrets(made, tmp_path, monkeypatch):
    monkeypatch.setenv("MY_SERVICE_TOKEN", "abcdef123456")
    log = tmp_path / "log.txt"
    log.write_text("1%\r50%\r100%\nfound abcdef123456 and hf_ABCDEFGHIJKLMNOP\n```\nat https://me:pw@host/x\n")
    results = [
        Result("passes", "PASS", 3.2, ["a | b", "two\nlines /home/me/work/x"], sections=[("kernels", "fmha 1 ms")]),
        Result("raises", "FAIL", 1.0, failures=["broke with abcdef123456"], log=log),
    ]
    path = write_report(
        tmp_path / "new",
        command="gpu_check",
        environment="torch 2",
        checks=made,
        results=results,
        note="A note.",
        folders={"/home/me/work": "WORK"},
    )
    text = path.read_text()
    kept = (tmp_path / "new" / "gpu_check_logs" / "raises.log").read_text()
    for secret in ("abcdef123456", "hf_ABCDEFGHIJKLMNOP", "me:pw"):
        assert secret not in text and secret not in kept
    assert "| passes | PASS | 3 | expected of passes | a \\| b; two lines WORK/x |" in text
    assert "fmha 1 ms" in text and "A note." in text and "1 passed, 1 failed (raises), 0 skipped" in text
    assert "````\n100%\nfound [removed] and [removed]\n```\nat https://[removed]@host/x\n````" in text


def test_tiny_models_are_not_taken_for_the_others(tmp_path):
    """A work folder that has been used with --tiny is used without."""
    tiny, whole = (Machine("cuda", 1, tiny, str(tmp_path)) for tiny in (True, False))
    folders = [Path(path) for machine in (tiny, whole) for path in (machine.small, machine.large)]
    assert len(set(folders)) == 4 and all(path.is_relative_to(tmp_path) for path in folders)
    assert folders[0].parent == folders[1].parent != folders[2].parent == folders[3].parent


def test_checks_see_no_secrets_and_the_gpus_that_they_are_for(machine, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "abcdef123456")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-1,GPU-2")
    on_gpus = Machine("cuda", 2, False, machine.work)
    assert "HF_TOKEN" not in environment(on_gpus) and environment(on_gpus)["HF_HUB_OFFLINE"] == "1"
    assert environment(on_gpus)["CUDA_VISIBLE_DEVICES"] == "GPU-1"
    assert environment(on_gpus, all_gpus=True)["CUDA_VISIBLE_DEVICES"] == "GPU-1,GPU-2"
    assert environment(machine)["CUDA_VISIBLE_DEVICES"] == ""
    assert redact("a hf_short", {}) == "a hf_short"


def test_checks_are_told_apart_and_come_after_what_they_read():
    names = [check.name for check in CHECKS]
    assert len(set(names)) == len(names)
    for i, check in enumerate(CHECKS):
        assert set(check.after) <= set(names[:i]), check.name
        assert check.expectation and 0 < check.limit <= 600
        assert check in sys.modules[check.function.__module__].CHECKS, "its process finds it there"
    assert [check.name for check in select(CHECKS, ["memory-lora", "resume"])] == [
        *("weights", "lora", "resume", "throughput-lora", "memory-lora"),
    ]


def test_the_report_in_the_docs_is_of_these_checks(monkeypatch):
    """docs/gpu_check_cpu.md: each check once and in order, and what was skipped is what a CPU lacks."""
    monkeypatch.setattr("gpu_checks.check.find_spec", lambda name: name)  # all packages were there
    report = (ROOT / "docs/gpu_check_cpu.md").read_text(encoding="utf-8")
    table = report.partition("\n## Checks\n")[2].partition("\n#")[0]
    rows = [line.strip("| ").split(" | ")[:2] for line in table.splitlines() if line.startswith("| ")]
    machine = Machine("cpu", 0, True, "")
    expected = [[check.name, "SKIP" if check.reason_to_skip(machine) else "PASS"] for check in CHECKS]
    assert rows[1:] == expected, "run `python scripts/gpu_check.py --cpu --tiny --time-budget 60`, and put it there"


def test_findings_of_a_killed_process_are_read(tmp_path, machine):
    from gpu_checks.check import read_findings

    Findings(machine, tmp_path).figure("one", 1)
    with (tmp_path / Findings.FILE).open("a") as file:
        file.write('{"kind": "figu')
    assert read_findings(tmp_path / Findings.FILE) == ({"figure": ["one 1"], "failed": [], "skip": []}, [], False)
    assert os.listdir(tmp_path)
