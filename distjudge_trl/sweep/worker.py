"""A worker: claims waiting trials one after the other and runs their seeds, until none is left."""

from __future__ import annotations

import math
import statistics
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import optuna
from filelock import Timeout
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, Trial, TrialState

from distjudge_trl.data import fingerprint
from distjudge_trl.errors import RunFailedError, UserInputError
from distjudge_trl.evaluation import read_predictions, read_results
from distjudge_trl.evaluation.results import RESULTS_NAME
from distjudge_trl.files.atomic import read_json
from distjudge_trl.recipe.data import SCORED_COLUMNS
from distjudge_trl.recipe.parsing import option_tokens
from distjudge_trl.recipe.trial import PROGRESS_NAME
from distjudge_trl.report.test_sets import value_of
from distjudge_trl.runtime.logs import log_tail
from distjudge_trl.sweep.definition import METRICS, Definition
from distjudge_trl.sweep.process import LOG_NAME, Launch, RunProcess, end_run
from distjudge_trl.sweep.space import name_of
from distjudge_trl.sweep.store import Store
from distjudge_trl.sweep.table import ranked
from distjudge_trl.sweep.trial_folders import remove_checkpoints, remove_judge, trial_folder
from distjudge_trl.trainer.checkpoints import find_checkpoint


_SECONDS_BETWEEN_LOOKS = 0.5
_SECONDS_IDLE = 2.0
PRUNING_OPTIONS = ("--eval_strategy=steps", "--eval_steps=0.1", "--save_strategy=steps", "--save_steps=0.1")
_STARTUP = 10  # random trials before TPE; half as many before the median pruner


class _Outcome(NamedTuple):
    """What became of a trial's runs.

    Args:
        state (`TrialState`): COMPLETE, PRUNED, FAIL, or WAITING if the worker was stopped.
        reason (`str`): of FAIL.
        log_tail (`str`): the end of the log, of FAIL.
        retries (`int`, *optional*): of FAIL: how often trying again may help; without it, never.
    """

    state: TrialState
    reason: str = ""
    log_tail: str = ""
    retries: int | None = None


def make_pruner(name: str) -> optuna.pruners.BasePruner:
    """Optuna's pruner of that name."""
    if name == "median":
        return optuna.pruners.MedianPruner(n_startup_trials=_STARTUP // 2)
    return optuna.pruners.SuccessiveHalvingPruner() if name == "halving" else optuna.pruners.NopPruner()


def make_sampler(definition: Definition, number: int) -> optuna.samplers.BaseSampler:
    """The sampler of a trial. A trial gets the same values whichever worker runs it, and no two trials draw alike."""
    seed = definition.sampler_seed * 100_003 + number
    if definition.sampler == "tpe":
        return optuna.samplers.TPESampler(seed=seed, n_startup_trials=_STARTUP, constant_liar=True)
    return optuna.samplers.RandomSampler(seed=seed)


class Worker:
    """One of a sweep's workers on this machine.

    Args:
        store ([`Store`]): the study, opened.
        launch ([`Launch`]): how runs are started.
        data (`Path`): the folder of the records, which have been read for all runs.
        data_path (`str`, *optional*): the files that they were read from, on this machine.
        keep (`int`): the number of configurations whose judges are kept.
        stop (`threading.Event`): set it to end the worker at once; its trial waits again.
        log (`Callable[[str], None]`): is called with a line for every event.
        updated (`Callable[[], None]`): is called when a trial has ended.
    """

    def __init__(
        self,
        store: Store,
        launch: Launch,
        *,
        data: Path,
        data_path: str | None,
        keep: int,
        stop: threading.Event,
        log: Callable[[str], None],
        updated: Callable[[], None],
    ) -> None:
        self.store, self.definition, self.launch = store, store.definition, launch
        self.data, self.data_path = data, data_path
        self.keep, self.stop, self.log, self.updated = keep, stop, log, updated

    def work(self) -> None:
        """Run trials until none waits or runs, also those of workers that die."""
        waiting = False
        while not self.stop.is_set():
            for dead, again in self.store.reap(self._bury):
                self.log(f"trial {dead.number}: its worker was killed{_again(again)}")
            with self.store.claim(partial(make_sampler, self.definition)) as trial:
                if trial is not None:
                    try:
                        self._run(trial)
                    except UpdateFinishedTrialError:
                        self.log(f"trial {trial.number}: another worker took this one for dead, and has it now")
                    waiting = False
                    continue
            if not self.store.unfinished():
                return
            if not waiting:
                self.log("Nothing to begin; waiting for the trials of other workers, in case one of them dies.")
                waiting = True
            self.stop.wait(_SECONDS_IDLE)

    def _bury(self, frozen: FrozenTrial) -> None:
        """Kill what a dead worker's trial has left running on this machine."""
        folder = trial_folder(self.store.out, frozen.params)
        for seed in self.definition.seeds:
            end_run(folder / f"seed-{seed}")

    def _run(self, trial: Trial) -> None:
        for parameter in self.definition.parameters:
            if not parameter.is_range:
                trial.suggest_categorical(parameter.name, list(parameter.choices))
            elif parameter.integer:
                trial.suggest_int(parameter.name, int(parameter.low), int(parameter.high))
            else:
                trial.suggest_float(parameter.name, parameter.low, parameter.high, log=parameter.log)
        folder = trial_folder(self.store.out, trial.params)
        trial.set_user_attr("folder", str(folder.relative_to(self.store.out)))
        trial.set_user_attr("error", None)
        folder.mkdir(parents=True, exist_ok=True)
        began = time.monotonic()
        # A sampler may propose a configuration that another trial has or runs: wait for that one and use its results.
        lock, own = self.store.lock(folder.name), self.store.lock(f"trial-{trial.number}")
        while True:
            try:
                lock.acquire(timeout=0)
                break
            except Timeout:
                self.store.beat(trial._trial_id, own)
                if self.stop.wait(_SECONDS_IDLE):
                    self.store.put_back(trial)
                    return
        try:
            self.log(f"trial {trial.number} begins: {name_of(trial.params)}")
            outcome = self._run_seeds(trial, folder)
            self._finish(trial, folder, outcome, time.monotonic() - began)
        finally:
            lock.release()
        self.updated()

    def _run_seeds(self, trial: Trial, folder: Path) -> _Outcome:
        pruner = make_pruner(self.definition.pruner)
        last_step = 0
        for seed in self.definition.seeds:
            run_folder = folder / f"seed-{seed}"
            if not (run_folder / RESULTS_NAME).is_file():
                outcome = self._run_seed(trial, run_folder, seed, pruner, last_step)
                if outcome.state is not TrialState.COMPLETE:
                    return outcome
            # Steps are counted on over the seeds, so that pruners compare runs of the same seed.
            last_step += int(read_json(run_folder / PROGRESS_NAME).get("max_steps", 0))
        return _Outcome(TrialState.COMPLETE)

    def _run_seed(
        self, trial: Trial, folder: Path, seed: int, pruner: optuna.pruners.BasePruner, last_step: int
    ) -> _Outcome:
        own = {"data_path": self.data_path, "seed": seed, "output_dir": folder}
        options = option_tokens({**self.definition.options, **trial.params, **own})
        options += ["--score_on", "validation", "--disable_tqdm", "True", "--save_total_limit", "1"]
        try:
            if find_checkpoint(True, folder) is not None:
                options += ["--resume_from_checkpoint", "true"]
        except UserInputError:
            pass  # no complete checkpoint
        if self.definition.pruner != "none" and "eval_strategy" not in self.definition.options:
            options += PRUNING_OPTIONS
        try:
            run = RunProcess(self.launch, options, folder, self.data, self.definition.day)
        except RunFailedError as error:
            return _Outcome(TrialState.FAIL, str(error), retries=self.store.retries)
        lock = self.store.lock(f"trial-{trial.number}")
        reported = 0.0
        beaten = time.monotonic()
        try:
            while (code := run.poll()) is None:
                if time.monotonic() - beaten > self.store.heartbeat:
                    self.store.beat(trial._trial_id, lock)
                    beaten = time.monotonic()
                for entry in run.progress().get("evaluations", []):
                    if entry["step"] > reported:
                        reported = entry["step"]
                        self._report(trial, last_step + int(entry["step"]), entry)
                        if pruner.prune(self.store.study, self.store.frozen(trial)):
                            return _Outcome(TrialState.PRUNED)
                if self.stop.wait(_SECONDS_BETWEEN_LOOKS):
                    return _Outcome(TrialState.WAITING)
        finally:
            run.end()
        if code == 0 and (folder / RESULTS_NAME).is_file():
            remove_checkpoints(folder)
            return _Outcome(TrialState.COMPLETE)
        tail = log_tail(folder / LOG_NAME)
        reason = run.failure()
        if reason is not None:
            return _Outcome(TrialState.FAIL, f"seed {seed}: {reason}", tail)
        if run.was_killed():
            reason = f"seed {seed}: its processes were killed (exit code {code})"
            return _Outcome(TrialState.FAIL, reason, tail, self.store.retries)
        # It may have met a full disk or a port in use. Once is enough to find out.
        return _Outcome(TrialState.FAIL, f"seed {seed}: it ended with exit code {code} and no reason", tail, 1)

    def _report(self, trial: Trial, step: int, entry: dict[str, float]) -> None:
        # Evaluation during training reports only two metrics.
        stand_in = "eval_accuracy" if self.definition.maximize else "eval_kl"
        value = entry.get(f"eval_{self.definition.metric}", entry.get(stand_in))
        if value is not None:
            trial.report(value, step)

    def _finish(self, trial: Trial, folder: Path, outcome: _Outcome, seconds: float) -> None:
        if outcome.state is TrialState.WAITING:
            self.store.put_back(trial)
            return
        trial.set_user_attr("seconds", round(seconds, 1))
        if outcome.state is TrialState.COMPLETE:
            self._score(trial, folder)
            return
        again = False
        if outcome.state is TrialState.PRUNED:
            self.store.storage.set_trial_state_values(trial._trial_id, TrialState.PRUNED)
            self.log(f"trial {trial.number} pruned: {name_of(trial.params)}")
        else:
            if outcome.log_tail:
                trial.set_user_attr("log_tail", outcome.log_tail)
            if outcome.retries is not None:
                again = self.store.again(self.store.frozen(trial), most=outcome.retries)
                self.store.fail(self.store.frozen(trial), outcome.reason, again=again)
                self.log(f"trial {trial.number}: {outcome.reason}{_again(again)}")
            else:
                self._fail(trial, outcome.reason)
        if not again:
            remove_judge(folder)

    def _fail(self, trial: Trial, reason: str) -> None:
        """End a trial as failed where trying again would not help."""
        self.store.fail(self.store.frozen(trial), reason, again=False)
        self.log(f"trial {trial.number} failed: {reason}")

    def _score(self, trial: Trial, folder: Path) -> None:
        metric = self.definition.metric
        scores = {}
        training = 0.0
        for seed in self.definition.seeds:
            metrics = read_results(folder / f"seed-{seed}")["metrics"]
            scored = read_predictions(folder / f"seed-{seed}").select_columns(SCORED_COLUMNS)
            if fingerprint(scored) != self.definition.scored_fingerprint:
                self._fail(trial, "it was scored on other items than the rest: its values cannot be compared")
                return
            figures = {name: value_of(metrics, name) for name in METRICS}
            scores[str(seed)] = {name: figure for name, figure in figures.items() if not math.isnan(figure)}
            training += _training_seconds(folder / f"seed-{seed}")
        trial.set_user_attr("scores", scores)
        trial.set_user_attr("training_seconds", round(training, 1))
        values = [score[metric] for score in scores.values() if metric in score]
        if len(values) < len(scores):
            self._fail(trial, f"the metric {metric} is not defined on its validation items")
            return
        mean = statistics.fmean(values)
        self.store.storage.set_trial_state_values(trial._trial_id, TrialState.COMPLETE, [mean])
        spread = f" ± {statistics.stdev(values):.4f} over {len(values)} seeds" if len(values) > 1 else ""
        self.log(f"trial {trial.number} done: {name_of(trial.params)}: {metric} {mean:.4f}{spread}")
        self._keep_best()

    def _keep_best(self) -> None:
        """Delete the judges of all but the best configurations; their results stay."""
        folders = dict.fromkeys(trial_folder(self.store.out, row.parameters) for row in ranked(self.store))
        for folder in list(folders)[self.keep :]:
            remove_judge(folder)


def _again(again: bool) -> str:
    return "; it is tried again" if again else "; it was tried often enough"


def _training_seconds(folder: Path) -> float:
    history = read_json(folder / "trainer_state.json").get("log_history", [])
    return sum(entry.get("train_runtime", 0.0) for entry in history)
