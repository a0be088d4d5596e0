"""The origin of a judge, and what follows from it: the split on which it is tested, the items that it has not seen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from datasets import Dataset

from distjudge_trl.calibration.scaling import MIN_CALIBRATION_ITEMS
from distjudge_trl.data import Partition, SplitPlan
from distjudge_trl.errors import UserInputError, listing
from distjudge_trl.evaluation.options import EvaluationOptions
from distjudge_trl.evaluation.results import read_results
from distjudge_trl.judge_folder.training_items import SeenItems
from distjudge_trl.judges.loading import FoundJudge
from distjudge_trl.tasks import JudgmentTask, LoadReport


@dataclass(frozen=True)
class Origin:
    """The origin of a judge: what its folder says about its training."""

    judge: FoundJudge
    seen: SeenItems | None
    same_task: bool
    data: dict[str, Any]

    @property
    def method(self) -> str:
        return str(self.data.get("method", "trained")) if self.judge.file is not None else "raw"


def find_origin(judge: FoundJudge, task: JudgmentTask) -> Origin:
    """Where a judge comes from.

    Raises:
        [`UserInputError`]: its labels are not those of the task.
    """
    file = judge.file
    if file is None:
        return Origin(judge, None, False, {})
    labels = tuple(file.make_label_space().labels)
    if labels != task.labels:
        raise UserInputError(
            f"{judge.name}: answers with {listing(labels)}, the task {task.name!r} with {listing(task.labels)}."
        )
    return Origin(judge, find_seen(judge, task), task.is_called(file.task), file.data)


def find_seen(judge: FoundJudge, task: JudgmentTask) -> SeenItems | None:
    """The items of a task that a judge has seen, wherever it was trained; `None` if it does not say."""
    if judge.file is None:
        return None
    seen = SeenItems.read(judge.folder)
    return seen if seen is None or task.is_called(judge.file.task) else seen.of_another_task()


def split_elsewhere(task: JudgmentTask) -> Literal["official", "all"]:
    """The split by which a judge of another task is tested on this one."""
    return "official" if task.official_split else "all"


def choose_plan(origin: Origin, task: JudgmentTask, options: EvaluationOptions) -> SplitPlan:
    """The options' split. By default that of the judge's own run if it was trained on this task; else the official
    one, if there is one.
    """
    own = origin.data if origin.same_task else {}
    kind: Literal["official", "group", "paper", "all"] = split_elsewhere(task)
    if origin.same_task:
        kind = own.get("split", "group")
    elif origin.judge.file is None and kind == "all":
        kind = "group"
    return SplitPlan(
        options.split or kind,
        options.split_seed if options.split_seed is not None else int(own.get("split_seed", 0)),
        float(origin.data.get("validation_fraction", 0.1)),
    )


def unseen_parts(
    records: Dataset, origin: Origin, plan: SplitPlan, options: EvaluationOptions, report: LoadReport
) -> Partition:
    """The three parts of the split, without test and validation items that the judge was trained on."""
    train, validation, test = plan.partition(records)
    if origin.judge.file is None:
        return Partition(train, validation, test)
    if origin.seen is None:
        return Partition(train, None, test)
    by = plan.match_by
    new = origin.seen.unseen(test, by)
    if len(new) < len(test):
        report.excluded["seen in training or held out of it"] += len(test) - len(new)
    if not len(new):
        raise UserInputError(
            f"{origin.judge.name}: has seen all {len(test)} test items in training, or they were held out of it to"
            " choose or calibrate by."
        )
    if validation is not None:
        validation = origin.seen.unseen(validation, by, held_out_too=False)
        if options.calibrated and len(validation) < MIN_CALIBRATION_ITEMS:
            raise UserInputError(
                f"{origin.judge.name}: was trained on all items but the test items; none are left to calibrate on."
                " Train it with --calibrate True, which holds some out."
            )
    if train is not None and origin.same_task and len(own := origin.seen.trained_on(records)):
        # As in the judge's own run, which may have taken a part of the training side, or held none of it out.
        train = own
    return Partition(train, validation, new)


def read_seen_items(path: str) -> SeenItems:
    seen = SeenItems.read(path)
    if seen is None:
        raise UserInputError(f"{path}: keeps no list of training items to leave out; name a judge's folder.")
    return seen


def drop_known(
    test: Dataset, known: Mapping[str, SeenItems], by: Literal["group", "id"], report: LoadReport
) -> Dataset:
    """The test items that none of these judges has seen. `known` maps a judge's folder to its items."""
    for path, seen in known.items():
        new = seen.unseen(test, by)
        if not len(new):
            raise UserInputError(f"{path}: has seen all {len(test)} test items in training, or they were held out.")
        if len(new) < len(test):
            report.excluded[f"known to {path}"] += len(test) - len(new)
        test = new
    return test


def own_scalings(judge: FoundJudge) -> list[dict[str, Any]]:
    """The scalings that were fitted when the judge was trained, for tasks without items to fit them on."""
    fix = "Train it with --calibrate True, or evaluate on a split of its own task."
    if not (Path(judge.folder) / "results.json").is_file():
        raise UserInputError(f"{judge.name}: keeps no results, and so no scaling to take over. {fix}")
    scalings = [row["scaling"] for row in read_results(judge.folder)["variants"] if "scaling" in row]
    if not scalings:
        raise UserInputError(f"{judge.name}: was not calibrated in training. {fix}")
    return scalings
