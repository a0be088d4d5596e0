"""`distjudge-trl evaluate`: score a judge on items that it has not seen."""

from __future__ import annotations

from typing import Any, Literal

import click

from distjudge_trl.cli.options import (
    BATCH_SIZE,
    CALIBRATION,
    DATA_PATH,
    JUDGE_SPLIT_SEED,
    MAX_LENGTH,
    PROMPT_TEMPLATE,
    TASK_HELP,
    TRUNCATE,
    api_options,
    check_shared_task,
    echo_task_options,
    make_api_options,
    reading_options,
)
from distjudge_trl.errors import UserInputError, writing


@click.command(
    short_help="Score a judge on items that it has not seen.",
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []},
)
@click.option(
    "--model",
    help="The judge: folder or hub id of a trained one, name, hub id or path of an untrained model, or openai:NAME.",
)
@click.option("--task", "task_name", help="The task: a name, or a .yaml file that defines your own.")
@DATA_PATH
@click.option(
    "--out", metavar="PATH", help="Write results and the distributions of all items to this folder (or NAME.json)."
)
@click.option(
    "--split",
    type=click.Choice(["official", "group", "paper", "all"]),
    help="Score the test side of this split, or all items. Default: the split of the training run; of another task the"
    " official test part, else all items; `group` for untrained models.",
)
@JUDGE_SPLIT_SEED
@click.option(
    "--leave-out",
    multiple=True,
    metavar="JUDGE",
    help="Also leave out the items that this judge has seen, to compare several judges on the same items. Repeatable.",
)
@click.option("--max-eval-samples", type=click.IntRange(min=1), help="Test on at most this many records.")
@click.option(
    "--extraction",
    type=click.Choice(["full", "top5"]),
    default="full",
    show_default=True,
    help="Read all label tokens, or only those among the five likeliest tokens, as the paper does (floor 1e-6).",
)
@click.option(
    "--calibrated",
    is_flag=True,
    help="Also score temperature and vector scaling, fitted on held-out training items. Always on for untrained"
    " models.",
)
@CALIBRATION
@click.option(
    "--average-orders",
    is_flag=True,
    help="Score pairs by the mean of both orders, with the labels exchanged, and say how consistent they were before.",
)
@click.option(
    "--robustness", is_flag=True, help="Also print the KL against randomly perturbed targets (the paper's Table 3)."
)
@click.option(
    "--metrics",
    type=click.Choice(["lewidi"]),
    help="Also print and store the official figures of a shared task: `lewidi`, of the tasks of docs/lewidi.md.",
)
@PROMPT_TEMPLATE
@MAX_LENGTH
@TRUNCATE
@click.option(
    "--share-prefixes/--no-share-prefixes",
    default=None,
    help="Compute common prefixes of a batch's prompts once. Default: where the model supports it and it is faster.",
)
@BATCH_SIZE
@click.option(
    "--seed",
    default=0,
    show_default=True,
    type=click.IntRange(min=0),
    help="Seed of bootstrap, noise floor and perturbations.",
)
@reading_options
@api_options
@TASK_HELP
@click.pass_context
def evaluate(
    ctx: click.Context,
    model: str | None,
    task_name: str | None,
    out: str | None,
    truncate: Literal["middle", "end", "error"] | None,
    robustness: bool,
    metrics: Literal["lewidi"] | None,
    help_: bool,
    api: dict[str, Any],
    **options: Any,
) -> None:
    """Score a judge on items that it has not seen, beside baselines, noise floor and human ceiling.

    \b
    A trained judge on its own test items, and on another task with the same labels:
        distjudge-trl evaluate --model runs/snli-distribution --task snli --out runs/snli-again
        distjudge-trl evaluate --model runs/snli-distribution --task chaosnli --out runs/snli-to-chaosnli
    The untrained baselines alone (raw, raw with temperature and vector scaling, uniform, training prior, majority):
        distjudge-trl evaluate --model smollm2-135m --task vader --out runs/vader-raw
    A model behind an OpenAI-compatible server (docs/api_judges.md):
        distjudge-trl evaluate --model openai:gpt-4o-mini --task vader --max-eval-samples 200 --out runs/vader-4o
    """
    from distjudge_trl.tasks import get_task

    if help_:
        click.echo(ctx.get_help())
        if task_name is not None:
            echo_task_options(get_task(task_name))
        return
    if model is None or task_name is None:
        raise UserInputError("Which judge and which items? Give --model and --task; see --help.")
    task = get_task(task_name)
    if metrics is not None:
        check_shared_task(task_name)
    from distjudge_trl.evaluation.results import check_results_path, results_file, write_results
    from distjudge_trl.evaluation.run import EvaluationOptions, evaluate_judge
    from distjudge_trl.files.atomic import removing_if_empty
    from distjudge_trl.judges.loading import find_judge
    from distjudge_trl.recipe.parsing import parse_task_options
    from distjudge_trl.report.tables import (
        extraction_lines,
        label_sets_table,
        parts_table,
        results_table,
        robustness_table,
        shared_task_table,
    )
    from distjudge_trl.runtime.logs import quieten

    quieten()

    if out is not None:
        ctx.with_resource(removing_if_empty(results_file(out).parent))
        check_results_path(out, judge=model)
    if options["share_prefixes"] is None:
        options["share_prefixes"] = "auto"
    server = make_api_options(model, api)
    found = find_judge(model, server.judge_file if server is not None else None)
    defaults = found.file.data.get("options") if found.file is not None and task.is_called(found.file.task) else None
    task_options = parse_task_options(task, ctx.args, defaults)
    task = task.choose(getattr(task_options, "question", None))
    results, records, log_q, report, warnings, raw_log_q = evaluate_judge(
        found, task, task_options, EvaluationOptions(truncation=truncate, api=server, **options), progress=True
    )
    if metrics is not None:
        from distjudge_trl.evaluation.lewidi import official_results

        results["lewidi"] = official_results(task.name, results, records, log_q, raw_log_q)
    if out is not None:
        with writing(results_file(out)):
            write_results(out, results, records, log_q, raw_log_q)
    for warning in warnings:
        click.echo(f"warning: {warning}", err=True)
    click.echo(f"{task.name}: {'; '.join(report.lines())}\n")
    click.echo(results_table([results], variants=True))
    for line in extraction_lines(results["extraction"]):
        click.echo(f"\n{line}")
    if server is not None:
        from distjudge_trl.judges.api.sending import Usage, used

        click.echo(f"\n{used(Usage(**results['provenance']['usage']), server)}")
    if metrics is not None:
        figures = results["lewidi"]
        floor = f"; the targets' own entropy is {figures['floor']:.3f}" if figures["floor"] else ""
        click.echo(f"\n{figures['dataset']}, official figures of {figures['edition']}{floor}:\n")
        click.echo(shared_task_table(figures))
    if "calibration" in results:
        click.echo(f"\n{label_sets_table(results)}")
    if "parts" in results:
        click.echo(f"\n{parts_table(results)}")
    if robustness:
        click.echo("\nKL against targets moved at random by delta (mean over draws):\n")
        click.echo(robustness_table([results], variants=True))
    if out is not None:
        click.echo(f"\nResults: {out}")
