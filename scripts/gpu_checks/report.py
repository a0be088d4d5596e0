"""The report: one Markdown file that can be pasted into an issue."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from distjudge_trl.runtime.logs import log_tail
from gpu_checks.check import Check, Result
from gpu_checks.runner import SECRET_NAME


NAME = "gpu_check_report.md"
LOGS = "gpu_check_logs"
# Tokens of hubs and services, and passwords in addresses.
_SECRETS = re.compile(
    r"\b(hf_|sk-|ghp_|gho_|github_pat_|glpat-|wandb_)[A-Za-z0-9_-]{8,}|(?<=://)[^\s/@:]+:[^\s/@]+(?=@)"
)


def redact(text: str, environment: Mapping[str, str] | None = None) -> str:
    """The text without the values of environment variables that hold secrets, and without what looks like a token."""
    # Not as a default value: datasets replaces `os.environ` when it maps in several processes.
    for name, value in (os.environ if environment is None else environment).items():
        if SECRET_NAME.search(name) and len(value) >= 6:
            text = text.replace(value, "[removed]")
    return _SECRETS.sub("[removed]", text)


def summary(results: Sequence[Result]) -> str:
    """How many passed, failed and were skipped, and which failed."""
    count = {status: sum(result.status == status for result in results) for status in ("PASS", "FAIL", "SKIP")}
    failed = [result.name for result in results if result.status == "FAIL"]
    names = f" ({', '.join(failed)})" if failed else ""
    return f"{count['PASS']} passed, {count['FAIL']} failed{names}, {count['SKIP']} skipped"


def write_report(
    out: Path,
    *,
    command: str,
    environment: str,
    checks: Sequence[Check],
    results: Sequence[Result],
    note: str = "",
    folders: Mapping[str, str] | None = None,
) -> Path:
    """Write the report and the full logs of failed checks beside it; returns the report's path.

    Args:
        out (`Path`): folder, made if it is missing.
        command (`str`): the line that made it.
        environment (`str`): versions and devices.
        checks, results (`Sequence`): what was asked for and what came of it so far.
        note (`str`): a sentence under the title.
        folders (`Mapping[str, str]`, *optional*): paths, and what stands for them in the report.
    """
    expectation = {check.name: check.expectation for check in checks}
    seconds = sum(result.seconds for result in results)
    parts = ["# GPU check of distjudge-trl", f"`{command}`: {summary(results)}; {seconds / 60:.1f} minutes.", note]
    parts += ["## Environment", _block(environment), "## Checks"]
    table = ["| check | result | seconds | expected | measured |", "|---|---|---|---|---|"]
    for result in results:
        cells = (result.name, result.status, f"{result.seconds:.0f}", expectation[result.name], result.measured)
        table.append("| " + " | ".join(map(_cell, cells)) + " |")
    parts.append("\n".join(table))
    for result in results:
        parts += [f"### {result.name}: {title}\n\n{_block(text)}" for title, text in result.sections]
    failed = [result for result in results if result.status == "FAIL"]
    if failed:
        parts.append("## What failed")
    for result in failed:
        problems = "\n".join(f"- {problem}" for problem in result.failures)
        parts.append(f"### {result.name}\n\n{problems}")
        if result.log is not None:
            parts.append(_folded("end of its log", log_tail(result.log, 60, 6000)))
    out.mkdir(parents=True, exist_ok=True)
    _keep_logs(out, failed)
    text = redact("\n\n".join(part for part in parts if part)) + "\n"
    for folder, name in (folders or {}).items():
        text = text.replace(folder, name)
    path = out / NAME
    temporary = path.with_suffix(".tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
    return path


def _keep_logs(out: Path, failed: Sequence[Result]) -> None:
    """Whole logs of failed checks, redacted; those of an earlier report are removed."""
    folder = out / LOGS
    shutil.rmtree(folder, ignore_errors=True)
    for result in failed:
        if result.log is not None and result.log.exists():
            folder.mkdir(exist_ok=True)
            text = redact(result.log.read_text(encoding="utf-8", errors="replace"))
            (folder / f"{result.name}.log").write_text(text, encoding="utf-8")


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _block(text: str) -> str:
    # A fence longer than any in the text.
    fence = "`" * max([3, *(len(run) + 1 for run in re.findall("`+", text))])
    return f"{fence}\n{text.rstrip()}\n{fence}"


def _folded(title: str, text: str) -> str:
    return f"<details><summary>{title}</summary>\n\n{_block(text)}\n\n</details>"
