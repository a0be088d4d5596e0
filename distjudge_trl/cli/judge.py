"""`distjudge-trl judge` and `merge`: using a trained judge."""

from __future__ import annotations

from typing import Any, Literal, cast

import click

from distjudge_trl.cli.options import (
    BATCH_SIZE,
    MAX_LENGTH,
    TRUNCATE,
    TRUST_REMOTE_CODE,
    api_options,
    make_api_options,
    reading_options,
)
from distjudge_trl.errors import UserInputError


@click.command(short_help="Judge the items of a file.")
@click.option("--model", required=True, help="The judge: folder or hub id, or openai:NAME behind a server.")
@click.option(
    "--task",
    "task_name",
    help="For a model without judge.json: take labels and prompt from this task (a name, or a .yaml file).",
)
@click.option(
    "--input",
    "input_path",
    required=True,
    help="Items to judge (JSONL, JSON, CSV, Excel, Parquet). Every row has a `prompt` (a list of messages) or the"
    " template's fields.",
)
@click.option(
    "--out", "output_path", required=True, help="JSONL file to write: the input rows plus `label_distribution`."
)
@BATCH_SIZE
@MAX_LENGTH
@TRUNCATE
@click.option("--delimiter", help="What separates the cells of a text table. Default: seen from its first rows.")
@click.option("--encoding", help="Encoding of a text file, such as cp1252. Default: UTF-8, or UTF-16 if it says so.")
@click.option(
    "--quoting",
    type=click.Choice(["auto", "none", "standard"]),
    default="auto",
    show_default=True,
    help="Whether quote marks enclose the cells of a text table (standard) or belong to the texts (none).",
)
@click.option("--sheet", help="Sheet of an Excel workbook. Default: its only sheet.")
@reading_options
@api_options
def judge(
    model: str,
    task_name: str | None,
    input_path: str,
    output_path: str,
    batch_size: int,
    max_length: int | None,
    truncate: Literal["middle", "end", "error"] | None,
    delimiter: str | None,
    encoding: str | None,
    quoting: Literal["auto", "none", "standard"],
    sheet: str | None,
    api: dict[str, Any],
    **reading: Any,
) -> None:
    """Judge new items: a distribution over the labels for every row of a file."""
    from collections import Counter

    from distjudge_trl.data.encodings import check_encoding
    from distjudge_trl.data.reading import Reading
    from distjudge_trl.data.template import PromptTemplate
    from distjudge_trl.judge_folder.judge_file import JudgeFile
    from distjudge_trl.judges import Judge
    from distjudge_trl.judges.base import PromptJudge
    from distjudge_trl.judges.files import judge_jsonl
    from distjudge_trl.judges.loading import find_judge
    from distjudge_trl.judges.opening import open_judge
    from distjudge_trl.report.tables import extraction_lines
    from distjudge_trl.runtime.logs import quieten
    from distjudge_trl.tasks import get_task

    quieten()

    server = make_api_options(model, api)
    task = get_task(task_name) if task_name is not None else None

    loaded: list[PromptJudge] = []

    def load() -> Judge:
        judge = open_judge(
            model,
            label_space=task.label_space() if task is not None else None,
            template=task.template if task is not None else None,
            api=server,
            max_length=max_length,
            truncation=truncate,
            **reading,
        )
        loaded.append(judge)
        return cast("Judge", judge)

    def find_template() -> PromptTemplate | None:
        found = find_judge(model, server.judge_file if server is not None else None)
        if task is not None:
            if found.file is not None:
                raise UserInputError("--task: is for a model without judge.json; this judge has labels and a prompt.")
            return task.template
        if server is not None and found.file is None:
            raise UserInputError(
                f"{model}: its labels are not known. Give --task, or --judge-file with a judge's folder."
            )
        file = found.file or JudgeFile.read(found.folder)  # raises an error that says what is missing
        return PromptTemplate(file.template) if file.template is not None else None

    if delimiter is not None and len(delimiter) != 1:
        raise UserInputError(f"--delimiter must be one character, got {delimiter!r}.")
    if encoding is not None:
        try:
            encoding = check_encoding(encoding)
        except ValueError as error:
            raise UserInputError(f"--encoding: {error}.") from None
    form = Reading(delimiter, encoding, quoting, sheet, by_options=True)
    notes: Counter[str] = Counter()
    count = judge_jsonl(
        load,
        input_path,
        output_path,
        batch_size=batch_size,
        reading=form,
        notes=notes,
        find_template=find_template,
    )
    for note, number in notes.items():
        click.echo(f"{note}: {number:,}")
    for line in extraction_lines(loaded[0].findings()):
        click.echo(line)
    click.echo(f"{count} items judged: {output_path}")


@click.command(short_help="Merge an adapter into its base model.")
@click.option("--model", required=True, help="The judge, with a LoRA or QLoRA adapter: folder or hub id.")
@click.option("--out", required=True, help="New folder for the full model.")
@click.option(
    "--dtype",
    type=click.Choice(["float32", "bfloat16", "float16"]),
    help="Type of the merged weights. Default: as the base model in training.",
)
@TRUST_REMOTE_CODE
def merge(model: str, out: str, dtype: str | None, trust_remote_code: bool) -> None:
    """Merge an adapter into its base model, for plain transformers, vLLM or llama.cpp.

    \b
        distjudge-trl merge --model runs/summeval-distribution --out runs/summeval-merged
        hf upload me/summeval-judge runs/summeval-merged
    Quantised base weights are dequantised first, so that the merged judge gives the same answers.
    """
    from distjudge_trl.judges.merge import merge as merge_judge
    from distjudge_trl.runtime.logs import quieten

    quieten()

    folder = merge_judge(model, out, dtype=dtype, trust_remote_code=trust_remote_code)
    click.echo(f"Merged: {folder}")
