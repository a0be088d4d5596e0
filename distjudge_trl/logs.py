"""Logs of processes that were started."""

from __future__ import annotations

import os
from pathlib import Path


def log_tail(path: Path, lines: int = 20, characters: int = 3000) -> str:
    """The last lines of a log, progress bars as they looked at their end; empty if there is no log."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 20 * characters))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return ""
    # Not `splitlines`: for it, each look of a progress bar is a line.
    shown = [line.rstrip().rsplit("\r", 1)[-1] for line in text.split("\n") if line.strip()]
    return "\n".join(shown[-lines:])[-characters:]
