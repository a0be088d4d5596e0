"""Optuna's storages, opened: a journal file, SQLite or a database server, with what long sweeps need of each."""

from __future__ import annotations

import functools
import itertools
import os
import random
import sqlite3
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import optuna
from filelock import FileLock
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, IntegrityError, OperationalError, ProgrammingError, SQLAlchemyError

from distjudge_trl.errors import RunFailedError, UserInputError, first_line
from distjudge_trl.files.locks import kernel_lock
from distjudge_trl.runtime.extras import install_hint
from distjudge_trl.sweep.locks import study_folder


_ATTEMPTS = 5  # to open a database
_PATIENCE = 300.0  # seconds without a database, once a sweep runs
STORAGE_ERRORS = (StorageInternalError, SQLAlchemyError, sqlite3.Error)

optuna.logging.set_verbosity(optuna.logging.ERROR)
warnings.filterwarnings("ignore", category=ExperimentalWarning)
# Heartbeats are recorded by the workers' own loops.
warnings.filterwarnings("ignore", message="Heartbeat of storage is supposed to be used with Study.optimize")


class _JournalLock(JournalFileOpenLock):
    """Optuna's own leaves a file behind when its holder is killed, for which all others wait half a minute."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self._path = path
        self._held: list[FileLock] = []

    def acquire(self) -> bool:
        lock = kernel_lock(self._path)
        lock.acquire()
        self._held.append(lock)
        return True

    def release(self) -> None:
        self._held.pop().release()


class _Journal(JournalFileBackend):
    """A journal file whose last line may be torn, by a full disk or a crash in the middle of a write."""

    def __init__(self, path: Path, lock: _JournalLock) -> None:
        super().__init__(str(path), lock)
        self._journal, self._own_lock = path, lock
        self._mend()

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        self._mend()
        super().append_logs(logs)

    def _mend(self) -> None:
        """Cut a last line that has no end: Optuna would write behind it, and nobody could read the file again."""
        self._own_lock.acquire()
        try:
            with self._journal.open("rb+") as file:
                size = file.seek(0, os.SEEK_END)
                if not size:
                    return
                file.seek(size - 1)
                if file.read(1) == b"\n":
                    return
                file.seek(0)
                file.truncate(file.read().rfind(b"\n") + 1)
        finally:
            self._own_lock.release()


def _patiently(name: str) -> Callable[..., Any]:
    """A method of `RDBStorage` that waits for a server that is away for a while."""
    method = getattr(RDBStorage, name)

    @functools.wraps(method)
    def call(self: _Database, *args: Any, **kwargs: Any) -> Any:
        deadline = time.monotonic() + self.patience
        while True:
            try:
                return method(self, *args, **kwargs)
            except (StorageInternalError, OperationalError):
                if time.monotonic() > deadline:
                    raise
                time.sleep(2)

    return call


class _Database(RDBStorage):
    """Every call waits for a server that restarts, so that trials continue meanwhile."""

    patience = 0.0


for _name in (*BaseStorage.__abstractmethods__, "record_heartbeat", "_get_stale_trial_ids"):
    setattr(_Database, _name, _patiently(_name))


class Opened(NamedTuple):
    """A storage, what to call it (without a password), and the file behind it, `None` for a server."""

    storage: BaseStorage
    shown: str
    file: Path | None


def open_storage(url: str | None, default: Path, heartbeat: int) -> Opened:
    """A storage by its URL or the path of a journal file.

    Raises:
        [`UserInputError`]: it cannot be reached or read.
    """
    if url is None or "://" not in url:
        file = default if url is None else Path(url)
        _check_place(file, url)
        with explaining(str(file)):
            return Opened(_open_journal(file), str(file), file)
    shown, database = _describe(url)
    with explaining(shown):
        if database is not None:
            _check_place(database, url)
            return Opened(RDBStorage(url, engine_kwargs={"connect_args": {"timeout": 60}}), shown, database)
        return Opened(_open_server(url, heartbeat), shown, None)


def check_storage(url: str) -> Path | None:
    """The file that a storage is, `None` for a server. Nothing is opened or made.

    Raises:
        [`UserInputError`]: it is not a URL that Optuna knows, or no file can be at this place.
    """
    file = file_of(url)
    if file is not None:
        _check_place(file, url)
    return file


def _check_place(file: Path, url: str | None) -> None:
    """A folder that was mistyped is not made."""
    if url is not None and not file.parent.is_dir():
        raise UserInputError(f"--storage {url}: there is no folder {file.parent}. Make it, or correct the path.")
    if file.is_dir():
        raise UserInputError(f"{file}: is a folder; name a file as --storage.")


def be_patient(storage: BaseStorage) -> None:
    """From now on wait for a server that does not answer: trials are running."""
    if isinstance(storage, _Database):
        storage.patience = _PATIENCE


@contextmanager
def explaining(shown: str) -> Iterator[None]:
    """Turn what storages raise while they are opened into one line."""
    try:
        yield
    except UserInputError:
        raise
    except ImportError as error:
        raise UserInputError(
            f"{shown}: its driver is not installed ({first_line(error)}). For PostgreSQL {install_hint('psycopg')}."
        ) from None
    except STORAGE_ERRORS as error:
        cause = error.__cause__ or error
        raise UserInputError(f"{shown}: cannot be reached ({first_line(cause)}).") from None
    except NotImplementedError as error:
        raise UserInputError(f"{shown}: its file system has no file locks ({error}). Choose another place.") from None
    except OSError as error:
        raise UserInputError(f"{shown}: cannot be opened ({error.strerror or first_line(error)}).") from None
    except Exception as error:
        # Optuna's journal raises whatever comes of a line that it does not understand.
        raise UserInputError(
            f"{shown}: is damaged ({type(error).__name__}: {first_line(error)}). Move it away: a new study in the same"
            " --out takes the results of finished trials as they are."
        ) from error


@contextmanager
def losing(shown: str) -> Iterator[None]:
    """Once trials run, a storage that is lost is no wrong input."""
    try:
        yield
    except STORAGE_ERRORS as error:
        cause = error.__cause__ or error
        raise RunFailedError(
            f"{shown}: was lost ({first_line(cause)}). What was done is safe; the same command goes on."
        ) from error


def _open_journal(file: Path) -> BaseStorage:
    if file.is_file() and file.stat().st_size:
        with file.open("rb") as content:
            # Optuna would append to it.
            if not content.readline().startswith(b'{"op_code"'):
                raise UserInputError(f"{file}: is no journal file of Optuna's. Name another --storage.")
    file.parent.mkdir(parents=True, exist_ok=True)
    return JournalStorage(_Journal(file, _JournalLock(study_folder(file) / "journal.lock")))


def _open_server(url: str, heartbeat: int) -> RDBStorage:
    for attempt in itertools.count(1):
        try:
            return _Database(
                _with_driver(url),
                engine_kwargs={"pool_pre_ping": True},
                heartbeat_interval=heartbeat,
                grace_period=3 * heartbeat,
            )
        except (IntegrityError, ProgrammingError):
            # Workers that begin together make the tables together, and all but one fail.
            if attempt == _ATTEMPTS:
                raise
            time.sleep(random.uniform(0.5, 1.5))
    raise AssertionError


def _describe(url: str) -> tuple[str, Path | None]:
    """A URL without its password, and the file behind it, if there is one."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise UserInputError(
            f"--storage {url.split('://')[0]}://...: is no URL that Optuna knows, such as"
            " postgresql://user:password@host/database or sqlite:///sweep.db, nor the path of a journal file."
        ) from None
    is_file = parsed.get_backend_name() == "sqlite"
    if is_file and not parsed.database:
        raise UserInputError("--storage sqlite://: names no file; write sqlite:///sweep.db.")
    return parsed.render_as_string(hide_password=True), Path(str(parsed.database)) if is_file else None


def file_of(url: str) -> Path | None:
    """The file that a storage is, `None` for a server."""
    return _describe(url)[1] if "://" in url else Path(url)


def _with_driver(url: str) -> str:
    """SQLAlchemy's default driver for PostgreSQL is psycopg2 in older versions; ours is psycopg."""
    parsed = make_url(url)
    if parsed.get_backend_name() == "postgresql":
        if parsed.drivername == "postgresql" and find_spec("psycopg") is not None:
            parsed = parsed.set(drivername="postgresql+psycopg")
        if "connect_timeout" not in parsed.query:
            parsed = parsed.update_query_dict({"connect_timeout": "10"})
    return parsed.render_as_string(hide_password=False)
