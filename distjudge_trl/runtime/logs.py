"""Output of processes: the end of a log, and library messages that are hidden."""

from __future__ import annotations

import logging
import os
import warnings
from pathlib import Path


def log_tail(path: Path, lines: int = 20, characters: int = 3000) -> str:
    """The last lines of a log, with progress bars in their final state; empty if there is no log."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 20 * characters))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return ""
    # `splitlines` would take every update of a progress bar for a line.
    shown = [line.rstrip().rsplit("\r", 1)[-1] for line in text.split("\n") if line.strip()]
    return "\n".join(shown[-lines:])[-characters:]


def quieten() -> None:
    """Hide messages of the libraries that do not concern the run and that a user cannot act on."""
    import torch

    # TRL 1.16 and PEFT use names that transformers 5.23 deprecates.
    warnings.filterwarnings("ignore", message="`(is_)?gradient_checkpointing` is deprecated", category=FutureWarning)
    # Optional CPU kernels from the hub; their absence costs nothing here.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    if not torch.accelerator.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # DeepSpeed warns when it has to find that out by itself
