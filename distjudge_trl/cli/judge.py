"""`distjudge-trl judge` and `merge`: using a trained judge."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict
from typing import Any, Literal, cast

import click

from distjudge_trl.cli.options import (
    BATCH_SIZE,
    CALIBRATION,
    MAX_LENGTH,
    TRUNCATE,
    TRUST_REMOTE_CODE,
    api_options,
    make_api_options,
    reading_options,
)
from distjudge_trl.errors import UserInputError


def _columns(ctx: click.Context, parameter: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    return tuple(name.strip() for name in value.split(",") if name.strip()) or None if value is not None else None


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
    help="Items to judge (JSONL, JSON, CSV, Excel, Parquet, Arrow, compressed or in an archive, or the folder of a"
    " saved data set). Every row has a `prompt` (a list of messages) or the template's fields.",
)
@click.option(
    "--out",
    "output_path",
    required=True,
    help="File to write: the input rows plus the columns below, as CSV or Parquet if the name ends so, else as JSON"
    " lines.",
)
@click.option(
    "--columns",
    metavar="NAME,NAME",
    callback=_columns,
    help="Columns to add: label_distribution; label (the likeliest); for ordinal labels mean, median and risk_averse;"
    " entropy (nats); label_mass (the probability of all labels together); for a calibrated judge label_set, or"
    " interval if its labels are ordinal. Default: all that the judge has.",
)
@click.option(
    "--risk",
    type=click.FloatRange(0, 1, min_open=True),
    default=0.25,
    show_default=True,
    help="`risk_averse` is the mean over this share of the distribution, the lowest one.",
)
@click.option(
    "--on-error",
    type=click.Choice(["fail", "mark"]),
    default="fail",
    show_default=True,
    help="A row that cannot be judged stops the run, or is written without results and with its `error`.",
)
@click.option(
    "--swap",
    type=click.Choice(["average"]),
    help="For judges of pairs: ask every pair in both orders, and average, with the labels exchanged.",
)
@click.option(
    "--swap-fields",
    metavar="ONE:OTHER,...",
    help="Fields that --swap exchanges. Default: those that differ in `a` and `b`, or `1` and `2`.",
)
@click.option(
    "--swap-labels",
    metavar="ONE:OTHER,...",
    help="Labels that --swap exchanges. Default: as the fields; ordinal ones from both ends.",
)
@click.option("--overwrite", is_flag=True, help="Begin anew, and drop the rows that a stopped run has kept.")
@BATCH_SIZE
@MAX_LENGTH
@TRUNCATE
@click.option(
    "--header",
    type=click.IntRange(min=1),
    help="Row of a table with the names of its columns. Default: the first that is not empty.",
)
@click.option("--items", help="Path to the list of items in each object of the file, such as `data`.")
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
@CALIBRATION
@reading_options
@api_options
def judge(
    model: str,
    task_name: str | None,
    input_path: str,
    output_path: str,
    swap: Literal["average"] | None,
    max_length: int | None,
    truncate: Literal["middle", "end", "error"] | None,
    header: int | None,
    items: str | None,
    delimiter: str | None,
    encoding: str | None,
    quoting: Literal["auto", "none", "standard"],
    sheet: str | None,
    calibration: bool,
    device: str | None,
    device_map: str | None,
    api: dict[str, Any],
    **options: Any,
) -> None:
    """Judge new items: a distribution over the labels for every row of a file, and numbers that follow from it.

    \b
        distjudge-trl judge --model runs/vader-distribution --input items.jsonl --out judged.jsonl
        distjudge-trl judge --model me/my-judge --input items.csv --out judged.parquet --columns label,mean

    The file may be of any size: it is read as a stream. If the run is killed, the same command goes on where it
    stopped. Until all rows are judged, finished ones are kept in the folder OUT.part.

    \b
    Several GPUs share the rows:
        accelerate launch --multi_gpu --num_processes 4 -m distjudge_trl judge --model ... --input ... --out ...
    """
    from collections import Counter

    from distjudge_trl.data.encodings import check_encoding
    from distjudge_trl.data.question_template import read_template
    from distjudge_trl.data.reading import Reading, check_delimiter
    from distjudge_trl.judge_folder.fingerprint import fingerprint_of
    from distjudge_trl.judge_folder.judge_file import JudgeFile
    from distjudge_trl.judges import Judge
    from distjudge_trl.judges.api.judge import ApiJudge
    from distjudge_trl.judges.api.options import READ_BY
    from distjudge_trl.judges.base import PromptJudge
    from distjudge_trl.judges.files import judge_file
    from distjudge_trl.judges.loading import find_judge
    from distjudge_trl.judges.opening import open_judge
    from distjudge_trl.judges.ranks import Ranks
    from distjudge_trl.judges.work import JudgingOptions, KnownJudge
    from distjudge_trl.report.tables import extraction_lines
    from distjudge_trl.runtime.logs import quieten
    from distjudge_trl.tasks import get_task

    quieten()

    judging = {name: options.pop(name) for name in ("columns", "risk", "on_error", "swap_fields", "swap_labels")}
    judging |= {name: options.pop(name) for name in ("overwrite", "batch_size")}
    server = make_api_options(model, api)
    task = get_task(task_name) if task_name is not None else None
    loaded: list[PromptJudge] = []

    def load(ranks: Ranks) -> Judge:
        if ranks.device is not None and (device or device_map):
            raise UserInputError("--device and --device-map: several processes are launched, each on its own device.")
        if ranks.count > 1 and server is not None:
            raise UserInputError(f"{model}: one process sends all requests; --concurrency says how many at once.")
        judge = open_judge(
            model,
            label_space=task.label_space() if task is not None else None,
            template=task.template if task is not None else None,
            api=server,
            max_length=max_length,
            truncation=truncate,
            device=ranks.device or device,
            device_map=device_map,
            calibrated=calibration,
            **options,
        )
        loaded.append(judge)
        return cast("Judge", judge)

    def find() -> KnownJudge:
        found = find_judge(model, server.judge_file if server is not None else None)
        if task is not None:
            if found.file is not None:
                raise UserInputError("--task: is for a model without judge.json; this judge has labels and a prompt.")
            made_from = json.dumps(
                [fingerprint_of(found.folder), task.label_space().to_dict(), task.template.messages]
            )
            return KnownJudge(task.label_space(), task.template, hashlib.sha256(made_from.encode()).hexdigest())
        if server is not None and found.file is None:
            raise UserInputError(
                f"{model}: its labels are not known. Give --task, or --judge-file with a judge's folder."
            )
        file = found.file or JudgeFile.read(found.folder)  # raises an error that says what is missing
        is_calibrated = calibration and file.calibration is not None
        if is_calibrated and server is not None and not server.takes_calibration:
            click.echo(
                "The judge's calibration was fitted on label tokens: sampled answers stay as they are.", err=True
            )
            is_calibrated = False
        template = read_template(file.template) if file.template is not None else None
        return KnownJudge(
            file.make_label_space(),
            template,
            fingerprint_of(found.folder),
            file.make_calibration() if is_calibrated else None,
        )

    if swap is None and (judging["swap_fields"] or judging["swap_labels"]):
        raise UserInputError("--swap-fields and --swap-labels go with --swap average.")
    if delimiter is not None:
        try:
            check_delimiter(delimiter)
        except ValueError as error:
            raise UserInputError(f"--delimiter {error}.") from None
    if encoding is not None:
        try:
            encoding = check_encoding(encoding)
        except ValueError as error:
            raise UserInputError(f"--encoding: {error}.") from None
    form = Reading(delimiter, encoding, quoting, sheet, header, items, by_options=True)
    notes: Counter[str] = Counter()
    settings: dict[str, Any] = {
        "--max-length": max_length,
        "--truncate": truncate,
        "--no-calibration": not calibration,
    }
    settings |= {f"--{name}": options[name] for name in ("dtype", "autocast")}
    if server is not None:
        asked = asdict(server)
        settings |= {f"--{name.replace('_', '-')}": asked[name] for name in READ_BY}
        settings |= {"--model": model, "--base-url": server.address}
    done = judge_file(
        load,
        input_path,
        output_path,
        JudgingOptions(swap=swap is not None, settings=settings, **judging),
        reading=form,
        find_judge=find,
        notes=notes,
        say=lambda line: click.echo(line, err=True),
    )
    if os.environ.get("RANK", "0") != "0":
        return
    for note, number in notes.items():
        click.echo(f"{note}: {number:,}")
    for line in done.lines():
        click.echo(line)
    for judge in loaded:
        for line in extraction_lines(judge.findings()):
            click.echo(line)
        if isinstance(judge, ApiJudge):
            click.echo(judge.usage_line())
    click.echo(f"{done.rows} items judged: {output_path}")


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
    from distjudge_trl.runtime.logs import quieten

    quieten()  # before PEFT imports bitsandbytes, which writes a message
    from distjudge_trl.judges.merge import merge as merge_judge

    folder = merge_judge(model, out, dtype=dtype, trust_remote_code=trust_remote_code)
    click.echo(f"Merged: {folder}")
