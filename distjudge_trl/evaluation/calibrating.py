"""Calibrating a judge on held-out records: the work of `distjudge-trl calibrate`."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from datasets import Dataset

from distjudge_trl.calibration.conformal import fit_label_sets, item_coverage, needed_items
from distjudge_trl.calibration.scaling import FITS, ScalingKind, cross_validate
from distjudge_trl.calibration.stored import Calibration
from distjudge_trl.data import fingerprint
from distjudge_trl.data.splits import SWAPPED
from distjudge_trl.errors import UserInputError, writing
from distjudge_trl.evaluation.distances import item_kl
from distjudge_trl.evaluation.held_out import find_held_out, halve
from distjudge_trl.evaluation.options import EvaluationOptions
from distjudge_trl.evaluation.origin import choose_plan, find_origin
from distjudge_trl.evaluation.results import PREDICTIONS_NAME, RESULTS_NAME
from distjudge_trl.evaluation.run import choose_template, load_judge
from distjudge_trl.evaluation.scoring import human_side
from distjudge_trl.files.atomic import check_folder
from distjudge_trl.judge_folder.calibration_card import CARD_NAME, update_card
from distjudge_trl.judge_folder.judge_file import JUDGE_FILE_NAME, JudgeFile
from distjudge_trl.judge_folder.replacing import replacing_judge
from distjudge_trl.judge_folder.training_items import SEEN_ITEMS_NAME, SeenItems
from distjudge_trl.judges.loading import FoundJudge
from distjudge_trl.tasks import JudgmentTask, LoadReport, TaskOptions


# Not copied with a judge: other judges, and the results of the judge as it was.
_NOT_COPIED = ("checkpoint-*", RESULTS_NAME, PREDICTIONS_NAME, "runs", ".*")


@dataclass(frozen=True)
class Calibrated:
    """What was fitted, where it was written, and what it does on the records of the label sets.

    Args:
        calibration ([`Calibration`]), folder (`Path`): what was fitted, and where it is.
        report ([`LoadReport`]): on the items that were read.
        kl_before, kl_after (`float`): mean KL, nats, on records that the scaling was not fitted on.
        set_size (`float`): mean number of labels in a set.
        parts (`dict`): of each of several questions the coverage and the mean size.
        warnings (`tuple[str, ...]`): what a user should know.
    """

    calibration: Calibration
    folder: Path
    report: LoadReport
    kl_before: float
    kl_after: float
    set_size: float
    parts: Mapping[str, tuple[float, float]]
    warnings: tuple[str, ...]


def calibrate_judge(
    found: FoundJudge,
    task: JudgmentTask,
    task_options: TaskOptions,
    options: EvaluationOptions | None = None,
    *,
    kind: ScalingKind | Literal["auto"] = "auto",
    level: float = 0.9,
    out: str | Path | None = None,
    progress: bool = False,
) -> Calibrated:
    """Fit a scaling and label sets for a judge, and write them into its `judge.json`.

    The records are those that training held out; if it held none out or was on another task, all those on the training
    side of the split that the judge was not trained on. Of an official split it is the validation part, with
    `split="all"` all records. One half of their groups fits the scaling, the other half the label sets. They are added
    to the judge's held-out items, so that no evaluation tests on them.

    Args:
        found ([`FoundJudge`]): returned by `find_judge`.
        task ([`JudgmentTask`]), task_options ([`TaskOptions`]): where the records come from.
        options ([`EvaluationOptions`], *optional*): data, split and how the model is read. `max_eval_samples`
            limits the records.
        kind (`"temperature"`, `"vector"` or `"auto"`): `"auto"` takes what does better in cross-validation.
        level (`float`, defaults to 0.9): the coverage of the label sets.
        out (`str` or `Path`, *optional*): a new folder for a calibrated copy; by default the judge's own is changed.
        progress (`bool`): show a progress bar.

    Raises:
        [`UserInputError`]: the judge cannot be calibrated, there are too few records, or nothing can be written.
    """
    options = options if options is not None else EvaluationOptions()
    _check(found, level, out)
    judge_file = found.file
    assert judge_file is not None
    origin, report = find_origin(found, task), LoadReport()
    if origin.seen is None:
        raise UserInputError(
            f"{found.name}: keeps no list of its training items (training_items.json), so held-out records cannot be"
            " told from those that it was trained on. Train it again, or write the list of your records in Python:"
            " `SeenItems.of(train).write(folder)` of distjudge_trl.judge_folder.training_items."
        )
    items = list(task.draw(task.items(options.data_path, task_options, report=report), task_options, report=report))
    template = choose_template(origin, task, items, options)
    if options.split is None and not origin.same_task and not task.official_split:
        options = replace(options, split="group")  # nothing of it was trained on, and something is to be tested on
    plan = choose_plan(origin, task, options)
    # Which records they are does not depend on how prompts are shortened: too few are found before a model is loaded.
    records = task.records(items, task_options, template=template, report=LoadReport())
    found_records, is_rest = find_held_out(records, origin.seen, plan)
    held_out = plan.sample(found_records, options.max_eval_samples)
    halves = halve(held_out, found.name, plan.seed, level)
    judge = load_judge(found, task, template, options, calibrated=False)
    records = task.records(items, task_options, template=template, fitter=judge.fitter, report=report)
    held_out, to_scale, to_cover = (_same(records, part) for part in (held_out, *halves))

    log_q = judge.read(to_scale, options.batch_size, progress=progress).log_probs
    p, _ = human_side(to_scale)
    losses = cross_validate(p, log_q, to_scale["group"][:])
    chosen: ScalingKind = "temperature"
    if kind != "auto" or losses:
        chosen = kind if kind != "auto" else min(losses, key=lambda name: losses[name])
    scaling = FITS[chosen](p, log_q)

    raw = judge.read(to_cover, options.batch_size, progress=progress).log_probs
    p, _ = human_side(to_cover)
    q = np.exp(scaling(raw))
    names = [name.removesuffix(SWAPPED) for name in to_cover["id"]]
    sets = fit_label_sets(p, q, names, to_cover["group"][:], level=level, kind="intervals" if task.ordinal else "sets")
    fitted_on = {
        "task": task.name,
        "task_options": asdict(task_options),
        "split": plan.kind,
        "split_seed": plan.seed,
        "num_records": len(held_out),
        "num_groups": len(set(held_out["group"])),
        "fingerprint": fingerprint(held_out),
        "cross_validation": losses,
    }
    calibration = Calibration(scaling, chosen, len(to_scale), sets, fitted_on)
    seen = SeenItems.read(found.folder) or origin.seen  # of all tasks
    folder = _write(found, calibration, seen.and_held_out(held_out), out)
    inside = sets(q)
    return Calibrated(
        calibration,
        folder,
        report,
        kl_before=float(item_kl(p, raw).mean()),
        kl_after=float(item_kl(p, scaling(raw)).mean()),
        set_size=float(inside.sum(-1).mean()),
        parts=_parts(task, to_cover, item_coverage(p, inside), inside.sum(-1)),
        warnings=_warnings(judge_file, calibration, is_rest=is_rest),
    )


def _check(found: FoundJudge, level: float, out: str | Path | None) -> None:
    """Raise before any work is done."""
    if not 0 < level < 1:
        raise UserInputError(f"--level {level:g}: must lie between 0 and 1, such as 0.9.")
    if found.file is None:
        raise UserInputError(
            f"{found.name}: is not a trained judge (it has no judge.json), so there is no place for its calibration."
            " Train it first; `distjudge-trl evaluate` scores an untrained model's scaling."
        )
    if out is None:
        if Path(found.folder).resolve() != Path(found.name).resolve():
            raise UserInputError(f"{found.name}: is on the hub. Give --out, a new folder for the calibrated judge.")
        check_folder(found.folder, "--out, a new folder for the calibrated judge", shown=found.folder)
        return
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserInputError(f"{out}: exists. Choose another --out.")
    if Path(found.folder).resolve() in out.resolve().parents:
        raise UserInputError(f"{out}: is in the judge's own folder. Choose another --out.")
    check_folder(out.parent, "--out")


def _same(records: Dataset, part: Dataset) -> Dataset:
    """The records with the ids of a part."""
    ids = set(part["id"])
    return records.select([i for i, name in enumerate(records["id"]) if name in ids])


def _parts(
    task: JudgmentTask, records: Dataset, coverage: np.ndarray, size: np.ndarray
) -> dict[str, tuple[float, float]]:
    """Coverage and size of each question, if there are several."""
    parts = np.array([task.part_of(name) for name in records["id"]])
    names = [part for part in task.parts if part in parts]
    if len(names) < 2:
        return {}
    return {part: (float(coverage[parts == part].mean()), float(size[parts == part].mean())) for part in names}


def _warnings(before: JudgeFile, calibration: Calibration, *, is_rest: bool) -> tuple[str, ...]:
    warnings: tuple[str, ...] = ()
    if before.calibration is not None:
        warnings += ("the judge was calibrated before; this calibration replaces it and was fitted without it.",)
    if is_rest:
        warning = (
            "training held no groups out and touched many: the groups that remain are smaller than most, and coverage"
            " on others may be some points off. Train with --calibrate True."
        )
        warnings += (warning,)
    sets = calibration.label_sets
    if sets.num_groups < min(sets.num_items, needed_items(sets.level) + 1):
        warning = (
            f"the label sets were fitted on {sets.num_items} items of only {sets.num_groups} groups: on new groups"
            f" their coverage may be far from {sets.level:g}."
        )
        warnings += (warning,)
    return warnings


def _write(found: FoundJudge, calibration: Calibration, seen: SeenItems, out: str | Path | None) -> Path:
    """Write the calibration into the judge's folder, or into a copy of it."""
    assert found.file is not None
    source, folder = Path(found.folder), Path(found.folder if out is None else out)
    file = replace(found.file, calibration=calibration.to_dict())

    def write_into(temporary: Path) -> None:
        seen.write(temporary)
        file.write(temporary)
        update_card(temporary, calibration)

    with writing(folder):
        if out is not None:
            with replacing_judge(folder) as temporary:
                shutil.copytree(source, temporary, ignore=shutil.ignore_patterns(*_NOT_COPIED), dirs_exist_ok=True)
                write_into(temporary)
            return folder
        with tempfile.TemporaryDirectory(dir=folder, prefix=".calibrating-") as name:
            temporary = Path(name)
            if (source / CARD_NAME).is_file():
                shutil.copy(source / CARD_NAME, temporary)
            write_into(temporary)
            # The items first: if the process is killed after that, the judge is as before and too many are left out.
            for name in (SEEN_ITEMS_NAME, JUDGE_FILE_NAME, CARD_NAME):
                if (temporary / name).is_file():
                    (temporary / name).replace(folder / name)
    return folder
