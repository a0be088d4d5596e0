"""How texts and numbers are compared as answers: numbers by value, texts in one Unicode form and any case."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from typing import Any


# 3, 3.0, -1.00, 1.5: numbers in the spellings of integers, floats and spreadsheets. A longer number is a broken cell,
# and Python refuses to read thousands of digits.
_NUMBER = re.compile(r"([+-]?)([0-9]{1,400})(?:\.([0-9]*))?")
# 1,5 and 2,0, as spreadsheets write numbers in most of Europe. Three digits after the comma would be thousands.
DECIMAL_COMMA = re.compile(r"([+-]?[0-9]{1,15}),([0-9]{1,2})")
# Invisible characters that spreadsheets and web pages leave around a text.
_INVISIBLE = "\u200b\u200c\u200d\u200e\u200f\u2060\ufeff"


def spelling(value: Any) -> str:
    """The text by which values are compared as answers: `-1`, `-1.0`, `"-1"` and `" -1.0 "` all give `"-1"`; `1.5`,
    `"1.50"` and `"1,5"` all give `"1.5"`.

    A boolean gives its JSON word, because Python treats true as 1, which a label called 1 does not mean.
    """
    if isinstance(value, bool):
        return str(value).lower()
    text = trimmed(str(value))
    comma = DECIMAL_COMMA.fullmatch(text)
    number = _NUMBER.fullmatch(f"{comma[1]}.{comma[2]}" if comma is not None else text)
    if number is None:
        return text
    sign, whole, fraction = number[1], str(int(number[2])), (number[3] or "").rstrip("0")
    magnitude = f"{whole}.{fraction}" if fraction else whole
    return f"-{magnitude}" if sign == "-" and magnitude != "0" else magnitude


def trimmed(text: str) -> str:
    """The text without blanks and invisible characters around it, in Unicode NFC."""
    while (stripped := text.strip().strip(_INVISIBLE)) != text:
        text = stripped
    return nfc(text)


def nfc(text: str) -> str:
    """The text in Unicode NFC: an accent is part of its letter, whatever wrote the file."""
    return unicodedata.normalize("NFC", text)


def comparison_key(value: Any) -> str:
    """What two spellings of one answer have in common."""
    return nfc(spelling(value).casefold())


def in_all_cases(words: Iterable[str]) -> tuple[str, ...]:
    """Words, capitalised and in capitals, each also after a blank: for labels that shall be read off the fragments
    with which these begin in many vocabularies.
    """
    forms = ((word, word.capitalize(), word.upper()) for word in words)
    return tuple(dict.fromkeys(blank + form for trio in forms for form in trio for blank in ("", " ")))
