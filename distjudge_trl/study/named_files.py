"""Files that options name: results tell two apart that have one name, without keeping the paths of a machine."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from distjudge_trl.judge_folder.fingerprint import fingerprint_of


# Options whose values may be a file or a folder.
_OPTIONS = ("model_name_or_path", "prompt_template")


def named_files(options: Mapping[str, Any]) -> dict[str, str]:
    """Option to a digest of the file or of the model's folder that it names; without options that name none that can
    be read here.
    """
    found = {}
    for name in _OPTIONS:
        value = options.get(name)
        with suppress(OSError):
            if isinstance(value, str) and Path(value).exists():
                found[name] = _digest(Path(value))
    return found


@cache
def _digest(path: Path) -> str:
    digest = fingerprint_of(path) if path.is_dir() else hashlib.sha256(path.read_bytes()).hexdigest()
    return digest[:12]
