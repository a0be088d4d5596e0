"""How a tokenizer's chat template has to be called so that it shows every message, and the date that it prints.

Some templates print an empty prompt without a word: they take content as a list of parts and iterate over a string, or
they ignore messages of the system. Others begin the answer inside a block of thoughts, or print today's date. What a
template does is found out once, by rendering texts that occur nowhere else.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

import jinja2
import markupsafe

from distjudge_trl.errors import UserInputError
from distjudge_trl.runtime.dates import today


if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Messages = Sequence[dict[str, str]]

_SYSTEM, _USER = "KOALA 5171 SYSTEM", "ZEBRA 8293 USER"
# How templates begin and end a block of thoughts.
_THOUGHTS = (
    *((f"<{name}>", f"</{name}>") for name in ("think", "thinking", "thought", "reasoning", "seed:think")),
    ("[THINK]", "[/THINK]"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
)
# Directives of strftime; the longer ones first.
_DIRECTIVES = (
    *("%-d", "%-m", "%-y", "%-j", "%-H", "%-I", "%-M", "%-S"),
    *(f"%{letter}" for letter in "AaBbhdemyYjHIMSpFDTxXcUWwuVGZz"),
)
_PIN = re.compile(r"\A\{# today is (\d{4}-\d{2}-\d{2}) #\}.*?\{% endmacro %\}\n", re.DOTALL)
# What a template raises, on purpose or because it takes content in another form.
TEMPLATE_ERRORS = (jinja2.TemplateError, TypeError, AttributeError, KeyError, IndexError, ValueError)


@dataclass(frozen=True)
class TemplateWay:
    """How a chat template is called.

    Args:
        parts (`bool`): content is passed as a list of parts (`[{"type": "text", "text": ...}]`) and not as a string.
        system (`"role"`, `"refused"` or `"dropped"`): whether the template shows a message of the system. If it raises
            or leaves it out, its text is put before the first user message.
        closing (`str`): appended to the prompt to close the block of thoughts in which it ends.
        dated (`bool`): the template prints today's date.
    """

    parts: bool = False
    system: Literal["role", "refused", "dropped"] = "role"
    closing: str = ""
    dated: bool = False


def find_way(tokenizer: PreTrainedTokenizerBase) -> TemplateWay:
    """How to call the tokenizer's chat template; decided once for a template.

    Raises:
        [`UserInputError`]: the template shows the text of a user message in no way.
    """
    template = template_of(tokenizer)
    special = tuple((name, str(token)) for name, token in tokenizer.special_tokens_map.items())
    return _find_way(_Rendered(type(tokenizer), template, special, tokenizer))


def template_of(tokenizer: PreTrainedTokenizerBase) -> str:
    """The chat template of plain prompts."""
    try:
        return str(tokenizer.get_chat_template())
    except ValueError as error:
        raise UserInputError(f"The tokenizer's chat template cannot be used: {str(error).splitlines()[0]}") from None


def call_template(
    tokenizer: PreTrainedTokenizerBase, messages: Messages, way: TemplateWay, template: str | None = None
) -> str:
    """The text of a prompt; what jinja raises is the caller's."""
    if way.system != "role":
        messages = _merged(messages)
    shown: list[dict[str, Any]] = [dict(message) for message in messages]
    if way.parts:
        shown = [{**message, "content": [{"type": "text", "text": message["content"]}]} for message in shown]
    text = tokenizer.apply_chat_template(
        shown, chat_template=template, tokenize=False, add_generation_prompt=True, enable_thinking=False
    )
    return str(text) + way.closing


def hidden_message(text: str, messages: Messages) -> dict[str, str] | None:
    """The first message whose content is not in the rendered text, blanks and letter case aside."""
    return next((message for message in messages if not _shows(text, message["content"])), None)


def describe_way(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """What is done to this tokenizer's prompts, in sentences for the user; empty without a chat template."""
    if tokenizer.chat_template is None:
        return []
    way, lines = find_way(tokenizer), []
    if way.parts:
        lines.append("The chat template takes content as a list of parts: prompts are passed as one part of text.")
    if way.system != "role":
        does = "has no role for the system" if way.system == "refused" else "leaves messages of the system out"
        lines.append(f"The chat template {does}: their text is put before the first user message.")
    if way.closing:
        lines.append(
            f"The chat template begins the answer inside a block of thoughts: it is closed with {way.closing!r}."
        )
    if (pinned := pinned_date(tokenizer)) is not None:
        lines.append(f"The chat template prints the date: it is {pinned} in every prompt.")
    elif way.dated:
        lines.append("The chat template prints today's date: training pins it, and the judge keeps it.")
    return lines


# The date


def pin_date(tokenizer: PreTrainedTokenizerBase, day: str | None = None, *, shared: bool = False) -> str | None:
    """Make a template that prints today's date print this one from now on (ISO; by default the date that is pinned
    already, else today). Returns it, or `None` for a template without a date. `shared`: all processes of a run call
    this together, and take the first one's today.

    The tokenizer's template gets a `strftime_now` that knows one day. A saved tokenizer keeps it, so that all programs
    that read the template render the same prompts.
    """
    if tokenizer.chat_template is None:
        return None
    before = pinned_date(tokenizer)
    if before is None and not find_way(tokenizer).dated:
        return None
    day = day or before or today(shared=shared)
    pinned = _with_date(_PIN.sub("", template_of(tokenizer)), day)
    if isinstance(tokenizer.chat_template, dict):
        tokenizer.chat_template = {**tokenizer.chat_template, "default": pinned}
    else:
        tokenizer.chat_template = pinned
    return day


def pinned_date(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """The date that [`pin_date`] wrote into the tokenizer's template."""
    found = _PIN.match(template_of(tokenizer)) if tokenizer.chat_template is not None else None
    return found.group(1) if found else None


def _with_date(template: str, day: str) -> str:
    moment = date.fromisoformat(day)
    names = [name for name in _DIRECTIVES if name in template] or _DIRECTIVES
    replaced = "".join(f" | replace({json.dumps(name)}, {json.dumps(moment.strftime(name))})" for name in names)
    # A macro with the name of transformers' function takes its place, and needs nothing but Jinja.
    macro = f"{{% macro strftime_now(format) %}}{{{{ format{replaced} }}}}{{% endmacro %}}"
    return f"{{# today is {day} #}}{macro}\n{template}"


# Finding out what a template does


@dataclass(frozen=True)
class _Rendered:
    """What a rendering depends on, and a tokenizer that renders so."""

    kind: type
    template: str
    special: tuple[tuple[str, str], ...]
    tokenizer: Any

    def __hash__(self) -> int:
        return hash((self.kind, self.template, self.special))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Rendered) and (
            (self.kind, self.template, self.special) == (other.kind, other.template, other.special)
        )


@lru_cache(maxsize=32)
def _find_way(rendered: _Rendered) -> TemplateWay:
    tokenizer = rendered.tokenizer
    user = {"role": "user", "content": _USER}
    errors: list[str] = []

    def render(way: TemplateWay, *messages: dict[str, str], template: str | None = None) -> str | None:
        try:
            return call_template(tokenizer, messages, way, template)
        except TEMPLATE_ERRORS as error:
            errors.append(str(error).splitlines()[0] if str(error) else type(error).__name__)
            return None

    for parts in (False, True):
        way = TemplateWay(parts)
        text = render(way, user)
        # A template that writes the list itself does not take parts.
        if text is not None and _shows(text, _USER) and not (parts and re.search(r"""['"]type\b""", text)):
            break
    else:
        why = f": {errors[0]}" if errors else ""
        raise UserInputError(
            "The tokenizer's chat template does not show the text of a user message, neither as a string nor as a list"
            f" of parts{why}. Correct `chat_template` in the model's folder, or choose a model whose template does."
        )
    tail = text.rpartition(_USER)[2]
    system = render(way, {"role": "system", "content": _SYSTEM}, user)
    kind: Literal["role", "refused", "dropped"] = "role"
    if system is None or not (_shows(system, _SYSTEM) and _shows(system, _USER)):
        kind = "refused" if system is None else "dropped"
    way = TemplateWay(parts, kind, _closing(tail))
    if "strftime_now" in rendered.template and not _PIN.match(rendered.template):
        days = (render(way, user, template=_with_date(rendered.template, day)) for day in ("2001-02-03", "2037-12-28"))
        way = TemplateWay(parts, kind, way.closing, dated=next(days) != next(days))
    return way


def _closing(tail: str) -> str:
    """What closes the block of thoughts in which the text after the last message ends."""
    for begin, end in _THOUGHTS:
        inside = tail.rpartition(begin)[2] if begin in tail else None
        if inside is not None and end not in inside:
            # An empty block, as Qwen 3 writes it for `enable_thinking=False`.
            return ("" if inside.endswith("\n") else "\n\n") + ("\n" if inside == "\n" else "") + f"{end}\n\n"
    return ""


def _merged(messages: Messages) -> Messages:
    """The messages with the text of the system before that of the first user."""
    if len(messages) < 2 or messages[0]["role"] != "system":
        return messages
    first = {**messages[1], "content": messages[0]["content"] + "\n\n" + messages[1]["content"]}
    return [first, *messages[2:]]


def _shows(text: str, content: str) -> bool:
    content = content.strip()
    if content in text:
        return True
    flat = _flat(text)
    forms = (
        content,
        json.dumps(content)[1:-1],
        json.dumps(content, ensure_ascii=False)[1:-1],
        str(markupsafe.escape(content)),
    )
    return any(_flat(form) in flat for form in forms)


def _flat(text: str) -> str:
    return " ".join(text.split()).casefold()
