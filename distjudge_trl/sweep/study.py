"""A study in its storage: made once, opened by its name, continued, and grown when its grid grows."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock
from optuna.exceptions import DuplicatedStudyError
from optuna.trial import FrozenTrial, TrialState

from distjudge_trl.errors import UserInputError
from distjudge_trl.files.atomic import read_json, write_json
from distjudge_trl.files.locks import kernel_lock
from distjudge_trl.sweep.definition import Definition
from distjudge_trl.sweep.locks import machine_folder, study_folder
from distjudge_trl.sweep.space import Scalar
from distjudge_trl.sweep.storages import be_patient, explaining, open_storage


JOURNAL_NAME = "study.journal"
SWEEP_NAME = "sweep.json"
_SETTING_UP = 60.0  # seconds that the maker of a study on a server may need


class StoredStudy:
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
        self._threads = threading.local()

    # The study

    @property
    def study(self) -> optuna.Study:
        """Optuna's study, one object per thread."""
        if not hasattr(self._threads, "study"):
            self._threads.study = optuna.load_study(study_name=self._chain()[-1], storage=self.storage)
        return self._threads.study

    def lock(self, name: str) -> FileLock:
        """A lock of this study that ends with the process that holds it."""
        return kernel_lock(self.locks / f"{_digest(self.name)}-{name}.lock")

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
        day = definition.day
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
                there = Definition.from_dict(attributes["definition"], self.name)
                definition = replace(definition, day=there.day)
                if there.grew_into(definition):
                    there.check_same(replace(definition, parameters=there.parameters), self.name)
                    self._grow(definition)
                    attributes = {}
                else:
                    there.check_same(definition, self.name)
            elif self._is_foreign():
                raise UserInputError(
                    f"{self.shown}: the study {self.name!r} was not made by `distjudge-trl sweep`. Name another with"
                    " --study."
                )
            planned = self._enqueue(points)
            if "definition" not in attributes:
                self.study.set_user_attr("definition", definition.to_dict())
        # A study without a day is of an earlier version.
        self.definition = replace(definition, day=definition.day or day)
        write_json(self.out / SWEEP_NAME, {"study": self.name, "definition": self.definition.to_dict()})
        be_patient(self.storage)
        return planned

    def _check_folder(self, definition: Definition) -> None:
        """Refuse a folder of another sweep: its results would be taken for this study's."""
        there = read_json(self.out / SWEEP_NAME)
        if there and there.get("study") != self.name:
            raise UserInputError(f"{self.out}: holds the sweep {there.get('study')!r}. Choose another --out.")
        if there:
            before = Definition.from_dict(there.get("definition"), self.name)
            if before.grew_into(definition):
                before = replace(before, parameters=definition.parameters)
            before.check_same(definition, self.name)

    def _grow(self, definition: Definition) -> None:
        """Continue in a new study that has the trials of this one, because Optuna's categorical parameters cannot get
        more values. The old study names the new one, so that a study is found by its first name.
        """
        old = self.study
        known = {parameter.name: parameter.distribution() for parameter in definition.parameters}
        name = f"{self.name} ({len(self._chain()) + 1})"
        with suppress(DuplicatedStudyError):
            optuna.create_study(study_name=name, storage=self.storage, direction=old.direction)
        new = optuna.load_study(study_name=name, storage=self.storage)
        for trial in old.get_trials()[len(new.get_trials(deepcopy=False)) :]:
            if trial.state == TrialState.RUNNING:
                # Its worker holds the lock of the new trial, too: they have the same number.
                trial.state, trial.params, trial.intermediate_values = TrialState.WAITING, {}, {}
                trial.user_attrs = {"index": trial.user_attrs["index"]}
            new.add_trial(
                optuna.trial.create_trial(
                    state=trial.state,
                    values=trial.values,
                    params=trial.params,
                    distributions={name: known[name] for name in trial.params},
                    user_attrs=trial.user_attrs,
                    system_attrs=trial.system_attrs,
                    intermediate_values=trial.intermediate_values,
                )
            )
        new.set_user_attr("grown_from", old.study_name)
        old.set_user_attr("grown_into", name)
        self._threads = threading.local()

    def _chain(self) -> list[str]:
        """The names of the study and of those that it has grown into."""
        names = [self.name]
        while True:
            attributes = optuna.load_study(study_name=names[-1], storage=self.storage).user_attrs
            if "grown_into" not in attributes:
                return names
            names.append(attributes["grown_into"])

    def _is_foreign(self) -> bool:
        return any("index" not in trial.user_attrs for trial in self.study.get_trials(deepcopy=False))

    def _enqueue(self, points: Sequence[dict[str, Scalar]]) -> int:
        """Add the points that are not there yet; returns the number of all points."""
        there = [trial for trial in self.study.get_trials(deepcopy=False) if not retry_history(trial)]
        known = [point_text(fixed_point(trial)) for trial in there]
        free = max((trial.user_attrs["index"] for trial in there), default=-1) + 1
        wanted = [point_text(point) for point in points]
        for place, point in enumerate(points):
            # Empty points are equal to each other: compare how many there are.
            if wanted[: place + 1].count(wanted[place]) <= known.count(wanted[place]):
                continue
            self.study.enqueue_trial(point, user_attrs={"index": free})
            free += 1
        return free


def retry_history(frozen: FrozenTrial) -> list[int]:
    """Numbers of the earlier attempts, if the trial is a retry."""
    history: list[int] = frozen.system_attrs.get("retry_history", [])
    return history


def fixed_point(frozen: FrozenTrial) -> dict[str, Any]:
    """The values that a trial was enqueued with."""
    fixed: dict[str, Any] = frozen.system_attrs.get("fixed_params", {})
    return fixed


def point_text(point: dict[str, Any]) -> str:
    """A configuration as a text that is equal for equal configurations."""
    return json.dumps(point, sort_keys=True)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]
