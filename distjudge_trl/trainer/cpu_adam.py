"""DeepSpeed's optimizer for offloading, which is compiled at the first run on a machine."""

from __future__ import annotations

import logging
import time
from pathlib import Path

from filelock import FileLock

from distjudge_trl.errors import RunFailedError, first_line


# A build takes less; a mark that is older was left by a process that was killed.
_LONGEST_BUILD = 300.0
_SECONDS_BETWEEN_LOOKS = 0.2
_logger = logging.getLogger(__name__)


def load_cpu_adam() -> None:
    """Load `cpu_adam` before DeepSpeed does, one process at a time.

    torch marks a build, and every look whether one is needed, by a file, and waits for ever for one that a killed
    process has left (`torch.utils.file_baton`): no run on the machine that offloads its optimizer would start again.
    Here a lock that the kernel releases guards it, so that a mark is another program's, or left. A wait, and a mark
    that is taken away, are logged as warnings.

    Raises:
        [`RunFailedError`]: it cannot be compiled.
    """
    from deepspeed.ops.op_builder import CPUAdamBuilder
    from torch.utils.cpp_extension import _get_build_directory

    try:
        folder = Path(_get_build_directory(CPUAdamBuilder.NAME, verbose=False))
        with FileLock(folder / "distjudge.lock"):
            _clear(folder / "lock")
            CPUAdamBuilder().load(verbose=False)
    except Exception as error:
        raise RunFailedError(
            f"DeepSpeed's CPU optimizer, which offloading needs, cannot be compiled ({first_line(error)}). Is there a"
            " C++ compiler, and ninja? `ds_report` says what is missing."
        ) from error


def _clear(mark: Path) -> None:
    """Wait for another program's build, and take away a mark that none can have set."""
    said = False
    while (age := _age(mark)) is not None and age < _LONGEST_BUILD:
        if not said:
            _logger.warning("Waiting for another program to compile DeepSpeed's optimizer: %s", mark)
            said = True
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    if age is not None:
        _logger.warning("%s: left by a process that was killed as it compiled DeepSpeed's optimizer; taken away", mark)
        mark.unlink(missing_ok=True)


def _age(path: Path) -> float | None:
    """Seconds since a file was made; `None` if there is none."""
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return None
