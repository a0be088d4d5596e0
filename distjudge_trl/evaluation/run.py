"""Evaluating a judge, trained or not, on a task: the work of `distjudge-trl evaluate`."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any, NamedTuple

import numpy as np
from datasets import Dataset

from distjudge_trl.data import SplitPlan
from distjudge_trl.data.question_template import read_template
from distjudge_trl.data.template import PromptTemplate
from distjudge_trl.errors import JudgmentDataError, UserInputError
from distjudge_trl.evaluation.association import average_orders, in_both_orders
from distjudge_trl.evaluation.kl_bounds import kl_bounds
from distjudge_trl.evaluation.options import EvaluationOptions
from distjudge_trl.evaluation.origin import (
    Origin,
    choose_plan,
    drop_known,
    find_origin,
    own_scalings,
    read_seen_items,
    unseen_parts,
)
from distjudge_trl.evaluation.results import JudgeInfo, Predictions, make_results
from distjudge_trl.evaluation.scoring import calibration_records, human_side
from distjudge_trl.judge_folder.judge_file import JudgeFile
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
    warned of. `log_q` is that of the calibrated judge, if it is calibrated, and `raw_log_q` that of the uncalibrated.
    """

    results: dict[str, Any]
    records: Dataset
    log_q: np.ndarray
    report: LoadReport
    warnings: tuple[str, ...] = ()
    raw_log_q: np.ndarray | None = None


def evaluate_judge(
    found: FoundJudge,
    task: JudgmentTask,
    task_options: TaskOptions,
    options: EvaluationOptions | None = None,
    *,
    progress: bool = False,
) -> Evaluation:
    """Score a judge, its calibrated variants and the constants on the items of a task that the judge has not seen.

    A judge with a calibration of its own is scored with it. The variants are fitted on its uncalibrated answers.

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
    known = {path: read_seen_items(path) for path in options.leave_out}
    is_local = model_of(found.name) is None
    if is_local and (judge_file is None or options.trust_remote_code or not judge_file.trust_remote_code):
        check_kind(found.folder, judge_file or JudgeFile(label_space={}), options.trust_remote_code)
    # Read the data first, so that mistakes in it are found before a model is loaded.
    items = list(task.draw(task.items(options.data_path, task_options, report=report), task_options, report=report))
    template = choose_template(origin, task, items, options)
    judge = load_judge(found, task, template, options, calibrated=False)
    records = task.records(items, task_options, template=template, fitter=judge.fitter, report=report)
    plan = choose_plan(origin, task, options)
    train, validation, test = unseen_parts(records, origin, plan, options, report)
    test = drop_known(test, known, plan.match_by, report)
    test = plan.sample(test, options.max_eval_samples, pairs=options.average_orders)
    warnings: tuple[str, ...] = ()
    if judge_file is not None and origin.seen is None:
        warning = (
            f"this judge has no list of its training items: all {len(test)} items are scored, and some may have been"
            " trained on."
        )
        warnings += (warning,)
        report.notes["scored, though the judge may have been trained on them"] += len(test)
    calibration = judge_file.make_calibration() if judge_file is not None and options.calibration else None
    if calibration is not None and options.extraction == "top5":
        calibration = None
        warnings += ("the judge's calibration was fitted on all label tokens: it is not applied to five.",)
    if calibration is not None and options.api is not None and not options.api.takes_calibration:
        calibration = None
        warnings += ("the judge's calibration was fitted on label tokens: it is not applied to sampled answers.",)
    held_out, scalings = None, []
    to_fit_on = calibration_records(
        validation, requested=options.calibrated, trained=judge_file is not None or not is_local
    )
    if not is_local:
        judge.expect([*test, *(to_fit_on if to_fit_on is not None else [])])
    judgments = judge.read(test, options.batch_size, progress=progress)
    if options.average_orders:
        log_probs = in_both_orders(judgments.log_probs, test["id"], report.notes)
        judgments = replace(judgments, log_probs=log_probs, bounds=None)
    extraction = _extraction(judge, test, judgments)
    if calibration is not None and extraction is not None and extraction.get("labels_missing"):
        warning = (
            "the judge's calibration was fitted on all label tokens, and"
            f" {extraction['labels_missing']:.1%} of the labels are not among the returned ones: its label sets may"
            " not hold. Give --top-logprobs 20, or --tokenizer with a vLLM server."
        )
        warnings += (warning,)
    if to_fit_on is not None:
        read = judge.read(to_fit_on, options.batch_size, progress=progress)
        log_probs = average_orders(read.log_probs, to_fit_on["id"]) if options.average_orders else read.log_probs
        held_out = Predictions(to_fit_on, log_probs)
    elif options.calibrated:
        scalings = own_scalings(found)
    results = make_results(
        replace(_judge_info(origin, plan, options), extraction=extraction),
        task,
        Predictions(test, judgments.log_probs, float(judgments.mass.mean()), judgments.floored),
        train=train,
        held_out=held_out,
        scalings=scalings,
        calibration=calibration,
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
    done = Evaluation(results, test, judgments.log_probs, report, warnings)
    return done if calibration is None else done._replace(log_q=calibration(done.log_q), raw_log_q=done.log_q)


def load_judge(
    found: FoundJudge, task: JudgmentTask, template: PromptTemplate, options: EvaluationOptions, *, calibrated: bool
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
        calibrated=calibrated,
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
        template = read_template(origin.judge.file.template)
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
