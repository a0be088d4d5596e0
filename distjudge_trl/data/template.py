"""Prompt templates: Jinja text per message, filled with an item's fields."""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

from distjudge_trl.data.paths import Branch
from distjudge_trl.data.template_fields import ROW, as_column, find_fields, shown_expressions, unwritable_name
from distjudge_trl.data.values import holds_bytes
from distjudge_trl.errors import JudgmentDataError, UserInputError, listing, nearest
from distjudge_trl.files.yaml import parse_yaml
from distjudge_trl.labels.spelling import nfc, trimmed


@lru_cache(maxsize=1)
def _environment() -> ImmutableSandboxedEnvironment:
    # Sandboxed, because a template may come with a downloaded judge.json. Strict: a missing field is an error and not
    # an empty string.
    return ImmutableSandboxedEnvironment(
        undefined=jinja2.StrictUndefined, keep_trailing_newline=False, autoescape=False
    )


# In a task's template: what the judge answers for each label, one label a line.
LEGEND = "legend"
_SET_LEGEND = f"{{% set {LEGEND} = "
_JINJA = re.compile(r"\{\{.*?\}\}|\{%.*?%\}|\{#.*?#\}", re.DOTALL)

# Longest message that a template may render, in characters: several fields of the largest size that is read.
MAX_PROMPT_LENGTH = 5_000_000

# Exceptions that an expression in a template may raise for an unexpected item.
_TEMPLATE_FAILURES = (
    jinja2.TemplateError,
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)


class PromptTemplate:
    """Messages whose contents are Jinja templates.

    A field that a template tests with `{% if field %}`, or gives a `default`, may be empty or missing. All other
    fields that it uses must have a value. `{{ row["any name"] }}` shows a field whose name Jinja cannot write.

    `fields` are the names of the fields that it uses, `optional_fields` those of them that may be empty, and
    `branches` the parts of fields that it names.

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
        self._found = []
        for number, message in enumerate(messages, start=1):
            if not isinstance(message, Mapping) or not {"role", "content"} <= set(message):
                raise UserInputError(f"Message {number} of the prompt template needs the keys `role` and `content`.")
            try:
                template = _environment().from_string(message["content"])
                tree = _environment().parse(message["content"])
            except jinja2.TemplateSyntaxError as error:
                name = unwritable_name(message["content"], _environment())
                fix = f" To show the column {name!r} write {as_column(name)}." if name is not None else ""
                raise UserInputError(
                    f"Message {number} of the prompt template does not parse (line {error.lineno}): {error.message}."
                    f"{fix}"
                ) from None
            self._found.append(find_fields(tree, _environment()))
            self.messages.append({"role": message["role"], "content": message["content"]})
            self._templates.append(template)
        self.fields: frozenset[str] = frozenset().union(*(found.names for found in self._found))
        self.optional_fields: frozenset[str] = frozenset().union(*(found.optional for found in self._found))
        self.branches: frozenset[Branch] = frozenset().union(*(found.branches for found in self._found))

    def with_legend(self, legend: str) -> PromptTemplate:
        """The template with the text that `{{ legend }}` stands for, so that it needs no field of that name."""
        if LEGEND not in self.fields:
            return self
        text = f"{_SET_LEGEND}{json.dumps(legend, ensure_ascii=False)} %}}"
        return PromptTemplate(
            [
                {**message, "content": text + message["content"]} if LEGEND in found.names else message
                for message, found in zip(self.messages, self._found, strict=True)
            ]
        )

    @property
    def shows_legend(self) -> bool:
        """Whether the messages show the list of answers."""
        return LEGEND in self.fields or any(_SET_LEGEND in message["content"] for message in self.messages)

    @property
    def own_text(self) -> str:
        """What the messages say by themselves, without the fields that they show."""
        return "\n".join(_JINJA.sub(" ", message["content"]) for message in self.messages)

    def of(self, fields: Mapping[str, Any]) -> PromptTemplate:
        """The template by which an item with these fields is rendered: this one, unless it is made of several."""
        return self

    def check_shows_something(self) -> None:
        """Raise [`UserInputError`] if the template uses no field: all prompts would be the same."""
        if self.fields - {LEGEND}:
            return
        quoted = min((name for found in self._found for name in found.quoted), default="column name")
        raise UserInputError(
            "the template shows nothing of the item: name a column in double braces, such as {{ text }}, or"
            f" {as_column(quoted)}."
        )

    def check_roles(self) -> None:
        """Raise [`UserInputError`] unless the messages are a conversation in which the judge is to answer: first the
        system's message, if there is one, and last a user's.
        """
        for number, message in enumerate(self.messages, start=1):
            role = message["role"]
            if role not in ("system", "user", "assistant"):
                raise UserInputError(
                    f"Message {number} of the prompt template has the role {role!r}; roles are system, user and"
                    " assistant."
                )
            if role == "system" and number > 1:
                raise UserInputError(
                    f"Message {number} of the prompt template is the system's, which can only be the first one."
                )
        if self.messages[-1]["role"] != "user":
            raise UserInputError(
                f"The last message of the prompt template is the {self.messages[-1]['role']}'s: it must be a user's,"
                " which the judge answers."
            )

    @classmethod
    def from_file(cls, path: str | Path) -> PromptTemplate:
        """Read a template file: the text is one user message; a .yaml or .yml file is a list of messages with `role`
        and `content`.

        Raises:
            [`UserInputError`]: the file is unreadable, not UTF-8, empty, not valid YAML, or not a template; the
                message names it.
        """
        path = Path(path)
        try:
            text = path.read_text(encoding="utf-8-sig")
        except OSError as error:
            raise UserInputError(f"{path}: cannot be read ({error.strerror}).") from None
        except UnicodeDecodeError:
            raise UserInputError(f"{path}: is not UTF-8. Save the file as UTF-8.") from None
        if not text.strip():
            raise UserInputError(f"{path}: is empty; a prompt template is Jinja text with the item's fields.")
        messages: Any = [{"role": "user", "content": text.strip()}]
        if path.suffix in (".yaml", ".yml"):
            messages = parse_yaml(text, path)
            if not isinstance(messages, list):
                raise UserInputError(f"{path}: must be a list of messages with `role` and `content`.")
        try:
            template = cls(messages)
            template.check_roles()
        except (UserInputError, TypeError) as error:
            raise UserInputError(f"{path}: {error}") from None
        return template

    def render(
        self, fields: Mapping[str, Any], *, source: str | None = None, row: int | str | None = None
    ) -> list[dict[str, str]]:
        """Render the messages with an item's fields.

        Raises:
            [`JudgmentDataError`]: the template uses a field that the item lacks, or does something that is not
                allowed.
        """
        if not all(unicodedata.is_normalized("NFC", str(name)) for name in fields):
            fields = {nfc(str(name)): value for name, value in fields.items()}
        for name in sorted(self.fields & set(fields)):
            _check_shown(name, fields[name], source, row)
        for name in sorted((self.fields - self.optional_fields) & set(fields)):
            if is_empty(fields[name]):
                test = f"{{% if {name} %}}" if name.isidentifier() else f'{{% if row["{name}"] %}}'
                raise JudgmentDataError(
                    f"is {fields[name]!r}, and the prompt needs it",
                    source=source,
                    row=row,
                    field=name,
                    fix=f"Fill it in, or let the template test it: {test}.",
                )
        for name in sorted({name for found in self._found for name in found.quoted} & set(fields)):
            raise JudgmentDataError(
                f"the prompt template shows the text {name!r} and not the column of that name",
                source=source,
                row=row,
                fix=f"Write {as_column(name)}.",
            )
        context = {**fields, **{name: "" for name in self.optional_fields if is_empty(fields.get(name))}}
        context |= {name: context[nfc(name)] for found in self._found for name in found.asked if nfc(name) in context}
        if ROW not in fields and any(found.row for found in self._found):
            if any(found.whole_row for found in self._found):
                raise JudgmentDataError(
                    "the prompt template uses `row` by itself, which would show every column",
                    source=source,
                    row=row,
                    fix='Name the columns: row["name"].',
                )
            context[ROW] = dict(context)
        try:
            return [
                {"role": message["role"], "content": _bounded(template, context)}
                for message, template in zip(self.messages, self._templates, strict=True)
            ]
        except jinja2.UndefinedError as error:
            raise JudgmentDataError(
                f"the prompt template asks for a field the item lacks ({error.message})",
                source=source,
                row=row,
                fix=self._meant(fields) or f"The item has: {listing(sorted(map(str, fields))) or 'no fields'}.",
            ) from None
        except jinja2.exceptions.SecurityError as error:
            raise JudgmentDataError(
                f"the prompt template does something unsafe ({error})", source=source, row=row
            ) from None
        except _TEMPLATE_FAILURES as error:
            raise JudgmentDataError(
                f"the prompt template fails on the item ({type(error).__name__}: {error})",
                source=source,
                row=row,
                fix=self._meant(fields),
            ) from None

    def _meant(self, fields: Mapping[str, Any]) -> str | None:
        """How to show what the template probably means: a column whose name Jinja reads as an expression
        (`reply-text`), or one of a similar name.
        """
        for message in self.messages:
            for expression in shown_expressions(message["content"]):
                if expression in fields and not expression.isidentifier():
                    return f"To show the column {expression!r} write {as_column(expression)}."
        for name in sorted(self.fields - set(fields)):
            if (close := nearest(name, map(str, fields))) is not None:
                shown = f"{{{{ {close} }}}}" if close.isidentifier() else as_column(close)
                return f"Did you mean {shown}? The item has: {listing(sorted(map(str, fields)))}."
        return None


def finished_prompt(item: Mapping[str, Any]) -> Any:
    """The finished prompt of an item, or `None` if it has none. It is the value of `prompt`, if that is a list of
    messages (mappings with a `role`). Any other value, such as a text, is a field for a template.
    """
    prompt = item.get("prompt")
    if not isinstance(prompt, Sequence) or isinstance(prompt, (str, bytes)) or not prompt:
        return None
    return prompt if all(isinstance(message, Mapping) and "role" in message for message in prompt) else None


def _check_shown(name: str, value: Any, source: str | None, row: int | str | None) -> None:
    """Refuse values that a template would not show as its author meant."""
    if holds_bytes(value):
        is_itself = isinstance(value, (bytes, bytearray))
        raise JudgmentDataError(
            "is bytes, not text" if is_itself else "holds bytes, not text",
            source=source,
            row=row,
            field=name,
            fix="Write the column as text (UTF-8).",
        )
    if name == "prompt" and finished_prompt({name: value}) is not None:
        raise JudgmentDataError(
            "is a list of messages: a judge takes it for a finished prompt, without the template",
            source=source,
            row=row,
            field=name,
            fix="Give the column another name, here and in the template.",
        )


def _bounded(template: jinja2.Template, fields: Mapping[str, Any]) -> str:
    """The rendered text. Rendering stops if the text grows too long, because a loop in a template could fill the
    memory.
    """
    parts, length = [], 0
    for part in template.generate(fields):
        parts.append(part)
        length += len(part)
        if length > MAX_PROMPT_LENGTH:
            raise ValueError(f"it makes more than {MAX_PROMPT_LENGTH:,} characters")
    return "".join(parts)


def is_empty(value: Any) -> bool:
    """Whether a field is empty: None, an empty or blank text, NaN."""
    if isinstance(value, float):
        return math.isnan(value)
    return value is None or (isinstance(value, str) and not (value.strip() and (value.isascii() or trimmed(value))))
