"""How a file of rows is read: what a task file may say under `source`, and the names of a row's pseudo-columns."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from distjudge_trl.errors import UserInputError


Quoting = Literal["auto", "none", "standard"]

# Columns that every row has besides those of its file, unless the file has a column of that name.
FILE_COLUMN = "_file"
KEY_COLUMN = "_key"


@dataclass(frozen=True)
class Reading:
    """How a file is read.

    Args:
        delimiter (`str`, *optional*): what separates the cells of delimited text; guessed by default.
        encoding (`str`, *optional*): the encoding of a text file; by default UTF-8, or UTF-16 if the file says so.
        quoting (`str`): of delimited text. `"standard"`: quote marks enclose cells. `"none"`: they belong to the
            texts. `"auto"`: decided from the file.
        sheet (`str`, *optional*): of a workbook; by default its only sheet.
        header (`int`, *optional*): the row of a table in which the names of its columns stand; by default the first
            that is not empty.
        items (`str`, *optional*): path to the list of items in each object of the file; by default an object is an
            item.
        join ([`~distjudge_trl.data.joining.Join`], *optional*): another file, whose columns the rows get.
        written (`str`, *optional*): the path as the task file has it, for advice.
        by_options (`bool`): whether the values are options of a command, for advice.
    """

    delimiter: str | None = None
    encoding: str | None = None
    quoting: Quoting = "auto"
    sheet: str | None = None
    header: int | None = None
    items: str | None = None
    join: Any = None
    written: str | None = None
    by_options: bool = False

    def advice(self, path: str, key: str, value: str) -> str:
        """What to do to read the source with `key: value`, as a clause.

        Args:
            path (`str`): name of the file, for a source that no task file has named.
            key (`str`), value (`str`): what to write.
        """
        if self.by_options:
            return f"pass --{key} {shlex.quote(value)}"
        known = {
            "delimiter": self.delimiter,
            "encoding": self.encoding,
            "sheet": self.sheet,
            "header": None if self.header is None else str(self.header),
            "items": self.items,
        }
        given = {name: text for name, text in known.items() if text is not None}
        if self.quoting != "auto":
            given["quoting"] = self.quoting
        keys = {"path": self.written or path, **given, key: value}
        text = ", ".join(f"{name}: {_yaml(text)}" for name, text in keys.items())
        return f"write `source: {{{text}}}` in the task file"


_TEXT_TABLES = frozenset(("csv", "tsv", "txt"))
_JSON = frozenset(("json", "jsonl"))
_USED_BY: dict[str, frozenset[str]] = {
    "delimiter": _TEXT_TABLES,
    "encoding": _TEXT_TABLES | _JSON,
    "quoting": _TEXT_TABLES,
    "sheet": frozenset(("xlsx",)),
    "header": _TEXT_TABLES | {"xlsx"},
    "items": _JSON | {"parquet", "arrow", "hub"},
}


def check_used(reading: Reading, formats: Mapping[str, str]) -> None:
    """Refuse a key that none of the files can use, because it would be ignored in silence.

    Args:
        reading ([`Reading`]): what a task file or options say.
        formats (`Mapping[str, str]`): names of the files and their formats, as in [`DataFile`].

    Raises:
        [`UserInputError`]: names the first file and the key.
    """
    for key, used_by in _USED_BY.items():
        given = getattr(reading, key)
        if given in (None, "auto") or used_by & set(formats.values()):
            continue
        name, format = next(iter(formats.items()))
        place = f"leave out --{key}" if reading.by_options else f"take `{key}` out of `source`"
        raise UserInputError(f"{name}: is a .{format} file, which has no use for `{key}` ({given!r}): {place}.")


def check_delimiter(value: object) -> str:
    """What separates cells, if it can.

    Raises:
        `ValueError`: it is not one character, or one that cells are made of.
    """
    if not isinstance(value, str) or len(value) != 1 or value.isalnum() or value in "\"'\r\n":
        raise ValueError(f"must be one mark, such as ';', or \"\\t\" in double quotes for a tab, got {value!r}")
    return value


def _yaml(text: str) -> str:
    if text == "\t":
        return r'"\t"'
    plain = text.strip() == text and text.isprintable() and not set(text) & set(":#{}[],&*!|>'\"%@`;")
    return (
        text if plain and text and text[0] not in "-?" else '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
    )
