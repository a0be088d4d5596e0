"""What a sweep tries: parameters with lists of values or ranges, as written on a command line or in YAML."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from distjudge_trl.errors import UserInputError, nearest


if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

_RANGES = ("log", "float", "int")
_FORMS = "NAME=A,B,C, NAME=log:LOW:HIGH, NAME=float:LOW:HIGH or NAME=int:LOW:HIGH"

Scalar = str | int | float | bool
_LIKE_A_RANGE = re.compile(r"([a-z]+):[-+.e\d]+:[-+.e\d]+")


@dataclass(frozen=True)
class Parameter:
    """An option of the recipe and the values that are tried.

    Args:
        name (`str`): of the option, without dashes.
        choices (`tuple`): a list of values; empty for a range.
        low, high (`int` or `float`): ends of a range, both included.
        log (`bool`): whether a range is sampled by its logarithm.
        integer (`bool`): whether a range holds whole numbers alone.
    """

    name: str
    choices: tuple[Scalar, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    integer: bool = False

    @property
    def is_range(self) -> bool:
        return not self.choices

    @property
    def ends(self) -> tuple[Scalar, ...]:
        """Values to check before anything runs: all of a list, both ends of a range."""
        return self.choices or (self.low, self.high)

    def distribution(self) -> BaseDistribution:
        """For Optuna."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        if not self.is_range:
            return CategoricalDistribution(list(self.choices))
        if self.integer:
            return IntDistribution(int(self.low), int(self.high))
        return FloatDistribution(self.low, self.high, log=self.log)

    def describe(self) -> str:
        """As on the command line."""
        if not self.is_range:
            return f"{self.name}={','.join(show(value) for value in self.choices)}"
        kind = "log" if self.log else "int" if self.integer else "float"
        return f"{self.name}={kind}:{show(self.low)}:{show(self.high)}"


def show(value: Any) -> str:
    """A value as a recipe's command line takes it, floats without needless digits."""
    return f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value)


def name_of(parameters: Mapping[str, Any]) -> str:
    """A configuration in one line: `alpha=0.8 perturbation_radius=0.25`."""
    return " ".join(f"{name}={show(value)}" for name, value in parameters.items())


def parse_parameter(text: str) -> Parameter:
    """`NAME=VALUES` of `--param`.

    Raises:
        [`UserInputError`]: no name, no values, or a range that is none.
    """
    name, equals, values = text.partition("=")
    name = name.strip().removeprefix("--").replace("-", "_")
    if not equals or not name:
        raise UserInputError(f"--param {text}: write {_FORMS}.")
    return make_parameter(name, values)


def make_parameter(name: str, values: Any) -> Parameter:
    """A parameter from a list of values, or from the text behind `NAME=`.

    Raises:
        [`UserInputError`]: no values, a value twice, a value that is neither text nor number, or a range that is none.
    """
    if isinstance(values, str):
        kind, colon, ends = values.strip().partition(":")
        if colon and kind in _RANGES:
            return _range(name, kind, ends)
        values = [part.strip() for part in values.split(",")] if values.strip() else []
    if not isinstance(values, Sequence):
        values = [values]
    if not values:
        raise UserInputError(f"The parameter {name} has no values: write {_FORMS}.")
    if any(value == "" for value in values):
        raise UserInputError(f"The parameter {name} has an empty value: write {_FORMS}.")
    for value in values:
        if not isinstance(value, str | int | float | bool):
            raise UserInputError(f"The parameter {name}: {value!r} is neither a number nor a text. Write {_FORMS}.")
    choices = tuple(_scalar(value) for value in values)
    for value in choices:
        if isinstance(value, float) and not math.isfinite(value):
            raise UserInputError(f"The parameter {name}: {value} is no finite number.")
        if isinstance(value, str) and (found := _LIKE_A_RANGE.fullmatch(value)):
            kind = found[1]
            if kind in _RANGES:
                raise UserInputError(f"The parameter {name}: the range {value} stands alone, not in a list.")
            close = nearest(kind, _RANGES)
            hint = f"Did you mean {close}:LOW:HIGH?" if close else f"Write {_FORMS}."
            raise UserInputError(f"The parameter {name}: {value!r} is no range. {hint}")
    return Parameter(name, check_distinct(name, choices))


def check_distinct(name: str, choices: tuple[Scalar, ...]) -> tuple[Scalar, ...]:
    """The choices, each of which is there once.

    Raises:
        [`UserInputError`]: one is there twice.
    """
    for i, value in enumerate(choices):
        if value in choices[:i]:
            raise UserInputError(f"The parameter {name} has the value {show(value)} twice.")
    return choices


def _range(name: str, kind: str, ends: str) -> Parameter:
    low, _, high = ends.partition(":")
    try:
        first, last = float(low), float(high)
    except ValueError:
        first = last = math.nan
    whole = kind != "int" or (first.is_integer() and last.is_integer())
    if not (first < last and math.isfinite(last - first) and whole and (kind != "log" or first > 0)):
        least = "two positive numbers" if kind == "log" else "two whole numbers" if kind == "int" else "two numbers"
        raise UserInputError(
            f"The parameter {name}: {kind}:{ends} is no range. Write {kind}:LOW:HIGH, {least}, the lower one first."
        )
    if kind == "int":
        return Parameter(name, (), int(first), int(last), integer=True)
    return Parameter(name, (), first, last, log=kind == "log")


def _scalar(value: Any) -> Scalar:
    """YAML takes 5e-5 for a text, and a command line everything."""
    if not isinstance(value, str):
        return value
    for convert in (int, float):
        try:
            return convert(value)
        except ValueError:
            pass
    return {"true": True, "false": False}.get(value.lower(), value)


def grid(parameters: Sequence[Parameter]) -> list[dict[str, Scalar]]:
    """Every combination of the values, the last parameter running fastest.

    Raises:
        [`UserInputError`]: no parameter, or one with a range.
    """
    if not parameters:
        raise UserInputError("There is nothing to sweep: give --param NAME=A,B,C.")
    for parameter in parameters:
        if parameter.is_range:
            raise UserInputError(
                f"--sampler grid tries lists of values, and {parameter.describe()} is a range: list values, or choose"
                " --sampler random or tpe."
            )
    names = [parameter.name for parameter in parameters]
    return [dict(zip(names, values, strict=True)) for values in itertools.product(*(p.choices for p in parameters))]


def draw(parameters: Sequence[Parameter], count: int, seed: int) -> list[dict[str, Scalar]]:
    """`count` random configurations, none twice: lists alone are drawn from the grid without putting back, so there
    may be fewer.

    The first ones do not depend on `count`, so that a longer sweep goes on where a shorter one ended.
    """
    import random

    import optuna

    if not any(parameter.is_range for parameter in parameters):
        points = grid(parameters)
        random.Random(seed).shuffle(points)
        return points[:count]
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    distributions = {parameter.name: parameter.distribution() for parameter in parameters}
    found: list[dict[str, Scalar]] = []
    # Whole numbers may come twice; a small range of them may hold fewer than are asked for.
    for _ in range(100 * count):
        point = study.ask(distributions).params
        if point not in found:
            found.append(point)
        if len(found) == count:
            break
    return found
