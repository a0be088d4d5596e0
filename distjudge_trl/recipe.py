"""A recipe: a task, training defaults and a search grid; and the one `main` that every recipe script calls."""

from __future__ import annotations

import difflib
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, NoReturn

from distjudge_trl.errors import UserInputError, first_line


if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import HfArgumentParser
    from trl import ModelConfig, TrlParser

    from distjudge_trl.batching import PromptFitter
    from distjudge_trl.data.template import PromptTemplate
    from distjudge_trl.tasks import Item, JudgmentTask, LoadReport, TaskOptions
    from distjudge_trl.trainer import DistributionSFTConfig, DistributionSFTTrainer


# What each --method fixes; the rest of the objective stays with the user. Names and rows follow the paper's tables.
METHODS: dict[str, dict[str, Any]] = {
    "distribution": {"adversary": "pgd"},
    "single-point": {"alpha": 0.0, "adversary": "none"},
    "no-adversary": {"adversary": "none"},
    "no-kl": {"alpha": 0.0, "adversary": "pgd"},
    "no-ce": {"alpha": 1.0, "adversary": "pgd"},
    "worst-case": {"adversary": "worst_case"},
    "raw": {},
}

# Set by `distjudge-trl train`: parse the options and stop, so that a mistake in them is told before anything is
# launched.
CHECK_ONLY = "DISTJUDGE_CHECK_ONLY"

# The grid of the paper (section 4 and Figure 3).
PAPER_GRID: dict[str, list[Any]] = {
    "alpha": [0.0, 0.2, 0.4, 0.6, 0.8, 1.0],
    "perturbation_radius": [0.0, 0.05, 0.10, 0.15, 0.20, 0.25],
}

# The paper's training settings; alpha 0.8, radius 0.25, step size 0.05 and 5 steps are the trainer's defaults. Where
# the paper is silent (rank, schedule, which layers) they are ours: TRL's rank, all linear layers but the head.
PAPER_TRAINING: dict[str, Any] = {
    "use_peft": True,
    "lora_target_modules": ["all-linear"],
    "optim": "adamw_torch",
    "learning_rate": 5e-5,
    "num_train_epochs": 2,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 0.05,
    "dtype": "bfloat16",
    "save_strategy": "epoch",
    "logging_steps": 10,
}


@dataclass
class RecipeArguments:
    """Data and method of a run. The objective's, the trainer's and the model's options follow below."""

    method: Literal["distribution", "single-point", "no-adversary", "no-kl", "no-ce", "worst-case", "raw"] = field(
        default="distribution",
        metadata={
            "help": (
                "What to train: 'distribution' is the paper's method (KL + cross-entropy + adversary), 'single-point'"
                " cross-entropy on the majority label, 'no-adversary', 'no-kl' and 'no-ce' its ablations, 'worst-case'"
                " a stronger adversary, 'raw' no training at all."
            )
        },
    )
    data_path: str | None = field(
        default=None,
        metadata={
            "help": (
                "The task's official file, archive or folder. Default: the task's own source, downloaded once into the"
                " cache ($DISTJUDGE_CACHE)."
            )
        },
    )
    prompt_template: str | None = field(
        default=None,
        metadata={
            "help": (
                "Jinja file that replaces the task's prompt (.jinja: one user message; .yaml: a list of messages). See"
                " `distjudge-trl data TASK --show 1` for the task's own."
            )
        },
    )
    truncate: Literal["middle", "end", "error"] = field(
        default="middle",
        metadata={
            "help": (
                "An item whose prompt has more than --max_length tokens: cut its longest fields in the 'middle' or at"
                " their 'end' (counted and reported; the prompt's end stays whole), or stop with an 'error'."
            )
        },
    )
    split: Literal["group", "paper"] = field(
        default="group",
        metadata={
            "help": (
                "'group' keeps related items on one side of the split, so that nothing leaks; 'paper' draws single"
                " items."
            )
        },
    )
    split_seed: int = field(
        default=0,
        metadata={"help": "Another seed, another 8:2 split. Apart from --seed, so that seeds of training share it."},
    )
    max_train_samples: int | None = field(
        default=None,
        metadata={"help": "Train on at most this many items (drawn by a hash of their ids). Default: all."},
    )
    max_eval_samples: int | None = field(
        default=None,
        metadata={"help": "Test on at most this many items (drawn by a hash of their ids). Default: all."},
    )
    validation_fraction: float = field(
        default=0.1,
        metadata={
            "help": (
                "With --eval_strategy: share of the *training* items that evaluation during training uses, so that a"
                " checkpoint is never chosen on test items."
            )
        },
    )


@dataclass
class TaskArgument:
    """Which task, for a recipe that takes any."""

    task: str = field(metadata={"help": "A task's name, or the path of a .yaml file that defines your own."})


class RecipeRun(NamedTuple):
    """What a command line comes to."""

    task: JudgmentTask
    recipe: RecipeArguments
    options: TaskOptions
    training: DistributionSFTConfig
    model: ModelConfig


@dataclass(frozen=True)
class Recipe:
    """A task with the settings that differ from the defaults.

    Args:
        task (`str`, *optional*): name of a task; without one the recipe takes `--task`.
        model (`str`): default for `--model_name_or_path`.
        training (`Mapping[str, Any]`): defaults of [`DistributionSFTConfig`] and `ModelConfig` fields.
        grid (`Mapping[str, Sequence]`): what a sweep tries.
    """

    task: str | None
    model: str
    training: Mapping[str, Any] = field(default_factory=dict)
    grid: Mapping[str, Sequence[Any]] = field(default_factory=lambda: dict(PAPER_GRID))

    def main(self, argv: Sequence[str] | None = None) -> None:
        """Parse the command line, run, and exit: 0 done, 1 a run failed (traceback), 2 the input is wrong (one line on
        stderr).
        """
        try:
            self.run(argv)
        except UserInputError as error:
            # Once a machine: a file may be missing on one of them.
            if os.environ.get("LOCAL_RANK", "0") == "0":
                rank = os.environ.get("RANK", "0")
                print(f"error: {error}" if rank == "0" else f"error (rank {rank}): {error}", file=sys.stderr)
            raise SystemExit(2) from None

    def run(self, argv: Sequence[str] | None = None) -> dict[str, Any]:
        """Train, save and evaluate; returns the content of `results.json`.

        Raises:
            [`UserInputError`]: anything wrong with flags, files, data or model names.
        """
        _quieten()
        run = self.parse(argv)
        if os.environ.get(CHECK_ONLY):
            return {}
        return _run(run)

    def parse(self, argv: Sequence[str] | None = None) -> RecipeRun:
        """Command line (and `--config` YAML under it) to dataclasses: recipe defaults < method < YAML < flags."""
        from distjudge_trl.tasks import get_task

        args = list(sys.argv[1:] if argv is None else argv)
        config = _read_config(args)
        name = self.task or _peek(args, "--task") or config.get("task")
        task = get_task(str(name)) if name is not None else None
        parser = self._parser(task)
        parser.set_defaults_with_config(**self._defaults())
        method = _peek(args, "--method") or config.get("method", "distribution")
        if str(_peek(args, "--use_peft") or config.get("use_peft")).lower() in ("false", "no", "0"):
            # A recipe's bfloat16 is for frozen weights; trained ones need float32 to keep small updates.
            parser.set_defaults_with_config(dtype="float32")
        if "--load_in_4bit" in args or config.get("load_in_4bit"):
            # TRL computes in the weights' dtype under quantisation, and float32 would forfeit what 4 bits save.
            parser.set_defaults_with_config(dtype="bfloat16")
        if not isinstance(method, str) or method not in METHODS:
            raise UserInputError(f"There is no method {method!r}. Methods: {', '.join(METHODS)}.")
        strategy = _peek(args, "--eval_strategy") or config.get("eval_strategy")
        if strategy in ("steps", "epoch"):
            # The two must agree for --load_best_model_at_end.
            parser.set_defaults_with_config(save_strategy=strategy)
        folder = f"runs/{task.name if task is not None else 'custom'}-{method}"
        parser.set_defaults_with_config(**METHODS[method], output_dir=folder)
        try:
            parsed = parser.parse_args_and_config(args)
        except (ValueError, OSError, TypeError) as error:
            raise _explain(error, parser) from error
        # A recipe without a task of its own has --task as first dataclass, required by the parser.
        recipe_args, options, training_args, model_args = parsed if self.task is not None else parsed[1:]
        assert task is not None
        for name, value in METHODS[recipe_args.method].items():
            if getattr(training_args, name) != value:
                raise UserInputError(
                    f"--method {recipe_args.method} means {name}={value}, but {name}={getattr(training_args, name)} is"
                    " given: drop one of them."
                )
        options.check()
        return RecipeRun(task, recipe_args, options, training_args, model_args)

    def _parser(self, task: JudgmentTask | None) -> TrlParser:
        from trl import ModelConfig, TrlParser

        from distjudge_trl.tasks import TaskOptions
        from distjudge_trl.trainer import DistributionSFTConfig

        options = task.options if task is not None else TaskOptions
        parser = TrlParser(
            (
                *(() if self.task is not None else (TaskArgument,)),
                RecipeArguments,
                options,
                DistributionSFTConfig,
                ModelConfig,
            ),
            prog=f"{self.task or 'custom'}.py",
            allow_abbrev=False,
            description=(
                f"Train and evaluate a judge on {f'the task {self.task!r}' if self.task else 'a task'}. Options may"
                " also stand in a YAML file: --config FILE."
            ),
        )
        # argparse prints the usage, 150 lines of it, before the one that matters.
        parser.error = _parser_error
        return parser

    def _defaults(self) -> dict[str, Any]:
        return {
            "model_name_or_path": self.model,
            "report_to": "none",
            "bf16": _has_fast_bfloat16(),
            # Trainer refuses bf16 on a machine without accelerator unless it is told that the CPU is meant.
            "use_cpu": not _has_accelerator(),
            **self.training,
        }


def make_option_parser(task: JudgmentTask) -> HfArgumentParser:
    """Parser of a task's own options ([`~distjudge_trl.tasks.TaskOptions`])."""
    from transformers import HfArgumentParser

    parser = HfArgumentParser((task.options,), prog=task.name, allow_abbrev=False, add_help=False)
    parser.error = _parser_error
    return parser


def parse_task_options(task: JudgmentTask, args: Sequence[str]) -> TaskOptions:
    """A task's options from command line arguments.

    Raises:
        [`UserInputError`]: an unknown option (the nearest known one is named) or a value out of range.
    """
    parser = make_option_parser(task)
    options, rest = parser.parse_args_into_dataclasses(
        list(args), look_for_args_file=False, return_remaining_strings=True
    )
    if rest:
        raise _explain(ValueError(f"Unknown arguments: {' '.join(rest)}"), parser)
    options.check()
    return options


def _quieten() -> None:
    """Drop messages of the libraries that say nothing about the run and that a user cannot act on."""
    # TRL 1.16 sets the name that transformers 5.23 deprecates.
    warnings.filterwarnings("ignore", message="`gradient_checkpointing` is deprecated", category=FutureWarning)
    # Optional CPU kernels from the hub; their absence costs nothing here.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    if not _has_accelerator():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # DeepSpeed warns when it has to find that out by itself


def _parser_error(message: str) -> NoReturn:
    raise UserInputError(f"{message}. See --help.")


def _has_accelerator() -> bool:
    import torch

    return torch.accelerator.is_available()


def _has_fast_bfloat16() -> bool:
    """Whether bf16 autocast is a gain: on GPUs that have it and on CPUs with bf16 instructions; elsewhere it is
    emulated and slow.
    """
    import torch

    from distjudge_trl.environment import cpu_has_bfloat16

    return torch.cuda.is_bf16_supported() if torch.cuda.is_available() else cpu_has_bfloat16()


def _peek(args: list[str], flag: str) -> str | None:
    """Value of `flag` in `--flag value` or `--flag=value` form, before the real parser runs."""
    value = None
    for position, arg in enumerate(args):
        if arg == flag and position + 1 < len(args):
            value = args[position + 1]
        elif arg.startswith(flag + "="):
            value = arg.split("=", 1)[1]
    return value


def _read_config(args: list[str]) -> dict[str, Any]:
    """Content of the `--config` file, checked early: TRL's parser would end in a traceback. Rewrites `--config=F` to
    the form it knows.
    """
    for position, arg in enumerate(args):
        if arg.startswith("--config="):
            args[position : position + 1] = ["--config", arg.split("=", 1)[1]]
    if "--config" not in args:
        return {}
    if args.index("--config") + 1 >= len(args):
        raise UserInputError("--config needs the path of a YAML file.")
    path = args[args.index("--config") + 1]
    import yaml

    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserInputError(f"{path}: cannot be read ({error.strerror}).") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserInputError(f"{path}: is no valid YAML ({' '.join(str(error).split())}).") from None
    if not isinstance(content, dict):
        raise UserInputError(f"{path}: must be a mapping of option names to values, such as `alpha: 0.8`.")
    return content


def _explain(error: Exception, parser: HfArgumentParser) -> UserInputError:
    """A parser's exception as one line; unknown options get the nearest known one."""
    if isinstance(error, UserInputError):
        return error
    message = " ".join(str(error).split())
    if "HfArgumentParser" not in message and "Unknown arguments" not in message:
        return UserInputError(message)
    known = [option for action in parser._actions for option in action.option_strings]
    for word in message.replace("'", " ").replace(",", " ").replace("]", " ").split():
        if word.startswith("--") and word not in known:
            close = difflib.get_close_matches(word, known, n=1)
            return UserInputError(f"Unknown option {word}.{f' Did you mean {close[0]}?' if close else ' See --help.'}")
    return UserInputError(message)


def _run(run: RecipeRun) -> dict[str, Any]:
    import numpy as np

    from distjudge_trl.data import fingerprint, subsample
    from distjudge_trl.data.template import PromptTemplate
    from distjudge_trl.evaluation import evaluate_judgments, write_results
    from distjudge_trl.provenance import provenance
    from distjudge_trl.tasks import LoadReport

    task, recipe_args, options, training_args, model_args = run

    ################
    # Data
    ################
    resume_from = _resume_checkpoint(training_args)
    _check_output_folder(training_args.output_dir)
    if recipe_args.method == "raw" and (Path(training_args.output_dir) / "judge.json").exists():
        raise UserInputError(
            f"{training_args.output_dir}: holds a trained judge, whose results --method raw would replace. Choose"
            " another --output_dir."
        )
    for name in ("max_train_samples", "max_eval_samples"):
        value = getattr(recipe_args, name)
        if value is not None and value < 1:
            raise UserInputError(f"`{name}` must be at least 1, got {value}.")
    template = task.template
    if recipe_args.prompt_template is not None:
        template = PromptTemplate.from_file(recipe_args.prompt_template)
    model_path, fitter = _find_model(recipe_args, training_args, model_args)
    report = LoadReport()
    train, validation, test = _load(run, template, fitter, report)
    train = subsample(train, recipe_args.max_train_samples, seed=recipe_args.split_seed)
    test = subsample(test, recipe_args.max_eval_samples, seed=recipe_args.split_seed)

    ################
    # Training
    ################
    trainer = _make_trainer(task, template, model_path, fitter, training_args, model_args, train, validation)
    say = trainer.accelerator.print
    say(f"{task.name}: {'; '.join(report.lines())}")
    say(
        f"{task.name}: {len(train)} training items, {len(test)} test items; method {recipe_args.method}; model"
        f" {model_args.model_name_or_path}"
    )
    if recipe_args.method != "raw":
        if resume_from is not None:
            say(f"Resuming from {resume_from}")
        trainer.train(resume_from_checkpoint=resume_from)
        # Before anything else can go wrong.
        trainer.save_model(training_args.output_dir)

    ################
    # Evaluation
    ################
    prediction = trainer.predict(test, metric_key_prefix="test")
    trainer.log(prediction.metrics)
    log_q = prediction.predictions
    if not np.isfinite(log_q).all():
        raise RuntimeError("The judge returns NaN: training diverged. Lower --learning_rate; see the logged loss.")
    results: dict[str, Any] = {}
    if trainer.is_world_process_zero():
        metrics = evaluate_judgments(
            test.with_format("numpy")["label_distribution"][:],
            log_q.astype(float),
            test.with_format("numpy")["num_annotators"][:],
            test["group"][:],
            ids=test["id"][:],
            ordinal=task.ordinal,
            mass=prediction.metrics["test_label_mass"],
        )
        results = {
            "task": task.name,
            "method": recipe_args.method,
            "model": model_args.model_name_or_path,
            "labels": list(task.labels),
            "metrics": metrics,
            "provenance": provenance(
                recipe=asdict(recipe_args),
                task_options=asdict(options),
                data_report=report.to_dict(),
                model=asdict(model_args),
                training=training_args.to_dict(),
                data_fingerprint={"train": fingerprint(train), "test": fingerprint(test)},
                seed=training_args.seed,
                num_train_items=len(train) if recipe_args.method != "raw" else 0,
                world_size=training_args.world_size,
            ),
        }
    if recipe_args.method != "raw":
        trainer.save_state()
        trainer.create_model_card(model_name=f"{task.name}-judge")
        if training_args.push_to_hub:
            trainer.push_to_hub()
    if results:
        # Last of all: a folder with results is a finished run.
        write_results(training_args.output_dir, results, test, log_q)
        from distjudge_trl.report.tables import results_table

        say(results_table([results]))
        say(f"Results and judge: {training_args.output_dir}")
    trainer.end()
    return results


def _check_output_folder(path: str) -> None:
    """Fail before training, not after it, if nothing can be written there."""
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise UserInputError(f"{path}: cannot be written ({error.strerror}). Choose another --output_dir.") from None


def _resume_checkpoint(training_args: DistributionSFTConfig) -> str | None:
    """`--resume_from_checkpoint true` means the newest whole checkpoint of the output folder; a path is taken as it
    is.
    """
    value = training_args.resume_from_checkpoint
    if value is None or str(value).lower() in ("false", "no", "none", ""):
        return None
    if str(value).lower() not in ("true", "yes", "last", "latest"):
        if not (Path(value) / "trainer_state.json").is_file():
            raise UserInputError(
                f"{value}: is no whole checkpoint (it has no trainer_state.json, which is written last)."
            )
        return str(value)
    folder = Path(training_args.output_dir)
    found = {int(p.name.split("-")[1]): p for p in folder.glob("checkpoint-*") if p.name.split("-")[1].isdigit()}
    whole = [step for step, path in found.items() if (path / "trainer_state.json").is_file()]
    if not whole:
        raise UserInputError(
            f"{folder}: holds no whole checkpoint to resume from. Train with --save_strategy steps, or drop"
            " --resume_from_checkpoint."
        )
    return str(found[max(whole)])


def _load(
    run: RecipeRun, template: PromptTemplate, fitter: PromptFitter | None, report: LoadReport
) -> tuple[Dataset, Dataset | None, Dataset]:
    """Training, validation (with `--eval_strategy`) and test records.

    `--max_annotators` draws for training items alone: what a small budget teaches is chosen and tested on all votes
    that there are.
    """
    from distjudge_trl.data import split_records
    from distjudge_trl.tasks import LoadReport
    from distjudge_trl.tasks.mtbench import SWAPPED

    task, recipe_args, options, training_args, _ = run
    whole = replace(options, max_annotators=None)
    items: Iterable[Item] = task.items(recipe_args.data_path, whole, report=report)
    if options.max_annotators is not None:
        items = list(items)  # they are needed twice
    drawn = task.draw(items, whole, report=report)
    records = task.records(drawn, whole, template=template, fitter=fitter, report=report)
    seed = recipe_args.split_seed
    train, test = split_records(records, recipe_args.split, seed=seed)
    validation = None
    if training_args.eval_strategy != "no":
        fraction = recipe_args.validation_fraction
        train, validation = split_records(train, recipe_args.split, test_fraction=fraction, seed=seed + 1)
    if options.max_annotators is not None:
        names = set(train["id"])
        # A pair asked in both orders has two ids, of which a split of single records may take one.
        chosen = [item for item in items if item.id in names or f"{item.id}{SWAPPED}" in names]
        budget = task.draw(chosen, options, report=report)
        train = task.records(budget, options, template=template, fitter=fitter, report=LoadReport())
        train = train.select([i for i, name in enumerate(train["id"]) if name in names])
    return train, validation, test


def _find_model(
    recipe_args: RecipeArguments, training_args: DistributionSFTConfig, model_args: ModelConfig
) -> tuple[str, PromptFitter | None]:
    """Path or hub id of the model, and what makes prompts fit into it. A mistake in its name shows here, before data
    is read.
    """
    from transformers import AutoConfig, AutoTokenizer

    from distjudge_trl.batching import PromptFitter
    from distjudge_trl.models import resolve_model

    name = model_args.model_name_or_path
    path = resolve_model(name)
    kwargs = {"revision": model_args.model_revision, "trust_remote_code": training_args.trust_remote_code}
    try:
        # Its errors are about the name alone; the same types out of the trainer might be bugs.
        config = AutoConfig.from_pretrained(path, **kwargs)
        tokenizer = AutoTokenizer.from_pretrained(path, **kwargs)
    except (OSError, ValueError) as error:
        raise _model_error(name, error) from error
    context = getattr(config.get_text_config(), "max_position_embeddings", None)
    limits = [length for length in (training_args.max_length, context) if length]
    return path, PromptFitter(tokenizer, min(limits), recipe_args.truncate) if limits else None


def _make_trainer(
    task: JudgmentTask,
    template: PromptTemplate,
    model_path: str,
    fitter: PromptFitter | None,
    training_args: DistributionSFTConfig,
    model_args: ModelConfig,
    train: Dataset,
    validation: Dataset | None,
) -> DistributionSFTTrainer:
    from trl import get_peft_config, get_quantization_config

    from distjudge_trl.judge_file import JudgeFile
    from distjudge_trl.trainer import DistributionSFTTrainer

    training_args.model_init_kwargs = {
        "revision": model_args.model_revision,
        "attn_implementation": model_args.attn_implementation,
        "dtype": model_args.dtype,
        **(training_args.model_init_kwargs or {}),
    }
    name = model_args.model_name_or_path
    try:
        return DistributionSFTTrainer(
            model=model_path,
            args=training_args,
            train_dataset=train,
            eval_dataset=validation,
            label_space=task.label_space(),
            judge_file=JudgeFile(
                label_space={},
                template=template.messages,
                task=task.name,
                base_model=name,
                base_revision=model_args.model_revision,
                max_length=fitter.max_length if fitter is not None else None,
                truncation=fitter.truncation if fitter is not None else None,
                trust_remote_code=training_args.trust_remote_code,
            ),
            quantization_config=get_quantization_config(model_args),
            peft_config=get_peft_config(model_args),
        )
    except (OSError, ImportError) as error:
        # Missing weights or tokenizer files; a package that the options need (bitsandbytes, deepspeed).
        raise _model_error(name, error) from error


def _model_error(name: str | None, error: Exception) -> UserInputError:
    """transformers explains itself in several lines and a traceback; the first line is the cause."""
    return UserInputError(f"The model {name!r} cannot be loaded: {first_line(error)}")
