"""Where files lie that can be made or fetched again."""

from __future__ import annotations

import os
from pathlib import Path


def cache_dir() -> Path:
    """Folder for files that can be made again: `$DISTJUDGE_CACHE`, or the platform's cache folder."""
    from platformdirs import user_cache_dir

    return Path(os.environ.get("DISTJUDGE_CACHE") or user_cache_dir("distjudge-trl"))
