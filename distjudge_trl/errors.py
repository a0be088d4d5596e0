"""Errors that the user can fix. The command line prints them as one line and exits with code 2. Any other exception is
a bug of this package.
"""

from __future__ import annotations

import difflib
import errno
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager


class UserInputError(ValueError):
    """The input (a file, an option, a template, a label) is wrong. The message says what is wrong and what to do."""


class JudgmentDataError(UserInputError):
    """A judgment record or its source is malformed.

    Args:
        problem (`str`): what is wrong, as a clause.
        source (`str`, *optional*): file or data set.
        row (`int` or `str`, *optional*): 1-based line or the record's id.
        field (`str`, *optional*): column or key.
        fix (`str`, *optional*): how to fix it, as a sentence.

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
    """A source is well-formed but holds no records."""


class RunFailedError(RuntimeError):
    """A run failed for a known reason other than wrong input, such as a full disk or divergence. The command line
    prints one line and exits with code 1.
    """


class LostProcessError(RunFailedError):
    """Another process of the run is gone. The log of that process says what failed first and why."""


class MemoryExhaustedError(RunFailedError):
    """A device, or the host in a run on the CPU, has too little memory. Other processes of the run may have enough
    memory, and only notice that one process is gone.
    """


class LabelSpaceError(UserInputError):
    """The labels or their spellings cannot be distinguished under a tokenizer, or do not exist."""


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that is most similar to a mistyped one; `None` if no word is similar."""
    return next(iter(difflib.get_close_matches(word, list(known), n=1)), None)


def listing(names: Iterable[object], joint: str | None = None, *, most: int = 8) -> str:
    """Names of columns, files or labels for a message: at most eight, and how many there are besides.

    Args:
        names (iterable): what to list.
        joint (`str`, *optional*): the word before the last name, `"or"` for example; by default a comma.
        most (`int`): how many names to show.

    Example:
        >>> listing("abc")
        'a, b, c'
        >>> listing("abc", "or")
        'a, b or c'
        >>> listing(range(20))
        '0, 1, 2, 3, 4, 5, 6, 7, ... and 12 more'
    """
    texts = [clipped(text) for text in map(str, names)]
    if len(texts) > most:
        return f"{', '.join(texts[:most])}, ... and {len(texts) - most:,} more"
    if joint is None or len(texts) < 2:
        return ", ".join(texts)
    return f"{', '.join(texts[:-1])} {joint} {texts[-1]}"


def clipped(text: str, length: int = 80) -> str:
    """A text of at most so many characters for a message; dots stand for what is left out."""
    return text if len(text) <= length else f"{text[: length - 3]}..."


def short(value: object, length: int = 80) -> str:
    """A value for a message, as Python writes it, with at most so many characters."""
    return clipped(repr(value), length)


def counted(number: int, noun: str) -> str:
    """A number with its noun, such as `1 seed` and `5 seeds`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def first_line(error: BaseException) -> str:
    """The first line of a library's exception, or its type if it has no message."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


# Gloo raises plain RuntimeErrors; NCCL's own failures (a wrong driver, one GPU used twice) say none of these.
_LOST = (
    *("gloo", "Connection closed by peer", "Connection reset by peer", "Broken pipe", "failed to recv"),
    *("ncclRemoteError", "remote process exited", "communicator was aborted", "collective operation timeout"),
)


def lost_connection(error: BaseException) -> str | None:
    """The message of a collective that failed because of another process, in one line; `None` if it failed for another
    reason.
    """
    text = str(error)
    if not any(sign in text for sign in _LOST) and type(error).__name__ not in ("DistNetworkError", "DistStoreError"):
        return None
    # NCCL's first line is a location in its source code.
    _, found, last = text.partition("Last error:")
    return " ".join(last.split()) if found and last.strip() else first_line(error)


# Messages of the allocators that raise a plain RuntimeError: the host's and those of drivers.
_NO_MEMORY = ("DefaultCPUAllocator", "out of memory")


def memory_exhausted(error: BaseException) -> str | None:
    """The message of a torch allocator that has no memory left, without its statistics; `None` for other errors."""
    if not isinstance(error, RuntimeError) or isinstance(error, RunFailedError):
        return None
    text = first_line(error)
    if type(error).__name__ != "OutOfMemoryError" and not any(sign in text for sign in _NO_MEMORY):
        return None
    # CUDA's message, then the CPU's: "[enforce fail at alloc_cpu.cpp:127] data. DefaultCPUAllocator: can't allocate
    # memory".
    return "".join(
        text.partition("DefaultCPUAllocator")[1:] if "DefaultCPUAllocator" in text else text.split(" GPU ")[0]
    )


@contextmanager
def explaining_memory(advice: Callable[[], str]) -> Iterator[None]:
    """Raise an error of one line when memory runs out in the block.

    Args:
        advice (`Callable[[], str]`): makes the sentences that follow the allocator's message.

    Raises:
        [`MemoryExhaustedError`]: memory ran out in the block.
    """
    try:
        yield
    except RuntimeError as error:
        if (reason := memory_exhausted(error)) is None:
            raise
        raise MemoryExhaustedError(f"{reason.rstrip('. ')}. {advice()}") from error


# Messages of libraries that do not raise OSError for a disk error: Rust's and torch's.
_DISK_FAILED = ("No space left", "os error", "PytorchStreamWriter", "unexpected pos")


def disk_failed(error: BaseException) -> str | None:
    """The message of an exception about a disk that is full or fails, in one line; `None` for other errors."""
    if isinstance(error, OSError):
        return error.strerror or first_line(error)
    if isinstance(error, (UserInputError, RunFailedError)) or not any(sign in str(error) for sign in _DISK_FAILED):
        return None
    return first_line(error)


@contextmanager
def writing(path: object, advice: str = "Make room and try again.") -> Iterator[None]:
    """Raise an error of one line when the disk is full or fails while the block writes a result.

    Args:
        path (`str` or `Path`): what the block writes.
        advice (`str`): the sentence that follows the system's message.

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
    """A line about a full disk, for a command that fails anywhere because of it; `None` for other errors, which are
    bugs.
    """
    if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return None
    return f"{error.filename or 'A file'}: cannot be written ({error.strerror}). Make room and try again."


def run_script(main: Callable[[], None], stopped: str = "Stopped.") -> None:
    """Call a script's `main`. A user's mistake prints one line on stderr and exits with code 2, a known failure with
    code 1, Ctrl-C with 130, after the line `stopped`.
    """
    try:
        main()
    except KeyboardInterrupt:
        sys.stderr.write(f"{stopped}\n")
        raise SystemExit(130) from None
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
