"""Rows of JSON lines and of JSON files. Both are read as streams: a file of any size needs the memory of its longest
row.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from itertools import count
from typing import IO, Any, NoReturn

from distjudge_trl.data.encodings import read_head, text_chunks, text_encoding, text_lines
from distjudge_trl.data.reading import KEY_COLUMN
from distjudge_trl.data.source_files import DataFile
from distjudge_trl.errors import JudgmentDataError, listing


Row = dict[str, Any]

# An object of more values than this is no row, if all of these are objects.
_MOST_COLUMNS = 1_000
# Longest row, in characters. What is longer is broken.
_LONGEST_ROW = 64_000_000
_BLANK = " \t\r\n"


def read_json_lines(stream: IO[bytes], file: DataFile, _: Counter[str]) -> Iterator[tuple[int, Row]]:
    """Rows of JSON lines; their numbers are lines."""
    encoding = text_encoding(file, read_head(file))
    for number, line in enumerate(text_lines(stream, file, encoding), start=1):
        if line.strip():
            yield number, _object(_parse_line(line, file.name, number), file, number, lines=True)


def read_json(stream: IO[bytes], file: DataFile, notes: Counter[str]) -> Iterator[tuple[int, Row]]:
    """Rows of a JSON file: the entries of a list; the values of an object of objects, with their keys in the
    pseudo-column `_key`; one object; or several values after each other, such as JSON lines.
    """
    head = read_head(file)
    encoding = text_encoding(file, head)
    text = head.decode(encoding, errors="ignore").removeprefix("\ufeff").lstrip()
    first, newline, rest = text.partition("\n")
    if newline and rest.strip() and first.startswith("{") and first.rstrip().endswith("}"):
        # JSON lines in a file called .json, which is common on the hub. A broken one is named by its line.
        yield from read_json_lines(stream, file, notes)
        return
    values = _Values(text_chunks(stream, file, encoding), file)
    number = 0
    while start := values.peek():
        entries: Iterator[tuple[str | None, Any]]
        if start == "[":
            entries = ((None, value) for value in values.entries())
        elif start == "{":
            entries = _rows_of_object(values, file)
        else:
            entries = iter([(None, values.next())])
        for key, value in entries:
            number += 1
            row = _object(value, file, number)
            if key is not None:
                row.setdefault(KEY_COLUMN, Key(key))
            yield number, row


class Key(str):
    """The value of the pseudo-column `_key`, which is none of the row's own."""


def _rows_of_object(values: _Values, file: DataFile) -> Iterator[tuple[str | None, Any]]:
    """The values of an object of objects, else the object alone."""
    pairs = values.pairs()
    seen: list[tuple[str, Any]] = []
    for key, value in pairs:
        seen.append((key, value))
        if not isinstance(value, dict):
            rest = [*seen, *pairs]
            if {key for key, _ in rest} == {"columns", "index", "data"}:
                raise JudgmentDataError(
                    'is a table in parts (columns, index, data), as pandas writes with `orient="split"`',
                    source=file.name,
                    fix='Write it with `to_json(..., orient="records")`.',
                )
            if len(rest) > _MOST_COLUMNS:
                raise _no_row(rest, file)
            lists = [own for _, own in rest if isinstance(own, list) and own]
            if len(rest) == len(lists) > 1 and len(set(map(len, lists))) == 1:
                _refuse_columns(rest, file)
            yield None, _unique(rest, file)
            return
        if len(seen) > _MOST_COLUMNS:
            break
    if seen and (columns := seen[0][1]) and list(columns) == [str(i) for i in range(len(columns))]:
        _refuse_columns(seen, file)
    keys = set(_unique(seen, file))
    yield from seen
    del seen
    for key, value in pairs:
        if not isinstance(value, dict):
            raise _no_row([(key, value)], file)
        if key in keys:
            raise _twice(key, file.name)
        keys.add(key)
        yield key, value


def _refuse_columns(pairs: list[tuple[str, Any]], file: DataFile) -> NoReturn:
    raise JudgmentDataError(
        f"is a table by columns ({listing(key for key, _ in pairs)}), as pandas writes by default",
        source=file.name,
        fix='Write it with `to_json(..., orient="records")`.',
    )


def _no_row(pairs: list[tuple[str, Any]], file: DataFile) -> JudgmentDataError:
    key, value = next((key, value) for key, value in pairs if not isinstance(value, dict))
    many = f"of {len(pairs):,} values" if len(pairs) > 1 else "of objects"
    return JudgmentDataError(
        f"is one JSON object {many}, and the value of {key!r} is a {_kind(value)}, not an object",
        source=file.name,
        fix="Rows are a list of objects, or an object whose values are objects.",
    )


class _Values:
    """JSON values from pieces of text. No more text is held than the value at hand needs, and one piece."""

    def __init__(self, chunks: Iterator[str], file: DataFile) -> None:
        self.chunks, self.file = chunks, file
        self.text, self.at, self.ended = "", 0, False
        self.number: int | None = None  # of the entry of a list that is read, for errors
        self.line = 1  # in which the text at hand begins
        self.decode = json.JSONDecoder(object_pairs_hook=_pairs).raw_decode

    def more(self) -> bool:
        """Whether there is more text; what has been read is dropped."""
        chunk = next(self.chunks, None)
        if chunk is None:
            self.ended = True
            return False
        self.line += self.text.count("\n", 0, self.at)
        self.text, self.at = self.text[self.at :] + chunk, 0
        return True

    def peek(self) -> str:
        """The next character that is not blank; none at the end."""
        while True:
            while self.at < len(self.text) and self.text[self.at] in _BLANK:
                self.at += 1
            if self.at < len(self.text):
                return self.text[self.at]
            if not self.more():
                return ""

    def next(self) -> Any:
        """The next value."""
        self.peek()
        wanted = 0
        while True:
            try:
                value, end = self.decode(self.text, self.at)
            except _KeyTwiceError as error:
                raise _twice(str(error), self.file.name, self.number) from None
            except json.JSONDecodeError as error:
                # Twice as much text every time, so that the time for a long value is proportional to its length.
                wanted = max(2 * wanted, len(self.text) - self.at + 1)
                if len(self.text) - self.at > _LONGEST_ROW or not self._fill(wanted):
                    raise self.broken(error.msg, error.pos) from None
            except (RecursionError, ValueError) as error:
                raise _too_large(error, self.file.name, self.number) from None
            else:
                # A number may go on in the next piece.
                if end < len(self.text) or self.text[end - 1] in '}]"' or not self.more():
                    self.at = end
                    return value

    def _fill(self, length: int) -> bool:
        """Whether there is more text; at least `length` characters from here on are held, if there are so many."""
        if not self.more():
            return False
        while len(self.text) - self.at < length and self.more():
            pass
        return True

    def entries(self) -> Iterator[Any]:
        """The entries of the list that begins here."""
        self.at += 1
        if self.peek() == "]":
            self.at += 1
            return
        for self.number in count(1):
            yield self.next()
            if self._separator("]"):
                self.number = None
                return

    def pairs(self) -> Iterator[tuple[str, Any]]:
        """Keys and values of the object that begins here."""
        self.at += 1
        if self.peek() == "}":
            self.at += 1
            return
        while True:
            if self.peek() != '"':
                raise self.broken("Expecting property name enclosed in double quotes", self.at)
            key = self.next()
            if self.peek() != ":":
                raise self.broken("Expecting ':' delimiter", self.at)
            self.at += 1
            yield key, self.next()
            if self._separator("}"):
                return

    def _separator(self, end: str) -> bool:
        """Pass a comma, or the end of a list or object, which is true."""
        found = self.peek()
        if found not in (",", end) or not found:
            raise self.broken("Expecting ',' delimiter", self.at)
        self.at += 1
        if found == "," and self.peek() == end:
            raise self.broken("Illegal trailing comma", self.at)
        return found == end

    def broken(self, problem: str, at: int) -> JudgmentDataError:
        """The error for text that is no JSON."""
        line = self.line + self.text.count("\n", 0, at)
        column = at - self.text.rfind("\n", 0, at)
        place = f"line {line}, " if line > 1 else ""
        fix = "The file must hold one list of objects."
        if self.text[:at].rstrip().endswith(",") and self.text[at : at + 1] in ("]", "}"):
            fix = "Take out the comma before the closing bracket."
        elif (self.ended and at >= len(self.text.rstrip()) - 1) or _is_open(problem):
            fix += " The file seems cut off."
        return JudgmentDataError(
            f"is not valid JSON ({problem} at {place}character {column})",
            source=self.file.name,
            row=self.number,
            fix=fix,
        )


def _too_large(error: RecursionError | ValueError, source: str, number: int | None) -> JudgmentDataError:
    """The error for JSON that is valid, but that Python does not read."""
    problem = "is nested too deeply" if isinstance(error, RecursionError) else "has a number of thousands of digits"
    return JudgmentDataError(problem, source=source, row=number, fix="Look for damage, or export the file again.")


def _is_open(problem: str) -> bool:
    return problem.startswith("Unterminated")


def _parse_line(text: str, source: str, number: int) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_pairs)
    except _KeyTwiceError as error:
        raise _twice(str(error), source, number) from None
    except json.JSONDecodeError as error:
        fix = "Every line holds one object."
        if text.strip() in ("{", "[", "[{"):
            fix = "It seems to be JSON over several lines: give the file the ending .json."
        elif error.msg == "Extra data" and text[error.pos :].strip() == ",":
            fix = "Take out the comma at the end: every line holds one object."
        elif error.pos >= len(text.rstrip()) - 1 or _is_open(error.msg):
            fix += " The line seems cut off."
        raise JudgmentDataError(
            f"is not valid JSON ({error.msg} at character {error.pos + 1})", source=source, row=number, fix=fix
        ) from None
    except (RecursionError, ValueError) as error:
        raise _too_large(error, source, number) from None


class _KeyTwiceError(Exception):
    """An object has a key twice. `json` would silently keep the last value."""


def _pairs(pairs: list[tuple[str, Any]]) -> Row:
    row = dict(pairs)
    if len(row) < len(pairs):
        keys = [key for key, _ in pairs]
        raise _KeyTwiceError(next(key for key in keys if keys.count(key) > 1))
    return row


def _unique(pairs: list[tuple[str, Any]], file: DataFile) -> Row:
    try:
        return _pairs(pairs)
    except _KeyTwiceError as error:
        raise _twice(str(error), file.name) from None


def _twice(key: str, source: str, number: int | None = None) -> JudgmentDataError:
    return JudgmentDataError(
        "occurs twice in an object", source=source, row=number, field=key, fix="Keep one of them."
    )


def _object(value: Any, file: DataFile, number: int, *, lines: bool = False) -> Row:
    if isinstance(value, dict):
        return value
    fix = "A row has named fields."
    if lines and isinstance(value, list) and value and isinstance(value[0], dict):
        fix = "It seems to be a list of rows: give the file the ending .json."
    raise JudgmentDataError(f"is a JSON {_kind(value)}, not an object", source=file.name, row=number, fix=fix)


def _kind(value: Any) -> str:
    kinds = {str: "text", bool: "boolean", int: "number", float: "number", type(None): "null"}
    return kinds.get(type(value), type(value).__name__)
