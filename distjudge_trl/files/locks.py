"""Locks between processes that end with the process that holds them."""

from __future__ import annotations

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
