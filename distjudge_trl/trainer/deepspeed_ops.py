"""The extensions of DeepSpeed that are compiled at the first run on a machine."""

from __future__ import annotations

import logging
import time
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from distjudge_trl.errors import RunFailedError, first_line


if TYPE_CHECKING:
    from deepspeed.ops.op_builder.builder import OpBuilder

# Seconds; a build takes less. An older mark was left by a process that was killed.
_LONGEST_BUILD = 300.0
_SECONDS_BETWEEN_LOOKS = 0.2
_logger = logging.getLogger(__name__)


def load_cpu_adam() -> None:
    """Load the CPU optimizer that offloading needs, before DeepSpeed does.

    Raises:
        [`RunFailedError`]: it cannot be compiled.
    """
    from deepspeed.ops.op_builder import CPUAdamBuilder

    try:
        _load(CPUAdamBuilder())
    except Exception as error:
        raise RunFailedError(
            f"DeepSpeed's CPU optimizer, which offloading needs, cannot be compiled ({first_line(error)}). Is there a"
            " C++ compiler, and ninja? `ds_report` says what is missing."
        ) from error


def load_cpu_collectives() -> None:
    """Load the collectives by which processes on CPUs add up gradients, before DeepSpeed does. Nothing is done if
    DeepSpeed does not need them.

    Raises:
        [`RunFailedError`]: it cannot be compiled.
    """
    if find_spec("deepspeed") is None:
        return  # accelerate says so
    import deepspeed
    from deepspeed.accelerator import get_accelerator

    builder = get_accelerator().create_op_builder("ShareMemCommBuilder")
    if builder is None or not deepspeed.ops.__compatible_ops__.get(builder.NAME, False):
        return
    try:
        _load(builder)
    except Exception as error:
        raise RunFailedError(
            f"DeepSpeed's collectives for CPUs cannot be compiled ({first_line(error)}). Is there a C++ compiler, and"
            " ninja? `ds_report` says what is missing. Without DeepSpeed: the accelerate config cpu."
        ) from error


def _load(builder: OpBuilder) -> None:
    """Load one extension, one process at a time.

    torch marks a build, and every check whether one is needed, by a file. It waits forever for a file that a killed
    process has left (`torch.utils.file_baton`), so that no run on the machine that needs this extension would start
    again. Here a lock that the kernel releases guards the build, so a mark belongs to another program or was left
    behind. Waiting, and removing a mark, are logged as warnings.
    """
    from torch.utils.cpp_extension import _get_build_directory

    folder = Path(_get_build_directory(builder.name, verbose=False))
    with FileLock(folder / "distjudge.lock"):
        _clear(folder / "lock", builder.name)
        builder.load(verbose=False)


def _clear(mark: Path, name: str) -> None:
    """Wait for another program's build, and remove a mark that is too old to belong to a build."""
    warned = False
    while (age := _age(mark)) is not None and age < _LONGEST_BUILD:
        if not warned:
            _logger.warning("Waiting for another program to compile DeepSpeed's %s: %s", name, mark)
            warned = True
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    if age is not None:
        _logger.warning("%s: left by a process that was killed as it compiled DeepSpeed's %s; taken away", mark, name)
        mark.unlink(missing_ok=True)


def _age(path: Path) -> float | None:
    """Seconds since a file was made; `None` if it does not exist."""
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return None
