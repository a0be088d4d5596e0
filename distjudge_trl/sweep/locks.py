"""Where the locks of sweeps are kept."""

from __future__ import annotations

import getpass
import tempfile
from pathlib import Path


def machine_folder() -> Path:
    """Folder for locks between this user's sweeps on this machine."""
    return Path(tempfile.gettempdir()) / f"distjudge-{getpass.getuser()}"


def study_folder(file: Path) -> Path:
    """Folder for the locks of a study that is stored in a file."""
    return file.with_name(f"{file.name}.locks")
