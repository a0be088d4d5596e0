"""What a sweep asks of a recipe before any trial starts: whether its values are accepted, and what data there is."""

from __future__ import annotations

import dataclasses
import difflib
import enum
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distjudge_trl.atomic import write_json
from distjudge_trl.errors import UserInputError
from distjudge_trl.supervised import read_json


if TYPE_CHECKING:
    from distjudge_trl.recipe import Recipe, RecipeRun

REQUEST_NAME = "request.json"
ANSWER_NAME = "answer.json"
# They would choose by other items, or are the sweep's own to set.
_NOT_SWEPT = {
    **dict.fromkeys(
        (
            *("data_path", "task", "split", "split_seed", "validation_fraction", "max_eval_samples", "score_on"),
            *("max_items", "min_annotators", "annotators", "majority_ties"),
        ),
        "it decides which items choose, and configurations that are scored on different ones cannot be compared",
    ),
    **dict.fromkeys(
        ("output_dir", "resume_from_checkpoint", "push_to_hub", "hub_model_id", "calibrate"),
        "the sweep sets it itself",
    ),
    **dict.fromkeys(("seed", "data_seed"), "give --seeds N, the number of runs of every configuration"),
}


def prepare(recipe: Recipe, folder: str) -> None:
    """Answer `request.json` of a folder (`options`: command line words that all trials share; `parameters`: name to
    texts to be tried; `save`: a folder for the records) in `answer.json`: `options` that are given and `parameters`
    with values as the recipe reads them, and numbers and fingerprints of the records.

    Raises:
        [`UserInputError`]: an option or value that the recipe does not take, or anything wrong with the data.
    """
    request = read_json(Path(folder) / REQUEST_NAME)
    options: list[str] = request["options"]
    run = recipe.parse(options)
    parameters = {
        name: [_typed(recipe, options, name, value) for value in values]
        for name, values in _known(recipe, run, request["parameters"]).items()
    }
    from distjudge_trl.data import fingerprint
    from distjudge_trl.recipe_data import find_model, find_template, load_parts, save_parts

    _, fitter = find_model(run)
    parts = load_parts(run, find_template(run), fitter)
    save_parts(parts, request["save"], run, fitter)
    train, _, scored, report = parts
    answer = {
        "task": run.task.name,
        "method": run.recipe.method,
        "parameters": parameters,
        "options": {name: plain(_value(run, name)) for name in _given(options)},
        "report": "; ".join(report.lines()),
        "num_train": len(train),
        "num_scored": len(scored),
        "train_fingerprint": fingerprint(train),
        "scored_fingerprint": fingerprint(scored),
    }
    write_json(Path(folder) / ANSWER_NAME, answer)


def _known(recipe: Recipe, run: RecipeRun, parameters: Mapping[str, Sequence[Any]]) -> Mapping[str, Sequence[Any]]:
    names = [field.name for part in run[1:] for field in dataclasses.fields(part) if field.init]
    for name in parameters:
        if name in _NOT_SWEPT:
            raise UserInputError(f"--param {name}: cannot be swept: {_NOT_SWEPT[name]}.")
        if name not in names:
            close = difflib.get_close_matches(name, names, n=1)
            hint = f" Did you mean {close[0]}?" if close else ""
            raise UserInputError(f"--param {name}: the recipe {recipe.name} has no such option.{hint}")
    return parameters


def _typed(recipe: Recipe, options: list[str], name: str, value: Any) -> Any:
    """What the recipe makes of a value."""
    try:
        return plain(_value(recipe.parse([*options, f"--{name}", str(value)]), name))
    except UserInputError as error:
        raise UserInputError(f"--param {name}: {value} is not accepted: {error}") from None


def _value(run: RecipeRun, name: str) -> Any:
    for part in run[1:]:
        if any(field.name == name for field in dataclasses.fields(part)):
            return getattr(part, name)
    return None


def _given(options: Sequence[str]) -> list[str]:
    """Names of the options among command line words, in their order."""
    words = [word.split("=", 1)[0] for word in options if word.startswith("--")]
    return list(dict.fromkeys(word.removeprefix("--").replace("-", "_") for word in words))


def plain(value: Any) -> Any:
    """A field's value as JSON and YAML hold it."""
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value
