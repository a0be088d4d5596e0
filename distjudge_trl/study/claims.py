"""Which process makes which run: several may share a folder of results."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from filelock import Timeout

from distjudge_trl.errors import UserInputError
from distjudge_trl.files.locks import kernel_lock
from distjudge_trl.study.planned_run import PlannedRun


_FOLDER = ".locks"


@dataclass(frozen=True)
class Claims:
    """Claims of runs, as locks in these folders. A claim ends with the process that has made it."""

    folders: Sequence[Path]

    def take(self, run: PlannedRun) -> ExitStack | None:
        """Claim a run; `None` if another process has it. The claim ends when what is returned is closed.

        Raises:
            [`UserInputError`]: a file system without locks.
        """
        with ExitStack() as stack:
            for folder in self.folders:
                locks = folder / _FOLDER
                locks.mkdir(parents=True, exist_ok=True)
                ignored = locks / ".gitignore"
                if not ignored.exists():
                    ignored.write_text("*\n", encoding="utf-8")
                try:
                    stack.enter_context(kernel_lock(locks / f"{run.data}--{run.name}.lock").acquire(timeout=0))
                except Timeout:
                    return None
                except NotImplementedError:
                    raise UserInputError(
                        f"{folder}: its file system has no locks. Choose a folder on another one with --out and"
                        " --work."
                    ) from None
            return stack.pop_all()
