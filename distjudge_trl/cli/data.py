"""`distjudge-trl data`: build, check and show a task's records."""

from __future__ import annotations

import click

from distjudge_trl.cli.options import DATA_PATH, PROMPT_TEMPLATE, TASK_HELP, TRUST_REMOTE_CODE, echo_task_options
from distjudge_trl.errors import UserInputError


def _draft(data: str, path: str, arguments: list[str]) -> list[str]:
    """Write a task file for the ratings at `data`. Returns the task's options for its check: items without a vote are
    left out.
    """
    from distjudge_trl.tasks import list_tasks
    from distjudge_trl.tasks.drafting import write_draft

    if data in list_tasks() or data.endswith((".yaml", ".yml")):
        raise UserInputError(
            f"{data}: is a task already. --init needs a file of ratings: data ratings.csv --init {path}"
        )
    draft = write_draft(data, path)
    click.echo(f"{path}: written. It is a draft: correct the lines with CHECK.")
    click.echo(f"  votes: {draft.votes.seen}")
    click.echo(f"  prompt: {', '.join(column.path for column in draft.texts)}")
    if draft.split is not None or "path" not in draft.source:
        click.echo("  split: the data name the parts; see the comment")
    if draft.questions and not draft.votes.may_be_questions:
        click.echo(f"  other ratings: {', '.join(draft.questions)}; a comment shows them as `questions`")
    if draft.unvoted and not any(word.startswith(("--min_annotators", "--min-annotators")) for word in arguments):
        click.echo("  some items have no vote: --min_annotators 1 leaves them out, here and in training")
        return [*arguments, "--min_annotators", "1"]
    return arguments


@click.command(
    short_help="Check a task's data and show its prompts.",
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []},
)
@click.argument("task_name", metavar="TASK", required=False)
@DATA_PATH
@click.option(
    "--init",
    metavar="FILE",
    help="Write a first task file (.yaml) for the ratings at TASK, a file of rows or a folder of such files, and check"
    " it.",
)
@click.option(
    "--stats",
    is_flag=True,
    help="Print statistics: labels, annotators, entropy, agreement, noise floor, splits, lengths.",
)
@click.option("--show", type=click.IntRange(min=1), metavar="N", help="Print N rendered prompts with their votes.")
@click.option("--out", metavar="FILE", help="Write the records to a Parquet file.")
@click.option("--model", help="Use the tokenizer and chat template of this model for --stats and --show.")
@click.option(
    "--max-length",
    type=click.IntRange(min=1),
    help="Longest prompt in tokens, for --stats and --show with --model. Default: the limit of the model.",
)
@click.option(
    "--split",
    type=click.Choice(["official", "group", "paper"]),
    help="Split that --stats reports on: the one of the data's source, by group (related items stay on one side), or"
    " single items as in the paper. Default: official if there is one, else group.",
)
@click.option(
    "--split-seed", type=int, default=0, show_default=True, help="Seed of the split that --stats reports on."
)
@PROMPT_TEMPLATE
@TRUST_REMOTE_CODE
@TASK_HELP
@click.pass_context
def data(
    ctx: click.Context,
    task_name: str | None,
    data_path: str | None,
    init: str | None,
    stats: bool,
    show: int | None,
    out: str | None,
    model: str | None,
    max_length: int | None,
    split: str | None,
    split_seed: int,
    prompt_template: str | None,
    trust_remote_code: bool,
    help_: bool,
) -> None:
    """Build, check and show a task's records.

    \b
    TASK is a name of `distjudge-trl tasks` or a .yaml file that defines your own. --init writes such a file:
        distjudge-trl data ratings.csv --init task.yaml
        distjudge-trl data snli --stats --model smollm2-135m
        distjudge-trl data task.yaml --data_path ratings.csv --show 3
        distjudge-trl data summeval --annotators expert --out records.parquet
    """
    from distjudge_trl.recipe.parsing import parse_task_options

    if task_name is None:
        click.echo(ctx.get_help())
        if not help_:
            raise UserInputError("Which task? See `distjudge-trl tasks`.")
        return
    if task_name.startswith("-"):
        raise UserInputError(f"The task comes first: distjudge-trl data TASK {task_name} ...")
    from distjudge_trl.tasks import LoadReport, get_task

    arguments = list(ctx.args)
    if init is not None and not help_:
        if data_path is not None:
            raise UserInputError(f"--init goes with the data alone: distjudge-trl data {data_path} --init {init}")
        arguments = _draft(task_name, init, arguments)
        data_path, task_name = None, init
    task = get_task(task_name)
    if help_:
        click.echo(ctx.get_help())
        echo_task_options(task, ", which its recipe takes, too")
        return
    options = parse_task_options(task, arguments)
    task = task.choose(getattr(options, "question", None))
    from distjudge_trl.report import doctor
    from distjudge_trl.report.record_files import check_output, write_records

    inputs = [name for name in (data_path, task_name) if name is not None]
    if out is not None:
        check_output(out, inputs)
    template = task.read_template(prompt_template) if prompt_template is not None else None
    report = LoadReport()
    try:
        items = list(task.draw(task.items(data_path, options, report=report), options, report=report))
        records = task.records(items, options, template=template, report=report)
    except UserInputError as error:
        if init is None:
            raise
        raise UserInputError(f"{init} is written, but does not fit yet: {error}") from None
    console = doctor.make_console()
    doctor.print_summary(console, task, records, report, template or task.template)
    problem = None
    if model is not None:
        try:
            report.repeats.check(task.name, template or task.template)
        except UserInputError as error:
            problem = error  # raised below, when what there is to see has been printed
    if out is not None and problem is None:
        check_output(out, report.files)
        write_records(out, records, task, report)
        console.print(f"  written to {out}", markup=False, soft_wrap=True)
    if stats:
        doctor.print_statistics(console, task, items)
        split = split or ("official" if task.official_split else "group")
        doctor.print_splits(console, records, split, split_seed)
        if model is not None:
            doctor.print_model_view(console, task, records, model, max_length, trust_remote_code=trust_remote_code)
        else:
            doctor.print_lengths(console, records)
    if show is not None:
        fitted = None
        if model is not None:
            fitted = doctor.fitted_examples(
                task,
                items,
                options,
                records,
                show,
                template=template,
                model=model,
                max_length=max_length,
                trust_remote_code=trust_remote_code,
            )
        doctor.print_examples(console, task, records, show, model, fitted=fitted, trust_remote_code=trust_remote_code)
    if problem is not None:
        raise problem
