"""The study: Optuna's storage, and who runs which trial.

Trials of a grid or of random search are enqueued once, when the study is made, and workers take waiting trials by the
storage's own atomic change of state: none is run twice. (Optuna's GridSampler may give one point to two workers that
ask at the same time, as its documentation says.) A worker holds a file lock for every trial that it runs: the kernel
lets go of it when the worker dies, however that happens, and any other worker puts the trial back. Where the storage
is a server and the worker was on another machine, Optuna's heartbeat tells.
"""

from __future__ import annotations

import contextlib
import copy
import itertools
import random
import socket
import sqlite3
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock, Timeout
from optuna.exceptions import DuplicatedStudyError, ExperimentalWarning, StorageInternalError, UpdateFinishedTrialError
from optuna.storages import BaseStorage, RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy.exc import ArgumentError, IntegrityError, ProgrammingError, SQLAlchemyError

from distjudge_trl.errors import UserInputError, first_line
from distjudge_trl.sweep.definition import Definition
from distjudge_trl.sweep.space import Scalar


JOURNAL_NAME = "study.journal"
# A worker that died between taking a trial and saying where it is.
_UNCLAIMED = timedelta(seconds=60)
_ATTEMPTS = 5  # to open a database
_SETTING_UP = 60.0  # seconds that the maker of a study on a server may need

optuna.logging.set_verbosity(optuna.logging.ERROR)
warnings.filterwarnings("ignore", category=ExperimentalWarning)
# Heartbeats are recorded by the workers' own loops.
warnings.filterwarnings("ignore", message="Heartbeat of storage is supposed to be used with Study.optimize")


class Store:
    """A study in its storage.

    Args:
        url (`str`, *optional*): of an Optuna storage, or the path of a journal file. By default a journal file in
            `out`.
        out (`Path`): the sweep's folder.
        name (`str`): of the study.
        retries (`int`): how often a trial whose processes died is tried again.
        heartbeat (`int`): seconds between signs of life of a trial in a server's storage.

    Raises:
        [`UserInputError`]: the storage cannot be reached or read.
    """

    def __init__(self, url: str | None, out: Path, name: str, *, retries: int = 2, heartbeat: int = 60) -> None:
        self.name, self.out, self.heartbeat = name, out, heartbeat
        self.retries = retries
        self.retry = RetryHeartbeatStaleTrialCallback(max_retry=retries)
        self.shown = url or str(out / JOURNAL_NAME)
        file: Path | None = out / JOURNAL_NAME if url is None else Path(url)
        if url is not None and "://" in url:
            self.shown, file = _describe(url)
        self.is_server = file is None
        self.storage: BaseStorage
        with self.explaining():
            if url is not None and "://" in url:
                self.storage = self._database(url, file)
            else:
                assert file is not None
                self.storage = _journal(file)
        self.locks = out / "locks" if file is None else file.with_name(f"{file.name}.locks")
        self._threads = threading.local()

    def _database(self, url: str, file: Path | None) -> RDBStorage:
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            return RDBStorage(url, engine_kwargs={"connect_args": {"timeout": 60}})
        for attempt in itertools.count(1):
            try:
                return RDBStorage(
                    _with_driver(url),
                    engine_kwargs={"pool_pre_ping": True},
                    heartbeat_interval=self.heartbeat,
                    grace_period=3 * self.heartbeat,
                    heartbeat_stale_trial_callback=self.retry,
                )
            except (IntegrityError, ProgrammingError):
                # Workers that begin together make the tables together, and all but one fail.
                if attempt == _ATTEMPTS:
                    raise
                time.sleep(random.uniform(0.5, 1.5))
        raise AssertionError

    @contextmanager
    def explaining(self) -> Iterator[None]:
        """Turn what storages raise when they cannot be reached or read into one line."""
        try:
            yield
        except ImportError as error:
            raise UserInputError(
                f"--storage {self.shown}: its driver is not installed ({first_line(error)}). For PostgreSQL: pip"
                " install 'distjudge-trl[postgresql]'."
            ) from None
        except (StorageInternalError, SQLAlchemyError, sqlite3.Error) as error:
            cause = error.__cause__ or error
            raise UserInputError(f"--storage {self.shown}: cannot be reached ({first_line(cause)}).") from None
        except (OSError, ValueError, KeyError) as error:
            if isinstance(error, UserInputError):
                raise
            reason = getattr(error, "strerror", None) or first_line(error)
            raise UserInputError(f"--storage {self.shown}: cannot be read ({reason}).") from None

    # Making and opening

    @property
    def study(self) -> optuna.Study:
        """The study, an object a thread."""
        if not hasattr(self._threads, "study"):
            self._threads.study = optuna.load_study(study_name=self.name, storage=self.storage)
        return self._threads.study

    def lock(self, name: str) -> FileLock:
        """A lock that ends with the process that holds it."""
        self.locks.mkdir(parents=True, exist_ok=True)
        return FileLock(self.locks / f"{name}.lock")

    def exists(self) -> bool:
        """Whether the storage holds the study."""
        return self.name in optuna.get_all_study_names(self.storage)

    def open(self) -> Definition:
        """The definition of a study that is there.

        Raises:
            [`UserInputError`]: it is not, or was not made by a sweep.
        """
        with self.explaining():
            if not self.exists():
                known = ", ".join(optuna.get_all_study_names(self.storage)) or "none"
                raise UserInputError(f"{self.shown}: holds no study {self.name!r}. Studies there: {known}.")
            attributes = self.study.user_attrs
        if "definition" not in attributes:
            raise UserInputError(f"{self.shown}: the study {self.name!r} was not made by `distjudge-trl sweep`.")
        return Definition.from_dict(attributes["definition"])

    def make(self, definition: Definition, points: Callable[[int], Sequence[dict[str, Scalar]]], count: int) -> int:
        """Make the study, or go on with it; the number of its configurations.

        Args:
            definition ([`Definition`]): must be the study's own if there is one.
            points (`Callable`): the first n configurations; an empty one is chosen when its trial begins.
            count (`int`): of configurations; more than at an earlier start are added.

        Raises:
            [`UserInputError`]: the study is another sweep.
        """
        with self.explaining(), self.lock("study"):
            try:
                optuna.create_study(
                    study_name=self.name,
                    storage=self.storage,
                    direction="maximize" if definition.maximize else "minimize",
                )
                is_ours = True
            except DuplicatedStudyError:
                is_ours = False
            deadline = time.monotonic() + _SETTING_UP
            while not is_ours and self.is_server and "definition" not in self.study.user_attrs:
                # Another machine makes it; whoever waits in vain takes over. Or it is no sweep's.
                if time.monotonic() > deadline or self.study.get_trials(deepcopy=False):
                    break
                time.sleep(0.5)
            attributes = self.study.user_attrs
            if "definition" in attributes:
                Definition.from_dict(attributes["definition"]).check_same(definition, self.name)
            elif self.study.get_trials(deepcopy=False):
                raise UserInputError(
                    f"{self.shown}: the study {self.name!r} was not made by `distjudge-trl sweep`. Name another with"
                    " --study."
                )
            else:
                self.study.set_user_attr("definition", definition.to_dict())
            there = {trial.user_attrs.get("index") for trial in self.study.get_trials(deepcopy=False)}
            for index, point in enumerate(points(count)):
                if index not in there:
                    self.study.enqueue_trial(point, user_attrs={"index": index})
            planned = max(count, attributes.get("planned", 0))
            if planned != attributes.get("planned"):
                self.study.set_user_attr("planned", planned)
            return planned

    # Trials

    def trials(self, *states: TrialState) -> list[FrozenTrial]:
        """Trials in these states, or all."""
        return self.study.get_trials(deepcopy=False, states=states or None)

    def unfinished(self) -> int:
        """How many trials wait or run."""
        return len(self.trials(TrialState.WAITING, TrialState.RUNNING))

    @contextmanager
    def claim(self, make_sampler: Callable[[int], optuna.samplers.BaseSampler]) -> Iterator[Trial | None]:
        """A waiting trial that now runs and is nobody else's within the block; `None` if there is none."""
        for frozen in self.trials(TrialState.WAITING):
            lock = self.lock(f"trial-{frozen.number}")
            try:
                # Before the state changes: a trial that runs without its lock held has lost its worker.
                lock.acquire(timeout=0)
            except Timeout:
                continue
            try:
                if not self._take(frozen):
                    continue
                number = self._number(frozen)
                self.storage.set_trial_user_attr(number, "host", socket.gethostname())
                self.beat(number)
                self.study.sampler = make_sampler(frozen.number)
                yield Trial(self.study, number)
                return
            finally:
                lock.release()
        yield None

    def _number(self, frozen: FrozenTrial) -> int:
        """The storage's own id of a trial."""
        study = self.storage.get_study_id_from_name(self.name)
        return self.storage.get_trial_id_from_study_id_trial_number(study, frozen.number)

    def _take(self, frozen: FrozenTrial) -> bool:
        # SQLite reads and writes in two steps that another process may come between.
        is_sqlite = isinstance(self.storage, RDBStorage) and not self.is_server
        turn: AbstractContextManager[Any] = self.lock("turn") if is_sqlite else contextlib.nullcontext()
        with turn:
            try:
                if self.storage.get_trial(self._number(frozen)).state != TrialState.WAITING:
                    return False
                return self.storage.set_trial_state_values(self._number(frozen), TrialState.RUNNING)
            except UpdateFinishedTrialError:
                return False

    def beat(self, trial_id: int) -> None:
        """A sign of life, for workers on other machines."""
        if self.is_server:
            assert isinstance(self.storage, RDBStorage)
            self.storage.record_heartbeat(trial_id)

    def put_back(self, trial: Trial) -> None:
        """Let a trial wait again that was stopped on purpose; it goes on from its last checkpoint."""
        self.storage.set_trial_state_values(trial._trial_id, TrialState.WAITING)

    def fail(self, frozen: FrozenTrial, error: str, *, again: bool) -> bool:
        """End a trial as failed; `again` enqueues it once more unless it was retried often enough. Whether it does.

        A trial that another worker has ended already is left alone.
        """
        number = self._number(frozen)
        try:
            self.storage.set_trial_user_attr(number, "error", error)
            history = frozen.system_attrs.get("retry_history", [])
            again = again and len(history) < self.retries
            # The retry first: who dies between the two leaves a trial that runs without a worker, not one that is
            # missing.
            followers = [t.system_attrs.get("retry_history", [])[-1:] for t in self.trials()]
            if again and [frozen.number] not in followers:
                self.retry(self.study, copy.deepcopy(self.storage.get_trial(number)))
            self.storage.set_trial_state_values(number, TrialState.FAIL)
        except UpdateFinishedTrialError:
            return False
        return again

    def reap(self, bury: Callable[[FrozenTrial], None]) -> list[FrozenTrial]:
        """Put trials back whose worker has died; `bury` ends what it may have left running. Returns them."""
        dead = []
        for frozen in self.trials(TrialState.RUNNING):
            host = frozen.user_attrs.get("host")
            if self.is_server and host != socket.gethostname():
                unclaimed = host is None and datetime.now() - (frozen.datetime_start or datetime.now()) > _UNCLAIMED
                if not unclaimed:
                    continue
            lock = self.lock(f"trial-{frozen.number}")
            try:
                lock.acquire(timeout=0)
            except Timeout:
                continue
            try:
                if self.storage.get_trial(self._number(frozen)).state == TrialState.RUNNING:
                    bury(frozen)
                    self.fail(frozen, "its worker was killed", again=True)
                    dead.append(frozen)
            finally:
                lock.release()
        if self.is_server:
            optuna.storages.fail_stale_trials(self.study)
        return dead


def _journal(file: Path) -> BaseStorage:
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    if file.is_dir():
        raise UserInputError(f"--storage {file}: is a folder; name a file.")
    if file.is_file() and file.stat().st_size:
        with file.open("rb") as content:
            # Optuna would append to it.
            if not content.readline().startswith(b'{"op_code"'):
                raise UserInputError(f"--storage {file}: is no journal file of Optuna's.")
    file.parent.mkdir(parents=True, exist_ok=True)
    return JournalStorage(JournalFileBackend(str(file)))


def _describe(url: str) -> tuple[str, Path | None]:
    """A URL without its password, and the file behind it, if there is one."""
    from sqlalchemy.engine import make_url

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


def _with_driver(url: str) -> str:
    """SQLAlchemy's default driver for PostgreSQL is psycopg2 in older versions; ours is psycopg."""
    from importlib.util import find_spec

    from sqlalchemy.engine import make_url

    parsed = make_url(url)
    connect = {"connect_timeout": "10"} if parsed.get_backend_name() == "postgresql" else {}
    if parsed.drivername == "postgresql" and find_spec("psycopg") is not None:
        parsed = parsed.set(drivername="postgresql+psycopg")
    return parsed.update_query_dict({k: v for k, v in connect.items() if k not in parsed.query}).render_as_string(
        hide_password=False
    )
