"""A user's own task without code: a YAML file that names the labels and the columns with the votes.

The file is checked against the pydantic models of `schema.py`; docs/data.md has worked examples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from distjudge_trl.data.paths import ColumnPath, compile_expression, overlaps
from distjudge_trl.data.question_template import QuestionTemplate
from distjudge_trl.data.template import LEGEND, PromptTemplate
from distjudge_trl.errors import UserInputError
from distjudge_trl.files.yaml import read_yaml
from distjudge_trl.labels.spelling import spelling
from distjudge_trl.tasks.custom.finding import find
from distjudge_trl.tasks.custom.questions import check_apart, read_questions, why_apart
from distjudge_trl.tasks.custom.rows import Shown, read_items
from distjudge_trl.tasks.custom.schema import TaskFile
from distjudge_trl.tasks.custom.validation import validated
from distjudge_trl.tasks.items import QuestionOptions, TaskOptions
from distjudge_trl.tasks.task import JudgmentTask


class _Prompt(NamedTuple):
    """A template with the text of its legend, and what it shows of the rows."""

    template: PromptTemplate
    shown: Shown


def load_task(path: Path) -> JudgmentTask:
    """The task that a YAML file defines.

    Raises:
        [`UserInputError`]: the file is unreadable or not valid YAML; a key is unknown, missing or of a wrong type (the
            message names it and what was expected); labels contradict each other; or a template does not parse.
    """
    content = read_yaml(path)
    if isinstance(content, dict) and "questions" in content:
        return _questions_task(content, path)
    file = validated(TaskFile, content, str(path))
    hidden = [ColumnPath(text) for text in file.votes.columns()]
    return _task(file, path, _prompt(file, path, hidden, str(path)))


def _questions_task(content: dict[str, Any], path: Path) -> JudgmentTask:
    """The task of a file with several questions, which has a task of each."""
    files = read_questions(content, path)
    # No prompt may show the votes on any question: a judge does not have them either.
    hidden = [ColumnPath(text) for file in files.values() for text in file.votes.columns()]
    prompts = {name: _prompt(file, path, hidden, f"{path}: `questions.{name}`") for name, file in files.items()}
    votes = tuple(path.text for path in hidden)
    prompts = {name: p._replace(shown=p.shown._replace(hidden=votes)) for name, p in prompts.items()}
    family = str(content["name"])
    tasks = {name: replace(_task(file, path, prompts[name], name), family=family) for name, file in files.items()}
    first = next(iter(tasks.values()))
    together = replace(
        first,
        name=str(content["name"]),
        description=str(content.get("description", TaskFile.model_fields["description"].default)),
        parts=tuple(files),
        questions=tasks,
    )
    templates = {name: prompt.template for name, prompt in prompts.items()}
    reason = why_apart(files, templates)
    if reason:
        return replace(together, undecided=reason, labels=(), synonyms=None, answers=None)
    check_apart(templates, path)
    different = len({repr(template.messages) for template in templates.values()})
    shown = Shown(
        frozenset().union(*(prompt.shown.fields for prompt in prompts.values())),
        any(prompt.shown.legend for prompt in prompts.values()),
        shared=different < len(templates),
    )
    template = QuestionTemplate(templates) if different > 1 else first.template
    return replace(together, template=template, read_items=partial(read_items, files, shown))


def _task(file: TaskFile, path: Path, prompt: _Prompt, question: str = "") -> JudgmentTask:
    return JudgmentTask(
        name=file.name,
        description=file.description,
        labels=file.labels,
        synonyms=dict(file.synonyms),
        ordinal=file.ordinal,
        template=prompt.template,
        read_items=partial(read_items, {question: file}, prompt.shown),
        find=partial(find, file, path.parent),
        official_split=file.official_split,
        options=QuestionOptions if question else TaskOptions,
        size="yours",
        answers=file.answer_words,
        parts=(question,) if question else (),
    )


def _prompt(file: TaskFile, path: Path, hidden: Sequence[ColumnPath], place: str) -> _Prompt:
    """The template of a file, after checks of all that it and the labels say.

    Raises:
        [`UserInputError`]: begins with `place`.
    """
    try:
        template, space = _template(file, path.parent), file.label_space()
        reading = file.reading_space()
        _refuse_codes_of_labels(file)
        template.check_shows_something()
        if file.skip is not None:
            compile_expression(file.skip, "skip")
    except UserInputError as error:
        raise UserInputError(f"{place}: {error}") from None
    _refuse_shown_votes(hidden, template, place)
    named: dict[int, str] = {}
    for label in file.votes.label_columns or ():
        try:
            other = named.setdefault(reading.index(label), label)
        except KeyError as error:
            raise UserInputError(f"{place}: `votes.label_columns`: {error.args[0]}.") from None
        if other != label:
            raise UserInputError(
                f"{place}: `votes.label_columns`: {other!r} and {label!r} are one label. Give it a list of columns."
            )
    shown = Shown(template.fields - {LEGEND}, LEGEND in template.fields)
    return _Prompt(template.with_legend(space.legend), shown)


def _refuse_shown_votes(paths: Sequence[ColumnPath], template: PromptTemplate, place: str) -> None:
    """Refuse a template that shows a part of the rows in which the votes are, or something that holds them."""
    for branch in sorted(template.branches):
        if overlaps(branch, paths):
            is_column = any(branch == (path.text,) for path in paths)
            what = "a column of votes" if is_column else "which is or holds a column of votes"
            raise UserInputError(
                f"{place}: the prompt shows {'.'.join(branch)!r}, {what}: the judge must not see them."
            )


def _refuse_codes_of_labels(file: TaskFile) -> None:
    """Refuse a code that is also a label, under any spelling of either: votes for that label would not count."""
    for label in file.labels:
        for known in (label, *file.synonyms.get(label, ()), *file.spellings.get(label, ())):
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


def _template(file: TaskFile, folder: Path) -> PromptTemplate:
    if file.template_file is not None:
        return PromptTemplate.from_file(folder / file.template_file)
    assert file.template is not None
    template = PromptTemplate([message.model_dump() for message in file.template])
    template.check_roles()
    return template
