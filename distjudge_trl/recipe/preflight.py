"""A sweep's preflight of a recipe, before any trial starts: does it accept all values, and which data does it read?"""

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
# Configurations with other values would be ranked on other items.
_DECIDE_ITEMS = (
    *("data_path", "task", "split", "split_seed", "validation_fraction", "max_eval_samples", "score_on", "max_items"),
    *(
        "min_annotators",
        "annotators",
        "majority_ties",
        "preferences",
        "swap",
        "labels",
        "draw_seed",
        "dimension",
        "question",
    ),
)
# Options that the sweep sets.
_OF_THE_SWEEP = ("output_dir", "resume_from_checkpoint", "push_to_hub", "hub_model_id", "calibrate", "config")
_SEEDS = ("seed", "data_seed")
_MOST_POINTS = 200  # configurations that are checked one by one, which takes some seconds


class CheckedRecipe(NamedTuple):
    """What the preflight needs of a recipe: its `name`, how it parses a command line, and its `defaults`."""

    name: str
    parse: Callable[[Sequence[str]], ParsedRun]
    defaults: Mapping[str, Any]


def run_preflight(recipe: CheckedRecipe, folder: str) -> None:
    """Read `request.json` in a folder, and write `answer.json` there.

    The request holds `options`, command line words that all trials share; `extra`, words that the sweep adds;
    `parameters`, names to the values to try (the ends of a range); `points`, the configurations; and `save`, a folder
    for the records. The answer holds the given `options` and `parameters` with values as the recipe reads them, the
    numbers and fingerprints of the records and the folder they are saved in, the recipe's defaults and the precision.

    Raises:
        [`UserInputError`]: the recipe does not accept an option or value, or something is wrong with the data.
    """
    from distjudge_trl.data import fingerprint
    from distjudge_trl.recipe.checks import check_options
    from distjudge_trl.recipe.data import SCORED_COLUMNS, find_model, find_template, load_parts, save_parts

    request = read_json(Path(folder) / REQUEST_NAME)
    words: list[str] = [*request["options"], *request["extra"]]
    names = option_names(request["options"])
    for name in names:
        if name in _OF_THE_SWEEP:
            raise UserInputError(f"--{name} is set by the sweep itself: drop it.")
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

    fitter = find_model(run).fitter
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
    """The names of the options in a list of command line words, in their order."""
    flags = [word.split("=", 1)[0] for word in words if word.startswith("--")]
    return list(dict.fromkeys(flag.removeprefix("--").replace("-", "_") for flag in flags))


def _check_names(recipe: CheckedRecipe, run: ParsedRun, parameters: Mapping[str, Sequence[Any]]) -> None:
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


def _typed(recipe: CheckedRecipe, words: list[str], name: str, value: Any) -> Any:
    """A value as the recipe reads it."""
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
    """The given options, with values as the recipe reads them.

    Raises:
        [`UserInputError`]: an option is not a field of the recipe's arguments.
    """
    known = [field.name for field in _fields(run)]
    for name in names:
        if name in known:
            value = plain(_value(run, name))
            # `--report_to none` is read as an empty list, which cannot be written on a command line.
            yield name, _written(name, words) if value == [] else value
        elif name == "task":
            # The word itself: the task of `custom` may be a file.
            yield name, _written(name, words)
        elif name.startswith("no_") and name.removeprefix("no_") in known:
            yield name.removeprefix("no_"), False
        else:
            raise UserInputError(f"--{name}: a sweep cannot pass it on; write it as an option of the recipe.")


def _written(name: str, words: Sequence[str]) -> str:
    """The word behind an option, as the user wrote it."""
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
