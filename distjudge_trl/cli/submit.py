"""`distjudge-trl submit`: a judge's answers as a submission to a shared task."""

from __future__ import annotations

from typing import Any, Literal

import click

from distjudge_trl.cli.options import (
    BATCH_SIZE,
    CALIBRATION,
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
from distjudge_trl.errors import UserInputError


@click.command(
    short_help="Write the submission of a judge to a shared task.",
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []},
)
@click.option(
    "--model", help="The judge: folder or hub id of a trained one, name of an untrained model, or openai:NAME."
)
@click.option("--task", "task_name", help="A task of LeWiDi, such as md_agreement.")
@click.option(
    "--data-path", help="The file whose items are judged, with or without labels; of a folder it is the test file."
)
@click.option("--out", metavar="DIR", help="Folder for the file of this task, and res.zip with those of its edition.")
@PROMPT_TEMPLATE
@MAX_LENGTH
@TRUNCATE
@BATCH_SIZE
@CALIBRATION
@reading_options
@api_options
@TASK_HELP
@click.pass_context
def submit(
    ctx: click.Context,
    model: str | None,
    task_name: str | None,
    data_path: str | None,
    out: str | None,
    truncate: Literal["middle", "end", "error"] | None,
    help_: bool,
    api: dict[str, Any],
    **options: Any,
) -> None:
    """Judge a test file of LeWiDi and write the submission in the organisers' format.

    \b
        distjudge-trl submit --model runs/md_agreement-distribution --task md_agreement \\
            --data-path MD-Agreement_test.json --out submission
    """
    from distjudge_trl.tasks import get_task

    if help_:
        click.echo(ctx.get_help())
        if task_name is not None:
            echo_task_options(get_task(task_name))
        return
    if model is None or task_name is None or data_path is None or out is None:
        raise UserInputError("A submission needs --model, --task, --data-path and --out; see --help.")
    check_shared_task(task_name)
    from distjudge_trl.errors import writing
    from distjudge_trl.evaluation.run import EvaluationOptions
    from distjudge_trl.evaluation.submission import judge_inputs, write_submission
    from distjudge_trl.files.atomic import check_folder, removing_if_empty
    from distjudge_trl.judges.loading import find_judge
    from distjudge_trl.recipe.parsing import parse_task_options
    from distjudge_trl.runtime.logs import quieten

    quieten()

    task = get_task(task_name)
    ctx.with_resource(removing_if_empty(out))
    check_folder(out, "--out")
    server = make_api_options(model, api)
    found = find_judge(model, server.judge_file if server is not None else None)
    defaults = found.file.data.get("options") if found.file is not None and found.file.task == task.name else None
    task_options = parse_task_options(task, ctx.args, defaults)
    items, q, report = judge_inputs(
        found,
        task,
        task_options,
        EvaluationOptions(data_path=data_path, truncation=truncate, api=server, **options),
        progress=True,
    )
    with writing(out):
        path, archive = write_submission(task.name, items, q, out)
    click.echo(f"{task.name}: {'; '.join(report.lines()[1:]) or 'all items judged'}")
    click.echo(f"Submission: {path} (from {items[0].source}), packed into {archive}")
