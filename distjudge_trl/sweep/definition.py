"""What a sweep is: everything that the workers of a study must agree on, and that must not change between starts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from distjudge_trl.errors import UserInputError, nearest
from distjudge_trl.evaluation import metrics
from distjudge_trl.sweep.settings import Sampler
from distjudge_trl.sweep.space import Parameter, make_parameter, parse_parameter


# Options of the recipe that do not change what is trained or scored.
_HOUSEKEEPING = (
    *("logging_steps", "logging_strategy", "disable_tqdm", "report_to", "dataloader_num_workers", "run_name"),
    *("save_steps", "save_strategy", "save_total_limit", "dataset_num_proc"),
)
# Options that are paths on this machine.
_PATHS = ("model_name_or_path", "prompt_template", "task")
# Metrics of a result file that can rank configurations, and whether a higher value is better.
METRICS = {name: metric.best == "high" for name, metric in metrics.METRICS.items() if metric.best is not None}


@dataclass(frozen=True)
class Definition:
    """A sweep, without the number of its trials and where they run.

    Args:
        recipe, task (`str`): name of the recipe, and of its task (or the path of a user's own).
        parameters (`tuple[Parameter, ...]`): the options that are swept.
        options (`dict`): options of the recipe that all runs share, name to value.
        sampler, pruner, metric (`str`), sampler_seed (`int`): see `distjudge-trl sweep --help`.
        seeds (`tuple[int, ...]`): seeds of the runs of every configuration.
        train_fingerprint, scored_fingerprint (`str`): fingerprints of the training and of the validation items.
        defaults (`str`): digest of the recipe's defaults.
        precision (`str`): in which all runs compute.
        processes (`int`), sharding (`str`): number of processes of a run, and how it shards the model.
        heartbeat (`int`): seconds between the signs of life of all workers.
        data_path (`str`, *optional*): where the data was read when the study was made. Other machines may have it
            elsewhere.
        day (`str`, *optional*): the day (ISO) on which the study began: today, for chat templates that print it.
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
    day: str | None = None

    @property
    def maximize(self) -> bool:
        return METRICS[self.metric]

    def to_dict(self) -> dict[str, Any]:
        """JSON content."""
        return {**asdict(self), "seeds": list(self.seeds), "parameters": [asdict(p) for p in self.parameters]}

    @classmethod
    def from_dict(cls, content: Any, study: str) -> Definition:
        """A definition from its JSON content.

        Raises:
            [`UserInputError`]: another version of the package wrote it.
        """
        try:
            parameters = tuple(Parameter(**{**p, "choices": tuple(p["choices"])}) for p in content["parameters"])
            return cls(**{**content, "parameters": parameters, "seeds": tuple(content["seeds"])})
        except (TypeError, KeyError) as error:
            raise UserInputError(
                f"The study {study!r} was made by another version of distjudge-trl ({error}). Name a new one with"
                " --study."
            ) from None

    def grew_into(self, other: Definition) -> bool:
        """Whether `other` is this sweep on a larger grid: more values of the same parameters."""
        before, after = ({p.name: p for p in sweep.parameters} for sweep in (self, other))
        return (
            self.sampler == other.sampler == "grid"
            and self != other
            and list(before) == list(after)
            and not any(p.is_range for p in (*self.parameters, *other.parameters))
            and all(set(p.choices) <= set(after[name].choices) for name, p in before.items())
        )

    def check_same(self, other: Definition, study: str) -> None:
        """Compare the study's definition with the one of this start.

        Raises:
            [`UserInputError`]: they differ; the message says in what.
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
    """The options that make a difference. Paths lose their folders, which differ between machines."""
    return {
        name: Path(value).name if name in _PATHS and Path(str(value)).is_absolute() else value
        for name, value in options.items()
        if name not in _HOUSEKEEPING
    }


def _short(value: Any, other: Any) -> str:
    """A value for a message; of a mapping only what differs."""
    if isinstance(value, dict):
        differing = {k: v for k, v in value.items() if k not in other or other[k] != v}
        return ", ".join(f"{k}={v}" for k, v in differing.items()) or "nothing"
    if isinstance(value, tuple) and value and isinstance(value[0], Parameter):
        return " ".join(parameter.describe() for parameter in value)
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def find_metric(name: str) -> str:
    """A metric of result files by its name, with or without `eval_` in front.

    Raises:
        [`UserInputError`]: there is no such metric; the nearest one is named.
    """
    metric = name.removeprefix("eval_")
    if metric in METRICS:
        return metric
    close = nearest(metric, METRICS)
    hint = f" Did you mean {close!r}?" if close else ""
    raise UserInputError(f"--metric {name}: there is no such metric.{hint} Metrics: {', '.join(METRICS)}.")


def find_parameters(texts: Sequence[str], configured: dict[str, Any]) -> tuple[Parameter, ...]:
    """Parameters of a YAML file and of `--param` flags, which take precedence.

    Raises:
        [`UserInputError`]: a parameter cannot be read, or is given twice.
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
