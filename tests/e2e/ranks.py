"""Processes of a run as an accelerate config would launch them, each started by hand: what accelerate's launcher puts
into their environment, and no launcher to wait for.
"""

import json
import os
import socket
import subprocess
import sys

from conftest import ROOT
from tiny_runs import RunError


def environment_of(config, count, python=sys.executable, **changes):
    """What `accelerate launch --config_file CONFIG --num_processes COUNT` adds to the environment of a script.

    Args:
        config (`Path`): of accelerate_configs, or another.
        count (`int`): processes.
        python (`str`): what runs accelerate's launcher, which leaves marks in its process.
        changes: of the config's own sections, such as `deepspeed_config={"zero3_save_16bit_model": False}`.
    """
    done = subprocess.run(
        [python, str(ROOT / "tests/e2e/launch_environment.py"), str(config), str(count), json.dumps(changes)],
        check=True,
        capture_output=True,
        text=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def run_ranks(command, count, environment, log, timeout=300):
    """Start `command` once a rank, wait for all, and return their exit codes; what they print goes to `log`.RANK."""
    processes = start_ranks(command, count, environment, log)
    return [process.wait(timeout) for process in processes]


def start_ranks(command, count, environment, log):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    processes = []
    for rank in map(str, range(count)):
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}
        place |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
        with open(f"{log}.{rank}", "w") as file:
            processes.append(
                subprocess.Popen(
                    command, cwd=ROOT, env={**os.environ, **environment, **place}, stdout=file, stderr=file
                )
            )
    return processes


def check_ranks(codes, log):
    """Raise [`RunError`] with the end of what the first rank that failed has printed."""
    for rank, code in enumerate(codes):
        if code:
            with open(f"{log}.{rank}") as file:
                raise RunError(f"rank {rank}, exit code {code}: {file.read()[-3000:]}")
