"""What a sweep asks of a recipe before any trial starts: whether its values are accepted, and what data there is."""

from __future__ import annotations

import dataclasses
import enum
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from distjudge_trl.errors import UserInputError, nearest
from distjudge_trl.files.atomic import read_json, write_json


if TYPE_CHECKING:
    from distjudge_trl.recipe.arguments import ParsedRun

REQUEST_NAME = "request.json"
ANSWER_NAME = "answer.json"
# They would choose by other items.
_DECIDE_ITEMS = (
    *("data_path", "task", "split", "split_seed", "validation_fraction", "max_eval_samples", "score_on", "max_items"),
    *("min_annotators", "annotators", "majority_ties", "preferences", "swap", "labels", "draw_seed", "dimension"),
)
# The sweep sets them.
_OF_THE_SWEEP = ("output_dir", "resume_from_checkpoint", "push_to_hub", "hub_model_id", "calibrate", "config")
_SEEDS = ("seed", "data_seed")
_MOST_POINTS = 200  # that are checked one by one, in some seconds


class Asked(NamedTuple):
    """The recipe that is asked: its `name`, how it reads command line words, and its `defaults`."""

    name: str
    parse: Callable[[Sequence[str]], ParsedRun]
    defaults: Mapping[str, Any]


def prepare(recipe: Asked, folder: str) -> None:
    """Answer `request.json` of a folder in `answer.json`.

    The request: `options`, command line words that all trials share; `extra`, words that the sweep adds; `parameters`,
    name to values to be tried (the ends of a range); `points`, whole configurations; `save`, a folder for the records.
    The answer: `options` that are given and `parameters` with values as the recipe reads them; numbers and
    fingerprints of the records and the folder they are saved in; the recipe's defaults and the precision.

    Raises:
        [`UserInputError`]: an option or value that the recipe does not take, or anything wrong with the data.
    """
    from distjudge_trl.data import fingerprint
    from distjudge_trl.recipe.checks import check_options
    from distjudge_trl.recipe.data import SCORED_COLUMNS, find_model, find_template, load_parts, save_parts

    request = read_json(Path(folder) / REQUEST_NAME)
    words: list[str] = [*request["options"], *request["extra"]]
    names = option_names(request["options"])
    for name in names:
        if name in _OF_THE_SWEEP:
            raise UserInputError(f"--{name} is the sweep's own to set: drop it.")
    run = recipe.parse(words)
    check_options(run)
    _check_names(recipe, run, request["parameters"])
    parameters = {
        name: [_typed(recipe, words, name, value) for value in values]
        for name, values in request["parameters"].items()
    }
    for point in request["points"][:_MOST_POINTS]:
        check_options(
            recipe.parse([*words, *(word for name, value in point.items() for word in (f"--{name}", str(value)))])
        )

    _, fitter = find_model(run)
    parts = load_parts(run, find_template(run), fitter)
    answer = {
        "task": run.task.name,
        "parameters": parameters,
        "options": dict(_options(run, request["options"], names)),
        "num_train": len(parts.train),
        "num_scored": len(parts.scored),
        "train_fingerprint": fingerprint(parts.train),
        "scored_fingerprint": fingerprint(parts.scored.select_columns(SCORED_COLUMNS)),
        "data": str(save_parts(parts, request["save"], run, fitter)),
        "defaults": _digest(recipe.defaults),
        "precision": "bf16" if run.training.bf16 else "fp16" if run.training.fp16 else "float32",
    }
    write_json(Path(folder) / ANSWER_NAME, answer)


def option_names(words: Sequence[str]) -> list[str]:
    """Names of the options among command line words, in their order."""
    flags = [word.split("=", 1)[0] for word in words if word.startswith("--")]
    return list(dict.fromkeys(flag.removeprefix("--").replace("-", "_") for flag in flags))


def _check_names(recipe: Asked, run: ParsedRun, parameters: Mapping[str, Sequence[Any]]) -> None:
    known = [field.name for field in _fields(run)]
    for name, values in parameters.items():
        if name in _DECIDE_ITEMS:
            raise UserInputError(
                f"--param {name}: cannot be swept: it decides which items choose, and configurations that are scored"
                " on different ones cannot be compared."
            )
        if name in _OF_THE_SWEEP:
            raise UserInputError(f"--param {name}: cannot be swept: the sweep sets it itself.")
        if name in _SEEDS:
            raise UserInputError(f"--param {name}: cannot be swept: give --seeds N, the runs of every configuration.")
        if name not in known:
            close = nearest(name, known)
            hint = f" Did you mean {close}?" if close else ""
            raise UserInputError(f"--param {name}: the recipe {recipe.name} has no such option.{hint}")
        if name == "method" and "raw" in values:
            raise UserInputError("--param method: raw trains nothing, and leaves no judge to choose.")


def _typed(recipe: Asked, words: list[str], name: str, value: Any) -> Any:
    """What the recipe makes of a value."""
    try:
        run = recipe.parse([*words, f"--{name}", str(value)])
    except UserInputError as error:
        raise UserInputError(f"--param {name}: {value} is not accepted: {error}") from None
    return plain(_value(run, name))


def _fields(run: ParsedRun) -> list[dataclasses.Field[Any]]:
    return [field for part in run[1:] for field in dataclasses.fields(part) if field.init]


def _value(run: ParsedRun, name: str) -> Any:
    return next(getattr(part, name) for part in run[1:] if any(f.name == name for f in dataclasses.fields(part)))


def _options(run: ParsedRun, words: Sequence[str], names: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """Given options with the values that the recipe reads.

    Raises:
        [`UserInputError`]: one that is no field of its.
    """
    known = [field.name for field in _fields(run)]
    for name in names:
        if name in known:
            value = plain(_value(run, name))
            # `--report_to none` becomes an empty list, which no command line can say.
            yield name, _written(name, words) if value == [] else value
        elif name == "task":
            # Of a recipe that takes any: the word itself, for it may be a file.
            yield name, _written(name, words)
        elif name.startswith("no_") and name.removeprefix("no_") in known:
            yield name.removeprefix("no_"), False
        else:
            raise UserInputError(f"--{name}: a sweep cannot pass it on; write it as an option of the recipe.")


def _written(name: str, words: Sequence[str]) -> str:
    """The word behind an option, as it is given."""
    place = max(i for i, word in enumerate(words) if option_names([word]) == [name])
    return words[place].partition("=")[2] if "=" in words[place] else words[place + 1]


def plain(value: Any) -> Any:
    """A field's value as JSON and YAML hold it."""
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:16]
