"""Which records a judge may be calibrated on: the training side of its split, without what it was trained on."""

from __future__ import annotations

from contextlib import suppress
from typing import NamedTuple

from datasets import Dataset

from distjudge_trl.calibration.conformal import needed_items
from distjudge_trl.calibration.scaling import MIN_CALIBRATION_ITEMS
from distjudge_trl.data import SplitPlan
from distjudge_trl.data.splits import SWAPPED, split_records
from distjudge_trl.errors import UserInputError, counted
from distjudge_trl.judge_folder.training_items import SeenItems


class HeldOut(NamedTuple):
    """Records that may be calibrated on. `is_rest`: records that were not trained on are missing among them, because
    they share a group with some that were.
    """

    records: Dataset
    is_rest: bool = False


def find_held_out(records: Dataset, seen: SeenItems, plan: SplitPlan) -> HeldOut:
    """Records that are not on the test side and were not trained on."""
    by, parts = plan.match_by, plan.partition(records)
    side = {"official": parts.validation, "all": parts.test}.get(plan.kind)
    if side is None:
        side = plan.partition(records, hold_out=False).train
        assert side is not None and parts.validation is not None
        held_out = seen.unseen(parts.validation, by, held_out_too=False)
        # Training held this part out, or it had nothing of this side. Otherwise the groups that it has not touched
        # remain, and those are not like others: the smaller a group, the likelier it remains.
        if len(held_out) == len(parts.validation) and len(seen.unseen(side, by, held_out_too=False)) < len(side):
            return HeldOut(held_out)
    rest = seen.unseen(side, by, held_out_too=False)
    return HeldOut(rest, len(rest) < len(seen.unseen(side, "id", held_out_too=False)))


def halve(held_out: Dataset, name: str, seed: int, level: float) -> tuple[Dataset, Dataset]:
    """Records for the scaling and for the label sets, a group on one side.

    Raises:
        [`UserInputError`]: there are too few.
    """
    if not len(held_out):
        raise UserInputError(
            f"{name}: was trained on all records but the test records; none are left to calibrate on. Train it with"
            " --calibrate True, which holds some out, or give others with --data-path and --split all."
        )
    halves: tuple[Dataset, Dataset] | None = None
    with suppress(UserInputError):  # a group that has nearly all records cannot be divided
        halves = split_records(held_out, test_fraction=0.5, seed=seed)
    num_items = len({record.removesuffix(SWAPPED) for record in halves[1]["id"]}) if halves is not None else 0
    if halves is None or len(halves[0]) < MIN_CALIBRATION_ITEMS or num_items < needed_items(level):
        raise UserInputError(
            f"{name}: a calibration at level {level:g} needs {MIN_CALIBRATION_ITEMS} records for the scaling and"
            f" {needed_items(level)} items for the label sets, and there are"
            f" {counted(len(held_out), 'held-out record')} in {counted(len(set(held_out['group'])), 'group')} for"
            " both. Use more data, a lower --level, or train with a larger --validation_fraction."
        )
    return halves
