"""The settings of a sweep, each written once: command line options and keys of the YAML file are made from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import Field, dataclass, field, fields
from typing import Any, Literal, get_args

from distjudge_trl.errors import UserInputError, nearest
from distjudge_trl.files.yaml import read_mapping


Sampler = Literal["grid", "random", "tpe"]
# Keys of a YAML file beside the settings.
_OTHER_KEYS = {"recipe": str, "parameters": dict, "options": dict}


def _setting(default: Any, help: str, **option: Any) -> Any:
    """A field with what its command line option needs: `choices`, `at_least` (a whole number) or `metavar`."""
    return field(default=default, metadata={"help": help, **option})


@dataclass(frozen=True)
class SweepSettings:
    """What a user asks a sweep to do.

    Args:
        recipe (`str`): name or path of the recipe.
        parameters (`dict`): names to values, from a YAML file.
        options (`dict`): options of the recipe for all runs, from a YAML file.
        recipe_arguments (`Sequence[str]`): options of the recipe for all runs, from the command line.

    The other fields are described by `distjudge-trl sweep --help`, which prints their `help`.
    """

    recipe: str
    parameters: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    recipe_arguments: Sequence[str] = ()
    params: Sequence[str] = _setting(
        (),
        "Sweep an option of the recipe: NAME=A,B,C, or a range NAME=log:LOW:HIGH, float:LOW:HIGH or int:LOW:HIGH."
        " Repeat it for more options. Default: the recipe's own grid.",
        metavar="NAME=VALUES",
    )
    sampler: Sampler = _setting(  # noqa: RUF009 (a field)
        "grid",
        "How configurations are chosen: every combination, random ones without repeats, or Optuna's TPE sampler.",
        choices=get_args(Sampler),
    )
    trials: int | None = _setting(
        None, "Number of configurations. Default: the whole grid, or 20 with --sampler random and tpe.", at_least=1
    )
    seeds: int = _setting(
        1,
        "Train every configuration with this many seeds (--seed, --seed + 1, ...) and rank it by their mean.",
        at_least=1,
    )
    metric: str = _setting("eval_kl", "Validation metric that ranks the configurations.")
    method: str | None = _setting(
        None, "Method of all runs. Give several, separated by commas, to sweep over methods."
    )
    pruner: str = _setting(
        "none",
        "Stop configurations early whose evaluations during training lag behind.",
        choices=("none", "median", "halving"),
    )
    sampler_seed: int = _setting(0, "Seed of --sampler random and tpe.", at_least=0)
    study: str | None = _setting(None, "Name of the study. Default: the name of the recipe, or of your own task.")
    storage: str | None = _setting(
        None,
        "An Optuna storage URL (postgresql://..., mysql://..., sqlite:///...) or the path of a journal file, which may"
        " be on a disk that machines share. Default: a journal file in --out.",
    )
    out: str | None = _setting(
        None, "Folder for everything that the sweep writes. Default: runs/sweeps/STUDY.", metavar="DIR"
    )
    jobs: int = _setting(
        1,
        "Run this many trials at a time on this machine. Each gets its own GPUs, or its share of the cores.",
        at_least=1,
    )
    gpus_per_trial: int | None = _setting(
        None, "GPUs for each trial. Default: 1 if the machine has a GPU, else 0.", at_least=1
    )
    accelerate_config: str | None = _setting(
        None,
        "Accelerate config of every trial: a shipped name or a path. Default: single_gpu, multi_gpu or cpu, depending"
        " on --gpus-per-trial.",
    )
    num_processes: int | None = _setting(
        None, "Processes of each trial. Default: one a GPU, or what the config says.", at_least=1
    )
    retries: int = _setting(
        2, "Restart a trial that was killed this many times, from its last checkpoint.", at_least=0
    )
    keep: int = _setting(
        1, "Keep the trained judges of the N best configurations. The metrics of all are kept.", at_least=1
    )
    heartbeat: int = _setting(
        60,
        "Interval of a worker's signs of life. A worker on another machine that misses three counts as dead.",
        at_least=10,
        metavar="SECONDS",
    )
    retry_failed: bool = _setting(False, "Run configurations again that have failed.")
    dry_run: bool = _setting(
        False, "Check recipe, data and values, print every launch line and stop. Nothing is written."
    )


def option_fields() -> list[Field[Any]]:
    """The settings that are command line options, in the order of `--help`."""
    return [setting for setting in fields(SweepSettings) if setting.metadata]


def read_config(path: str) -> dict[str, Any]:
    """The content of a sweep's YAML file.

    Raises:
        [`UserInputError`]: there is no such file, it holds no YAML mapping, or a key or value is not accepted.
    """
    kinds = _OTHER_KEYS | {
        setting.name: int if "at_least" in setting.metadata else str
        for setting in option_fields()
        if setting.name != "params" and not isinstance(setting.default, bool)
    }
    content = read_mapping(path, "must be a mapping, such as `recipe: vader` and `parameters:` below it.")
    for key in content:
        if key not in kinds:
            close = nearest(str(key), kinds)
            hint = f" Did you mean `{close}`?" if close else ""
            if key in ("retry_failed", "dry_run"):
                hint = " Give it on the command line."
            raise UserInputError(
                f"{path}: the key `{key}` is not known.{hint} Options of the recipe stand below `options:`."
            )
    content = {key: value for key, value in content.items() if value is not None}
    names = {dict: "a mapping of option names to values", str: "a text", int: "a whole number"}
    for key, value in content.items():
        if not isinstance(value, kinds[key]) or isinstance(value, bool):
            raise UserInputError(f"{path}, field `{key}`: must be {names[kinds[key]]}, got {value!r}.")
    return content
