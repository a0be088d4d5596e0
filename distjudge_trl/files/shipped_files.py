"""Files that ship with the package, in a wheel or in a clone: recipe scripts, accelerate configs and tasks of
lm-evaluation-harness.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from distjudge_trl.errors import UserInputError, nearest


def shipped_folder(name: str) -> Path:
    """`recipes`, `accelerate_configs` or `lm_eval_tasks`: inside the installed package, or at the root of the clone it
    is imported from.
    """
    package = Path(str(files("distjudge_trl")))
    for folder in (package / "_shipped" / name, package.parent / name):
        if folder.is_dir():
            return folder
    raise FileNotFoundError(f"The folder {name!r} is missing from this installation of distjudge-trl.")


def list_shipped(name: str, suffix: str) -> list[str]:
    """Names (without suffix) of the files in a shipped folder."""
    return sorted(path.stem for path in shipped_folder(name).glob(f"*{suffix}"))


def find_shipped(name: str, folder: str, suffix: str, what: str) -> Path:
    """The file that `name` means: a path that exists, else a shipped name.

    Raises:
        [`UserInputError`]: neither exists; the message lists the shipped names and the nearest one.
    """
    if Path(name).is_file():
        return Path(name)
    shipped = list_shipped(folder, suffix)
    if name.removesuffix(suffix) in shipped:
        return shipped_folder(folder) / (name.removesuffix(suffix) + suffix)
    close = nearest(name, shipped)
    hint = f" Did you mean {close!r}?" if close else ""
    raise UserInputError(f"There is no {what} {name!r}, nor a file of that name.{hint} Shipped: {', '.join(shipped)}.")
