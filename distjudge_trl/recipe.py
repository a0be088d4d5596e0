"""A recipe: a task, training defaults and a search grid; and the one `main` that every recipe script calls."""

from __future__ import annotations

import difflib
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from distjudge_trl.errors import UserInputError


if TYPE_CHECKING:
    from datasets import Dataset
    from trl import ModelConfig, TrlParser

    from distjudge_trl.tasks import JudgmentTask
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
        default=None, metadata={"help": "The task's official file or folder. Default: the task's own source."}
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


@dataclass(frozen=True)
class Recipe:
    """A task with the settings that differ from the defaults.

    Args:
        task (`str`): name of a task.
        model (`str`): default for `--model_name_or_path`.
        training (`Mapping[str, Any]`): defaults of [`DistributionSFTConfig`] and `ModelConfig` fields.
        grid (`Mapping[str, Sequence]`): what a sweep tries.
    """

    task: str
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
            if int(os.environ.get("RANK", "0")) == 0:
                print(f"error: {error}", file=sys.stderr)
            raise SystemExit(2) from None

    def run(self, argv: Sequence[str] | None = None) -> dict[str, Any]:
        """Train, save and evaluate; returns the content of `results.json`.

        Raises:
            [`UserInputError`]: anything wrong with flags, files, data or model names.
        """
        _quieten()
        recipe_args, training_args, model_args = self.parse(argv)
        if os.environ.get(CHECK_ONLY):
            return {}
        return _run(self, recipe_args, training_args, model_args)

    def parse(self, argv: Sequence[str] | None = None) -> tuple[RecipeArguments, DistributionSFTConfig, ModelConfig]:
        """Command line (and `--config` YAML under it) to dataclasses: recipe defaults < method < YAML < flags."""
        args = list(sys.argv[1:] if argv is None else argv)
        parser = self._parser()
        config = _read_config(args)
        parser.set_defaults_with_config(**self._defaults())
        method = _peek(args, "--method") or config.get("method", "distribution")
        if "--load_in_4bit" in args or config.get("load_in_4bit"):
            # TRL computes in the weights' dtype under quantisation, and float32 would forfeit what 4 bits save.
            parser.set_defaults_with_config(dtype="bfloat16")
        if not isinstance(method, str) or method not in METHODS:
            raise UserInputError(f"There is no method {method!r}. Methods: {', '.join(METHODS)}.")
        strategy = _peek(args, "--eval_strategy") or config.get("eval_strategy")
        if strategy in ("steps", "epoch"):
            # The two must agree for --load_best_model_at_end.
            parser.set_defaults_with_config(save_strategy=strategy)
        parser.set_defaults_with_config(**METHODS[method], output_dir=f"runs/{self.task}-{method}")
        try:
            recipe_args, training_args, model_args = parser.parse_args_and_config(args)
        except (ValueError, OSError, TypeError) as error:
            raise _explain(error, parser) from error
        for name, value in METHODS[recipe_args.method].items():
            if getattr(training_args, name) != value:
                raise UserInputError(
                    f"--method {recipe_args.method} means {name}={value}, but {name}={getattr(training_args, name)} is"
                    " given: drop one of them."
                )
        return recipe_args, training_args, model_args

    def _parser(self) -> TrlParser:
        from trl import ModelConfig, TrlParser

        from distjudge_trl.trainer import DistributionSFTConfig

        parser = TrlParser(
            (RecipeArguments, DistributionSFTConfig, ModelConfig),
            prog=f"{self.task}.py",
            allow_abbrev=False,
            description=(
                f"Train and evaluate a judge on the task {self.task!r}. Options may also stand in a YAML file:"
                " --config FILE."
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


def _explain(error: Exception, parser: TrlParser) -> UserInputError:
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


def _run(
    recipe: Recipe, recipe_args: RecipeArguments, training_args: DistributionSFTConfig, model_args: ModelConfig
) -> dict[str, Any]:
    import numpy as np

    from distjudge_trl.data import fingerprint, split_records, subsample
    from distjudge_trl.evaluation import evaluate_judgments, write_results
    from distjudge_trl.provenance import provenance
    from distjudge_trl.tasks import get_task

    ################
    # Data
    ################
    task = get_task(recipe.task)
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
    records = task.load(recipe_args.data_path)
    train, test = split_records(records, recipe_args.split, seed=recipe_args.split_seed)
    validation = None
    if training_args.eval_strategy != "no":
        train, validation = split_records(
            train, recipe_args.split, test_fraction=recipe_args.validation_fraction, seed=recipe_args.split_seed + 1
        )
    train = subsample(train, recipe_args.max_train_samples, seed=recipe_args.split_seed)
    test = subsample(test, recipe_args.max_eval_samples, seed=recipe_args.split_seed)

    ################
    # Training
    ################
    trainer = _make_trainer(task, training_args, model_args, train, validation)
    say = trainer.accelerator.print
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


def _make_trainer(
    task: JudgmentTask,
    training_args: DistributionSFTConfig,
    model_args: ModelConfig,
    train: Dataset,
    validation: Dataset | None,
) -> DistributionSFTTrainer:
    from transformers import AutoConfig
    from trl import get_peft_config, get_quantization_config

    from distjudge_trl.judge_file import JudgeFile
    from distjudge_trl.models import resolve_model
    from distjudge_trl.trainer import DistributionSFTTrainer

    training_args.model_init_kwargs = {
        "revision": model_args.model_revision,
        "attn_implementation": model_args.attn_implementation,
        "dtype": model_args.dtype,
        **(training_args.model_init_kwargs or {}),
    }
    name = model_args.model_name_or_path
    path = resolve_model(name)
    try:
        # Its errors are about the name alone; the same types out of the trainer might be bugs.
        AutoConfig.from_pretrained(
            path, revision=model_args.model_revision, trust_remote_code=training_args.trust_remote_code
        )
    except (OSError, ValueError) as error:
        raise _model_error(name, error) from error
    try:
        return DistributionSFTTrainer(
            model=path,
            args=training_args,
            train_dataset=train,
            eval_dataset=validation,
            label_space=task.label_space(),
            judge_file=JudgeFile(
                label_space={},
                template=task.template.messages,
                task=task.name,
                base_model=name,
                base_revision=model_args.model_revision,
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
    return UserInputError(f"The model {name!r} cannot be loaded: {str(error).strip().splitlines()[0]}")
