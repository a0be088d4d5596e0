"""One prompt template for several questions about the same items, made of a template for each question."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from distjudge_trl.data.template import PromptTemplate, is_empty
from distjudge_trl.errors import JudgmentDataError, listing
from distjudge_trl.labels.spelling import nfc


# The fields that name an item's question: the first one always, the second one unless the files have such a column.
QUESTION = "_question"
ASKED = "question"

# The beginning of a text that holds several templates: its first statement, and the questions.
_BEGIN = f"{{% set asked_question = {QUESTION} | default({ASKED}, true) %}}"
_KNOWN = re.compile(re.escape(_BEGIN) + r"\{\{ (\{.*?\})\[asked_question\] \}\}", re.DOTALL)
_END = "{% endif %}"


class QuestionTemplate(PromptTemplate):
    """A template that asks the question that an item names. Its text holds all questions' templates, and is what a
    judge keeps; an item is rendered by that of its question, so that fields of other questions may be empty or
    missing.

    Args:
        templates (`Mapping[str, PromptTemplate]`): of two questions or more, with messages of the same roles.
    """

    def __init__(self, templates: Mapping[str, PromptTemplate]) -> None:
        self.templates = dict(templates)
        roles = roles_of(next(iter(self.templates.values())))
        super().__init__([{"role": role, "content": self._together(number)} for number, role in enumerate(roles)])

    def of(self, fields: Mapping[str, Any]) -> PromptTemplate:
        """The template of an item's question; this one if it names none that is known."""
        return self.templates.get(_asked(fields)[1], self)

    def render(
        self, fields: Mapping[str, Any], *, source: str | None = None, row: int | str | None = None
    ) -> list[dict[str, str]]:
        """Render the messages by the template of the item's question.

        Raises:
            [`JudgmentDataError`]: as [`PromptTemplate.render`], or the item names no question that is known.
        """
        if (own := self.of(fields)) is not self:
            return own.render(fields, source=source, row=row)
        field, name = _asked(fields)
        raise JudgmentDataError(
            f"names no question of this prompt template: {name!r}" if name else "is missing, and the prompt needs it",
            source=source,
            row=row,
            field=field,
            fix=f"Its questions are {listing(self.templates)}; name one in the column `{QUESTION}`.",
        )

    def _together(self, number: int) -> str:
        """One message of all templates. An unknown question is an error, as an unknown field is."""
        known = ", ".join(f"{json.dumps(name)}: ''" for name in self.templates)
        text = f"{_BEGIN}{{{{ {{{known}}}[asked_question] }}}}"
        for i, (name, template) in enumerate(self.templates.items()):
            # Jinja drops the last line break of a text, and would keep it here.
            text += _branch(name, i) + template.messages[number]["content"].removesuffix("\n")
        return text + _END


def read_template(messages: Sequence[Mapping[str, str]]) -> PromptTemplate:
    """The template that a judge keeps, with the templates of its questions if there are several.

    Raises:
        [`UserInputError`]: as [`PromptTemplate`].
    """
    template = PromptTemplate(messages)
    try:
        names = list(json.loads(_KNOWN.match(messages[0]["content"])[1].replace(": ''", ": 0")))  # type: ignore[index]
        contents = [_apart(message["content"], names) for message in messages]
        questions = {
            name: PromptTemplate(
                [{**message, "content": own[i]} for message, own in zip(messages, contents, strict=True)]
            )
            for i, name in enumerate(names)
        }
        several = QuestionTemplate(questions)
    except (TypeError, ValueError):
        return template  # of one question
    return several if several.messages == template.messages else template


def roles_of(template: PromptTemplate) -> list[str]:
    """The roles of a template's messages."""
    return [message["role"] for message in template.messages]


def _branch(name: str, number: int) -> str:
    return f"{{% {'elif' if number else 'if'} asked_question == {json.dumps(name)} %}}"


def _apart(text: str, names: Sequence[str]) -> list[str]:
    """The contents that [`QuestionTemplate`] has put together."""
    contents = []
    for i, name in enumerate(names):
        own, text = text.split(_branch(name, i), 1)
        contents.append(own)
    return [*contents[1:], text.removesuffix(_END)]


def _asked(fields: Mapping[str, Any]) -> tuple[str, str]:
    """The field that names an item's question, and the name; "" for none."""
    field = ASKED if is_empty(fields.get(QUESTION)) else QUESTION
    return field, "" if is_empty(fields.get(field)) else nfc(str(fields[field]))
