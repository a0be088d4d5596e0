"""`distjudge-trl export-openai`: training files for OpenAI's fine-tuning."""

from __future__ import annotations

from typing import Literal

import click

from distjudge_trl.cli.options import DATA_PATH, PROMPT_TEMPLATE, TASK_HELP, echo_task_options
from distjudge_trl.errors import UserInputError, counted, writing


@click.command(
    "export-openai",
    short_help="Write training files for OpenAI's fine-tuning.",
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []},
)
@click.argument("task_name", metavar="TASK", required=False)
@DATA_PATH
@click.option(
    "--mode",
    type=click.Choice(["single-point", "soft"]),
    help="`single-point`: a row for each item, with the majority label. `soft`: rows in proportion to the votes.",
)
@click.option("--out", metavar="FILE", help="Write the training rows to this file (.jsonl).")
@click.option(
    "--validation-out",
    metavar="FILE",
    help="Hold a part of the training items out of --out, and write their rows to this file (.jsonl).",
)
@click.option(
    "--rows-per-item",
    type=click.IntRange(min=1),
    help="With `--mode soft`: this many rows for each item, by largest remainder. Default: every vote is a row.",
)
@click.option(
    "--max-rows",
    type=click.IntRange(min=1),
    help="At most this many rows in a file: items are drawn by a hash of their ids, as long as their rows fit.",
)
@click.option(
    "--max-example-bytes",
    type=click.IntRange(min=1),
    help="Stop at a longer row. Default: 65,536, the documented number of tokens; no row has more tokens than bytes.",
)
@click.option(
    "--split",
    type=click.Choice(["official", "group", "paper"]),
    help="Split whose training side is written, as in training. Default: official if there is one, else group.",
)
@click.option("--split-seed", type=int, default=0, show_default=True, help="Seed of the split, as in training.")
@click.option(
    "--validation-fraction",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.1,
    show_default=True,
    help="Share of the training items for --validation-out, as in training.",
)
@PROMPT_TEMPLATE
@TASK_HELP
@click.pass_context
def export_openai(
    ctx: click.Context,
    task_name: str | None,
    data_path: str | None,
    mode: Literal["single-point", "soft"] | None,
    out: str | None,
    validation_out: str | None,
    rows_per_item: int | None,
    max_rows: int | None,
    max_example_bytes: int | None,
    split: Literal["official", "group", "paper"] | None,
    split_seed: int,
    validation_fraction: float,
    prompt_template: str | None,
    help_: bool,
) -> None:
    """Write chat examples for OpenAI's fine-tuning from the training side of a task's split.

    \b
    The prompts and answers are those of local training. Test items are never written:
        distjudge-trl export-openai snli --mode soft --out train.jsonl --validation-out validation.jsonl
    The files are checked against the documented format and limits before they take their names.
    """
    from distjudge_trl.recipe.parsing import parse_task_options
    from distjudge_trl.tasks import LoadReport, get_task

    if task_name is None:
        click.echo(ctx.get_help())
        if not help_:
            raise UserInputError("Which task? See `distjudge-trl tasks`.")
        return
    if task_name.startswith("-"):
        raise UserInputError(f"The task comes first: distjudge-trl export-openai TASK {task_name} ...")
    task = get_task(task_name)
    if help_:
        click.echo(ctx.get_help())
        echo_task_options(task)
        return
    if mode is None or out is None:
        raise UserInputError("What is written, and where? Give --mode and --out; see --help.")
    if rows_per_item is not None and mode != "soft":
        raise UserInputError(
            "--rows-per-item goes with --mode soft: --mode single-point writes one row for each item."
        )
    options = parse_task_options(task, ctx.args)
    task = task.choose(getattr(options, "question", None))
    from distjudge_trl.data.openai_chat import MAX_EXAMPLE_TOKENS, choose_rows
    from distjudge_trl.data.splits import SplitPlan
    from distjudge_trl.report.findings import split_findings
    from distjudge_trl.report.openai_files import check_outputs, write_chat_files
    from distjudge_trl.tasks.parts import load_partition

    inputs = [name for name in (data_path, task_name, prompt_template) if name is not None]
    outputs = [name for name in (out, validation_out) if name is not None]
    check_outputs(outputs, inputs)
    template = task.read_template(prompt_template) if prompt_template is not None else None
    report = LoadReport()
    plan = SplitPlan(split or ("official" if task.official_split else "group"), split_seed, validation_fraction)
    train, validation, test = load_partition(
        task, data_path, options, plan, hold_out=validation_out is not None, template=template, report=report
    )
    report.repeats.check(task.name, template or task.template)
    check_outputs(outputs, report.files)
    space = task.label_space()
    assert train is not None  # no split without a training side can be chosen
    parts = [part for part in (train, validation) if part is not None]
    rows = [
        choose_rows(part, space, mode, rows_per_item=rows_per_item, max_rows=max_rows, seed=split_seed)
        for part in parts
    ]
    with writing(out):
        write_chat_files(
            list(zip(outputs, parts, rows, strict=True)),
            space,
            max_example_bytes=max_example_bytes or MAX_EXAMPLE_TOKENS,
        )
    click.echo(f"{task.name}: {'; '.join(report.lines())}")
    others = {"test": test} if validation is None else {"validation": validation, "test": test}
    for text, problem in split_findings(train, others, by_group=plan.kind == "group"):
        if problem:
            click.echo(f"{task.name}: {text}")
    for name, of_file in zip(outputs, rows, strict=True):
        items = len({row.record for row in of_file})
        click.echo(f"{name}: {counted(len(of_file), 'row')} of {counted(items, 'item')}")
