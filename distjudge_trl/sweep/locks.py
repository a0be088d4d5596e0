"""Locks that end with the process that holds them, and where they are kept."""

from __future__ import annotations

import getpass
import tempfile
from pathlib import Path

from filelock import FileLock


def kernel_lock(path: Path) -> FileLock:
    """A file lock. The kernel releases it when its holder dies, however that happens.

    Raises:
        `NotImplementedError`: on `acquire`, if the file system has no locks. A file that marks a lock is no
            replacement: it would outlive a killed worker.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(path, fallback_to_soft=False)


def machine_folder() -> Path:
    """Folder for locks between this user's sweeps on this machine."""
    return Path(tempfile.gettempdir()) / f"distjudge-{getpass.getuser()}"


def study_folder(file: Path) -> Path:
    """Folder for the locks of a study that is stored in a file."""
    return file.with_name(f"{file.name}.locks")
