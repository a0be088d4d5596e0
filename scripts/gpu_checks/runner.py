"""Checks one after the other, each in a process with a time limit; whatever becomes of one, the next begins."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import psutil

from gpu_checks.check import Check, Machine, Result, Status, read_findings


SCRIPTS = Path(__file__).resolve().parents[1]
ROOT = SCRIPTS.parent
LOG_NAME = "log.txt"
# Tells the processes of a check from all others: launchers start workers in sessions of their own, and what a crashed
# one leaves has no parent any more.
_MARK = "DISTJUDGE_GPU_CHECK"
_SECONDS_TO_END = 30
_OUT_OF_TIME = "the time budget ran out"
SECRET_NAME = re.compile(r"TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL|API_?KEY|ACCESS_?KEY|PRIVATE_?KEY", re.IGNORECASE)


def environment(machine: Machine, all_gpus: bool = False) -> dict[str, str]:
    """Of a check's process: this clone, no hub, no secrets, and the GPUs that it is to see."""
    env = {name: value for name, value in os.environ.items() if not SECRET_NAME.search(name)}
    env["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), str(SCRIPTS), env.get("PYTHONPATH"))))
    # DeepSpeed looks for ninja on the path, where an environment that is not activated is missing.
    env["PATH"] = os.pathsep.join((str(Path(sys.executable).parent), env.get("PATH", "")))
    env |= {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "TOKENIZERS_PARALLELISM": "false"}
    env |= {"PYTHONUNBUFFERED": "1", "DISABLE_MLFLOW_INTEGRATION": "TRUE"}
    if machine.device == "cpu":
        env["CUDA_VISIBLE_DEVICES"] = ""
        env.setdefault("OMP_NUM_THREADS", "1")  # two processes of a tiny model: more threads wait for each other
    elif not all_gpus:
        env["CUDA_VISIBLE_DEVICES"] = env.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    return env


def run_check(check: Check, machine: Machine, limit: float, left: float = math.inf) -> Result:
    """Run one check, and end all that it has started.

    Args:
        check ([`Check`]): the one.
        machine ([`Machine`]): what it runs on.
        limit (`float`): seconds after which it has failed.
        left (`float`): seconds of the budget of all checks, after which it is cut short.
    """
    folder = machine.folder(check.name)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    mark = uuid.uuid4().hex
    env = {**environment(machine, check.all_gpus), _MARK: mark}
    line = [sys.executable, "-m", "gpu_checks.child", check.function.__module__, check.name]
    command = [*line, str(folder), json.dumps(asdict(machine))]
    start = time.monotonic()
    problem = cut = None
    with (folder / LOG_NAME).open("wb") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=env,
            cwd=folder,
            start_new_session=True,  # Ctrl-C is ours to handle
        )
        try:
            code = process.wait(min(limit, left))
            if code:
                problem = f"its process was killed ({signal.Signals(-code).name})" if code < 0 else f"exit code {code}"
        except subprocess.TimeoutExpired:
            if left < limit:
                cut = _OUT_OF_TIME
            else:
                problem = f"not done after {limit:.0f} s: stopped"
        finally:
            end_all(mark)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_SECONDS_TO_END)
    return read_result(check, machine, time.monotonic() - start, problem=problem, cut=cut)


def read_result(
    check: Check, machine: Machine, seconds: float, *, problem: str | None = None, cut: str | None = None
) -> Result:
    """What became of a check, by what it has written down.

    Args:
        check ([`Check`]): the one.
        machine ([`Machine`]): what it ran on.
        seconds (`float`): that it took.
        problem (`str`, *optional*): how its process failed.
        cut (`str`, *optional*): why it was not let come to its end. Alone that is no failure; what it had found before
            stays one.
    """
    folder = machine.folder(check.name)
    found, sections, ended = read_findings(folder / "findings.jsonl")
    if problem is None and cut is None and not ended:
        problem = "its process ended before the check did"
    failures = found["failed"] + ([problem] if problem else [])
    status: Status = "FAIL" if failures else "SKIP" if found["skip"] or cut else "PASS"
    reasons = found["skip"] + ([cut] if cut else [])
    log = folder / LOG_NAME
    return Result(check.name, status, seconds, found["figure"], failures, sections, "; ".join(reasons), log)


def end_all(mark: str) -> None:
    """Kill every process whose environment carries the mark."""

    def belongs(process: psutil.Process) -> bool:
        try:
            return process.environ().get(_MARK) == mark and process.status() != psutil.STATUS_ZOMBIE
        except (psutil.Error, OSError):
            return False  # another user's, or gone

    deadline = time.monotonic() + _SECONDS_TO_END
    while (members := [process for process in psutil.process_iter() if belongs(process)]) and (
        time.monotonic() < deadline
    ):
        for process in members:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(members, timeout=1)


def run_checks(
    checks: Iterable[Check],
    machine: Machine,
    *,
    budget: float,
    started: Callable[[Check], None],
    done: Callable[[Result], None],
) -> bool:
    """Run checks in order.

    Args:
        checks (`Iterable[Check]`): those that others read come before them.
        machine ([`Machine`]): what they run on.
        budget (`float`): seconds for all of them; what is left when they are used up is skipped, and so is the check
            that is running then, unless it has found a failure.
        started, done (`Callable`): told of each.

    Returns whether all were given their turn; `False` after Ctrl-C.
    """
    deadline = time.monotonic() + budget
    statuses: dict[str, str] = {}
    stopped = False
    for check in checks:
        started(check)
        limit = check.limit * machine.patience
        missing = [name for name in check.after if statuses.get(name) != "PASS"]
        left = deadline - time.monotonic()
        reason = check.reason_to_skip(machine)
        if stopped:
            reason = "not run: stopped before"
        elif reason is None and missing:
            reason = f"needs what {missing[0]} leaves, which did not pass"
        elif reason is None and left <= 0:
            reason = "not run: the time budget is used up"
        if reason is not None:
            result = Result(check.name, "SKIP", reason=reason)
        else:
            start = time.monotonic()
            try:
                result = run_check(check, machine, limit, left)
            except KeyboardInterrupt:
                stopped = True
                result = read_result(check, machine, time.monotonic() - start, cut="stopped")
        statuses[check.name] = result.status
        done(result)
    return not stopped


def select(checks: Sequence[Check], names: Sequence[str] | None) -> list[Check]:
    """Checks by name, with those that they read, in their own order; all of them without names.

    Raises:
        `KeyError`: there is none of that name.
    """
    by_name: Mapping[str, Check] = {check.name: check for check in checks}
    wanted: set[str] = set()
    pending = list(by_name if names is None else names)
    while pending:
        name = pending.pop()
        if name not in wanted:
            wanted.add(name)
            pending += by_name[name].after
    return [check for check in checks if check.name in wanted]
