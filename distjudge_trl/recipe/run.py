"""One run of a recipe: data, training, evaluation, files. `Recipe.run` calls it after parsing the command line."""

from __future__ import annotations

import pickle
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from datasets import Dataset
from trl import get_peft_config

from distjudge_trl.data import choose_pseudo_count, fingerprint, num_votes
from distjudge_trl.data.template import PromptTemplate
from distjudge_trl.errors import RunFailedError, UserInputError, writing
from distjudge_trl.evaluation import human_side, whole_votes, write_results
from distjudge_trl.evaluation.results import JudgeInfo, Predictions, make_results
from distjudge_trl.evaluation.scoring import calibration_records
from distjudge_trl.files.atomic import check_folder
from distjudge_trl.judge_folder.judge_file import JudgeFile
from distjudge_trl.judge_folder.training_items import SeenItems
from distjudge_trl.recipe.arguments import ParsedRun
from distjudge_trl.recipe.checks import check_options
from distjudge_trl.recipe.data import (
    FoundModel,
    find_model,
    find_start_items,
    find_template,
    load_parts,
    model_error,
)
from distjudge_trl.recipe.model import loading_options, quantization_config
from distjudge_trl.recipe.trial import make_progress_callback
from distjudge_trl.report.findings import (
    answer_findings,
    label_findings,
    split_findings,
    template_findings,
    vote_findings,
)
from distjudge_trl.report.tables import parts_table, results_table
from distjudge_trl.runtime.provenance import provenance
from distjudge_trl.trainer import DistributionSFTTrainer
from distjudge_trl.trainer.checkpoints import find_checkpoint


def run_recipe(run: ParsedRun) -> dict[str, Any]:
    """Train, save and evaluate; returns the content of `results.json` (empty on all processes but the first).

    Raises:
        [`UserInputError`]: a problem with files, data or model names.
    """
    task, recipe_args, options, training_args, model_args = run

    ################
    # Data
    ################
    # Before data is read. The trainer compares the run with its checkpoint later.
    find_checkpoint(training_args.resume_from_checkpoint, training_args.output_dir)
    check_folder(training_args.output_dir, "--output_dir")
    check_options(run)
    template = find_template(run)
    model = find_model(run)
    train, validation, scored, report = load_parts(run, template, model.fitter)
    if recipe_args.method == "dirichlet" and not training_args.target_smoothing:
        assert validation is not None
        training_args.target_smoothing = _choose_target_smoothing(validation)

    ################
    # Training
    ################
    seen, start = SeenItems.of(train, validation), find_start_items(run)
    trainer = _make_trainer(run, template, model, train, validation, seen if start is None else seen.after(start))
    if (progress := make_progress_callback()) is not None:
        trainer.add_callback(progress)
    print_once = trainer.accelerator.print
    print_once(f"{task.name}: {'; '.join(report.lines())}")
    print_once(
        f"{task.name}: {len(train)} training items, {len(scored)} {recipe_args.score_on} items; method"
        f" {recipe_args.method}; model {model_args.model_name_or_path}"
    )
    findings = [
        *split_findings(train, {recipe_args.score_on: scored}, by_group=recipe_args.split == "group"),
        *template_findings(model.tokenizer),
        *label_findings(trainer.label_space),
        *answer_findings(trainer.label_space, template),
        *vote_findings(train, task.labels),
    ]
    for text, problem in findings:
        if problem:
            print_once(f"{task.name}: {text}")
    trained = recipe_args.method != "raw"
    if trained:
        if recipe_args.method == "dirichlet":
            print_once(f"{task.name}: {training_args.target_smoothing:.3g} votes are added to every label")
        trainer.train(resume_from_checkpoint=training_args.resume_from_checkpoint)
        # Saved before anything else can fail. Pushing can fail, so it comes last.
        trainer.save_model(training_args.output_dir, _internal_call=True)

    ################
    # Evaluation
    ################
    prefix = "test" if recipe_args.score_on == "test" else "eval"
    prediction = trainer.predict(scored, metric_key_prefix=prefix)
    trainer.log(prediction.metrics)
    log_q = _finite(prediction.predictions)
    to_fit_on = None
    if recipe_args.score_on == "test":
        to_fit_on = calibration_records(validation, requested=recipe_args.calibrate, trained=trained)
    held_out = None
    if to_fit_on is not None:
        read = trainer.predict(to_fit_on, metric_key_prefix="held_out")
        held_out = Predictions(to_fit_on, _finite(read.predictions))
    results: dict[str, Any] = {}
    if trainer.is_world_process_zero():
        results = make_results(
            JudgeInfo(
                method=recipe_args.method,
                model=model_args.model_name_or_path,
                trained_on=task.name if trained else None,
                seed=training_args.seed,
                settings={
                    **trainer.judge_file.training,
                    "split": recipe_args.split,
                    "split_seed": recipe_args.split_seed,
                    **(trainer.judge_file.data["settings"] if trained else {}),
                },
            ),
            task,
            Predictions(scored, log_q, prediction.metrics[f"{prefix}_label_mass"]),
            train=train,
            held_out=held_out,
            scored_on=recipe_args.score_on,
            provenance=provenance(
                recipe=asdict(recipe_args),
                task_options=asdict(options),
                data_report=report.to_dict(),
                model=asdict(model_args),
                training=training_args.to_dict(),
                train_fingerprint=fingerprint(train),
                world_size=training_args.world_size,
            ),
        )
    if trained:
        trainer.results = results or None
        trainer.save_state()
        trainer.create_model_card(model_name=f"{task.name}-judge")
    if results:
        # Written last: a folder with results is a finished run.
        saved = "The judge is saved: make room, and score it with `distjudge-trl evaluate`."
        with writing(training_args.output_dir, saved if trained else "Make room and try again."):
            write_results(training_args.output_dir, results, scored, log_q)
        print_once(results_table([results], variants=True))
        if "parts" in results:
            print_once(parts_table(results))
        print_once(f"Results and judge: {training_args.output_dir}")
    if trained and training_args.push_to_hub:
        trainer.push_to_hub()
    trainer.end()
    return results


def _finite(log_q: np.ndarray) -> np.ndarray:
    if not np.isfinite(log_q).all():
        raise RunFailedError("The judge returns NaN: training diverged. Lower --learning_rate; see the logged loss.")
    return log_q.astype(float)


def _choose_target_smoothing(validation: Dataset) -> float:
    whole, counts = whole_votes(*human_side(validation))
    pseudo_count = choose_pseudo_count(counts.tolist()) if len(counts) else None
    if pseudo_count is None:
        divided = int((~whole).sum())
        which = f" ({divided:,} of {len(whole):,} are left out: someone divides a vote)" if divided else ""
        raise UserInputError(
            "--method dirichlet chooses its smoothing by predicting annotators from the others, and no validation item"
            f" has two{which}. Give --target_smoothing."
        )
    return pseudo_count


def _make_trainer(
    run: ParsedRun,
    template: PromptTemplate,
    found: FoundModel,
    train: Dataset,
    validation: Dataset | None,
    seen: SeenItems,
) -> DistributionSFTTrainer:
    task, recipe_args, options, training_args, model_args = run
    training_args.model_init_kwargs = loading_options(model_args, training_args)
    name = model_args.model_name_or_path
    try:
        return DistributionSFTTrainer(
            model=found.path,
            processing_class=found.tokenizer,
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
                max_length=found.fitter.max_length if found.fitter is not None else None,
                truncation=found.fitter.truncation if found.fitter is not None else None,
                template_date=found.template_date,
                trust_remote_code=training_args.trust_remote_code,
            ),
            seen_items=seen,
            quantization_config=quantization_config(model_args, training_args),
            peft_config=get_peft_config(model_args),
        )
    except (OSError, ImportError, pickle.UnpicklingError) as error:
        # Weights, tokenizer files or a package that the options need (bitsandbytes, deepspeed) are missing.
        raise model_error(name, error) from error
