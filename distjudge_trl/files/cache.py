"""The cache folder, for files that can be made or downloaded again."""

from __future__ import annotations

import os
from pathlib import Path


def cache_dir() -> Path:
    """The cache folder: `$DISTJUDGE_CACHE`, or the platform's cache folder."""
    from platformdirs import user_cache_dir

    return Path(os.environ.get("DISTJUDGE_CACHE") or user_cache_dir("distjudge-trl"))
