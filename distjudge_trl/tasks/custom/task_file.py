"""A user's own task without code: a YAML file that names the labels and the columns with the votes.

The file is checked against the pydantic models of `schema.py`; docs/data.md has worked examples.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

from pydantic import (
    BaseModel,
    ValidationError,
)

from distjudge_trl.data.source_files import DataFile, find_files
from distjudge_trl.data.template import PromptTemplate
from distjudge_trl.data.values import spelling
from distjudge_trl.errors import UserInputError, listing
from distjudge_trl.files.yaml import read_yaml
from distjudge_trl.labels import LabelSpace
from distjudge_trl.tasks.custom.rows import read_items
from distjudge_trl.tasks.custom.schema import FileSource, HubSource, Message, TaskFile, Votes
from distjudge_trl.tasks.items import TaskOptions
from distjudge_trl.tasks.task import JudgmentTask


def load_task(path: Path) -> JudgmentTask:
    """The task that a YAML file defines.

    Raises:
        [`UserInputError`]: the file is unreadable or not valid YAML; a key is unknown, missing or of a wrong type (the
            message names it and what was expected); labels contradict each other; or a template does not parse.
    """
    content = read_yaml(path)
    try:
        file = TaskFile.model_validate(content)
    except ValidationError as error:
        raise UserInputError(f"{path}: {_explain(error)}") from None
    try:
        template = _template(file, path.parent)
        space = LabelSpace(file.labels, file.synonyms)
        _refuse_codes_of_labels(file)
    except UserInputError as error:
        raise UserInputError(f"{path}: {error}") from None
    shown = template.fields & file.votes.columns()
    if shown:
        raise UserInputError(
            f"{path}: the prompt shows {min(shown)!r}, a column of votes: the judge must not see them."
        )
    if file.votes.label_columns is not None:
        for label in file.votes.label_columns:
            try:
                space.index(label)
            except KeyError as error:
                raise UserInputError(f"{path}: `votes.label_columns`: {error.args[0]}.") from None
    return JudgmentTask(
        name=file.name,
        description=file.description,
        labels=file.labels,
        synonyms=dict(file.synonyms),
        ordinal=file.ordinal,
        template=template,
        read_items=partial(read_items, file, template.fields),
        find=partial(_find, file, path.parent),
        options=TaskOptions,
        size="yours",
    )


def _refuse_codes_of_labels(file: TaskFile) -> None:
    """Refuse a code that is also a label, under any spelling of either: votes for that label would not count."""
    for label in file.labels:
        for known in (label, *file.synonyms.get(label, ())):
            for code in file.missing:
                # Votes are compared with codes in one spelling, and looked up among the labels in another.
                if spelling(known) == spelling(code) or known.strip().casefold() in (
                    code.strip().casefold(),
                    spelling(code).casefold(),
                ):
                    raise UserInputError(
                        f"`missing`: {code!r} is a code for a missing vote and means the label {label!r}, whose votes"
                        " would be lost. Take it out, or rename the label."
                    )


def _explain(error: ValidationError) -> str:
    """The first error of pydantic: the key, what is wrong, what was expected."""
    details = error.errors(include_url=False)
    first = details[0]
    # A union's tag directly follows its key.
    location = [part for i, part in enumerate(first["loc"]) if first["loc"][max(i - 1, 0)] != "source" or i == 0]
    keys = ".".join(map(str, location))
    place = f"`{keys}`: " if keys else ""
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        message = f"is not a key of a task file; known here are {listing(_known_keys(first['loc'][:-1]), most=20)}"
    elif first["type"] == "missing":
        message = "is missing"
    elif first["type"].endswith("_type"):
        message = f"{message[0].lower()}{message[1:]}, got {first['input']!r}"
    return f"{place}{message}."


def _known_keys(place: tuple[int | str, ...]) -> list[str]:
    models: dict[str, type[BaseModel]] = {"votes": Votes, "file": FileSource, "hub": HubSource, "template": Message}
    model: type[BaseModel] = TaskFile
    for part in place:
        model = models.get(str(part), model)
    return [info.alias or name for name, info in model.model_fields.items()]


def _template(file: TaskFile, folder: Path) -> PromptTemplate:
    if file.template_file is not None:
        return PromptTemplate.from_file(folder / file.template_file)
    assert file.template is not None
    return PromptTemplate([message.model_dump() for message in file.template])


def _find(file: TaskFile, folder: Path, data_path: Path | None) -> list[DataFile]:
    """Files of the source, or of `data_path` if it is given."""
    source = file.source
    if isinstance(source, HubSource):
        if data_path is not None:
            return find_files(data_path, ("*",))
        # The `datasets` library reads the rows; the "file" only has the name.
        return [DataFile(f"hub:{source.hub}", source.hub, "hub", lambda: None)]
    files = find_files(data_path or folder / source.path, source.files)
    reading = source.reading()
    return [replace(file, reading=reading) for file in files]
