"""The processes of a launch that judge one file together (`accelerate launch -m distjudge_trl judge ...`)."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

from distjudge_trl.errors import RunFailedError, UserInputError, exit_code


T = TypeVar("T")
_KNOWN: dict[str, type[UserInputError | RunFailedError]] = {
    "input": UserInputError,
    "run": RunFailedError,
}
# What a rank tells the others: its result, and the kind and message of its error, if there is one.
_Told = tuple[Any, str, str]


class Ranks:
    """This process among those of the launch. Without a launcher it is the only one, and nothing is set up.

    `rank` counts from 0, `count` is the number of processes; `device` is this process's, `None` if it is alone.

    Raises:
        [`UserInputError`]: the machine has fewer GPUs than processes were launched on it.
    """

    def __init__(self) -> None:
        self.rank, self.count = 0, 1
        self.device: str | None = None
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            return
        import torch
        from accelerate import PartialState

        from distjudge_trl.runtime.launches import check_processes, launcher_asks

        check_processes()
        # The first process reads all rows while the others wait, which may take longer than a collective usually may.
        on_cpu = launcher_asks("ACCELERATE_USE_CPU") or not torch.accelerator.is_available()
        state = PartialState(cpu=on_cpu, timeout=timedelta(days=7))
        self.rank, self.count, self.device = state.process_index, state.num_processes, str(state.device)

    @property
    def is_first(self) -> bool:
        """Whether this process reads the state and writes."""
        return self.rank == 0

    def first(self, action: Callable[[], T]) -> T:
        """What `action` returns on the first process, on all of them. If it raises there, all stop."""
        return self.all(lambda: action() if self.is_first else None)[0]  # type: ignore[return-value]

    def all(self, action: Callable[[], T]) -> list[T]:
        """What `action` returns on every process, in the order of ranks, on all of them. If it raises on one, all
        stop: the first process with that error, others without a word.
        """
        if self.count == 1:
            return [action()]
        result, kind, message, own = None, "", "", None
        try:
            result = action()
        except Exception as error:  # noqa: BLE001 (the others would wait for ever)
            kind = next((name for name, known in _KNOWN.items() if isinstance(error, known)), "other")
            own, message = error, str(error)
        everyone = self._gather((result, kind, message))
        everyone[self.rank] = (result, kind, message)  # its own result as it is, and not a copy
        failed = next(((rank, *entry[1:]) for rank, entry in enumerate(everyone) if entry[1]), None)
        if failed is None:
            return [entry[0] for entry in everyone]
        rank, kind, message = failed
        if own is not None and (self.is_first or not isinstance(own, tuple(_KNOWN.values()))):
            raise own
        told = _KNOWN.get(kind, RunFailedError)(message if kind in _KNOWN else f"Process {rank} failed: see its log.")
        if self.is_first:
            raise told
        raise SystemExit(exit_code(told))

    def _gather(self, told: _Told) -> list[_Told]:
        from accelerate.utils import gather_object

        return gather_object([told])
