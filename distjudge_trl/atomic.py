"""Files that are written whole or not at all: to a temporary name in the same folder, then renamed."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from distjudge_trl.errors import UserInputError


_SAVING = ".saving-"


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary name to write to; renamed to `path` at the end of the block, removed if the block fails.

    Readers see the old file or the new one, never half of it. The folder is created if missing.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp makes files that only their owner reads; a result is meant to be shared as the umask allows.
        mask = os.umask(0o077)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def replacing_files(folder: str | Path, *, stale: Callable[[str], bool]) -> Iterator[Path]:
    """A temporary folder to write into; its files are renamed into `folder` at the end of the block, and files there
    that were not written anew and whose name is `stale` are deleted. If the block fails `folder` is as before.

    What a process that was killed here has left is cleared away: one process at a time writes into a folder.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob(f"{_SAVING}*"):
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=_SAVING) as name:
        temporary = Path(name)
        yield temporary
        written = {path.name for path in temporary.iterdir()}
        for path in temporary.iterdir():
            path.replace(folder / path.name)
        for path in folder.iterdir():
            if path.is_file() and path.name not in written and stale(path.name):
                path.unlink()


def check_folder(folder: str | Path, option: str, *, shown: str | Path | None = None) -> None:
    """Fail before the work, not after it, if nothing can be written into `folder`, which is created if missing.

    Raises:
        [`UserInputError`]: names `shown` (by default the folder), and the command line `option` that chooses it.
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserInputError(
            f"{shown or folder}: cannot be written ({error.strerror}). Choose another {option}."
        ) from None


def write_json(path: str | Path, content: Any) -> None:
    """Write `content` as indented JSON, whole or not at all. Raises `ValueError` for NaN and infinities."""
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        json.dump(content, file, indent=2, ensure_ascii=False, allow_nan=False)
        file.write("\n")
