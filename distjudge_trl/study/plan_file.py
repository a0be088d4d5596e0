"""What a plan's YAML file holds, and the checks of its keys and values."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any, NamedTuple

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from distjudge_trl.errors import listing, nearest, short


# Options of recipes that a plan gives in another way.
_ELSEWHERE = {
    "method": "a part's `methods` list it",
    "seed": "a part's `seeds` list it",
    "task": "it is the key `task` of a data set",
    "data_path": "it is the key `path` of a data set",
    "output_dir": "the study chooses the folder of each run",
    "resume_from_checkpoint": "an interrupted run goes on from its last checkpoint, if its options save any",
    "config": "write its options into the plan",
    "help": "see `distjudge-trl train RECIPE --help`",
}


# Options of which tables and plots draw curves.
COUNTS = ("max_annotators", "max_train_samples")
# Those with which durations are estimated, too.
_WHOLE = (*COUNTS, "max_eval_samples", "annotation_budget", "max_steps")


def _named(content: Any) -> Any:
    """A mapping with option names as keys, dashes as underscores."""
    if not isinstance(content, dict):
        # Of a TypeError pydantic would make no message.
        raise ValueError("must be a mapping of option names to values, such as `alpha: 0.8`")  # noqa: TRY004
    found: dict[str, Any] = {}
    for key, value in content.items():
        name = str(key).replace("-", "_")
        if name in _ELSEWHERE:
            raise ValueError(f"{name} is no option of a plan: {_ELSEWHERE[name]}")
        if name in found:
            raise ValueError(f"{name} occurs twice, with dashes and with underscores")
        found[name] = value
    return found


def check_options(content: Any) -> dict[str, Any]:
    """Options by name, dashes as underscores.

    Raises:
        `ValueError`: not a mapping, an option that is given in another way, or a value that is neither a number, a
            text, a truth value, `None`, nor a list of such.
    """
    for name, value in _named(content).items():
        for entry in value if isinstance(value, list) else [value]:
            _check_value(name, entry)
        if name in _WHOLE:
            _check_count(name, value)
    named: dict[str, Any] = _named(content)
    return named


def _checked_vary(content: Any) -> Any:
    for name, values in _named(content).items():
        if not isinstance(values, list) or not values:
            raise ValueError(f"{name} needs a list of values, such as [100, 400, null]; got {short(values)}")
        for entry in values:
            _check_value(name, entry)
            if name in _WHOLE:
                _check_count(name, entry)
    return _named(content)


def _check_count(name: str, value: Any) -> None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
        raise ValueError(f"{name} must be a whole number (without quotes) or null, got {short(value)}")


def _check_value(name: str, value: Any) -> None:
    if value is not None and not isinstance(value, bool | int | float | str | dict):
        raise ValueError(f"{name} must be a number, a text, true or false, or null; got {short(value)}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{name} must be finite, got {value}. A very large number such as 1e9 acts the same")
    if isinstance(value, str) and value.lower() in ("true", "false"):
        raise ValueError(f"{name} must not be a text: write {value.lower()} without quotes")


def _checked_start(text: str) -> str:
    if not re.fullmatch(r"[^/]+(/[^/]+)?", text):
        raise ValueError(f"must be the name of a data set, or DATA/METHOD, got {short(text)}")
    return text


Options = Annotated[dict[str, Any], BeforeValidator(check_options)]
_Vary = Annotated[dict[str, list[Any]], BeforeValidator(_checked_vary)]
# What data sets, methods, parts and folders of results may be called.
NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"
_Name = Annotated[str, Field(pattern=NAME)]
_Text = Annotated[str, Field(min_length=1)]
# What numpy takes, too.
_Seed = Annotated[int, Field(ge=0, lt=2**32)]
_Names = Annotated[list[_Name], Field(min_length=1)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Start(NamedTuple):
    """Where judges start from: those of a data set, of the same method (`None`) or of one for all."""

    data: str
    method: str | None


class PlannedData(_Part):
    """A data set: its task (a name or a YAML file beside the plan), its files below `--data-root`, options of all its
    runs, the tasks that its judges are tested on besides (`transfer`: task to files), the data set from whose judges
    they are trained further (`start_from`: DATA for those of the same method, or DATA/METHOD; the seed is the same),
    and controls: data sets whose judges the table of such judges shows beside them (`compare_with`).
    """

    task: _Text
    path: _Text | None = None
    title: str | None = None
    options: Options = {}
    transfer: dict[_Text, _Text | None] = {}
    start_from: Annotated[str, AfterValidator(_checked_start)] | None = None
    compare_with: _Names = []

    @property
    def start(self) -> Start | None:
        """What `start_from` says."""
        data, _, method = (self.start_from or "").partition("/")
        return Start(data, method or None) if data else None


class PlannedMethod(_Part):
    """A method under its own name: a method of the recipes with other options."""

    method: str
    title: str | None = None
    options: Options = {}


class PlannedPart(_Part):
    """Runs: every method on every data set, for every seed and every combination of the values in `vary`. Methods for
    ordered labels are left out where labels have no order, and an untrained model is tested once.
    """

    data: _Names
    methods: _Names
    seeds: Annotated[list[_Seed], Field(min_length=1)] = [0]
    vary: _Vary = {}
    options: Options = {}


class PlanFile(_Part):
    """What a plan file holds."""

    model: _Text | None = None
    options: Options = {}
    data: Annotated[dict[_Name, PlannedData], Field(min_length=1)]
    methods: dict[_Name, PlannedMethod] = {}
    runs: Annotated[dict[_Name, PlannedPart], Field(min_length=1)]


# In place of messages in which pydantic speaks of dictionaries, strings and classes.
_MEANINGS = {
    **dict.fromkeys(("dict_type", "model_type"), "must be a mapping of names to values"),
    "list_type": "must be a list, such as [a, b]",
    "string_type": "must be a text; in quotes, if YAML takes it for something else",
    **dict.fromkeys(("string_too_short", "too_short"), "must not be empty"),
}


def finding(error: ValidationError) -> str:
    """The first thing that is wrong with a plan: its key and what to do, as a sentence."""
    # A key that is written wrongly is missing, too; that it is unknown says more.
    first = min(error.errors(include_url=False), key=lambda each: each["type"] == "missing")
    # A pattern of names is reported at a place of its own.
    keys = [" ".join(str(key).split()) for key in first["loc"] if key != "[key]"]
    where = f"`{'.'.join(keys)}`: " if keys else ""
    if first["type"] == "extra_forbidden":
        known = _keys_at(keys[:-1])
        close = nearest(keys[-1], known)
        return f"{where}there is no such key.{f' Did you mean {close}?' if close else ''} There are: {listing(known)}."
    if first["type"] == "missing":
        return f"{where}is missing."
    if first["type"] == "string_pattern_mismatch":
        return (
            f"{where}a name may have letters, digits, dots, dashes and underscores, and begins with one of the first."
        )
    message = _MEANINGS.get(first["type"], first["msg"]).removeprefix("Value error, ")
    return f"{where}{message[0].lower()}{message[1:]}{_got(first)}."


def _got(found: Any) -> str:
    return "" if found["type"] == "value_error" else f", got {short(found['input'])}"


def _keys_at(place: list[str]) -> list[str]:
    kinds: dict[str, type[BaseModel]] = {"data": PlannedData, "methods": PlannedMethod, "runs": PlannedPart}
    return list((kinds[place[0]] if place else PlanFile).model_fields)
