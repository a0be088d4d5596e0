"""One prompt template for several questions about the same items, made of a template for each question."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from distjudge_trl.data.template import PromptTemplate


# The fields that name an item's question: the first one always, the second one unless the files have such a column.
QUESTION = "_question"
ASKED = "question"


class QuestionTemplate(PromptTemplate):
    """A template that asks the question that an item names. Its text holds all questions' templates, and is what a
    judge keeps; an item is rendered by that of its question, so that fields of other questions may be empty.

    Args:
        templates (`Mapping[str, PromptTemplate]`): of two questions or more, with messages of the same roles.
    """

    def __init__(self, templates: Mapping[str, PromptTemplate]) -> None:
        self.templates = dict(templates)
        roles = roles_of(next(iter(self.templates.values())))
        super().__init__([{"role": role, "content": self._together(number)} for number, role in enumerate(roles)])

    def of(self, fields: Mapping[str, Any]) -> PromptTemplate:
        """The template of an item's question."""
        return self.templates.get(str(fields.get(QUESTION, fields.get(ASKED))), self)

    def _together(self, number: int) -> str:
        """One message of all templates. An unknown question is an error, as an unknown field is."""
        known = ", ".join(f"{json.dumps(name)}: ''" for name in self.templates)
        text = f"{{% set asked_question = {QUESTION} | default({ASKED}, true) %}}{{{{ {{{known}}}[asked_question] }}}}"
        for i, (name, template) in enumerate(self.templates.items()):
            # Jinja drops the last line break of a text, and would keep it here.
            content = template.messages[number]["content"].removesuffix("\n")
            text += f"{{% {'elif' if i else 'if'} asked_question == {json.dumps(name)} %}}{content}"
        return text + "{% endif %}"


def roles_of(template: PromptTemplate) -> list[str]:
    """The roles of a template's messages."""
    return [message["role"] for message in template.messages]
