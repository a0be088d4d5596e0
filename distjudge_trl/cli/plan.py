"""`distjudge-trl plan`: the memory that a training run needs."""

from __future__ import annotations

import shlex
from typing import Any, Literal

import click

from distjudge_trl.cli.options import SWITCH, TRUST_REMOTE_CODE
from distjudge_trl.errors import UserInputError


# Of tokens by tokens, which a plan's tensors without storage still have to count.
_MOST_ATTENTION = 2**55


@click.command(
    short_help="Estimate the memory of a training run.",
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    options_metavar="[RECIPE] [OPTIONS]",
)
@click.argument("recipe", required=False, metavar="")
@click.option(
    "--model",
    "--model_name_or_path",
    "model",
    help="The model: hub id, folder, config.json, or a shape known offline (see below). Default: that of RECIPE.",
)
@click.option(
    "--accelerate-config",
    default="single_gpu",
    show_default=True,
    help="Accelerate config of the run: a shipped name or a path.",
)
@click.option(
    "--gpus",
    "--num-processes",
    "gpus",
    type=click.IntRange(min=1),
    help="Number of GPUs of all machines together. Default: what the config says; `gpu` means all GPUs of this"
    " machine.",
)
@click.option("--gpu-memory", help="Memory of one GPU, such as 40GiB or 80GB. Default: that of this machine's GPU.")
@click.option(
    "--seq-len",
    "--max_length",
    "seq_len",
    default=1024,
    show_default=True,
    type=click.IntRange(min=1),
    help="Tokens of the longest row. The others are padded to it.",
)
@click.option(
    "--batch-size",
    "--per_device_train_batch_size",
    "batch_size",
    default=8,
    show_default=True,
    type=click.IntRange(min=1),
    help="Rows per device and forward pass.",
)
@click.option(
    "--gradient_accumulation_steps",
    default=1,
    show_default=True,
    type=click.IntRange(min=1),
    help="Forward passes per optimizer step.",
)
@click.option(
    "--gradient_checkpointing",
    **{**SWITCH, "default": True},
    show_default=True,
    help="Recompute activations in the backward pass.",
)
@click.option("--use_peft", **SWITCH, help="Train LoRA on all linear layers instead of all weights.")
@click.option("--lora_r", default=16, show_default=True, type=click.IntRange(min=1), help="Rank of the adapter.")
@click.option("--load_in_4bit", **SWITCH, help="QLoRA: 4-bit base weights (--use_peft is implied).")
@click.option("--load_in_8bit", **SWITCH, help="8-bit base weights (--use_peft is implied).")
@click.option(
    "--dtype",
    type=click.Choice(["float32", "bfloat16", "float16"]),
    help="Type of the loaded weights. Default, as in recipes: float32 for full training, half precision under"
    " adapters.",
)
@click.option(
    "--bf16",
    type=bool,
    metavar="[BOOL]",
    help="Use mixed precision (float16 takes as much memory). Default: yes; on a CPU, what this CPU does.",
)
@TRUST_REMOTE_CODE
@click.pass_context
def plan(ctx: click.Context, recipe: str | None, **options: Any) -> None:
    """Estimate what a training run needs per GPU, from the model's config alone, and what would make it fit.

    \b
        distjudge-trl plan summeval --accelerate-config zero2 --gpus 4 --gpu-memory 40GiB
        distjudge-trl plan --model meta-llama/Llama-3.1-70B --accelerate-config zero3 --gpus 8 --load_in_4bit

    With RECIPE (a name, a path, or the .yaml file of your own task) the model, --max_length, the batch size and the
    adapter are the recipe's, unless you give others. RECIPE comes first, and the options of `distjudge-trl train
    RECIPE` are accepted, too.

    No weights are loaded. Known without a network: Qwen/Qwen2.5-7B, meta-llama/Llama-3.1-8B,
    meta-llama/Llama-3.1-70B, smollm2-135m. AdamW is assumed. Exit code 0: it fits, or no memory is known; 1: it does
    not fit.
    """
    launch = ["RECIPE"]
    if recipe is not None and not recipe.startswith("-"):
        launch = [recipe]
        if ctx.get_parameter_source("model") is click.core.ParameterSource.COMMANDLINE:
            launch += ["--model_name_or_path", options["model"]]
        options |= _recipe_options(recipe, options, ctx)
    elif unknown := [word for word in (recipe or "", *ctx.args) if word.startswith("-")]:
        raise click.NoSuchOption(unknown[0], ctx=ctx)
    if options["model"] is None:
        raise UserInputError("Plan for what? Give a recipe, or --model.")
    for parameter in ctx.command.params:
        # A recipe's values have not been checked by this command.
        if parameter.name in options and options[parameter.name] is not None:
            try:
                parameter.type.convert(options[parameter.name], parameter, ctx)
            except click.BadParameter as error:
                raise UserInputError(f"{parameter.opts[0]}: {error.message}") from None
    _plan(**options, launch=shlex.join(launch))


# Options of this command that a recipe calls otherwise.
_RECIPE_NAMES = {"model": "model_name_or_path", "seq_len": "max_length", "batch_size": "per_device_train_batch_size"}
_MODEL_OPTIONS = ("model", "use_peft", "lora_r", "load_in_4bit", "load_in_8bit")
_TRAINING_OPTIONS = ("seq_len", "batch_size", "gradient_accumulation_steps", "gradient_checkpointing")


def _recipe_options(recipe: str, options: dict[str, Any], ctx: click.Context) -> dict[str, Any]:
    """This command's options with the values that a recipe has for them, given its own and this command's options."""
    from distjudge_trl.files.shipped_files import find_shipped
    from distjudge_trl.recipe.loading import load_recipe
    from distjudge_trl.runtime.logs import quieten

    quieten()
    words = list(ctx.args)
    if recipe.endswith((".yaml", ".yml")):
        recipe, words = "custom", ["--task", recipe, *words]
    shared = {name: _RECIPE_NAMES.get(name, name) for name in (*_MODEL_OPTIONS, *_TRAINING_OPTIONS)}
    given = [name for name in shared if ctx.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE]
    words += [f"--{shared[name]}={options[name]}" for name in given]
    definition = load_recipe(find_shipped(recipe, "recipes", ".py", "recipe"))
    run = definition.parse(words)
    if run.recipe.method == "raw":
        raise UserInputError("--method raw trains nothing.")
    if run.training.max_length is None:
        raise UserInputError("The recipe sets no max_length: give --max_length.")
    optimizer = getattr(run.training.optim, "value", run.training.optim)
    if "adamw" not in str(optimizer):
        click.echo(f"note: AdamW is assumed, not {optimizer}.", err=True)
    # Types are those of the GPUs that are planned for, not of this machine, unless the recipe names them.
    fixed = definition.given(words)
    found = {}
    if "dtype" in fixed and options["dtype"] is None:
        found["dtype"] = fixed["dtype"]
    if ("bf16" in fixed or "fp16" in fixed) and options["bf16"] is None:
        found["bf16"] = bool(fixed.get("bf16") or fixed.get("fp16"))
    return {
        **{name: getattr(run.model, shared[name]) for name in _MODEL_OPTIONS},
        **{name: getattr(run.training, shared[name]) for name in _TRAINING_OPTIONS},
        **found,
    }


def _plan(
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
    launch: str,
    **training_options: Any,
) -> None:
    from distjudge_trl.files.shipped_files import find_shipped
    from distjudge_trl.modeling.kinds import check_quantization, quantization_of, quantized_bits
    from distjudge_trl.planning import load_config, read_sharding
    from distjudge_trl.planning.memory import local_memory, parse_memory
    from distjudge_trl.planning.report import describe_plan
    from distjudge_trl.planning.training import Training
    from distjudge_trl.runtime.precision import decide_precision

    if load_in_4bit and load_in_8bit:
        raise UserInputError("--load_in_4bit and --load_in_8bit: give one of them.")
    config = load_config(model, trust_remote_code=trust_remote_code)
    asked: Literal[4, 8] | None = 4 if load_in_4bit else 8 if load_in_8bit else None
    trains: Literal["weights", "adapter"] = "adapter" if use_peft or asked else "weights"
    check_quantization(f"--model {model}", config, trains=trains, bits=asked, here=False)
    stored = quantized_bits(config)
    if quantization_of(config) is not None and stored is None:
        raise UserInputError(
            f"--model {model} is quantised ({quantization_of(config)}), and its size is not known here: name the model"
            " that is not quantised, with --load_in_4bit."
        )
    memory = parse_memory(gpu_memory) if gpu_memory is not None else local_memory()
    path = find_shipped(accelerate_config, "accelerate_configs", ".yaml", "accelerate config")
    sharding = read_sharding(path, gpus)
    if bf16 is None:
        bf16 = sharding.device == "gpu" or decide_precision(use_cpu=True).bf16
    bits: Literal[4, 8, 16] = asked or stored or 16
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
        **training_options,
    )
    lines, fits = describe_plan(
        model, config, training, sharding, memory, launch=launch, trust_remote_code=trust_remote_code
    )
    click.echo("\n".join(lines))
    if not fits:
        raise SystemExit(1)
