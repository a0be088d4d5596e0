"""What a sweep is: everything that workers of one study must agree on, and a study must keep from start to start."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from distjudge_trl.errors import UserInputError, nearest
from distjudge_trl.evaluation import metrics
from distjudge_trl.files.yaml import read_mapping
from distjudge_trl.sweep.space import Parameter, make_parameter, parse_parameter


Sampler = Literal["grid", "random", "tpe"]
# Options of the recipe that change nothing about what is trained or scored.
_HOUSEKEEPING = (
    *("logging_steps", "logging_strategy", "disable_tqdm", "report_to", "dataloader_num_workers", "run_name"),
    *("save_steps", "save_strategy", "save_total_limit", "dataset_num_proc"),
)
# Options that are paths on this machine.
_PATHS = ("model_name_or_path", "prompt_template", "task")
# What can choose a configuration: metrics of a result file, and whether more of it is better.
METRICS = {name: metric.best == "high" for name, metric in metrics.METRICS.items() if metric.best is not None}
# How a sweep may be told in YAML; those without a flag of the same name are `parameters` and `options`.
CONFIG_TYPES: dict[str, type] = {
    **dict.fromkeys(("parameters", "options"), dict),
    **dict.fromkeys(("recipe", "sampler", "metric", "method", "pruner", "study"), str),
    **dict.fromkeys(("storage", "out", "accelerate_config"), str),
    **dict.fromkeys(("trials", "seeds", "sampler_seed", "jobs", "gpus_per_trial", "num_processes"), int),
    **dict.fromkeys(("retries", "keep", "heartbeat"), int),
}


@dataclass(frozen=True)
class Definition:
    """A sweep, but for how many trials it has and where they run.

    Args:
        recipe, task (`str`): name of the recipe, and of its task (or the path of a user's own).
        parameters (`tuple[Parameter, ...]`): what is tried.
        options (`dict`): what all runs share: option of the recipe to value.
        sampler, pruner, metric (`str`), sampler_seed (`int`).
        seeds (`tuple[int, ...]`): of the runs of every configuration.
        train_fingerprint, scored_fingerprint (`str`): of the training items and of those that choose.
        defaults (`str`): digest of the recipe's own defaults.
        precision (`str`): in which all runs compute.
        processes (`int`), sharding (`str`): of a run.
        heartbeat (`int`): of all workers.
        data_path (`str`, *optional*): where they were read when the study was made; other machines may have them
            elsewhere.
    """

    recipe: str
    task: str
    parameters: tuple[Parameter, ...]
    options: dict[str, Any]
    sampler: Sampler
    sampler_seed: int
    pruner: str
    metric: str
    seeds: tuple[int, ...]
    train_fingerprint: str
    scored_fingerprint: str
    defaults: str
    precision: str
    processes: int
    sharding: str
    heartbeat: int
    data_path: str | None = None

    @property
    def maximize(self) -> bool:
        return METRICS[self.metric]

    def to_dict(self) -> dict[str, Any]:
        """JSON content."""
        return {**asdict(self), "seeds": list(self.seeds), "parameters": [asdict(p) for p in self.parameters]}

    @classmethod
    def from_dict(cls, content: Any, study: str) -> Definition:
        """Back from JSON.

        Raises:
            [`UserInputError`]: another version wrote it.
        """
        try:
            parameters = tuple(Parameter(**{**p, "choices": tuple(p["choices"])}) for p in content["parameters"])
            return cls(**{**content, "parameters": parameters, "seeds": tuple(content["seeds"])})
        except (TypeError, KeyError) as error:
            raise UserInputError(
                f"The study {study!r} was made by another version of distjudge-trl ({error}). Name a new one with"
                " --study."
            ) from None

    def check_same(self, other: Definition, study: str) -> None:
        """Compare the study's own definition with what a start asks for.

        Raises:
            [`UserInputError`]: they are two sweeps; the message says in what they differ.
        """
        what = {
            "recipe": "its recipe",
            "parameters": "its grid",
            "sampler": "its sampler",
            "sampler_seed": "the sampler's seed",
            "metric": "its metric",
            "seeds": "its seeds",
            "pruner": "its pruner",
            "options": "the recipe's options",
            "train_fingerprint": "its training data (fingerprint)",
            "scored_fingerprint": "its validation data (fingerprint)",
            "defaults": "the recipe's defaults (fingerprint)",
            "precision": "its precision",
            "processes": "the number of processes a trial",
            "sharding": "the way of sharding",
            "heartbeat": "the heartbeat",
        }
        for name, words in what.items():
            mine, theirs = getattr(self, name), getattr(other, name)
            if name == "options":
                mine, theirs = _telling(mine), _telling(theirs)
            if mine != theirs:
                raise UserInputError(
                    f"The study {study!r} differs in {words}: {_short(mine, theirs)} there, {_short(theirs, mine)}"
                    " here. Name a new study with --study, or repeat the command that began this one."
                )


def _telling(options: dict[str, Any]) -> dict[str, Any]:
    """Options that make a difference, paths without the folders that machines keep them in."""
    return {
        name: Path(value).name if name in _PATHS and Path(str(value)).is_absolute() else value
        for name, value in options.items()
        if name not in _HOUSEKEEPING
    }


def _short(value: Any, other: Any) -> str:
    """Of a mapping only what differs."""
    if isinstance(value, dict):
        differing = {k: v for k, v in value.items() if k not in other or other[k] != v}
        return ", ".join(f"{k}={v}" for k, v in differing.items()) or "nothing"
    if isinstance(value, tuple) and value and isinstance(value[0], Parameter):
        return " ".join(parameter.describe() for parameter in value)
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def find_metric(name: str) -> str:
    """A metric of result files by its name, with or without `eval_` in front.

    Raises:
        [`UserInputError`]: there is none; the nearest one is named.
    """
    metric = name.removeprefix("eval_")
    if metric in METRICS:
        return metric
    close = nearest(metric, METRICS)
    hint = f" Did you mean {close!r}?" if close else ""
    raise UserInputError(f"--metric {name}: there is no such metric.{hint} Metrics: {', '.join(METRICS)}.")


def read_config(path: str) -> dict[str, Any]:
    """The content of a sweep's YAML file.

    Raises:
        [`UserInputError`]: no such file, no YAML mapping, or a key that is not known.
    """
    content = read_mapping(path, "must be a mapping, such as `recipe: vader` and `parameters:` below it.")
    for key in content:
        if key not in CONFIG_TYPES:
            close = nearest(str(key), CONFIG_TYPES)
            hint = f"did you mean `{close}`? " if close else ""
            raise UserInputError(
                f"{path}: the key `{key}` is not known; {hint}Options of the recipe stand below `options:`."
            )
    content = {key: value for key, value in content.items() if value is not None}
    names = {dict: "a mapping of option names to values", str: "a text", int: "a whole number"}
    for key, value in content.items():
        if not isinstance(value, CONFIG_TYPES[key]) or isinstance(value, bool):
            raise UserInputError(f"{path}, field `{key}`: must be {names[CONFIG_TYPES[key]]}, got {value!r}.")
    return content


def find_parameters(texts: Sequence[str], configured: dict[str, Any]) -> tuple[Parameter, ...]:
    """Parameters of `--param` flags over those of a YAML file.

    Raises:
        [`UserInputError`]: one that cannot be read, or is given twice.
    """
    found: dict[str, Parameter] = {}
    for key, values in configured.items():
        name = str(key).replace("-", "_")
        found[name] = make_parameter(name, values)
    given: dict[str, Parameter] = {}
    for text in texts:
        parameter = parse_parameter(text)
        if parameter.name in given:
            raise UserInputError(f"--param {parameter.name} is given twice.")
        given[parameter.name] = parameter
    return tuple((found | given).values())


def option_tokens(options: dict[str, Any]) -> list[str]:
    """Options as a recipe's command line takes them; `None` is left out."""
    tokens: list[str] = []
    for name, value in options.items():
        if value is None:
            continue
        values = value if isinstance(value, list | tuple) else [value]
        # JSON is how mappings are written on TRL's command lines.
        tokens += [f"--{name}", *(_json(item) if isinstance(item, dict) else str(item) for item in values)]
    return tokens


def _json(value: dict[str, Any]) -> str:
    import json

    return json.dumps(value)
