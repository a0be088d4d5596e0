"""Prompt templates: Jinja text per message, filled with an item's fields."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import jinja2
import jinja2.meta
from jinja2.sandbox import ImmutableSandboxedEnvironment

from distjudge_trl.data.values import holds_bytes
from distjudge_trl.errors import JudgmentDataError, UserInputError, listing
from distjudge_trl.files.yaml import parse_yaml


@lru_cache(maxsize=1)
def _environment() -> ImmutableSandboxedEnvironment:
    # Sandboxed, because a template may come with a downloaded judge.json. Strict: a missing field is an error and not
    # an empty string.
    return ImmutableSandboxedEnvironment(
        undefined=jinja2.StrictUndefined, keep_trailing_newline=False, autoescape=False
    )


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
    fields that it uses must have a value.

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
        self.fields: frozenset[str] = frozenset()
        self.optional_fields: frozenset[str] = frozenset()
        for number, message in enumerate(messages, start=1):
            if not isinstance(message, Mapping) or not {"role", "content"} <= set(message):
                raise UserInputError(f"Message {number} of the prompt template needs the keys `role` and `content`.")
            try:
                template = _environment().from_string(message["content"])
                tree = _environment().parse(message["content"])
            except jinja2.TemplateSyntaxError as error:
                raise UserInputError(
                    f"Message {number} of the prompt template does not parse (line {error.lineno}): {error.message}."
                ) from None
            names = jinja2.meta.find_undeclared_variables(tree)
            self.fields |= names
            self.optional_fields |= names & _tested_names(tree)
            self.messages.append({"role": message["role"], "content": message["content"]})
            self._templates.append(template)

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
            return cls(messages)
        except (UserInputError, TypeError) as error:
            raise UserInputError(f"{path}: {error}") from None

    def render(
        self, fields: Mapping[str, Any], *, source: str | None = None, row: int | str | None = None
    ) -> list[dict[str, str]]:
        """Render the messages with an item's fields.

        Raises:
            [`JudgmentDataError`]: the template uses a field that the item lacks, or does something that is not
                allowed.
        """
        for name in sorted(self.fields & set(fields)):
            _check_shown(name, fields[name], source, row)
        for name in sorted((self.fields - self.optional_fields) & set(fields)):
            if is_empty(fields[name]):
                raise JudgmentDataError(
                    f"is {fields[name]!r}, and the prompt needs it",
                    source=source,
                    row=row,
                    field=name,
                    fix=f"Fill it in, or let the template test it: {{% if {name} %}}.",
                )
        absent = {name: "" for name in self.optional_fields if is_empty(fields.get(name))}
        try:
            return [
                {"role": message["role"], "content": _bounded(template, {**fields, **absent})}
                for message, template in zip(self.messages, self._templates, strict=True)
            ]
        except jinja2.UndefinedError as error:
            raise JudgmentDataError(
                f"the prompt template asks for a field the item lacks ({error.message})",
                source=source,
                row=row,
                fix=f"The item has: {listing(sorted(map(str, fields))) or 'no fields'}.",
            ) from None
        except jinja2.exceptions.SecurityError as error:
            raise JudgmentDataError(
                f"the prompt template does something unsafe ({error})", source=source, row=row
            ) from None
        except _TEMPLATE_FAILURES as error:
            raise JudgmentDataError(
                f"the prompt template fails on the item ({type(error).__name__}: {error})", source=source, row=row
            ) from None


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
    return value is None or (isinstance(value, str) and not value.strip())


def _tested_names(tree: jinja2.nodes.Template) -> set[str]:
    """Names whose presence is the condition of an `if` (`x`, `not x`, `x and y`, `x is defined`) or that have a
    default; a comparison of a field's value is no such test.
    """

    def names(node: jinja2.nodes.Node) -> set[str]:
        if isinstance(node, jinja2.nodes.Name):
            return {node.name}
        if isinstance(node, (jinja2.nodes.Not, jinja2.nodes.Test)):
            return names(node.node)
        if isinstance(node, (jinja2.nodes.And, jinja2.nodes.Or)):
            return names(node.left) | names(node.right)
        return set()

    found: set[str] = set()
    for choice in tree.find_all(jinja2.nodes.If):
        found |= names(choice.test)
    for expression in tree.find_all(jinja2.nodes.CondExpr):
        found |= names(expression.test)
    for filtered in tree.find_all(jinja2.nodes.Filter):
        if filtered.name in ("default", "d") and filtered.node is not None:
            found |= names(filtered.node)
    return found
