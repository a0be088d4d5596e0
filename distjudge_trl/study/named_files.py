"""Files that options name: results tell two apart that have one name, without keeping the paths of a machine."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any


# Options whose values may be a file or a folder.
_OPTIONS = ("model_name_or_path", "prompt_template")
# Weights are large; those of two trainings differ everywhere.
_BLOCK = 65_536
_WEIGHTS = (".safetensors", ".bin", ".gguf")


def named_files(options: Mapping[str, Any]) -> dict[str, str]:
    """Option to a digest of the file or of the model's folder that it names; without options that name none here."""
    paths = {name: Path(value) for name in _OPTIONS if isinstance(value := options.get(name), str)}
    return {name: _digest(path) for name, path in paths.items() if path.exists()}


@cache
def _digest(path: Path) -> str:
    """Of a file's content, or of a folder's `config.json` and, of each file of weights, its size and three blocks."""
    found = hashlib.sha256()
    if path.is_file():
        found.update(path.read_bytes())
        return found.hexdigest()[:12]
    for each in sorted(path.glob("*")):
        if each.name == "config.json":
            found.update(each.read_bytes())
        elif each.suffix in _WEIGHTS:
            size = each.stat().st_size
            found.update(f"{each.name} {size}".encode())
            with each.open("rb") as file:
                for start in (0, size // 2, max(0, size - _BLOCK)):
                    file.seek(start)
                    found.update(file.read(_BLOCK))
    return found.hexdigest()[:12]
