"""A run of a plan: a method on a data set with a seed, and all options of its recipe."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


# Varied options that change what an untrained model does. It has neither a seed nor a training.
READING_OPTIONS = (
    *("model_name_or_path", "model_revision", "prompt_template", "max_length", "truncate"),
    *("split", "split_seed", "max_eval_samples"),
)


@dataclass(frozen=True)
class PlannedRun:
    """A run of a plan.

    Args:
        data (`str`): name of the data set in the plan.
        task (`str`): the data set's task: its name, or that of its YAML file with a digest of what the file says.
        method (`str`): name of the method in the plan.
        seed (`int`): of the training.
        vary (`dict`): the values of the varied options, without those that are `None`.
        parts (`tuple[str, ...]`): names of the parts that list it; a run that several list is made once.
        options (`dict`): all options of its recipe by name, but for the places of data and results.
        start (`str`, *optional*): full name of the run whose judge it trains further, in place of the plan's model.
        start_options (`dict`): that run's options.
        start_task (`str`): its task, as `task`.
        transfer (`dict`): the other tasks that its judge is tested on, as the plan calls them and as `task` does.
    """

    data: str
    task: str
    method: str
    seed: int
    vary: Mapping[str, Any]
    parts: tuple[str, ...]
    options: Mapping[str, Any]
    start: str | None = None
    start_options: Mapping[str, Any] = field(default_factory=dict)
    start_task: str = ""
    transfer: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_trained(self) -> bool:
        return self.options["method"] != "raw"

    @property
    def name(self) -> str:
        """Its name among the runs of its data set."""
        varied = "".join(
            f"-{option.replace('_', '')}{re.sub(r'[^A-Za-z0-9_.+-]+', '-', str(value))}"
            for option, value in sorted(self.vary.items())
        )
        return f"{self.method}{varied}-seed{self.seed}"

    @property
    def full_name(self) -> str:
        """Data set and name: `--only` matches it, and the folder of its results has it."""
        return f"{self.data}/{self.name}"


def options_apart(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """The options in which two runs differ, as text."""
    names = [name for name in dict.fromkeys((*one, *other)) if one.get(name) != other.get(name)]
    return ", ".join(f"{name} {one.get(name, 'unset')} and {other.get(name, 'unset')}" for name in names)
