"""The study, and which worker runs which trial. `docs/sweeps.md` draws the states of a trial.

Points of a grid or of random search are enqueued once, when the study is made. A worker claims a waiting trial by one
atomic change of its state, so no trial runs twice. (Optuna's GridSampler may give one point to two workers that ask at
the same time, as its documentation says.) While a worker runs a trial it holds a file lock. The kernel releases the
lock when the worker dies, and any worker that sees the same lock takes the trial over at once. Workers on other
machines, which see no such lock, rely on Optuna's heartbeats.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock, Timeout
from optuna.exceptions import DuplicatedStudyError, UpdateFinishedTrialError
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.trial import FrozenTrial, Trial, TrialState

from distjudge_trl.errors import UserInputError
from distjudge_trl.files.atomic import read_json, write_json
from distjudge_trl.sweep.definition import Definition
from distjudge_trl.sweep.locks import kernel_lock, machine_folder, study_folder
from distjudge_trl.sweep.space import Scalar
from distjudge_trl.sweep.storages import be_patient, explaining, open_storage


JOURNAL_NAME = "study.journal"
SWEEP_NAME = "sweep.json"
_SETTING_UP = 60.0  # seconds that the maker of a study on a server may need


class Store:
    """A study in its storage.

    Args:
        url (`str`, *optional*): an Optuna storage URL, or the path of a journal file. By default a journal file in
            `out`.
        out (`Path`): the sweep's folder.
        name (`str`): name of the study.
        retries (`int`): how often a trial whose processes died is tried again.
        heartbeat (`int`): seconds between two signs of life of a trial. A trial that misses three counts as dead where
            its lock cannot be seen.

    Attributes:
        definition ([`Definition`]): what the study is; set by `open` and `make`.

    Raises:
        [`UserInputError`]: the storage cannot be reached or read.
    """

    def __init__(self, url: str | None, out: Path, name: str, *, retries: int = 2, heartbeat: int = 60) -> None:
        self.name, self.out, self.heartbeat, self.retries = name, out, heartbeat, retries
        self.storage, self.shown, file = open_storage(url, out / JOURNAL_NAME, heartbeat)
        self.is_server = file is None
        # Workers on one machine may use other folders: the locks of a server's studies have one place.
        self.locks = study_folder(file) if file is not None else machine_folder() / f"locks-{_digest(self.shown)}"
        self.definition: Definition
        self._prefix = _digest(name)
        self._threads = threading.local()

    # The study

    @property
    def study(self) -> optuna.Study:
        """Optuna's study, one object per thread."""
        if not hasattr(self._threads, "study"):
            self._threads.study = optuna.load_study(study_name=self.name, storage=self.storage)
        return self._threads.study

    def lock(self, name: str) -> FileLock:
        """A lock of this study that ends with the process that holds it."""
        return kernel_lock(self.locks / f"{self._prefix}-{name}.lock")

    def exists(self) -> bool:
        """Whether the storage holds the study."""
        return self.name in optuna.get_all_study_names(self.storage)

    def open(self) -> Definition:
        """The definition of a study that is there.

        Raises:
            [`UserInputError`]: it is not, or was not made by a sweep.
        """
        with explaining(self.shown):
            if not self.exists():
                known = ", ".join(optuna.get_all_study_names(self.storage)) or "none"
                raise UserInputError(f"{self.shown}: holds no study {self.name!r}. Studies there: {known}.")
            attributes = self.study.user_attrs
        if "definition" not in attributes:
            raise UserInputError(f"{self.shown}: the study {self.name!r} was not made by `distjudge-trl sweep`.")
        self.definition = Definition.from_dict(attributes["definition"], self.name)
        return self.definition

    def make(self, definition: Definition, points: Sequence[dict[str, Scalar]]) -> int:
        """Make the study, or continue it.

        Args:
            definition ([`Definition`]): must equal the study's own definition if the study exists.
            points (`Sequence[dict]`): configurations to enqueue unless they are there. The sampler chooses the values
                of an empty one when its trial begins.

        Returns:
            The number of the study's configurations.

        Raises:
            [`UserInputError`]: the study or the folder belongs to another sweep.
        """
        self._check_folder(definition)
        with explaining(self.shown), self.lock("study"):
            try:
                optuna.create_study(
                    study_name=self.name,
                    storage=self.storage,
                    direction="maximize" if definition.maximize else "minimize",
                )
                is_ours = True
            except DuplicatedStudyError:
                is_ours = False
            # Another machine is making the study, and writes the definition last. After a while this one takes over.
            deadline = time.monotonic() + _SETTING_UP
            while self.is_server and not is_ours and "definition" not in self.study.user_attrs:
                if time.monotonic() > deadline or self._is_foreign():
                    break
                time.sleep(0.5)
            attributes = self.study.user_attrs
            if "definition" in attributes:
                Definition.from_dict(attributes["definition"], self.name).check_same(definition, self.name)
            elif self._is_foreign():
                raise UserInputError(
                    f"{self.shown}: the study {self.name!r} was not made by `distjudge-trl sweep`. Name another with"
                    " --study."
                )
            planned = self._enqueue(points)
            if "definition" not in attributes:
                self.study.set_user_attr("definition", definition.to_dict())
        self.definition = definition
        write_json(self.out / SWEEP_NAME, {"study": self.name, "definition": definition.to_dict()})
        be_patient(self.storage)
        return planned

    def _check_folder(self, definition: Definition) -> None:
        """Refuse a folder of another sweep: its results would be taken for this study's."""
        there = read_json(self.out / SWEEP_NAME)
        if there and there.get("study") != self.name:
            raise UserInputError(f"{self.out}: holds the sweep {there.get('study')!r}. Choose another --out.")
        if there:
            Definition.from_dict(there.get("definition"), self.name).check_same(definition, self.name)

    def _is_foreign(self) -> bool:
        return any("index" not in trial.user_attrs for trial in self.study.get_trials(deepcopy=False))

    def _enqueue(self, points: Sequence[dict[str, Scalar]]) -> int:
        """Add the points that are not there yet; returns the number of all points."""
        there = [trial for trial in self.study.get_trials(deepcopy=False) if not _history(trial)]
        known = [_text(_fixed(trial)) for trial in there]
        free = max((trial.user_attrs["index"] for trial in there), default=-1) + 1
        wanted = [_text(point) for point in points]
        for place, point in enumerate(points):
            # Empty points are equal to each other: compare how many there are.
            if wanted[: place + 1].count(wanted[place]) <= known.count(wanted[place]):
                continue
            self.study.enqueue_trial(point, user_attrs={"index": free})
            free += 1
        return free

    # Trials

    def trials(self, *states: TrialState) -> list[FrozenTrial]:
        """Trials in these states, or all."""
        return self.study.get_trials(deepcopy=False, states=states or None)

    def unfinished(self) -> int:
        """How many trials wait or run."""
        return len(self.trials(TrialState.WAITING, TrialState.RUNNING))

    @contextmanager
    def claim(self, make_sampler: Callable[[int], optuna.samplers.BaseSampler]) -> Iterator[Trial | None]:
        """Claim a waiting trial for the time of the block; `None` if no trial waits."""
        for frozen in self.trials(TrialState.WAITING):
            lock = self.lock(f"trial-{frozen.number}")
            try:
                # Before the state changes: a running trial whose lock is free counts as lost.
                lock.acquire(timeout=0)
            except Timeout:
                continue
            try:
                number = frozen._trial_id
                self._sign(number, lock)
                if not self._take(frozen):
                    continue
                self.storage.set_trial_user_attr(number, "host", socket.gethostname())
                self.storage.set_trial_user_attr(number, "place", self._place())
                self.study.sampler = make_sampler(frozen.number)
                yield Trial(self.study, number)
                return
            finally:
                lock.release()
        yield None

    def _take(self, frozen: FrozenTrial) -> bool:
        """Try to set a trial to RUNNING, with its lock held. Of two that machines enqueued at the same moment the
        second one is ended.
        """
        try:
            if self.storage.get_trial(frozen._trial_id).state != TrialState.WAITING:
                return False
            if any(_same(frozen, other) for other in self.trials() if other.number < frozen.number):
                self.storage.set_trial_user_attr(frozen._trial_id, "twin", True)
                self.storage.set_trial_state_values(frozen._trial_id, TrialState.FAIL)
                return False
            return self.storage.set_trial_state_values(frozen._trial_id, TrialState.RUNNING)
        except UpdateFinishedTrialError:
            return False

    def _place(self) -> str:
        """A name for where this worker's locks can be seen: this machine and the folder of the locks."""
        folder, boot = self.locks.stat(), Path("/proc/sys/kernel/random/boot_id")
        # Cloned machines have equal host names and inode numbers, but not the same folder.
        machine = boot.read_text().strip() if self.is_server and boot.is_file() else socket.gethostname()
        return f"{machine} {folder.st_dev}:{folder.st_ino}"

    def beat(self, trial_id: int, lock: FileLock) -> None:
        """Give a sign of life to workers on other machines.

        Raises:
            `UpdateFinishedTrialError`: another worker has ended the trial.
        """
        self._sign(trial_id, lock)
        if self.storage.get_trial(trial_id).state.is_finished():
            raise UpdateFinishedTrialError

    def _sign(self, trial_id: int, lock: FileLock) -> None:
        if self.is_server:
            assert isinstance(self.storage, RDBStorage)
            self.storage.record_heartbeat(trial_id)
        else:
            os.utime(lock.lock_file)

    def is_orphan(self, frozen: FrozenTrial) -> bool:
        """Whether the lock of a running trial shows that its worker is dead."""
        lock = self.lock(f"trial-{frozen.number}")
        if frozen.state != TrialState.RUNNING or not self._may_tell(frozen, lock):
            return False
        try:
            with lock.acquire(timeout=0):
                return True
        except Timeout:
            return False

    def put_back(self, trial: Trial) -> None:
        """Set a trial that was stopped on purpose back to WAITING; it resumes from its last checkpoint."""
        self.storage.set_trial_user_attr(trial._trial_id, "place", None)
        self.storage.set_trial_state_values(trial._trial_id, TrialState.WAITING)

    def again(self, frozen: FrozenTrial, *, most: int | None = None) -> bool:
        """Whether a trial may be tried once more, at most `retries` times, or `most` if that is less."""
        return len(_history(frozen)) < min(self.retries, self.retries if most is None else most)

    def fail(self, frozen: FrozenTrial, error: str, *, again: bool) -> bool:
        """End a trial as failed, and enqueue it once more if `again`. False if another worker has ended it already."""
        number = frozen._trial_id
        try:
            self.storage.set_trial_user_attr(number, "error", error)
            # The retry comes first. A worker that dies in between leaves a running trial, which is found again; the
            # other order would lose it.
            if again:
                self.retry(frozen)
            return self.storage.set_trial_state_values(number, TrialState.FAIL)
        except UpdateFinishedTrialError:
            return False

    def retry(self, frozen: FrozenTrial) -> None:
        """Enqueue a trial once more, unless that has been done."""
        if any(_history(other)[-1:] == [frozen.number] for other in self.trials()):
            return
        once_more = copy.deepcopy(self.storage.get_trial(frozen._trial_id))
        # The other attributes describe the attempt that failed.
        once_more.user_attrs = {"index": once_more.user_attrs["index"]}
        RetryHeartbeatStaleTrialCallback()(self.study, once_more)

    def retry_failed(self) -> int:
        """Enqueue every configuration whose last attempt failed; returns how many."""
        last = {trial.user_attrs["index"]: trial for trial in self.trials() if "twin" not in trial.user_attrs}
        failed = [trial for trial in last.values() if trial.state == TrialState.FAIL]
        for trial in failed:
            self.retry(trial)
        return len(failed)

    def reap(self, bury: Callable[[FrozenTrial], None]) -> list[tuple[FrozenTrial, bool]]:
        """End trials whose worker has died, and enqueue them again unless they were retried often enough.

        Args:
            bury (`Callable`): ends what a dead worker may have left running on this machine.

        Returns:
            Trials, and whether they are tried again.
        """
        dead = []
        for frozen in self.trials(TrialState.RUNNING):
            lock = self.lock(f"trial-{frozen.number}")
            if not self._may_tell(frozen, lock):
                continue
            try:
                lock.acquire(timeout=0)
            except Timeout:
                continue
            try:
                if self.storage.get_trial(frozen._trial_id).state == TrialState.RUNNING:
                    bury(frozen)
                    dead.append((frozen, self.again(frozen), self.fail(frozen, _KILLED, again=self.again(frozen))))
            finally:
                lock.release()
        if self.is_server:
            assert isinstance(self.storage, RDBStorage)
            study = self.storage.get_study_id_from_name(self.name)
            # `optuna.storages.fail_stale_trials` fails the trial before it enqueues the retry; see `fail`.
            for number in self.storage._get_stale_trial_ids(study):
                frozen = self.storage.get_trial(number)
                dead.append((frozen, self.again(frozen), self.fail(frozen, _SILENT, again=self.again(frozen))))
        return [(frozen, again) for frozen, again, ours in dead if ours]

    def _may_tell(self, frozen: FrozenTrial, lock: FileLock) -> bool:
        """Whether a free lock proves that the trial's worker is dead."""
        self.locks.mkdir(parents=True, exist_ok=True)
        if frozen.user_attrs.get("place") == self._place():
            return True
        if self.is_server:
            return False  # the heartbeat decides
        # The locks of a shared disk may not reach other machines: the worker must have been silent as well.
        probe = Path(lock.lock_file).with_name(f".now-{socket.gethostname()}-{os.getpid()}")
        probe.touch()
        try:
            return probe.stat().st_mtime - Path(lock.lock_file).stat().st_mtime > 3 * self.heartbeat
        except FileNotFoundError:
            return True
        finally:
            probe.unlink(missing_ok=True)


_KILLED = "its worker was killed"
_SILENT = "its worker has not been heard of for three heartbeats"


def _same(frozen: FrozenTrial, other: FrozenTrial) -> bool:
    """Whether two trials are the same attempt of the same configuration."""

    def key(trial: FrozenTrial) -> tuple[Any, ...]:
        return trial.user_attrs.get("index"), _text(_fixed(trial)), _history(trial)

    return key(frozen) == key(other)


def _history(frozen: FrozenTrial) -> list[int]:
    """Numbers of the earlier attempts, if the trial is a retry."""
    history: list[int] = frozen.system_attrs.get("retry_history", [])
    return history


def _fixed(frozen: FrozenTrial) -> dict[str, Any]:
    fixed: dict[str, Any] = frozen.system_attrs.get("fixed_params", {})
    return fixed


def _text(point: dict[str, Any]) -> str:
    return json.dumps(point, sort_keys=True)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]
