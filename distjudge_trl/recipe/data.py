"""The data of a run: its records, split and subsampled, and its model's tokenizer."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from datasets import Dataset

from distjudge_trl.batching import PromptFitter, describe_way, pin_date
from distjudge_trl.data import SplitPlan, fingerprint, within_budget
from distjudge_trl.data.template import PromptTemplate
from distjudge_trl.errors import UserInputError
from distjudge_trl.evaluation.origin import find_seen
from distjudge_trl.files.atomic import read_json, write_json
from distjudge_trl.judge_folder.training_items import SeenItems
from distjudge_trl.judges.loading import find_judge
from distjudge_trl.modeling.bundled import resolve_model
from distjudge_trl.modeling.kinds import Trains, check_quantization, find_kind
from distjudge_trl.modeling.loading import load_tokenizer, loading_error
from distjudge_trl.recipe.trial import PREPARED
from distjudge_trl.tasks import LoadReport
from distjudge_trl.tasks.parts import load_partition
from distjudge_trl.trainer.checkpoints import find_checkpoint, saved_date


if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from distjudge_trl.recipe.arguments import ParsedRun, RecipeArguments
    from distjudge_trl.trainer import DistributionSFTConfig

_REPORT_NAME = "report.json"
# Two judges' scores are comparable if these columns agree: the items and their votes, whatever the prompt.
SCORED_COLUMNS = ["id", "label_distribution", "num_annotators"]


class Parts(NamedTuple):
    """The records that a run uses, subsampled, and the report on how they were made. Unlike
    [`~distjudge_trl.data.Partition`], from which it is drawn, it has one part `scored`: the test records, or the
    validation records with `--score_on validation`.
    """

    train: Dataset
    validation: Dataset | None
    scored: Dataset
    report: LoadReport


def find_template(run: ParsedRun) -> PromptTemplate:
    """The template of the given file, else the task's own.

    Raises:
        [`UserInputError`]: there is no such file, or it is not a valid template.
    """
    if run.recipe.prompt_template is not None:
        return run.task.read_template(run.recipe.prompt_template)
    return run.task.template


def load_parts(run: ParsedRun, template: PromptTemplate, fitter: PromptFitter | None) -> Parts:
    """Training, validation (if something is held out) and scored records, subsampled as the options say. A sweep has
    already saved them for runs with the same options.

    Raises:
        [`UserInputError`]: a problem with the files.
    """
    if (folder := os.environ.get(PREPARED)) is not None:
        saved = read_json(Path(folder) / _REPORT_NAME)
        if saved and saved["key"] == _key(run, template, fitter):
            return _read_parts(Path(folder), saved["report"])
    report = LoadReport()
    assert run.recipe.split is not None  # the parser has decided
    plan = SplitPlan(run.recipe.split, run.recipe.split_seed, run.recipe.validation_fraction)
    train, validation, test = load_partition(
        run.task,
        run.recipe.data_path,
        run.options,
        plan,
        hold_out=_holds_out(run.recipe, run.training),
        template=template,
        fitter=fitter,
        report=report,
    )
    assert train is not None  # recipes always split
    if (seen := find_start_items(run)) is not None:
        test = _leave_out(test, seen, plan, run, report)
        if validation is not None and run.recipe.score_on == "validation":
            validation = _leave_out(validation, seen, plan, run, report)
    train = plan.sample(train, run.recipe.max_train_samples)
    if run.recipe.annotation_budget is not None:
        train = within_budget(train, run.recipe.annotation_budget, seed=plan.seed)
    scored = test
    if run.recipe.score_on == "validation":
        assert validation is not None
        scored = validation
    return Parts(train, validation, plan.sample(scored, run.recipe.max_eval_samples), report)


def find_start_items(run: ParsedRun) -> SeenItems | None:
    """The items that the model of a run has seen, if it is a judge that is trained further."""
    return find_seen(find_judge(str(run.model.model_name_or_path)), run.task)


def _leave_out(records: Dataset, seen: SeenItems, plan: SplitPlan, run: ParsedRun, report: LoadReport) -> Dataset:
    """The records that are new to the judge from which a run starts."""
    new = seen.unseen(records, plan.match_by)
    if not len(new):
        raise UserInputError(
            f"{run.model.model_name_or_path}: has seen all {len(records)} items to be scored in its own training, or"
            " they were held out of it. Start from another model, or split as it did (--split, --split_seed)."
        )
    if len(new) < len(records):
        report.excluded["seen by the judge from which training starts"] += len(records) - len(new)
    return new


def save_parts(parts: Parts, folder: str | Path, run: ParsedRun, fitter: PromptFitter | None) -> Path:
    """Save records for runs with the same options, atomically, in a new folder below `folder`; returns that folder."""
    key = _key(run, find_template(run), fitter)
    # The content is part of the name, because the files may have changed since a run with the same options.
    contents = "".join(fingerprint(part) for part in parts[:3] if part is not None)
    target = Path(folder) / hashlib.sha256((key + contents).encode()).hexdigest()[:16]
    if (target / _REPORT_NAME).is_file():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".saving-") as name:
        temporary = Path(name, "parts")
        for part in ("train", "validation", "scored"):
            if (records := getattr(parts, part)) is not None:
                records.flatten_indices().save_to_disk(temporary / part)
        report = {name: getattr(parts.report, name) for name in ("num_read", "num_records", "excluded", "notes")}
        write_json(temporary / _REPORT_NAME, {"key": key, "report": report})
        with contextlib.suppress(OSError):
            temporary.rename(target)  # unless another worker was first
    return target


def _read_parts(folder: Path, report: dict[str, Any]) -> Parts:
    counts = {name: Counter(report[name]) for name in ("excluded", "notes")}
    parts = {
        part: Dataset.load_from_disk(folder / part) if (folder / part).is_dir() else None
        for part in ("train", "validation", "scored")
    }
    return Parts(parts["train"], parts["validation"], parts["scored"], LoadReport(**{**report, **counts}))


def _key(run: ParsedRun, template: PromptTemplate, fitter: PromptFitter | None) -> str:
    """A key of everything that the records depend on, except the files themselves."""
    names = (
        *("data_path", "split", "split_seed", "max_train_samples", "annotation_budget", "max_eval_samples"),
        *("validation_fraction", "score_on", "truncate"),
    )
    content = {
        "task": [run.task.name, list(run.task.labels)],
        "template": template.messages,
        "options": repr(run.options),
        "recipe": {name: getattr(run.recipe, name) for name in names},
        "holds_out": _holds_out(run.recipe, run.training),
        "model": [run.model.model_name_or_path, run.model.model_revision],
        "max_length": fitter.max_length if fitter is not None else None,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:16]


class FoundModel(NamedTuple):
    """A run's model before it is loaded: its `path` or hub id, the `fitter` that shortens prompts for it (`None` if
    nothing limits their length), its `tokenizer`, and the date that its chat template prints, if it prints one.
    """

    path: str
    fitter: PromptFitter | None
    tokenizer: PreTrainedTokenizerBase
    template_date: str | None


def find_model(run: ParsedRun) -> FoundModel:
    """Find a run's model, before data is read.

    A run that resumes prints the date of its checkpoint in prompts, any other today's, which is the same in all
    processes of a run and in all runs of a sweep.

    Raises:
        [`UserInputError`]: there is no such model, its kind cannot be trained so, or its chat template does not show
            prompts.
    """
    _, recipe_args, _, training_args, model_args = run
    name = str(model_args.model_name_or_path)
    revision, trusted = model_args.model_revision, training_args.trust_remote_code
    kind = find_kind(name, revision=revision, trust_remote_code=trusted)
    trains: Trains | None = None if recipe_args.method == "raw" else "adapter" if model_args.use_peft else "weights"
    bits: Literal[4, 8] | None = 4 if model_args.load_in_4bit else 8 if model_args.load_in_8bit else None
    check_quantization(f"The model {name!r}", kind.config, trains=trains, bits=bits)
    tokenizer = load_tokenizer(name, revision=revision, trust_remote_code=trusted)
    resumed = find_checkpoint(training_args.resume_from_checkpoint, training_args.output_dir)
    day = pin_date(tokenizer, saved_date(resumed.path) if resumed is not None else None, shared=True)
    describe_way(tokenizer)  # raises if the template does not show prompts
    run.task.label_space().bind(tokenizer)  # labels that collide are found before anything is loaded
    context = getattr(kind.config.get_text_config(), "max_position_embeddings", None)
    limits = [length for length in (training_args.max_length, context) if length]
    fitter = PromptFitter(tokenizer, min(limits), recipe_args.truncate) if limits else None
    return FoundModel(resolve_model(name), fitter, tokenizer, day)


def _holds_out(recipe_args: RecipeArguments, training_args: DistributionSFTConfig) -> bool:
    """Whether a part of the training side is held out of training."""
    chooses = recipe_args.method == "dirichlet" and not training_args.target_smoothing
    chooses |= recipe_args.score_on == "validation"
    return training_args.eval_strategy != "no" or recipe_args.calibrate or recipe_args.method == "raw" or chooses


def model_error(name: str | None, error: Exception) -> UserInputError:
    """The error for a model that training cannot load."""
    return loading_error(f"The model {name!r}", error)
