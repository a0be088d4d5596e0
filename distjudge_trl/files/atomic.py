"""Files that are written whole or not at all: to a temporary name in the same folder, then renamed."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
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
def replacing_files(folder: str | Path, *, stale: Callable[[Path], bool], mark: str) -> Iterator[Path]:
    """A temporary folder to write into. At the end of the block all that is in it, folders too, takes its place in
    `folder`, and what is `stale` there and was not written anew goes. If the block fails `folder` is as before.

    Files are renamed one by one, so `mark` names the one without which nothing is read from `folder`: it goes first
    and comes last. A process that is killed in between leaves a folder without it, never old files that pass for new
    ones. What such a process has left is cleared away: one process at a time writes into a folder.

    Args:
        folder (`str` or `Path`): made if missing.
        stale (`Callable[[Path], bool]`): whether a file or folder in `folder` would change how the new ones are read.
        mark (`str`): name of a file that the block writes.
    """
    folder = Path(folder)
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob(f"{_SAVING}*"):
        shutil.rmtree(left, ignore_errors=True)
    try:
        with tempfile.TemporaryDirectory(dir=folder, prefix=_SAVING) as name:
            written, replaced = Path(name, "written"), Path(name, "replaced")
            written.mkdir()
            replaced.mkdir()
            yield written
            _exchange(folder, written, replaced, stale, mark)
    except BaseException:
        if is_new:
            with suppress(OSError):
                folder.rmdir()
        raise


def _exchange(folder: Path, written: Path, replaced: Path, stale: Callable[[Path], bool], mark: str) -> None:
    """Move what is written into `folder`, and what it takes the place of into `replaced`; back if that fails."""
    new = {path.name for path in written.iterdir()}
    # By name: from Python 3.12 on a temporary folder's path is absolute, whatever `folder` is.
    here = [path for path in folder.iterdir() if path.name != written.parent.name]
    old = [path for path in here if path.name in new or stale(path)]
    moves = [(path, replaced / path.name) for path in sorted(old, key=lambda path: path.name != mark)]
    moves += [(written / name, folder / name) for name in sorted(new, key=lambda name: name == mark)]
    done = []
    try:
        for source, target in moves:
            source.rename(target)
            done.append((source, target))
    except BaseException:
        for source, target in reversed(done):
            target.rename(source)
        raise


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


def read_json(path: Path) -> dict[str, Any]:
    """Content of a file that a run may not have written; empty then."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
