"""Errors that are the user's to mend. The command line prints them as one line and exits with code 2; anything else is
our bug.
"""

from __future__ import annotations

import difflib
import errno
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager


class UserInputError(ValueError):
    """The input (a file, a flag, a template, a label) is wrong; the message says what and how to mend it."""


class JudgmentDataError(UserInputError):
    """A judgment record or its source is malformed.

    Args:
        problem (`str`): what is wrong, as a clause.
        source (`str`, *optional*): file or data set.
        row (`int` or `str`, *optional*): 1-based line or the record's id.
        field (`str`, *optional*): column or key.
        fix (`str`, *optional*): what to do about it, as a sentence.

    Example:
        >>> print(JudgmentDataError("sums to 0.9, not 1", source="a.jsonl", row=7, field="label_distribution"))
        a.jsonl, row 7, field `label_distribution`: sums to 0.9, not 1.
    """

    def __init__(
        self,
        problem: str,
        *,
        source: str | None = None,
        row: int | str | None = None,
        field: str | None = None,
        fix: str | None = None,
    ) -> None:
        self.source, self.row, self.field, self.problem, self.fix = source, row, field, problem, fix
        place = ", ".join(
            part
            for part in (
                source,
                f"row {row}" if row is not None else None,
                f"field `{field}`" if field is not None else None,
            )
            if part
        )
        message = f"{place}: {problem}." if place else f"{problem}."
        super().__init__(f"{message} {fix}" if fix else message)


class NoRecordsError(JudgmentDataError):
    """A source is well-formed and holds nothing."""


class RunFailedError(RuntimeError):
    """A run failed for a known reason that is no wrong input (a full disk, divergence): one line, exit code 1."""


class LostProcessError(RunFailedError):
    """Another process of the run is gone: what failed first, and why, is in that one's log."""


class MemoryExhaustedError(RunFailedError):
    """A device, or the host for a process on the CPU, has too little memory. Other processes of the run may have had
    enough, and only learn that one is gone.
    """


class LabelSpaceError(UserInputError):
    """The labels, or their spellings under a tokenizer, cannot be told apart or do not exist."""


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that a mistyped one is most like, if any is."""
    return next(iter(difflib.get_close_matches(word, list(known), n=1)), None)


def first_line(error: BaseException) -> str:
    """What a library's exception says, in one line; its type where it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


# Gloo raises plain RuntimeErrors; NCCL's own failures (a wrong driver, one GPU used twice) say none of these.
_LOST = (
    *("gloo", "Connection closed by peer", "Connection reset by peer", "Broken pipe", "failed to recv"),
    *("ncclRemoteError", "remote process exited", "communicator was aborted", "collective operation timeout"),
)


def lost_connection(error: BaseException) -> str | None:
    """What a collective that failed because of another process says, in one line; `None` if it failed otherwise."""
    text = str(error)
    if not any(sign in text for sign in _LOST) and type(error).__name__ not in ("DistNetworkError", "DistStoreError"):
        return None
    # NCCL's first line is a place in its source.
    _, found, last = text.partition("Last error:")
    return " ".join(last.split()) if found and last.strip() else first_line(error)


# What torch's allocators say that raise a plain RuntimeError: the host's, and drivers'.
_NO_MEMORY = ("DefaultCPUAllocator", "out of memory")


def memory_exhausted(error: BaseException) -> str | None:
    """What an allocator of torch's says that has no memory left, without its statistics; `None` of other errors."""
    if not isinstance(error, RuntimeError) or isinstance(error, RunFailedError):
        return None
    text = first_line(error)
    if type(error).__name__ != "OutOfMemoryError" and not any(sign in text for sign in _NO_MEMORY):
        return None
    # Of CUDA, then of a CPU: "[enforce fail at alloc_cpu.cpp:127] data. DefaultCPUAllocator: can't allocate memory".
    return "".join(
        text.partition("DefaultCPUAllocator")[1:] if "DefaultCPUAllocator" in text else text.split(" GPU ")[0]
    )


@contextmanager
def explaining_memory(advice: Callable[[], str]) -> Iterator[None]:
    """One line instead of a traceback when memory runs out.

    Args:
        advice (`Callable[[], str]`): makes the sentences that follow what the allocator says.

    Raises:
        [`MemoryExhaustedError`]: memory ran out in the block.
    """
    try:
        yield
    except RuntimeError as error:
        if (reason := memory_exhausted(error)) is None:
            raise
        raise MemoryExhaustedError(f"{reason.rstrip('. ')}. {advice()}") from error


# What libraries say that raise errors of their own where the system's say OSError: Rust's, torch's.
_DISK_FAILED = ("No space left", "os error", "PytorchStreamWriter", "unexpected pos")


def disk_failed(error: BaseException) -> str | None:
    """What an exception says of a disk that is full or fails, in one line; `None` of other errors."""
    if isinstance(error, OSError):
        return error.strerror or first_line(error)
    if isinstance(error, (UserInputError, RunFailedError)) or not any(sign in str(error) for sign in _DISK_FAILED):
        return None
    return first_line(error)


@contextmanager
def writing(path: object, advice: str = "Make room and try again.") -> Iterator[None]:
    """One line instead of a traceback for a disk that turns out to be full, or fails, when a result is written.

    Args:
        path (`str` or `Path`): what the block writes.
        advice (`str`): the sentence that follows what the system says.

    Raises:
        [`RunFailedError`]: the block could not write.
    """
    try:
        yield
    except Exception as error:
        if (reason := disk_failed(error)) is None:
            raise
        raise RunFailedError(f"{path}: cannot be written ({reason}). {advice}") from error


def full_disk(error: OSError) -> str | None:
    """A line for a disk without room, wherever a command found it so; `None` of other errors, which are our bugs."""
    if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return None
    return f"{error.filename or 'A file'}: cannot be written ({error.strerror}). Make room and try again."


def run_script(main: Callable[[], None]) -> None:
    """Call a script's `main`; a user's mistake is one line on stderr and exit code 2, a known failure exit code 1."""
    try:
        main()
    except (UserInputError, RunFailedError) as error:
        sys.stderr.write(f"error: {error}\n")
        raise SystemExit(exit_code(error)) from None
    except OSError as error:
        if (reason := full_disk(error)) is None:
            raise
        sys.stderr.write(f"error: {reason}\n")
        raise SystemExit(1) from None


def exit_code(error: UserInputError | RunFailedError) -> int:
    """2 for wrong input, 1 for a run that failed."""
    return 2 if isinstance(error, UserInputError) else 1
