"""Evaluating a judge, trained or not, on a task: the work of `distjudge-trl evaluate`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from datasets import Dataset

from distjudge_trl.data import Partition, SplitPlan
from distjudge_trl.data.template import PromptTemplate
from distjudge_trl.errors import JudgmentDataError, UserInputError, listing
from distjudge_trl.evaluation.kl_bounds import kl_bounds
from distjudge_trl.evaluation.options import EvaluationOptions
from distjudge_trl.evaluation.results import JudgeInfo, Predictions, make_results, read_results
from distjudge_trl.evaluation.scoring import MIN_CALIBRATION_ITEMS, calibration_records, human_side
from distjudge_trl.judge_folder.judge_file import JudgeFile
from distjudge_trl.judge_folder.training_items import SeenItems
from distjudge_trl.judges.api.options import model_of
from distjudge_trl.judges.base import Judgments, PromptJudge
from distjudge_trl.judges.loading import FoundJudge, check_kind
from distjudge_trl.judges.opening import open_judge
from distjudge_trl.labels import TOP_K_FLOOR
from distjudge_trl.runtime.provenance import provenance
from distjudge_trl.tasks import Item, JudgmentTask, LoadReport, TaskOptions


# The paper reads five tokens, because closed APIs return no more.
TOP_K = 5


class Evaluation(NamedTuple):
    """The arguments of [`write_results`], the report on items that were read and left out, and what a user should be
    warned of.
    """

    results: dict[str, Any]
    records: Dataset
    log_q: np.ndarray
    report: LoadReport
    warnings: tuple[str, ...] = ()


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


def evaluate_judge(
    found: FoundJudge,
    task: JudgmentTask,
    task_options: TaskOptions,
    options: EvaluationOptions | None = None,
    *,
    progress: bool = False,
) -> Evaluation:
    """Score a judge, its calibrated variants and the constants on the items of a task that the judge has not seen.

    Args:
        found ([`FoundJudge`]): returned by `find_judge`.
        task ([`JudgmentTask`]), task_options ([`TaskOptions`]): what to test on.
        options ([`EvaluationOptions`], *optional*).
        progress (`bool`): show a progress bar.

    Raises:
        [`UserInputError`]: data, model and options do not go together, or there are no items to test on.
    """
    options = options if options is not None else EvaluationOptions()
    origin, judge_file = find_origin(found, task), found.file
    report = LoadReport()
    known = {path: _read_seen_items(path) for path in options.leave_out}
    is_local = model_of(found.name) is None
    if is_local and (judge_file is None or options.trust_remote_code or not judge_file.trust_remote_code):
        check_kind(found.folder, judge_file or JudgeFile(label_space={}), options.trust_remote_code)
    # Read the data first, so that mistakes in it are found before a model is loaded.
    items = list(task.draw(task.items(options.data_path, task_options, report=report), task_options, report=report))
    template = choose_template(origin, task, items, options)
    judge = load_judge(found, task, template, options)
    records = task.records(items, task_options, template=template, fitter=judge.fitter, report=report)
    plan = _plan(origin, task, options)
    train, validation, test = _parts(records, origin, plan, options, report)
    test = plan.sample(_drop_known(test, known, plan.match_by, report), options.max_eval_samples)
    warnings: tuple[str, ...] = ()
    if judge_file is not None and origin.seen is None:
        warning = (
            f"this judge has no list of its training items: all {len(test)} items are scored, and some may have been"
            " trained on."
        )
        warnings = (warning,)
        report.notes["scored, though the judge may have been trained on them"] += len(test)
    held_out, scalings = None, []
    to_fit_on = calibration_records(
        validation, requested=options.calibrated, trained=judge_file is not None or not is_local
    )
    if not is_local:
        judge.expect([*test, *(to_fit_on if to_fit_on is not None else [])])
    judgments = judge.read(test, options.batch_size, progress=progress)
    extraction = _extraction(judge, test, judgments)
    if to_fit_on is not None:
        read = judge.read(to_fit_on, options.batch_size, progress=progress)
        held_out = Predictions(to_fit_on, read.log_probs)
    elif options.calibrated:
        scalings = _own_scalings(found)
    results = make_results(
        replace(_judge_info(origin, plan, options), extraction=extraction),
        task,
        Predictions(test, judgments.log_probs, float(judgments.mass.mean()), judgments.floored),
        train=train,
        held_out=held_out,
        scalings=scalings,
        seed=options.seed,
        provenance=provenance(
            judge=found.name,
            reading=judge.reading(),
            **({"usage": usage} if (usage := judge.findings().get("usage")) is not None else {}),
            evaluation=asdict(options),
            task_options=asdict(task_options),
            data_report=report.to_dict(),
            judge_versions=judge_file.versions if judge_file is not None else None,
        ),
    )
    return Evaluation(results, test, judgments.log_probs, report, warnings)


def load_judge(
    found: FoundJudge, task: JudgmentTask, template: PromptTemplate, options: EvaluationOptions
) -> PromptJudge:
    """The judge, or the untrained model with the task's labels, as the options say."""
    return open_judge(
        found.name,
        label_space=task.label_space() if found.file is None else None,
        template=template,
        device=options.device,
        device_map=options.device_map,
        dtype=options.dtype,
        autocast=options.autocast,
        top_k=TOP_K if options.extraction == "top5" else None,
        max_length=options.max_length,
        truncation=options.truncation,
        share_prefixes=options.share_prefixes,
        trust_remote_code=options.trust_remote_code,
        api=options.api,
    )


def _extraction(judge: PromptJudge, test: Dataset, judgments: Judgments) -> dict[str, Any] | None:
    """How a judge behind a server was read, for result files; `None` for a judge on this machine."""
    findings = {key: value for key, value in judge.findings().items() if key != "usage"}
    if judgments.bounds is None:
        return findings or None
    low, high = kl_bounds(human_side(test)[0], *judgments.bounds)
    return {**findings, "kl_low": float(low.mean()), "kl_high": float(high.mean())}


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
    return Origin(judge, SeenItems.read(judge.folder), task.is_called(file.task), file.data)


def _judge_info(origin: Origin, plan: SplitPlan, options: EvaluationOptions) -> JudgeInfo:
    name, file = origin.judge.name, origin.judge.file
    training = file.training if file is not None else {}
    return JudgeInfo(
        method=origin.method,
        model=(file.base_model or name) if file is not None else name,
        trained_on=(file.task or "unknown") if file is not None else None,
        seed=training.get("seed"),
        settings={
            **training,
            "split": plan.kind,
            "split_seed": plan.seed,
            **origin.data.get("settings", {}),
        },
        top_k_floor=TOP_K_FLOOR if options.extraction == "top5" else None,
    )


def _plan(origin: Origin, task: JudgmentTask, options: EvaluationOptions) -> SplitPlan:
    """The options' split. By default that of the judge's own run if it was trained on this task; else the official
    one, if there is one.
    """
    own = origin.data if origin.same_task else {}
    kind: Literal["official", "group", "paper", "all"] = "all" if origin.judge.file is not None else "group"
    if origin.same_task:
        kind = own.get("split", "group")
    elif task.official_split:
        kind = "official"
    return SplitPlan(
        options.split or kind,
        options.split_seed if options.split_seed is not None else int(own.get("split_seed", 0)),
        float(origin.data.get("validation_fraction", 0.1)),
    )


def choose_template(
    origin: Origin, task: JudgmentTask, items: list[Item], options: EvaluationOptions
) -> PromptTemplate:
    """The user's template; else the judge's own, if the items have its fields; else the task's.

    Raises:
        [`UserInputError`]: the task's template would ask for other answers than the judge gives.
    """
    judge_file = origin.judge.file
    space = judge_file.make_label_space() if judge_file is not None else task.label_space()
    if options.prompt_template is not None:
        # The legend lists what this judge answers.
        return PromptTemplate.from_file(options.prompt_template).with_legend(space.legend)
    if origin.judge.file is not None and origin.judge.file.template is not None and items:
        if origin.judge.file.template == task.template.messages:
            return task.template  # which knows the template of each question, too
        template = PromptTemplate(origin.judge.file.template)
        form = next(task.expand(items[0], task.options()), items[0]) if task.expand is not None else items[0]
        try:
            template.render(form.fields)
        except JudgmentDataError:
            if origin.judge.file.task == task.name:
                raise
        else:
            return template
    if space.answers != task.label_space().answers:
        raise UserInputError(
            f"{origin.judge.name}: answers with other words than the prompt of the task {task.name!r} asks for, and"
            " the judge's own prompt does not fit these items. Give --prompt_template, whose {{ legend }} lists its"
            " answers."
        )
    return task.template


def _parts(
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


def _read_seen_items(path: str) -> SeenItems:
    seen = SeenItems.read(path)
    if seen is None:
        raise UserInputError(f"{path}: keeps no list of training items to leave out; name a judge's folder.")
    return seen


def _drop_known(
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


def _own_scalings(judge: FoundJudge) -> list[dict[str, Any]]:
    """The scalings that were fitted when the judge was trained, for tasks without items to fit them on."""
    fix = "Train it with --calibrate True, or evaluate on a split of its own task."
    if not (Path(judge.folder) / "results.json").is_file():
        raise UserInputError(f"{judge.name}: keeps no results, and so no scaling to take over. {fix}")
    scalings = [row["scaling"] for row in read_results(judge.folder)["variants"] if "scaling" in row]
    if not scalings:
        raise UserInputError(f"{judge.name}: was not calibrated in training. {fix}")
    return scalings
