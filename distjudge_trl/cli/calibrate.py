"""`distjudge-trl calibrate`: a scaling and label sets that travel with a judge."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import click

from distjudge_trl.cli.options import (
    BATCH_SIZE,
    DATA_PATH,
    JUDGE_SPLIT_SEED,
    TASK_HELP,
    echo_task_options,
    reading_options,
)
from distjudge_trl.errors import UserInputError, counted


if TYPE_CHECKING:
    from distjudge_trl.evaluation.calibrating import Calibrated


@click.command(
    short_help="Give a judge calibrated probabilities and label sets.",
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []},
)
@click.option("--model", help="The judge: folder or hub id of a trained one.")
@click.option("--task", "task_name", help="The task whose held-out records are used: a name, or a .yaml file.")
@DATA_PATH
@click.option(
    "--out",
    metavar="DIR",
    help="New folder for a calibrated copy of the judge. Default: its own folder gets the calibration.",
)
@click.option(
    "--kind",
    type=click.Choice(["auto", "temperature", "vector"]),
    default="auto",
    show_default=True,
    help="The scaling: one temperature, or a weight and a bias for each label; auto takes the one that does better in"
    " cross-validation.",
)
@click.option(
    "--level",
    type=float,
    default=0.9,
    show_default=True,
    help="Coverage of the label sets (ordinal labels: intervals): the least chance that an annotator's label is in"
    " one.",
)
@click.option(
    "--split",
    type=click.Choice(["official", "group", "paper", "all"]),
    help="Use records of the training side of this split, or all. Default: the split of the training run; of another"
    " task the official validation part, else `group`.",
)
@JUDGE_SPLIT_SEED
@click.option(
    "--max-samples",
    type=click.IntRange(min=1),
    default=2000,
    show_default=True,
    help="Read at most this many records.",
)
@BATCH_SIZE
@reading_options
@TASK_HELP
@click.pass_context
def calibrate(
    ctx: click.Context,
    model: str | None,
    task_name: str | None,
    data_path: str | None,
    out: str | None,
    kind: Literal["auto", "temperature", "vector"],
    level: float,
    split: Literal["official", "group", "paper", "all"] | None,
    split_seed: int | None,
    max_samples: int,
    help_: bool,
    **reading: Any,
) -> None:
    """Fit a scaling and label sets on records that the judge was not trained on, and store them in its judge.json.

    \b
        distjudge-trl calibrate --model runs/vader-distribution --task vader

    `judge` and `evaluate` apply them from then on; --no-calibration switches them off. Test records are not used, and
    `evaluate` never tests on a record that was used here. docs/calibration.md says what the label sets promise.
    """
    from distjudge_trl.tasks import get_task

    if help_:
        click.echo(ctx.get_help())
        if task_name is not None:
            echo_task_options(get_task(task_name))
        return
    if model is None or task_name is None:
        raise UserInputError("Which judge and which records? Give --model and --task; see --help.")
    task = get_task(task_name)
    from distjudge_trl.evaluation.calibrating import calibrate_judge
    from distjudge_trl.evaluation.options import EvaluationOptions
    from distjudge_trl.judges.loading import find_judge
    from distjudge_trl.recipe.parsing import parse_task_options
    from distjudge_trl.runtime.logs import quieten

    quieten()

    found = find_judge(model)
    defaults = found.file.data.get("options") if found.file is not None and task.is_called(found.file.task) else None
    task_options = parse_task_options(task, ctx.args, defaults)
    task = task.choose(getattr(task_options, "question", None))
    options = EvaluationOptions(
        data_path=data_path, split=split, split_seed=split_seed, max_eval_samples=max_samples, **reading
    )
    done = calibrate_judge(found, task, task_options, options, kind=kind, level=level, out=out, progress=True)
    for warning in done.warnings:
        click.echo(f"warning: {warning}", err=True)
    click.echo(f"{task.name}: {'; '.join(done.report.lines())}\n")
    for line in _lines(done, len(task.labels)):
        click.echo(line)
    click.echo(f"\nCalibrated: {done.folder}")


def _lines(done: Calibrated, num_labels: int) -> list[str]:
    calibration, sets = done.calibration, done.calibration.label_sets
    temperature = calibration.scaling.temperature
    scaling = f"temperature {temperature:.3g}" if temperature is not None else "vector scaling"
    tried = ", ".join(f"{name} {kl:.4f}" for name, kl in calibration.fitted_on["cross_validation"].items())
    kind = "intervals" if sets.kind == "intervals" else "label sets"
    fitted_on = f"{counted(sets.num_items, 'item')} in {counted(sets.num_groups, 'group')}"
    lines = [
        f"scaling: {scaling}, fitted on {counted(calibration.num_items, 'record')}",
        f"KL on the others: {done.kl_before:.4f} before, {done.kl_after:.4f} after",
        f"{kind}: level {sets.level:g}, fitted on {fitted_on}; {done.set_size:.2f} of {num_labels} labels on average",
    ]
    if tried:
        lines[0] += f" (KL in cross-validation: {tried})"
    return lines + [
        f"  {part}: coverage {coverage:.3f}, {size:.2f} labels on average"
        for part, (coverage, size) in done.parts.items()
    ]
