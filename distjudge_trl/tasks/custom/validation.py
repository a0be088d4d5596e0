"""The content of a YAML file as one of the models of a task file, and what is wrong with it in one line."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from distjudge_trl.errors import UserInputError, listing, nearest, short
from distjudge_trl.tasks.custom.schema import Message, Question, TaskFile, Votes
from distjudge_trl.tasks.custom.sources import (
    HubSource,
    HubSplits,
    JoinedFile,
    JoiningSource,
    PartSources,
    SplitColumn,
)


Model = TypeVar("Model", bound=BaseModel)
# The model under a key, wherever it stands; below `questions` names follow that are the user's.
_MODELS: dict[str, type[BaseModel]] = {
    "votes": Votes,
    "template": Message,
    "split": SplitColumn,
    "splits": HubSplits,
    "file": JoiningSource,
    "join": JoinedFile,
    "hub": HubSource,
    "parts": PartSources,
    **dict.fromkeys(("train", "validation", "test"), JoiningSource),
}
# What pydantic's types are called in YAML.
_KINDS = {
    "tuple_type": "a list, such as [a, b]",
    "dict_type": "a mapping of keys to values",
    "model_type": "a mapping of keys to values",
    "string_type": "a text",
}


def validated(model: type[Model], content: Any, place: str) -> Model:
    """The content as a model.

    Args:
        model (`type[BaseModel]`): of the complete file, or of one question of several.
        content (`Any`): what the YAML file holds.
        place (`str`): the beginning of the message: the file, and the key of the question.

    Raises:
        [`UserInputError`]: names the first key that is wrong, and what was expected.
    """
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise UserInputError(f"{place}: {_explain(error, model)}") from None


def _explain(error: ValidationError, model: type[BaseModel]) -> str:
    """The first error of pydantic: the key, what is wrong, what was expected."""
    details = error.errors(include_url=False)
    first = details[0]
    if first["type"] == "missing":  # because it is misspelled, perhaps
        first = next((detail for detail in details if detail["type"] == "extra_forbidden"), first)
    # A union's tag directly follows its key.
    location = [
        part
        for i, part in enumerate(first["loc"])
        if (first["loc"][max(i - 1, 0)] != "source" or i == 0) and not str(part).startswith(("dict[", "str", "int"))
    ]
    keys = ".".join(str(part) for part in location if part != "[key]")
    place = f"`{keys}`: " if keys else ""
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        known = _known_keys(first["loc"][:-1], model)
        close = nearest(str(first["loc"][-1]), known)
        meant = f"; did you mean `{close}`?" if close else ""
        message = f"is not a key of a task file; known here are {listing(known)}{meant}"
    elif first["type"] == "missing":
        message = "is missing"
    elif (kind := _KINDS.get(first["type"])) is not None:
        message = f"must be {kind}, got {short(first['input'])}"
    elif first["type"] in ("too_short", "string_too_short"):
        least = first["ctx"].get("min_length", 1)
        message = (
            "must not be empty" if least == 1 else f"must have at least {least} entries, got {short(first['input'])}"
        )
    elif first["type"] == "string_pattern_mismatch":
        message = f"may have letters, digits, `_`, `.` and `-`, got {short(first['input'])}"
    elif first["type"] in ("literal_error", "bool_parsing"):
        message = f"{message[0].lower()}{message[1:]}, got {short(first['input'])}"
    elif first["type"].endswith("_type"):
        message = f"{message[0].lower()}{message[1:]}".partition(" or instance of ")[0]
        message += f", got {short(first['input'])}"
    return f"{place}{message}."


def _known_keys(place: tuple[int | str, ...], model: type[BaseModel]) -> list[str]:
    names = list(place)
    extra = ["questions"] if model is TaskFile and not names else []
    if names[:1] == ["questions"] and len(names) > 1:
        model, names = Question, names[2:]
    for part in names:
        model = _MODELS.get(str(part), model)
    return [info.alias or name for name, info in model.model_fields.items()] + extra
