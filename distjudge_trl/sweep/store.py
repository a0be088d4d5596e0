"""The study, and which worker runs which trial. `docs/sweeps.md` draws the states of a trial.

Points of a grid or of random search are enqueued once, when the study is made. A worker claims a waiting trial by one
atomic change of its state, so no trial runs twice. (Optuna's GridSampler may give one point to two workers that ask at
the same time, as its documentation says.) While a worker runs a trial it holds a file lock. The kernel releases the
lock when the worker dies, and any worker that sees the same lock takes the trial over at once. Workers on other
machines, which see no such lock, rely on Optuna's heartbeats.
"""

from __future__ import annotations

import copy
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock, Timeout
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.trial import FrozenTrial, Trial, TrialState

from distjudge_trl.sweep.study import StoredStudy, fixed_point, point_text, retry_history


_KILLED = "its worker was killed"
_SILENT = "its worker has not been heard of for three heartbeats"


class Store(StoredStudy):
    """A study whose trials workers claim, keep alive, end and take over."""

    def trials(self, *states: TrialState) -> list[FrozenTrial]:
        """Trials in these states, or all."""
        return self.study.get_trials(deepcopy=False, states=states or None)

    def frozen(self, trial: Trial) -> FrozenTrial:
        """The trial's record as it is in the storage now."""
        return self.storage.get_trial(trial._trial_id)

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
        return len(retry_history(frozen)) < min(self.retries, self.retries if most is None else most)

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
        if any(retry_history(other)[-1:] == [frozen.number] for other in self.trials()):
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


def _same(frozen: FrozenTrial, other: FrozenTrial) -> bool:
    """Whether two trials are the same attempt of the same configuration."""

    def key(trial: FrozenTrial) -> tuple[Any, ...]:
        return trial.user_attrs.get("index"), point_text(fixed_point(trial)), retry_history(trial)

    return key(frozen) == key(other)
