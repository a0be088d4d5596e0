"""What the models of a task file have in common: texts, lists of columns, and that no key is unknown."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from distjudge_trl.labels.spelling import nfc, spelling


def as_text(value: Any) -> Any:
    """Labels may be written as numbers; YAML's booleans are most often unquoted words."""
    if isinstance(value, bool):
        raise ValueError(  # noqa: TRY004 (what pydantic turns into an error of its own)
            f"YAML reads an unquoted yes, no, on, off, true or false as the boolean {str(value).lower()}: write it in"
            f' quotes, "Yes" or "{str(value).lower()}"'
        )
    if isinstance(value, (int, float)):
        return spelling(value)
    return value


def as_name(value: Any) -> Any:
    """Texts that name something in the data are kept in Unicode NFC."""
    value = as_text(value)
    return nfc(value) if isinstance(value, str) else value


RawText = Annotated[str, BeforeValidator(as_text), Field(min_length=1)]
Text = Annotated[str, BeforeValidator(as_name), Field(min_length=1)]


class Strict(BaseModel):
    """A mapping of a task file, with no other keys than these."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _as_columns(value: Any) -> Any:
    return value if isinstance(value, list) else (value,)


Columns = Annotated[tuple[Text, ...], BeforeValidator(_as_columns), Field(min_length=1)]
