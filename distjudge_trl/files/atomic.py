"""Atomic writes: files are written under a temporary name in the same folder, then renamed."""

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
    """Yield a temporary name to write to. It is renamed to `path` at the end of the block, and removed if the block
    fails.

    Readers see the old file or the new one, never half of it. The folder is created if missing.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp makes files that only their owner can read. A result gets the permissions that the umask allows.
        mask = os.umask(0o077)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def replacing_files(folder: str | Path, *, stale: Callable[[Path], bool], mark: str) -> Iterator[Path]:
    """Yield a temporary folder to write into. At the end of the block its content, folders included, is moved into
    `folder`, and `stale` files there that were not written again are removed. If the block fails, `folder` is
    unchanged.

    Files are renamed one by one. `mark` names the file without which nothing is read from `folder`: it is removed
    first and written last. A process that is killed in between leaves a folder without it, so old files are never
    taken for new ones. The next call removes leftovers of such a process, so only one process at a time may write into
    a folder.

    Args:
        folder (`str` or `Path`): created if missing.
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
    """Move the written files into `folder` and the files that they replace into `replaced`, and back if that fails."""
    new = {path.name for path in written.iterdir()}
    # Compared by name: from Python 3.12 on a temporary folder's path is absolute even if `folder` is relative.
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
    """Raise before any work is done if nothing can be written into `folder`, which is created if missing.

    Raises:
        [`UserInputError`]: names `shown` (by default the folder) and the command line `option` that sets it.
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserInputError(
            f"{shown or folder}: cannot be written ({error.strerror}). Choose another {option}."
        ) from None


@contextmanager
def removing_if_empty(folder: str | Path) -> Iterator[None]:
    """Remove the folder after the block if it is empty, with the folders above it, unless they were there before: a
    command that is refused leaves nothing behind.
    """
    path = Path(folder)
    made = [place for place in (path, *path.parents) if not place.exists()]
    try:
        yield
    finally:
        with suppress(OSError):
            for place in made:
                place.rmdir()


def write_json(path: str | Path, content: Any) -> None:
    """Write `content` as indented JSON, atomically. Raises `ValueError` for NaN and infinities."""
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        json.dump(content, file, indent=2, ensure_ascii=False, allow_nan=False)
        file.write("\n")


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty if the file is missing, damaged or holds something else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
