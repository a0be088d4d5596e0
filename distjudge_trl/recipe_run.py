"""One run of a recipe: data, training, evaluation, files. `Recipe.run` calls it once the command line is parsed."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from datasets import Dataset
from transformers import AutoConfig, AutoTokenizer, BitsAndBytesConfig
from transformers.integrations import is_deepspeed_zero3_enabled
from trl import ModelConfig, get_peft_config, get_quantization_config

from distjudge_trl.atomic import check_folder
from distjudge_trl.batching import PromptFitter
from distjudge_trl.data import (
    SeenItems,
    choose_pseudo_count,
    fingerprint,
    num_votes,
    partition,
    split_records,
    subsample,
    within_budget,
)
from distjudge_trl.data.splits import SWAPPED
from distjudge_trl.data.template import PromptTemplate
from distjudge_trl.errors import RunFailedError, UserInputError, first_line
from distjudge_trl.evaluation import TestItems, human_side, whole_counts, write_results
from distjudge_trl.evaluation.scoring import MIN_CALIBRATION_ITEMS
from distjudge_trl.judge_file import JudgeFile
from distjudge_trl.models import resolve_model
from distjudge_trl.provenance import provenance
from distjudge_trl.report.tables import results_table
from distjudge_trl.tasks import Item, LoadReport
from distjudge_trl.trainer import DistributionSFTConfig, DistributionSFTTrainer
from distjudge_trl.trainer.checkpoints import find_checkpoint


if TYPE_CHECKING:
    from distjudge_trl.recipe import RecipeArguments, RecipeRun


class _Parts(NamedTuple):
    train: Dataset
    validation: Dataset | None
    test: Dataset


def run_recipe(run: RecipeRun) -> dict[str, Any]:
    """Train, save and evaluate; returns the content of `results.json` (empty on all processes but the first).

    Raises:
        [`UserInputError`]: anything wrong with files, data or model names.
    """
    task, recipe_args, options, training_args, model_args = run

    ################
    # Data
    ################
    # Before data is read; the trainer compares the run with this one.
    find_checkpoint(training_args.resume_from_checkpoint, training_args.output_dir)
    _check(recipe_args, training_args, model_args)
    template = task.template
    if recipe_args.prompt_template is not None:
        template = PromptTemplate.from_file(recipe_args.prompt_template)
    model_path, fitter = _find_model(recipe_args, training_args, model_args)
    report = LoadReport()
    train, validation, test = _load(run, template, fitter, report)
    seed = recipe_args.split_seed
    train = subsample(train, recipe_args.max_train_samples, seed=seed)
    if recipe_args.annotation_budget is not None:
        train = within_budget(train, recipe_args.annotation_budget, seed=seed)
    test = subsample(test, recipe_args.max_eval_samples, seed=seed)
    if recipe_args.method == "dirichlet" and not training_args.target_smoothing:
        assert validation is not None
        training_args.target_smoothing = _choose_target_smoothing(validation)

    ################
    # Training
    ################
    trainer = _make_trainer(run, template, model_path, fitter, train, validation)
    say = trainer.accelerator.print
    say(f"{task.name}: {'; '.join(report.lines())}")
    say(
        f"{task.name}: {len(train)} training items, {len(test)} test items; method {recipe_args.method}; model"
        f" {model_args.model_name_or_path}"
    )
    trained = recipe_args.method != "raw"
    if trained:
        if recipe_args.method == "dirichlet":
            say(f"{task.name}: {training_args.target_smoothing:.3g} votes are added to every label")
        trainer.train(resume_from_checkpoint=training_args.resume_from_checkpoint)
        # Before anything else can go wrong.
        trainer.save_model(training_args.output_dir)
        if trainer.is_world_process_zero():
            SeenItems.of(train, validation).write(training_args.output_dir)

    ################
    # Evaluation
    ################
    prediction = trainer.predict(test, metric_key_prefix="test")
    trainer.log(prediction.metrics)
    log_q = _finite(prediction.predictions)
    held_out = None
    # Of an untrained model calibration is free, but a small data set may leave nothing to fit it on.
    if recipe_args.calibrate or (not trained and validation and len(validation) >= MIN_CALIBRATION_ITEMS):
        assert validation is not None
        held_out = _finite(trainer.predict(validation, metric_key_prefix="held_out").predictions)
    results: dict[str, Any] = {}
    if trainer.is_world_process_zero():
        items = TestItems.of(test, ordinal=task.ordinal)
        scores = items.score(log_q, mass=prediction.metrics["test_label_mass"])
        variants = items.score_constants(human_side(train)[0])
        if held_out is not None:
            assert validation is not None
            held_out_p, _ = human_side(validation)
            variants = items.score_calibrated(recipe_args.method, log_q, held_out_p, held_out) + variants
        results = {
            "task": task.name,
            "trained_on": task.name if trained else None,
            "method": recipe_args.method,
            "model": model_args.model_name_or_path,
            "labels": list(task.labels),
            "ordinal": task.ordinal,
            "seed": training_args.seed,
            "settings": {
                **trainer.judge_file.training,
                "split": recipe_args.split,
                "split_seed": seed,
                **(trainer.judge_file.data["settings"] if trained else {}),
            },
            "extraction": {"kind": "full", "floor": None},
            **scores,
            "variants": variants,
            "test_fingerprint": fingerprint(test),
            "provenance": provenance(
                recipe=asdict(recipe_args),
                task_options=asdict(options),
                data_report=report.to_dict(),
                model=asdict(model_args),
                training=training_args.to_dict(),
                train_fingerprint=fingerprint(train),
                world_size=training_args.world_size,
            ),
        }
    if trained:
        trainer.save_state()
        trainer.create_model_card(model_name=f"{task.name}-judge")
        if training_args.push_to_hub:
            trainer.push_to_hub()
    if results:
        # Last of all: a folder with results is a finished run.
        write_results(training_args.output_dir, results, test, log_q)
        say(results_table([results], variants=True))
        say(f"Results and judge: {training_args.output_dir}")
    trainer.end()
    return results


def _finite(log_q: np.ndarray) -> np.ndarray:
    if not np.isfinite(log_q).all():
        raise RunFailedError("The judge returns NaN: training diverged. Lower --learning_rate; see the logged loss.")
    return log_q.astype(float)


def _choose_target_smoothing(validation: Dataset) -> float:
    counts = whole_counts(*human_side(validation))
    pseudo_count = choose_pseudo_count(counts.tolist()) if counts is not None else None
    if pseudo_count is None:
        raise UserInputError(
            "--method dirichlet chooses its smoothing by predicting annotators from the others, and no validation item"
            " has two. Give --target_smoothing."
        )
    return pseudo_count


def _check(recipe_args: RecipeArguments, training_args: DistributionSFTConfig, model_args: ModelConfig) -> None:
    check_folder(training_args.output_dir, "--output_dir")
    if recipe_args.method == "raw" and (Path(training_args.output_dir) / "judge.json").exists():
        raise UserInputError(
            f"{training_args.output_dir}: holds a trained judge, whose results --method raw would replace. Choose"
            " another --output_dir."
        )
    if (
        (model_args.load_in_4bit or model_args.load_in_8bit)
        and recipe_args.method != "raw"
        and not model_args.use_peft
    ):
        raise UserInputError("Quantised weights cannot be trained, only adapters on them: add --use_peft.")
    for name in ("max_train_samples", "max_eval_samples", "annotation_budget"):
        value = getattr(recipe_args, name)
        if value is not None and value < 1:
            raise UserInputError(f"`{name}` must be at least 1, got {value}.")


def _holds_out(recipe_args: RecipeArguments, training_args: DistributionSFTConfig) -> bool:
    """Whether a part of the training side is kept from training."""
    chooses = recipe_args.method == "dirichlet" and not training_args.target_smoothing
    return training_args.eval_strategy != "no" or recipe_args.calibrate or recipe_args.method == "raw" or chooses


def _load(run: RecipeRun, template: PromptTemplate, fitter: PromptFitter | None, report: LoadReport) -> _Parts:
    """Training, validation (where something is held out) and test records.

    `--max_annotators` draws for training items alone: what a small budget teaches is chosen and tested on all votes
    that there are.
    """
    task, recipe_args, options, training_args, _ = run
    whole = replace(options, max_annotators=None)
    items: Iterable[Item] = task.items(recipe_args.data_path, whole, report=report)
    if options.max_annotators is not None:
        items = list(items)  # they are needed twice
    drawn = task.draw(items, whole, report=report)
    records = task.records(drawn, whole, template=template, fitter=fitter, report=report)
    seed, fraction = recipe_args.split_seed, recipe_args.validation_fraction
    validation = None
    if _holds_out(recipe_args, training_args):
        train, validation, test = partition(records, recipe_args.split, validation_fraction=fraction, seed=seed)
    else:
        train, test = split_records(records, recipe_args.split, seed=seed)
    if options.max_annotators is not None:
        names = set(train["id"])
        # A pair asked in both orders has two ids, of which a split of single records may take one.
        chosen = [item for item in items if item.id in names or f"{item.id}{SWAPPED}" in names]
        budget = task.draw(chosen, options, report=report)
        train = task.records(budget, options, template=template, fitter=fitter, report=LoadReport())
        train = train.select([i for i, name in enumerate(train["id"]) if name in names])
    return _Parts(train, validation, test)


def _find_model(
    recipe_args: RecipeArguments, training_args: DistributionSFTConfig, model_args: ModelConfig
) -> tuple[str, PromptFitter | None]:
    """Path or hub id of the model, and what makes prompts fit into it. A mistake in its name shows here, before data
    is read.
    """
    name = model_args.model_name_or_path
    path = resolve_model(name)
    kwargs = {"revision": model_args.model_revision, "trust_remote_code": training_args.trust_remote_code}
    try:
        # Its errors are about the name alone; the same types out of the trainer might be bugs.
        config = AutoConfig.from_pretrained(path, **kwargs)
        tokenizer = AutoTokenizer.from_pretrained(path, **kwargs)
    except (OSError, ValueError) as error:
        raise _model_error(name, error) from error
    context = getattr(config.get_text_config(), "max_position_embeddings", None)
    limits = [length for length in (training_args.max_length, context) if length]
    return path, PromptFitter(tokenizer, min(limits), recipe_args.truncate) if limits else None


def _make_trainer(
    run: RecipeRun,
    template: PromptTemplate,
    model_path: str,
    fitter: PromptFitter | None,
    train: Dataset,
    validation: Dataset | None,
) -> DistributionSFTTrainer:
    task, recipe_args, options, training_args, model_args = run
    training_args.model_init_kwargs = {
        "revision": model_args.model_revision,
        "attn_implementation": model_args.attn_implementation,
        "dtype": model_args.dtype,
        **(training_args.model_init_kwargs or {}),
    }
    name = model_args.model_name_or_path
    try:
        return DistributionSFTTrainer(
            model=model_path,
            args=training_args,
            train_dataset=train,
            eval_dataset=validation if training_args.eval_strategy != "no" else None,
            label_space=task.label_space(),
            judge_file=JudgeFile(
                label_space={},
                template=template.messages,
                task=task.name,
                data={
                    "options": asdict(replace(options, max_annotators=None)),
                    "split": recipe_args.split,
                    "split_seed": recipe_args.split_seed,
                    "validation_fraction": recipe_args.validation_fraction,
                    "method": recipe_args.method,
                    "settings": {
                        "max_annotators": options.max_annotators,
                        "num_train_items": len(train),
                        "num_train_votes": num_votes(train),
                    },
                },
                base_model=name,
                base_revision=model_args.model_revision,
                max_length=fitter.max_length if fitter is not None else None,
                truncation=fitter.truncation if fitter is not None else None,
                trust_remote_code=training_args.trust_remote_code,
            ),
            quantization_config=quantization_config(model_args),
            peft_config=get_peft_config(model_args),
        )
    except (OSError, ImportError) as error:
        # Missing weights or tokenizer files; a package that the options need (bitsandbytes, deepspeed).
        raise _model_error(name, error) from error


def quantization_config(model_args: ModelConfig) -> BitsAndBytesConfig | None:
    """TRL's, with 4-bit numbers stored in the type of all other weights where weights are sharded: ZeRO-3 and FSDP cut
    up flat tensors of one type, and take no bytes.

    Raises:
        [`UserInputError`]: another storage type is asked for.
    """
    sharded = is_deepspeed_zero3_enabled() or os.environ.get("ACCELERATE_USE_FSDP") == "true"
    if model_args.load_in_4bit and sharded:
        storage = model_args.bnb_4bit_quant_storage or model_args.dtype
        if storage != model_args.dtype:
            raise UserInputError(
                f"--bnb_4bit_quant_storage {storage} does not go with ZeRO-3 or FSDP, which shard tensors of one type:"
                f" drop it, or make it the --dtype ({model_args.dtype})."
            )
        model_args.bnb_4bit_quant_storage = storage
    return get_quantization_config(model_args)


def _model_error(name: str | None, error: Exception) -> UserInputError:
    """transformers explains itself in several lines and a traceback; the first line is the cause."""
    return UserInputError(f"The model {name!r} cannot be loaded: {first_line(error)}")
