"""What the models of a task file have in common: texts, lists of columns, and that no key is unknown."""

from __future__ import annotations

import datetime
import math
import unicodedata
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from distjudge_trl.labels.spelling import nfc, spelling, trimmed


def as_text(value: Any) -> Any:
    """Labels may be written as numbers; YAML's booleans are most often unquoted words."""
    if isinstance(value, bool):
        raise ValueError(  # noqa: TRY004 (what pydantic turns into an error of its own)
            f"YAML reads an unquoted yes, no, on, off, true or false as the boolean {str(value).lower()}: write it in"
            f' quotes, "Yes" or "{str(value).lower()}"'
        )
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f'YAML reads .nan and .inf as numbers that are none: write it in quotes, "{value}"')
    if isinstance(value, (datetime.date, datetime.time)):
        raise ValueError(  # noqa: TRY004
            f'YAML reads {value} as a date: write it in quotes, "{value}"'
        )
    if isinstance(value, (int, float)):
        return spelling(value)
    return value


def as_name(value: Any) -> Any:
    """Texts that name something in the data are kept in Unicode NFC."""
    value = as_text(value)
    return nfc(value) if isinstance(value, str) else value


def as_word(value: Any) -> Any:
    """What a judge answers, and its label: a text of one line, without invisible characters around it."""
    value = as_name(value)
    if not isinstance(value, str) or not value.strip():
        return value
    if value != trimmed(value):
        raise ValueError(f"{value!r} has blanks or invisible characters around it: write {trimmed(value)!r}")
    if any(unicodedata.category(character) == "Cc" for character in value):
        raise ValueError(f"{value!r} has line breaks or other control characters: write it in one line")
    return value


RawText = Annotated[str, BeforeValidator(as_text), Field(min_length=1)]
Text = Annotated[str, BeforeValidator(as_name), Field(min_length=1)]
Word = Annotated[str, BeforeValidator(as_word), Field(min_length=1)]


class Strict(BaseModel):
    """A mapping of a task file, with no other keys than these."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _as_columns(value: Any) -> Any:
    return value if isinstance(value, list) else (value,)


Columns = Annotated[tuple[Text, ...], BeforeValidator(_as_columns), Field(min_length=1)]
