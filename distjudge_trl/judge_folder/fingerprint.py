"""What tells the folder of a judge or a model from another one."""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path


# Bytes at both ends of a file of weights.
_ENDS = 1 << 20
# Files of a training, of its tests and of a card are beside a judge, and no part of it.
_BESIDE = (".", "README", "training_", "optimizer", "scheduler", "checkpoint", "results")


def fingerprint_of(folder: str | Path) -> str:
    """A hash that tells a judge's folder from another one, or from itself after another training: of its names, its
    small files, and both ends of its files of weights. The version that wrote a configuration does not count. A name
    that is no folder is hashed itself.
    """
    found = hashlib.sha256()
    if not Path(folder).is_dir():
        return hashlib.sha256(str(folder).encode()).hexdigest()
    for path in sorted(Path(folder).iterdir()):
        if path.name.startswith(_BESIDE) or not path.is_file():
            continue
        if path.suffix not in (".json", ".safetensors", ".bin", ".jinja", ".model", ".txt"):
            continue
        if path.name.endswith("config.json"):
            found.update(f"{path.name}\0".encode() + _without_version(path))
            continue
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            found.update(f"{path.name}\0{size}\0".encode())
            for start in sorted({0, max(0, size - _ENDS)}):
                file.seek(start)
                found.update(file.read(_ENDS))
    return found.hexdigest()


def _without_version(path: Path) -> bytes:
    content = path.read_bytes()
    with suppress(ValueError):
        fields = json.loads(content)
        if isinstance(fields, dict):
            fields.pop("transformers_version", None)
            return json.dumps(fields, sort_keys=True).encode()
    return content
