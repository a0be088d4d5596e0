"""What a check is, and what it is given: the machine, a folder of its own, and a place for what it finds."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal


Status = Literal["PASS", "FAIL", "SKIP"]


class Skip(Exception):
    """Raised by a check that cannot run here; the message says why."""


@dataclass(frozen=True)
class Machine:
    """What the checks run on, the same for all of them.

    Args:
        device (`"cuda"` or `"cpu"`): what computes.
        gpus (`int`): how many there are; 0 on a CPU.
        tiny (`bool`): tiny random models in place of the bundled one and of one in the shape of Qwen2.5-7B.
        work (`str`): folder for the models and for what the checks leave.
    """

    device: str
    gpus: int
    tiny: bool
    work: str

    @property
    def patience(self) -> int:
        """By what a check's limit is multiplied: a CPU may have few cores, and others' work on them."""
        return 3 if self.device == "cpu" else 1

    @property
    def _models(self) -> str:
        # Apart: a work folder that is used with --tiny and then without keeps both.
        return "models-tiny" if self.tiny else "models"

    @property
    def small(self) -> str:
        """Folder of the small model: the bundled one, or a tiny one."""
        return str(Path(self.work, self._models, "small"))

    @property
    def large(self) -> str:
        """Folder of the large model: random weights in the shape of Qwen2.5-7B, or a tiny one with its options."""
        return str(Path(self.work, self._models, "large"))

    def folder(self, check: str) -> Path:
        """Of a check, by its name; another may read it."""
        return Path(self.work, "checks", check)

    @property
    def processes(self) -> int:
        """Of a sharded run: one a GPU, two on a CPU."""
        return self.gpus or 2


@dataclass(frozen=True)
class Check:
    """One question to the machine. It runs in a process of its own.

    Args:
        name (`str`): as `--only` takes it.
        expectation (`str`): what has to hold, for the report.
        function (`Callable[[Findings, ...], None]`): of a module that has this check in its `CHECKS`.
        args (`tuple`): what the function takes behind the findings.
        needs (`tuple[str, ...]`): `"gpu"`, or modules that must be installed; else it is skipped.
        after (`tuple[str, ...]`): checks whose folders it reads; skipped unless they passed.
        limit (`int`): seconds after which it is stopped on a GPU machine; see `Machine.patience`.
        all_gpus (`bool`): sees all GPUs; others see one, as a plain process has to.
    """

    name: str
    expectation: str
    function: Callable[..., None]
    args: tuple[Any, ...] = ()
    needs: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    limit: int = 300
    all_gpus: bool = False

    def reason_to_skip(self, machine: Machine) -> str | None:
        """What this machine lacks for it."""
        for need in self.needs:
            if need == "gpu":
                if machine.device != "cuda":
                    return "needs a GPU"
            elif find_spec(need) is None:
                return f"needs {need}, which is not installed"
        return None


class Findings:
    """What a check finds, written down at once: a crash loses nothing.

    Args:
        machine ([`Machine`]): what it runs on.
        folder (`Path`): its own.
    """

    FILE = "findings.jsonl"

    def __init__(self, machine: Machine, folder: Path) -> None:
        self.machine, self.folder = machine, folder

    def _write(self, kind: str, **content: str) -> None:
        with (self.folder / self.FILE).open("a", encoding="utf-8") as file:
            file.write(json.dumps({"kind": kind, **content}) + "\n")

    def figure(self, name: str, value: str | float) -> None:
        """Something measured; numbers are shown with four significant digits."""
        text = f"{value:.4g}" if isinstance(value, float) else str(value)
        print(f"{name}: {text}", flush=True)
        self._write("figure", text=f"{name} {text}")

    def section(self, title: str, text: str) -> None:
        """A longer text, shown below the table."""
        print(f"{title}\n{text}", flush=True)
        self._write("section", title=title, text=text)

    def fail(self, problem: str) -> None:
        """Something that should hold and does not. The check goes on."""
        print(f"FAILED: {problem}", flush=True)
        self._write("failed", text=problem)

    def expect(self, holds: bool, problem: str) -> None:
        """Fail with `problem` unless it `holds`."""
        if not holds:
            self.fail(problem)

    def close(self, name: str, value: float, expected: float, *, rel: float) -> None:
        """Fail unless two numbers are finite and equal within `rel` of the expected one."""
        both = math.isfinite(value) and math.isfinite(expected)
        if not both or abs(value - expected) > rel * abs(expected):
            self.fail(f"{name}: {value:.6g}, expected {expected:.6g} within {rel:.1%}")

    def skip(self, reason: str) -> None:
        self._write("skip", text=reason)

    def end(self) -> None:
        self._write("end")


@dataclass
class Result:
    """What became of a check. `failures` say why it failed; `reason` why it was skipped."""

    name: str
    status: Status
    seconds: float = 0.0
    figures: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    sections: list[tuple[str, str]] = field(default_factory=list)
    reason: str = ""
    log: Path | None = None

    @property
    def measured(self) -> str:
        """In one line: why it failed or was skipped, and what was measured."""
        return "; ".join([*self.failures, *([self.reason] if self.reason else []), *self.figures])


def read_findings(path: Path) -> tuple[dict[str, list[str]], list[tuple[str, str]], bool]:
    """Texts by kind, sections, and whether the check came to its end."""
    found: dict[str, list[str]] = {"figure": [], "failed": [], "skip": []}
    sections, ended = [], False
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    for line in lines:
        try:
            entry = json.loads(line)
        except ValueError:  # the last line of a process that was killed
            continue
        if entry["kind"] == "section":
            sections.append((entry["title"], entry["text"]))
        elif entry["kind"] == "end":
            ended = True
        else:
            found[entry["kind"]].append(entry["text"])
    return found, sections, ended
