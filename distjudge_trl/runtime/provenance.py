"""Where a result comes from: versions, git revision, machine."""

from __future__ import annotations

import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any


_LIBRARIES = (
    "distjudge-trl",
    "torch",
    "transformers",
    "trl",
    "accelerate",
    "peft",
    "datasets",
    "deepspeed",
    "bitsandbytes",
)


def library_versions() -> dict[str, str]:
    """Versions of Python and of the installed libraries that affect a result."""
    versions = {"python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def git_revision() -> str | None:
    """Revision of the checkout that this package is imported from, with `-dirty` for uncommitted changes; `None`
    outside one.
    """
    folder = Path(__file__).resolve().parent
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        # Only a checkout that tracks this very file counts: a package may be installed inside an unrelated repository.
        subprocess.run(
            ["git", "-C", str(folder), "ls-files", "--error-unmatch", Path(__file__).name],
            check=True,
            capture_output=True,
        )
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=10).stdout.strip() or None
    except (OSError, subprocess.SubprocessError):
        return None


def provenance(**more: Any) -> dict[str, Any]:
    """Versions, git revision and platform, and the entries that the caller adds (config, data fingerprint, seed)."""
    return {"versions": library_versions(), "git_revision": git_revision(), "platform": platform.platform(), **more}
