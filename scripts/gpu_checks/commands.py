"""What a user types, run by a check: recipes, launchers and the command line, in processes of their own."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from gpu_checks.check import Machine
from gpu_checks.runner import ROOT


class CommandError(RuntimeError):
    """A command ended otherwise than it should; the message has its last line."""


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    code: int
    out: str
    err: str
    seconds: float

    @property
    def errors(self) -> list[str]:
        """Lines in which the project speaks of an error."""
        return [line for line in self.err.splitlines() if line.startswith("error:")]


def run(command: Sequence[str], *, code: int | None = 0, env: Mapping[str, str] | None = None) -> Done:
    """Run a command; all that it prints goes into the check's log, too.

    Args:
        command (`Sequence[str]`): words.
        code (`int`, *optional*): how it has to end; `None` takes any.
        env (`Mapping[str, str]`, *optional*): beside this process's environment.

    Raises:
        [`CommandError`]: it ended with another exit code.
    """
    print("$", shlex.join(command), flush=True)
    start = time.monotonic()
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
        env={**os.environ, **(env or {})},
    )
    texts: tuple[list[str], list[str]] = ([], [])
    assert process.stdout is not None and process.stderr is not None
    threads = [
        threading.Thread(target=_copy, args=pair) for pair in zip((process.stdout, process.stderr), texts, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    done = Done(process.wait(), "".join(texts[0]), "".join(texts[1]), time.monotonic() - start)
    if code is not None and done.code != code:
        said = (done.errors or done.err.splitlines() or done.out.splitlines() or ["it printed nothing"])[-1]
        raise CommandError(f"`{_short(command)}` ended with exit code {done.code} in place of {code}: {said}")
    return done


def _copy(stream: IO[bytes], text: list[str]) -> None:
    # Of bytes, whose lines end at line feeds alone: a progress bar is one line.
    for line in stream:
        text.append(line.decode("utf-8", "replace"))
        sys.stdout.write(text[-1])
        sys.stdout.flush()


def _short(command: Sequence[str]) -> str:
    words = [Path(word).name if word.startswith("/") else word for word in command]
    return shlex.join([*words[:8], *(["..."] if len(words) > 8 else [])])


def cli(*words: str) -> list[str]:
    """A line of `distjudge-trl`."""
    return [sys.executable, "-m", "distjudge_trl", *words]


def launch(machine: Machine, config: str, *words: str) -> list[str]:
    """`accelerate launch` with a shipped config, on as many processes as the machine takes."""
    path = ROOT / "accelerate_configs" / f"{config}.yaml"
    line = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(path)]
    # A free port: somebody else may be training.
    return [*line, "--num_processes", str(machine.processes), "--main_process_port", "0", *words]


def vader(model: str, folder: Path, options: Mapping[str, Any]) -> list[str]:
    """Options of the recipe that every check uses, over which `options` go."""
    common = {
        "model_name_or_path": model,
        "output_dir": folder,
        "max_train_samples": 192,
        "max_eval_samples": 64,
        "num_train_epochs": 1,
        "per_device_train_batch_size": 16,
        "lora_dropout": 0,
        "logging_steps": 1,
        "save_strategy": "no",
        "disable_tqdm": True,
        "seed": 7,
    }
    return [word for name, value in {**common, **options}.items() for word in (f"--{name}", str(value))]


def run_until_killed(command: Sequence[str], mark: Path) -> None:
    """Start a command, and kill -9 all of it once a file is there.

    Raises:
        [`CommandError`]: it ended before that.
    """
    print("$", shlex.join(command), f"  (until {mark.name} is there)", flush=True)
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=sys.stdout, stderr=sys.stdout, cwd=ROOT, start_new_session=True
    )
    while not mark.exists():
        if process.poll() is not None:
            raise CommandError(f"`{_short(command)}` ended with exit code {process.returncode} before {mark.name}")
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def read_results(folder: Path) -> dict[str, Any]:
    """A folder's `results.json`."""
    return json.loads((folder / "results.json").read_text(encoding="utf-8"))


def read_kl(folder: Path) -> float:
    """Mean KL over the test items."""
    return read_results(folder)["metrics"]["kl"]["value"]


def logged_steps(folder: Path) -> list[dict[str, float]]:
    """What a run logged, a step each."""
    state = json.loads((folder / "trainer_state.json").read_text(encoding="utf-8"))
    return [entry for entry in state["log_history"] if "grad_norm" in entry]
