"""What is done of a file that is being judged: kept in a folder beside the target, so that a run that was killed goes
on where it stopped.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

from filelock import FileLock, Timeout

from distjudge_trl.errors import UserInputError, counted, writing
from distjudge_trl.files.atomic import read_json, write_json
from distjudge_trl.judges.formats import Format, write_csv, write_parquet
from distjudge_trl.judges.readouts import READOUTS
from distjudge_trl.judges.swapping import OrderCounts


FORMAT_VERSION = 1
MAKE_ROOM = "Make room and run the command again: it goes on where it stopped."


@dataclass
class Progress:
    """How far a run is.

    Args:
        made_from (`dict`): `input` and `judge` (hashes), and `settings`, on which the output depends.
        rows (`int`): of the input.
        columns (`list[str]`): that are added to each row.
        done (`int`): rows that are written.
        size (`int`): bytes of these rows; what follows them was being written when the run was killed.
        failed, shortened (`int`): rows marked as bad, and shortened to the model's length.
        orders (`dict`): of pairs in both orders, see [`~distjudge_trl.judges.swapping.OrderCounts`].
    """

    made_from: dict[str, Any]
    rows: int
    columns: list[str]
    done: int = 0
    size: int = 0
    failed: int = 0
    shortened: int = 0
    orders: dict[str, Any] = field(default_factory=dict)
    format_version: int = FORMAT_VERSION

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> Progress | None:
        """The content of `progress.json`; `None` if it is damaged."""
        try:
            progress = cls(**content)
            counts = [progress.rows, progress.done, progress.size, progress.failed, progress.shortened]
            OrderCounts(**progress.orders).line()
            is_sound = (
                all(type(count) is int and count >= 0 for count in counts)
                and progress.done <= progress.rows
                and isinstance(progress.columns, list)
                and all(name in READOUTS for name in progress.columns)
                and isinstance(progress.made_from.get("settings"), dict)
            )
        except (TypeError, ValueError, AttributeError):
            return None
        return progress if is_sound else None

    def lines(self) -> list[str]:
        """What a user should know besides the number of rows."""
        lines = []
        if self.failed:
            lines.append(f"{counted(self.failed, 'row')} could not be judged; the column `error` says why")
        if self.shortened:
            lines.append(f"{counted(self.shortened, 'prompt')} shortened to the model's length")
        if self.orders.get("pairs"):
            lines.append(OrderCounts(**self.orders).line())
        return lines


class PartialOutput:
    """The folder `TARGET.part`: finished rows as JSON lines in `rows.jsonl`, and `progress.json`.

    Args:
        target (`Path`): the file that is to be written.
    """

    def __init__(self, target: Path) -> None:
        self.target = target
        self.folder = target.with_name(f"{target.name}.part")
        self.rows = self.folder / "rows.jsonl"
        self._state = self.folder / "progress.json"
        self._lock = FileLock(self.folder / "lock", fallback_to_soft=False)
        self._file: IO[bytes] | None = None
        self._is_mine = False

    def find(self, made_from: Mapping[str, Any], *, overwrite: bool) -> Progress | None:
        """What an earlier run has done of the same work; `None` if there is nothing, or `overwrite` removes it.

        Raises:
            [`UserInputError`]: it was other work, it is damaged, or another process is at it.
        """
        if not self.folder.exists():
            return None
        if not self.folder.is_dir() or any(not _is_own(path) for path in self.folder.iterdir()):
            raise UserInputError(f"{self.folder}: is in the way; rows are kept there until all are judged. Rename it.")
        self._take_lock()
        if overwrite:
            self.discard()
            return None
        content = read_json(self._state)
        anew = "Give --overwrite to begin anew."
        if not content:
            if not self.rows.exists():
                self.discard()  # killed before the first row
                return None
            raise UserInputError(f"{self.folder}: its progress.json is missing or damaged. {anew}")
        if content.get("format_version") != FORMAT_VERSION:
            raise UserInputError(f"{self.folder}: was written by another version of distjudge-trl. {anew}")
        progress = Progress.of(content)
        if progress is None:
            raise UserInputError(f"{self.folder}: its progress.json is missing or damaged. {anew}")
        if (difference := _difference(progress.made_from, made_from)) is not None:
            raise UserInputError(
                f"{self.folder}: holds {progress.done:,} of {progress.rows:,} rows of a run that was stopped, but"
                f" {difference}. Restore that to go on. {anew}"
            )
        if progress.done == progress.rows and not self.rows.exists() and self.target.exists():
            return progress  # killed after the target was written
        if not progress.size and not self.rows.exists():
            return progress  # killed between the two files
        if not self.rows.is_file() or self.rows.stat().st_size < progress.size:
            raise UserInputError(f"{self.folder}: its rows.jsonl is missing or too short. {anew}")
        if not self._has_rows(progress):
            raise UserInputError(f"{self.folder}: its rows.jsonl is damaged. {anew}")
        return progress

    def _has_rows(self, progress: Progress) -> bool:
        """Whether the file begins with as many lines as there should be."""
        count = size = 0
        with self.rows.open("rb") as file:
            while size < progress.size and (line := file.readline()):
                if not (line.startswith(b"{") and line.endswith(b"}\n")):
                    return False
                count, size = count + 1, size + len(line)
        return (count, size) == (progress.done, progress.size)

    def begin(self, progress: Progress) -> None:
        """Make the folder, or take off what follows the rows that are done."""
        with writing(self.folder, MAKE_ROOM):
            self.folder.mkdir(exist_ok=True)
            self._take_lock()
            write_json(self._state, asdict(progress))
            self._file = self.rows.open("ab")
            self._file.truncate(progress.size)

    def append(self, lines: bytes, progress: Progress) -> None:
        """Write rows, then that they are there; `progress` counts them already, apart from their bytes."""
        assert self._file is not None
        with writing(self.folder, MAKE_ROOM):
            self._file.write(lines)
            self._file.flush()
            os.fsync(self._file.fileno())
            progress.size += len(lines)
            write_json(self._state, asdict(progress))

    def finish(self, format: Format) -> None:
        """Write the target from all rows, at once for readers, and remove the folder."""
        self._close()
        with writing(self.target, MAKE_ROOM):
            if format == "jsonl":
                with suppress(FileNotFoundError):  # it has been moved already, see `find`
                    self.rows.replace(self.target)
            else:
                converted = self.folder / "converted"
                if format == "csv":
                    write_csv(self.rows, converted)
                else:
                    write_parquet(self.rows, converted, self.target)
                converted.replace(self.target)
        self.discard()

    def discard(self) -> None:
        """Remove the folder, unless another process has it."""
        if self._is_mine:
            self._close()
            with suppress(OSError):
                for path in filter(_is_own, self.folder.iterdir()):
                    path.unlink()
                self.folder.rmdir()
        self.release()

    def release(self) -> None:
        """Leave the folder for a later run."""
        self._close()
        self._lock.release()
        self._is_mine = False

    def _close(self) -> None:
        if self._file is not None:
            with suppress(OSError):  # it tries once more to write data for which there was no space
                self._file.close()
            self._file = None

    def _take_lock(self) -> None:
        if self._is_mine:
            return
        try:
            self._lock.acquire(timeout=0)
        except NotImplementedError:
            pass  # the file system has no locks
        except Timeout:
            raise UserInputError(f"{self.folder}: another process is judging into it. Name another --out.") from None
        except OSError as error:
            raise UserInputError(f"{self.folder}: cannot be written ({error.strerror}). Name another --out.") from None
        self._is_mine = True


def _is_own(path: Path) -> bool:
    """Whether a file in the folder was written by [`PartialOutput`]; the last ones by a write that was killed."""
    return path.name in ("rows.jsonl", "progress.json", "converted", "lock") or path.name.startswith(".progress.json.")


def _difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """What has changed since a run was stopped, as a clause; `None` if nothing has."""
    if before.get("input") != now.get("input"):
        return "the input has changed since"
    if before.get("judge") != now.get("judge"):
        return "that was another judge"
    old, new = before.get("settings", {}), now.get("settings", {})
    for name in sorted({*old, *new}):
        if old.get(name) != new.get(name):
            return f"with {name} {_shown(old.get(name))}, now {_shown(new.get(name))}"
    return None


def _shown(value: Any) -> str:
    return "not given" if value is None else ",".join(map(str, value)) if isinstance(value, list) else str(value)
