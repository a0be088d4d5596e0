"""A task file with several questions about the same items: as one task file for each question."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distjudge_trl.data.question_template import ASKED, QUESTION, roles_of
from distjudge_trl.data.splits import SWAPPED
from distjudge_trl.data.template import PromptTemplate
from distjudge_trl.errors import UserInputError, listing
from distjudge_trl.tasks.custom.base import as_name
from distjudge_trl.tasks.custom.schema import QuestionsFile, TaskFile
from distjudge_trl.tasks.custom.validation import validated


def read_questions(content: Mapping[str, Any], path: Path) -> dict[str, TaskFile]:
    """The task files of the questions, by their names. What a question does not say is taken from the top level.

    Raises:
        [`UserInputError`]: names the question and the key.
    """
    top = validated(QuestionsFile, content, str(path))
    own = {as_name(name): question for name, question in content["questions"].items()}
    if len(own) < len(content["questions"]):
        raise UserInputError(f"{path}: `questions` has a name twice, in two spellings. Rename one of them.")
    files = {
        name: validated(TaskFile, _merged(content, name, question, top), f"{path}: `questions.{name}`")
        for name, question in own.items()
    }
    if SWAPPED.removeprefix("/") in files:
        raise UserInputError(
            f"{path}: `questions.swapped`: the name is taken by pairs in both orders. Choose another."
        )
    first = next(iter(files))
    for name, file in files.items():
        twin = next(other for other, its in files.items() if its.votes == file.votes)
        if twin != name:
            raise UserInputError(
                f"{path}: the questions {twin!r} and {name!r} have the same `votes`: name the columns of each."
            )
        if file.votes.by_row != files[first].votes.by_row:
            raise UserInputError(
                f"{path}: `votes` of the questions {first!r} and {name!r}: either all questions have `rows` (a row an"
                " annotator), or none."
            )
    return files


def _merged(content: Mapping[str, Any], name: str, question: Mapping[str, Any], top: QuestionsFile) -> dict[str, Any]:
    """The content of a question's own task file."""
    shared = {key: value for key, value in content.items() if key != "questions"}
    if {"template", "template_file"} & set(question):
        shared = {key: value for key, value in shared.items() if key not in ("template", "template_file")}
    labels = top.questions[name].labels
    if labels is not None:
        # Of other labels the question has nothing.
        for key in ("synonyms", "spellings", "answers"):
            if isinstance(shared.get(key), Mapping):
                shared[key] = {label: value for label, value in shared[key].items() if as_name(label) in labels}
                if not shared[key]:
                    del shared[key]
    about = {"name": f"{top.name}-{name}", "description": f"{top.description}: {name}"}
    return {**shared, **question, **about}


def why_apart(files: Mapping[str, TaskFile], templates: Mapping[str, PromptTemplate]) -> str:
    """Why one judge cannot answer all questions, as a clause; "" if it can."""
    first, *others = files
    for name in others:
        a, b = files[first], files[name]
        if a.labels != b.labels:
            return (
                f"the questions {first} ({listing(a.labels)}) and {name} ({listing(b.labels)}) have different labels"
            )
        differing = [
            key
            for key, mine, its in (
                ("ordinal", a.ordinal, b.ordinal),
                ("answers", a.answer_words, b.answer_words),
                ("synonyms", a.synonyms, b.synonyms),
            )
            if mine != its
        ]
        if differing:
            return f"the questions {first} and {name} have the same labels, but differ in `{differing[0]}`"
        roles = [listing(roles_of(templates[which])) for which in (first, name)]
        if roles[0] != roles[1]:
            return f"the templates of {first} and {name} have messages of different roles ({roles[0]}; {roles[1]})"
    return ""


def check_apart(templates: Mapping[str, PromptTemplate], path: Path) -> None:
    """Raise [`UserInputError`] if two questions have the same template, which does not show the question's name."""
    seen: dict[str, str] = {}
    for name, template in templates.items():
        twin = seen.setdefault(repr(template.messages), name)
        if twin != name and not {ASKED, QUESTION} & template.fields:
            raise UserInputError(
                f"{path}: the questions {twin!r} and {name!r} have the same template: let it show {{{{ {ASKED} }}}},"
                " the name of the question, or give each question a `template`."
            )
