"""Prompt templates: Jinja text per message, filled with an item's fields."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import jinja2
import jinja2.meta
from jinja2.sandbox import ImmutableSandboxedEnvironment

from distjudge_trl.errors import JudgmentDataError, UserInputError


@lru_cache(maxsize=1)
def _environment() -> ImmutableSandboxedEnvironment:
    # Sandboxed: a judge.json downloaded from somewhere carries a template. Strict: a missing field is an error, not an
    # empty string.
    return ImmutableSandboxedEnvironment(
        undefined=jinja2.StrictUndefined, keep_trailing_newline=False, autoescape=False
    )


class PromptTemplate:
    """Messages whose contents are Jinja templates.

    Args:
        messages (`Sequence[Mapping[str, str]]`): `{"role", "content"}`; the last one ends where the judge's answer
            begins.

    Raises:
        [`UserInputError`]: no messages, a missing key, or a template that does not parse.
    """

    def __init__(self, messages: Sequence[Mapping[str, str]]) -> None:
        if not messages:
            raise UserInputError("A prompt template needs at least one message.")
        self.messages: list[dict[str, str]] = []
        self._templates = []
        self._fields: set[str] = set()
        for number, message in enumerate(messages, start=1):
            if not isinstance(message, Mapping) or not {"role", "content"} <= set(message):
                raise UserInputError(f"Message {number} of the prompt template needs the keys `role` and `content`.")
            try:
                template = _environment().from_string(message["content"])
            except jinja2.TemplateSyntaxError as error:
                raise UserInputError(
                    f"Message {number} of the prompt template does not parse (line {error.lineno}): {error.message}."
                ) from None
            self._fields.update(jinja2.meta.find_undeclared_variables(_environment().parse(message["content"])))
            self.messages.append({"role": message["role"], "content": message["content"]})
            self._templates.append(template)

    def render(
        self, fields: Mapping[str, Any], *, source: str | None = None, row: int | str | None = None
    ) -> list[dict[str, str]]:
        """Messages filled with an item's fields.

        Raises:
            [`JudgmentDataError`]: the template uses a field that the item lacks, or does something a template may not.
        """
        for name in sorted(self._fields & set(fields)):
            value = fields[name]
            if value is None or value == "" or (isinstance(value, float) and not math.isfinite(value)):
                raise JudgmentDataError(
                    f"is {value!r}, and the prompt needs it", source=source, row=row, field=name, fix="Fill it in."
                )
        try:
            return [
                {"role": message["role"], "content": template.render(fields)}
                for message, template in zip(self.messages, self._templates, strict=True)
            ]
        except jinja2.UndefinedError as error:
            raise JudgmentDataError(
                f"the prompt template asks for a field the item lacks ({error.message})",
                source=source,
                row=row,
                fix=f"The item has: {', '.join(sorted(map(str, fields))) or 'no fields'}.",
            ) from None
        except (ArithmeticError, TypeError, ValueError, RecursionError, jinja2.TemplateNotFound) as error:
            raise JudgmentDataError(
                f"the prompt template fails on the item ({error})", source=source, row=row
            ) from None
        except jinja2.exceptions.SecurityError as error:
            raise JudgmentDataError(
                f"the prompt template does something unsafe ({error})", source=source, row=row
            ) from None
