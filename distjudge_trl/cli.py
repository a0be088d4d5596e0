"""The command line. Thin: every command calls a module above; heavy imports wait until a command needs them."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from distjudge_trl.errors import RunFailedError, UserInputError, exit_code, full_disk, memory_exhausted, writing
from distjudge_trl.sweep.cli import sweep


if TYPE_CHECKING:
    from distjudge_trl.tasks import JudgmentTask


class _Group(click.Group):
    """Errors that are the user's to mend become one line on stderr and exit code 2, runs that failed exit code 1."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (UserInputError, RunFailedError) as error:
            click.echo(f"error: {error}", err=True)
            raise SystemExit(exit_code(error)) from None
        except (RuntimeError, OSError) as error:
            reason = full_disk(error) if isinstance(error, OSError) else memory_exhausted(error)
            if reason is None:
                raise
            click.echo(f"error: {reason}", err=True)
            raise SystemExit(1) from None


_BATCH_SIZE = click.option(
    "--batch-size", default=32, show_default=True, type=click.IntRange(min=1), help="Prompts per forward."
)
# As recipes take them: --use_peft, --use_peft True.
_SWITCH: dict[str, Any] = {
    "is_flag": False,
    "flag_value": "True",
    "default": "False",
    "type": bool,
    "metavar": "[BOOL]",
}
_DATA_PATH = click.option(
    "--data-path", "--data_path", help="Official file, archive or folder. Default: downloaded once."
)


_TRUST_REMOTE_CODE = click.option(
    "--trust-remote-code",
    "--trust_remote_code",
    is_flag=True,
    help="Run the code of the model's repository, which some models need.",
)


def _reading_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Where and in which type a command reads a judge's model."""
    options = (
        click.option(
            "--device", help="Such as cuda:1 or cpu. Default: the GPU (or other accelerator), if there is one."
        ),
        click.option(
            "--device-map",
            "--device_map",
            metavar="NAME",
            help="In place of --device, as in transformers: `auto` spreads a model over all GPUs and host memory.",
        ),
        click.option(
            "--dtype",
            type=click.Choice(["float32", "bfloat16", "float16"]),
            help="Of the weights. Default: as trained, where the device has it; an untrained model: bfloat16 on a GPU"
            " (float16 where that is emulated, float32 where both are), float32 on the CPU.",
        ),
        click.option(
            "--autocast",
            type=click.Choice(["none", "bfloat16", "float16"]),
            help="What it computes in. Default: as trained, where the device has it; an untrained model: none.",
        ),
        _TRUST_REMOTE_CODE,
    )
    for option in reversed(options):
        command = option(command)
    return command


def _echo_options(task: JudgmentTask, note: str = "") -> None:
    """What a task can be asked for when its records are built."""
    from distjudge_trl.recipe import make_option_parser

    click.echo(f"\nOptions of {task.name}{note}:\n")
    click.echo(make_option_parser(task).format_help().partition("\n\n")[2])


# Of tokens by tokens, which a plan's tensors without storage still have to count.
_MOST_ATTENTION = 2**55


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="distjudge-trl")
def main() -> None:
    """Fine-tune LLM judges whose distribution over the answers matches how humans disagree.

    \b
    A first run, on the CPU and without a hub:
        distjudge-trl train vader --max_train_samples 500 --max_eval_samples 200
        distjudge-trl judge --model runs/vader-distribution --input items.jsonl --out judged.jsonl
    """


@main.command()
def tasks() -> None:
    """List the tasks: what is judged, with which labels, by how many people."""
    from distjudge_trl.tasks import get_task, list_tasks

    for name in list_tasks():
        task = get_task(name)
        kind = "ordinal" if task.ordinal else "nominal"
        click.echo(f"{name}\n    {task.description}; {task.size}.\n    Labels ({kind}): {', '.join(task.labels)}")


@main.command(context_settings={"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []})
@click.argument("task_name", metavar="TASK", required=False)
@_DATA_PATH
@click.option("--stats", is_flag=True, help="Labels, annotators, entropy, agreement, noise floor, splits, lengths.")
@click.option("--show", type=click.IntRange(min=1), metavar="N", help="Print N rendered prompts with their votes.")
@click.option("--out", metavar="FILE", help="Write the records as Parquet.")
@click.option("--model", help="With --stats and --show: whose tokenizer and chat template to use.")
@click.option(
    "--max-length",
    "--max_length",
    type=click.IntRange(min=1),
    help="With --stats --model: limit in tokens. Default: the model's.",
)
@click.option(
    "--split",
    type=click.Choice(["group", "paper"]),
    default="group",
    show_default=True,
    help="With --stats: see train.",
)
@click.option("--split-seed", "--split_seed", type=int, default=0, show_default=True, help="With --stats: see train.")
@click.option("--prompt-template", "--prompt_template", help="Jinja file that replaces the task's prompt.")
@_TRUST_REMOTE_CODE
@click.option("-h", "--help", "help_", is_flag=True, help="This text, and the options of TASK.")
@click.pass_context
def data(
    ctx: click.Context,
    task_name: str | None,
    data_path: str | None,
    stats: bool,
    show: int | None,
    out: str | None,
    model: str | None,
    max_length: int | None,
    split: str,
    split_seed: int,
    prompt_template: str | None,
    trust_remote_code: bool,
    help_: bool,
) -> None:
    """Build, check and show a task's records.

    \b
    TASK is a name of `distjudge-trl tasks` or a .yaml file that defines your own:
        distjudge-trl data snli --stats --model smollm2-135m
        distjudge-trl data task.yaml --data_path ratings.csv --show 3
        distjudge-trl data summeval --annotators expert --out records.parquet
    """
    from distjudge_trl.recipe import parse_task_options

    if task_name is None:
        click.echo(ctx.get_help())
        if not help_:
            raise UserInputError("Which task? See `distjudge-trl tasks`.")
        return
    if task_name.startswith("-"):
        raise UserInputError(f"The task comes first: distjudge-trl data TASK {task_name} ...")
    from distjudge_trl.tasks import LoadReport, get_task

    task = get_task(task_name)
    if help_:
        click.echo(ctx.get_help())
        _echo_options(task, ", which its recipe takes, too")
        return
    options = parse_task_options(task, ctx.args)
    from distjudge_trl.data.template import PromptTemplate
    from distjudge_trl.report import doctor

    inputs = [name for name in (data_path, task_name) if name is not None]
    if out is not None:
        doctor.check_output(out, inputs)
    template = PromptTemplate.from_file(prompt_template) if prompt_template is not None else None
    report = LoadReport()
    items = list(task.draw(task.items(data_path, options, report=report), options, report=report))
    records = task.records(items, options, template=template, report=report)
    console = doctor.make_console()
    doctor.print_summary(console, task, records, report)
    if out is not None:
        doctor.check_output(out, report.files)
        doctor.write_records(out, records, task, report)
        console.print(f"  written to {out}", markup=False, soft_wrap=True)
    if stats:
        doctor.print_statistics(console, task, items)
        doctor.print_splits(console, records, split, split_seed)
        if model is not None:
            doctor.print_model_view(console, task, records, model, max_length, trust_remote_code=trust_remote_code)
        else:
            doctor.print_lengths(console, records)
    if show is not None:
        doctor.print_examples(console, task, records, show, model, trust_remote_code=trust_remote_code)


@main.command()
def recipes() -> None:
    """List the recipes: scripts that train and evaluate a judge on a task, with the grid that a sweep tries."""
    import ast
    import runpy

    from distjudge_trl.shipped import list_shipped, shipped_folder

    for name in list_shipped("recipes", ".py"):
        path = shipped_folder("recipes") / f"{name}.py"
        summary = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split("\n")[0]
        click.echo(f"{name}\n    {summary}\n    {path}")
        for parameter, values in runpy.run_path(str(path))["RECIPE"].grid.items():
            click.echo(f"    {parameter}: {', '.join(map(str, values))}")


@main.command(context_settings={"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []})
@click.argument("recipe")
@click.option(
    "--accelerate-config", "--accelerate_config", default=None, help="Shipped name (see accelerate_configs/) or path."
)
@click.option(
    "--num-processes",
    "--num_processes",
    type=click.IntRange(min=1),
    help="With --accelerate-config: how many. Default: as it says; those for GPUs take all of the machine's.",
)
@click.option("--dry-run", is_flag=True, help="Print the launch line and stop.")
@click.pass_context
def train(
    ctx: click.Context, recipe: str, accelerate_config: str | None, num_processes: int | None, dry_run: bool
) -> None:
    """Train and evaluate a judge: build a recipe's launch line, print it and run it.

    \b
    Without --accelerate-config one plain process runs; with it, accelerate launches the recipe:
        distjudge-trl train vader --accelerate-config zero2 --num-processes 2 --use_peft --learning_rate 2e-4
    RECIPE is a recipe's name or path, or a .yaml file that defines a task of your own (recipes/custom.py trains it).
    Everything else goes to the recipe; `distjudge-trl train vader --help` shows its options.
    """
    from distjudge_trl.launch import check_launch
    from distjudge_trl.recipe import CHECK_ONLY
    from distjudge_trl.shipped import find_shipped

    if recipe in ("--help", "-h"):
        click.echo(ctx.get_help())
        return
    if recipe.startswith("-"):
        raise UserInputError(f"The recipe comes first: distjudge-trl train RECIPE {recipe} ...")
    arguments = list(ctx.args)
    if recipe.endswith((".yaml", ".yml")):
        arguments = ["--task", recipe, *arguments]
        recipe = "custom"
    script = find_shipped(recipe, "recipes", ".py", "recipe")
    command = [sys.executable, str(script)]
    if accelerate_config is not None:
        config = find_shipped(accelerate_config, "accelerate_configs", ".yaml", "accelerate config")
        command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(config)]
        command += ["--num_processes", str(num_processes)] if num_processes is not None else []
        command.append(str(script))
    elif num_processes is not None:
        raise UserInputError("--num-processes goes with --accelerate-config.")
    command += arguments
    click.echo(shlex.join(command), err=True)
    if dry_run:
        return
    # DeepSpeed looks for ninja on the path, where an environment that is not activated is missing.
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))
    environment = {**os.environ, "PATH": path}
    if accelerate_config is not None:
        # accelerate turns a child's exit code 2 into a traceback and a 1: try the options in a plain process first.
        check = [sys.executable, str(script), *arguments]
        code = subprocess.run(check, check=False, env={**environment, CHECK_ONLY: "1"}).returncode
        if code or {"-h", "--help"} & set(ctx.args):
            raise SystemExit(code)
        check_launch(config, num_processes)
    sys.stdout.flush()
    # In place of this process, so that signals reach the training.
    os.execve(command[0], command, environment)


@main.command()
@click.option("--model", required=True, help="Folder of a trained judge, or a hub id of one.")
@click.option(
    "--input",
    "input_path",
    required=True,
    help="JSONL, CSV or Parquet: in every row a `prompt` (a list of messages) or the template's fields.",
)
@click.option(
    "--out", "output_path", required=True, help="JSONL to write: the input's lines plus `label_distribution`."
)
@_BATCH_SIZE
@click.option(
    "--max-length",
    "--max_length",
    type=click.IntRange(min=1),
    help="Longest prompt in tokens. Default: as in training.",
)
@click.option(
    "--truncate",
    type=click.Choice(["middle", "end", "error"]),
    help="What goes of the longest fields of an item that is too long; `error` stops. Default: as in training.",
)
@_reading_options
def judge(
    model: str,
    input_path: str,
    output_path: str,
    batch_size: int,
    max_length: int | None,
    truncate: Literal["middle", "end", "error"] | None,
    **reading: Any,
) -> None:
    """Judge new items: a distribution over the labels for every line of a JSONL file."""
    from distjudge_trl.judges import Judge
    from distjudge_trl.judges.files import judge_jsonl
    from distjudge_trl.logs import quieten

    quieten()

    def load() -> Judge:
        return Judge.from_pretrained(model, max_length=max_length, truncation=truncate, **reading)

    count = judge_jsonl(load, input_path, output_path, batch_size=batch_size)
    click.echo(f"{count} items judged: {output_path}")


@main.command()
@click.option("--model", required=True, help="Folder or hub id of a judge with a LoRA or QLoRA adapter.")
@click.option("--out", required=True, help="Folder to make for the full model.")
@click.option(
    "--dtype",
    type=click.Choice(["float32", "bfloat16", "float16"]),
    help="Of the merged weights. Default: as the base model in training.",
)
@_TRUST_REMOTE_CODE
def merge(model: str, out: str, dtype: str | None, trust_remote_code: bool) -> None:
    """Fold an adapter into its base model: a judge that plain transformers, vLLM or llama.cpp loads.

    \b
        distjudge-trl merge --model runs/summeval-distribution --out runs/summeval-merged
        hf upload me/summeval-judge runs/summeval-merged
    Quantised base weights are dequantised first, so that the merged judge reads as the adapter did.
    """
    from distjudge_trl.judges.merge import merge as merge_judge
    from distjudge_trl.logs import quieten

    quieten()

    folder = merge_judge(model, out, dtype=dtype, trust_remote_code=trust_remote_code)
    click.echo(f"Merged: {folder}")


@main.command(context_settings={"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []})
@click.option("--model", help="Folder or hub id of a judge; or an untrained model: its name, hub id or path.")
@click.option("--task", "task_name", help="Name of a task, or a .yaml file that defines your own.")
@_DATA_PATH
@click.option("--out", metavar="PATH", help="Folder (or NAME.json) for the results and the items' distributions.")
@click.option(
    "--split",
    type=click.Choice(["group", "paper", "all"]),
    help="Test side of which split, or all items. Default: as in training; all items of another task; group.",
)
@click.option("--split-seed", "--split_seed", type=int, help="Default: as in training, else 0.")
@click.option(
    "--leave-out",
    multiple=True,
    metavar="JUDGE",
    help="Leave out what this judge has seen, too: several judges on the same items. May be given again.",
)
@click.option(
    "--max-eval-samples", "--max_eval_samples", type=click.IntRange(min=1), help="Test on at most this many items."
)
@click.option(
    "--extraction",
    type=click.Choice(["full", "top5"]),
    default="full",
    show_default=True,
    help="All label tokens, or those among the five likeliest tokens (the paper; floor 1e-6).",
)
@click.option(
    "--calibrated",
    is_flag=True,
    help="Score temperature and vector scaling, too, fitted on held-out training items. Untrained models: always.",
)
@click.option("--robustness", is_flag=True, help="Print the KL against randomly moved targets, too (Table 3).")
@click.option("--prompt-template", "--prompt_template", help="Jinja file that replaces the prompt.")
@click.option(
    "--max-length", "--max_length", type=click.IntRange(min=1), help="Longest prompt in tokens. Default: as trained."
)
@click.option(
    "--truncate", type=click.Choice(["middle", "end", "error"]), help="What goes of an item that is too long."
)
@click.option(
    "--share-prefixes/--no-share-prefixes",
    default=None,
    help="Compute common beginnings of a batch's prompts once. Default: where the model can and a batch gains by it.",
)
@_BATCH_SIZE
@click.option(
    "--seed",
    default=0,
    show_default=True,
    type=click.IntRange(min=0),
    help="Of bootstrap, noise floor and perturbations.",
)
@_reading_options
@click.option("-h", "--help", "help_", is_flag=True, help="This text, and the options of TASK.")
@click.pass_context
def evaluate(
    ctx: click.Context,
    model: str | None,
    task_name: str | None,
    out: str | None,
    truncate: Literal["middle", "end", "error"] | None,
    robustness: bool,
    help_: bool,
    **options: Any,
) -> None:
    """Score a judge on items that it has not seen, beside baselines, noise floor and human ceiling.

    \b
    A trained judge on its own test items, and on another task with the same labels:
        distjudge-trl evaluate --model runs/snli-distribution --task snli --out runs/snli-again
        distjudge-trl evaluate --model runs/snli-distribution --task chaosnli --out runs/snli-to-chaosnli
    The untrained baselines alone (raw, raw with temperature and vector scaling, uniform, training prior, majority):
        distjudge-trl evaluate --model smollm2-135m --task vader --out runs/vader-raw
    """
    from distjudge_trl.tasks import get_task

    if help_:
        click.echo(ctx.get_help())
        if task_name is not None:
            _echo_options(get_task(task_name))
        return
    if model is None or task_name is None:
        raise UserInputError("Which judge and which items? Give --model and --task; see --help.")
    task = get_task(task_name)
    from distjudge_trl.evaluation.results import check_results_path, results_file, write_results
    from distjudge_trl.evaluation.run import EvaluationOptions, evaluate_judge
    from distjudge_trl.judges.local import find_judge
    from distjudge_trl.logs import quieten
    from distjudge_trl.recipe import parse_task_options
    from distjudge_trl.report.tables import results_table, robustness_table

    quieten()

    if out is not None:
        check_results_path(out, judge=model)
    if options["share_prefixes"] is None:
        options["share_prefixes"] = "auto"
    found = find_judge(model)
    defaults = found.file.data.get("options") if found.file is not None and found.file.task == task.name else None
    task_options = parse_task_options(task, ctx.args, defaults)
    results, records, log_q, report = evaluate_judge(
        found, task, task_options, EvaluationOptions(truncation=truncate, **options), progress=True
    )
    if out is not None:
        with writing(results_file(out)):
            write_results(out, results, records, log_q)
    click.echo(f"{task.name}: {'; '.join(report.lines())}\n")
    click.echo(results_table([results], variants=True))
    if robustness:
        click.echo("\nKL against targets moved at random by delta (mean over draws):\n")
        click.echo(robustness_table([results], variants=True))
    if out is not None:
        click.echo(f"\nResults: {out}")


@main.command()
@click.argument("runs", nargs=-1, required=True)
@click.option("--out", required=True, metavar="DIR", help="Folder for the page, tables and figures.")
@click.option(
    "--max-items",
    default=2000,
    show_default=True,
    type=click.IntRange(min=0),
    help="Test items a task in the page's browser, drawn by a hash of their ids.",
)
@click.option("--title", default="distjudge-trl report", show_default=True, help="Of the page.")
def report(runs: tuple[str, ...], out: str, max_items: int, title: str) -> None:
    """The paper's tables and figures from result files, and a page to look through the items.

    RUNS are folders with results.json, or folders of such, or result files. Writes index.html (one file, no network),
    report.md, and every table as Markdown and CSV and every figure as PNG.

    \b
        distjudge-trl report runs --out report
    """
    from distjudge_trl.report.build import build_report

    for line in build_report(runs, out, max_items=max_items, title=title):
        click.echo(line)


@main.command()
@click.option("--model", required=True, help="Hub id, folder, config.json, or a shape known offline (see below).")
@click.option(
    "--accelerate-config",
    "--accelerate_config",
    default="single_gpu",
    show_default=True,
    help="Shipped name or path.",
)
@click.option(
    "--gpus",
    "--num-processes",
    "--num_processes",
    "gpus",
    type=click.IntRange(min=1),
    help="Of all machines together. Default: as the config says; `gpu` there stands for all of this machine's.",
)
@click.option(
    "--gpu-memory", "--gpu_memory", help="Of one GPU, such as 40GiB or 80GB. Default: this machine's, if it has one."
)
@click.option(
    "--seq-len",
    "--seq_len",
    "--max_length",
    "seq_len",
    default=1024,
    show_default=True,
    type=click.IntRange(min=1),
    help="Tokens of the longest row: the others are padded to it.",
)
@click.option(
    "--batch-size",
    "--batch_size",
    "--per_device_train_batch_size",
    "batch_size",
    default=8,
    show_default=True,
    type=click.IntRange(min=1),
    help="Rows per device and forward.",
)
@click.option("--gradient_accumulation_steps", default=1, show_default=True, type=click.IntRange(min=1))
@click.option(
    "--gradient_checkpointing",
    default=True,
    show_default=True,
    type=bool,
    help="Compute activations again in the backward.",
)
@click.option("--use_peft", **_SWITCH, help="LoRA on all linear layers in place of all weights.")
@click.option("--lora_r", default=16, show_default=True, type=click.IntRange(min=1), help="Rank of the adapter.")
@click.option("--load_in_4bit", **_SWITCH, help="QLoRA: 4-bit base weights (--use_peft is implied).")
@click.option("--load_in_8bit", **_SWITCH, help="8-bit base weights (--use_peft is implied).")
@click.option(
    "--dtype",
    type=click.Choice(["float32", "bfloat16", "float16"]),
    help="Of the loaded weights. Default, as in recipes: float32 to train all of them, half precision under adapters.",
)
@click.option(
    "--bf16",
    type=bool,
    metavar="[BOOL]",
    help="Mixed precision (float16 takes as much). Default: yes; for a CPU as it is on this one.",
)
@_TRUST_REMOTE_CODE
def plan(
    model: str,
    accelerate_config: str,
    gpus: int | None,
    gpu_memory: str | None,
    seq_len: int,
    batch_size: int,
    use_peft: bool,
    lora_r: int,
    load_in_4bit: bool,
    load_in_8bit: bool,
    dtype: Literal["float32", "bfloat16", "float16"] | None,
    bf16: bool | None,
    trust_remote_code: bool,
    **options: Any,
) -> None:
    """Estimate what a training run needs per GPU, from the model's config alone, and what would make it fit.

    \b
        distjudge-trl plan --model Qwen/Qwen2.5-7B --accelerate-config zero2 --gpus 1 --gpu-memory 40GiB
        distjudge-trl plan --model meta-llama/Llama-3.1-70B --accelerate-config zero3 --gpus 8 --load_in_4bit

    No weights are loaded. Known without a network: Qwen/Qwen2.5-7B, meta-llama/Llama-3.1-8B, meta-llama/Llama-3.1-70B,
    smollm2-135m. AdamW is assumed. Exit code 0: it fits, or no memory is known; 1: it does not fit.
    """
    from functools import cache

    from distjudge_trl.planning import estimate, find_changes, load_config, measure_footprint, read_sharding
    from distjudge_trl.planning.memory import Training, describe, local_memory, parse_memory
    from distjudge_trl.planning.report import describe_changes, describe_run, plan_table
    from distjudge_trl.precision import decide_precision
    from distjudge_trl.shipped import find_shipped

    if load_in_4bit and load_in_8bit:
        raise UserInputError("--load_in_4bit and --load_in_8bit: give one of them.")
    memory = parse_memory(gpu_memory) if gpu_memory is not None else local_memory()
    path = find_shipped(accelerate_config, "accelerate_configs", ".yaml", "accelerate config")
    sharding = read_sharding(path, gpus)
    if bf16 is None:
        bf16 = sharding.device == "gpu" or decide_precision(use_cpu=True).bf16
    bits: Literal[4, 8, 16] = 4 if load_in_4bit else 8 if load_in_8bit else 16
    adapter = use_peft or bits < 16
    if batch_size * seq_len**2 > _MOST_ATTENTION:
        raise UserInputError(f"--seq-len {seq_len} with --batch-size {batch_size} is more than any device holds.")
    training = Training(
        seq_len,
        batch_size,
        lora_r=lora_r if adapter else 0,
        bits=bits,
        dtype=dtype or ("bfloat16" if adapter and bf16 else "float32"),
        bf16=bf16,
        cast=sharding.casts,
        **options,
    )
    config = load_config(model, trust_remote_code=trust_remote_code)
    footprint = cache(lambda settings: measure_footprint(config, settings, trust_remote_code=trust_remote_code))
    result = estimate(footprint(training), training, sharding)
    click.echo(describe_run(model, footprint(training).sizes, training, sharding) + "\n")
    click.echo(plan_table(result) + "\n")
    if result.host:
        click.echo(f"Host memory, of all devices together: {describe(result.host)}.")
    if result.loading:
        click.echo(
            f"Host memory while the model is loaded, of all devices together: {describe(result.loading)} (every"
            f" process loads all of it, in {training.dtype})."
        )
    if sharding.devices > 1:
        click.echo(f"Each device sends {describe(result.sent)} per optimizer step.")
    if memory is None:
        click.echo(f"Needs {describe(result.peak)} per device. Give --gpu-memory to see whether it fits.")
        return
    if result.peak <= memory:
        click.echo(f"Fits: {describe(result.peak)} of {describe(memory)} per device.")
        return
    click.echo(f"Does not fit: {describe(result.peak)} of {describe(memory)} per device.")
    for line in describe_changes(find_changes(training, sharding, memory, footprint), memory):
        click.echo(line)
    raise SystemExit(1)


main.add_command(sweep)


@main.command()
def env() -> None:
    """Versions, devices and what is missing for which feature; paste it into bug reports."""
    from distjudge_trl.environment import describe_environment

    click.echo(describe_environment())


if __name__ == "__main__":
    main()
