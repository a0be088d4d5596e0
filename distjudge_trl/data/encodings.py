"""Text of files in any encoding: UTF-8, UTF-16 as spreadsheets write it, or the encoding that a task file names."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from typing import IO

from distjudge_trl.data.source_files import DataFile
from distjudge_trl.errors import JudgmentDataError, UserInputError


# Longest line, in characters. Only a broken file has a longer one, and it would have to be held in memory.
MAX_LINE_LENGTH = 64_000_000
_CHUNK = 1 << 18
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
# UTF-8's own sequences of bytes, which hardly ever occur by chance.
_UTF_8 = re.compile(rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}")
_LINES = re.compile(r"[^\n]*\n|[^\n]+")
_UNIVERSAL_LINES = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")

# What a file that is no text begins with, and how to read it.
_NOT_TEXT = (
    (b"PK\x03\x04", "is a zip archive or an Excel workbook", "Give it the ending .xlsx or .zip."),
    (b"\xd0\xcf\x11\xe0", "is an old Excel workbook (.xls)", "Save it as .xlsx or as CSV."),
    (b"\x1f\x8b", "is compressed with gzip", "Add .gz to its name."),
    (b"PAR1", "is a Parquet file", "Give it the ending .parquet."),
    (b"ARROW1", "is an Arrow file", "Give it the ending .arrow."),
    (b"%PDF", "is a PDF", "Export the table as CSV."),
    (b"version https://git-lfs", "is a pointer of Git LFS, not the data", "Run `git lfs pull`."),
)
# So few bytes beyond ASCII do not tell one encoding from another: the most usual one is the best guess.
_FEW = 8
# Codecs of Python for names of hosts and for source code, which no file has.
_NO_FILES = ("idna", "punycode", "undefined", "unicode-escape", "raw-unicode-escape")
# Encodings that exports have, in the order of their number of users; others are too alike to tell them apart.
_LIKELY = ("cp1252", "cp1250", "cp1251", "cp1253", "cp1254", "shift_jis", "gb18030", "big5", "euc_kr", "mac_roman")


def check_encoding(name: str) -> str:
    """The codec's name of an encoding.

    Raises:
        `ValueError`: Python does not know it, or it is none of texts.
    """
    try:
        codec = codecs.lookup(name)
        is_text = isinstance(codec.incrementaldecoder().decode(b"", final=True), str)
    except (LookupError, TypeError, UnicodeError):
        is_text = False
    if not is_text or codec.name.replace("_", "-") in _NO_FILES:
        raise ValueError(f"{name!r} is no known text encoding; spreadsheets write cp1252, utf-16 or utf-8") from None
    # Latin-1 has control characters where Windows has quote marks, which is what files called Latin-1 mean.
    return "cp1252" if codec.name in ("iso8859-1", "ascii") else codec.name


def text_encoding(file: DataFile, head: bytes) -> str:
    """The encoding of a file whose first bytes are `head`: by its byte order mark, else the named one, else UTF-16 if
    it has that form, else UTF-8.

    Raises:
        [`UserInputError`]: the file is no text.
    """
    for mark, encoding in _MARKS:
        if head.startswith(mark):
            return encoding
    for sign, problem, fix in _NOT_TEXT:
        if head.startswith(sign):
            if problem.endswith("gzip") and file.name.lower().endswith(".gz"):
                problem, fix = "is compressed with gzip twice", "Unpack it once."
            raise UserInputError(f"{file.name}: {problem}. {fix}")
    if re.match(rb"\s*<(!doctype|html|table|head|meta|\?xml)", head, re.IGNORECASE):
        raise UserInputError(f"{file.name}: is a page of HTML or XML. Download or export the data itself, as CSV.")
    named = check_encoding(file.reading.encoding or "utf-8")
    if named != "utf-8":
        return {"utf-16": "utf-16-le", "utf-32": "utf-32-le"}.get(named, named)
    if b"\0" in head:
        encoding = "utf-16-le" if head[1::2].count(0) > head[::2].count(0) else "utf-16-be"
        if not _may_be(head, encoding):
            raise UserInputError(f"{file.name}: holds bytes of value 0, so it is no text. Export the data as CSV.")
        return encoding
    return "utf-8"


def _may_be(head: bytes, encoding: str) -> bool:
    """Whether the beginning of a file with bytes of value 0 is UTF-16 without a byte order mark: delimiters and line
    ends have such a byte, and no character has one in its other half.
    """
    high = 1 if encoding == "utf-16-le" else 0
    if head[1 - high :: 2].count(0) or head[high::2].count(0) * 20 < len(head):
        return False
    text = head.decode(encoding, errors="replace")
    return ("\n" in text or "\r" in text) and "\ufffd" not in text[:-1]


def read_head(file: DataFile, size: int = 1 << 16) -> bytes:
    """The first bytes of a file."""
    with file.open() as stream:
        head: bytes = stream.read(size)
    return head


def text_chunks(stream: IO[bytes], file: DataFile, encoding: str) -> Iterator[str]:
    """The text of a file in pieces, without its byte order mark.

    Raises:
        [`JudgmentDataError`]: the bytes are none of this encoding; the row is the line. If a one-byte encoding is
            named, also a file that is UTF-8 throughout, whose characters would come out wrong.
    """
    decoder = codecs.getincrementaldecoder(encoding)()
    utf_8 = None if encoding.startswith("utf") else codecs.getincrementaldecoder("utf-8")()
    plain, first, line = True, True, 1
    while True:
        chunk = stream.read(_CHUNK)
        try:
            text = decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError as error:
            before = error.object[: error.start].decode(encoding, errors="replace")
            raise _wrong_bytes(file, encoding, error, line + before.count("\n")) from None
        if utf_8 is not None:
            plain = plain and chunk.isascii()
            try:
                utf_8.decode(chunk, final=not chunk)
            except UnicodeDecodeError:
                utf_8 = None
        if first and text:
            text, first = text.removeprefix("\ufeff"), False
        line += text.count("\n")
        if text:
            yield text
        if not chunk:
            break
    if utf_8 is not None and not plain:
        raise JudgmentDataError(
            f"is UTF-8 throughout, and read as {encoding} its accents would come out wrong",
            source=file.name,
            fix=f"Take `encoding: {file.reading.encoding}` out.",
        )


def text_lines(stream: IO[bytes], file: DataFile, encoding: str, *, universal: bool = False) -> Iterator[str]:
    """The lines of a file with their ends, without its byte order mark.

    Args:
        stream (`IO[bytes]`): the open file.
        file ([`DataFile`]): for errors.
        encoding (`str`): from [`text_encoding`].
        universal (`bool`): whether a carriage return alone ends a line, too.

    Raises:
        [`JudgmentDataError`]: as [`text_chunks`], or a line of more than 64 million characters.
    """
    if encoding == "utf-8" and not universal:
        for number, raw in enumerate(stream, start=1):
            if number == 1:
                raw = raw.removeprefix(codecs.BOM_UTF8)
            try:
                line = raw.decode()
            except UnicodeDecodeError as error:
                raise _wrong_bytes(file, encoding, error, number) from None
            yield line
        return
    pattern = _UNIVERSAL_LINES if universal else _LINES
    rest, number = "", 0
    for text in text_chunks(stream, file, encoding):
        lines = pattern.findall(rest + text)
        rest = lines.pop()  # may go on in the next piece
        if len(rest) > MAX_LINE_LENGTH:
            raise JudgmentDataError(
                f"is longer than {MAX_LINE_LENGTH:,} characters", source=file.name, row=number + len(lines) + 1
            )
        number += len(lines)
        yield from lines
    if rest:
        yield rest


def _wrong_bytes(file: DataFile, encoding: str, error: UnicodeDecodeError, line: int) -> JudgmentDataError:
    """The error for bytes that are none of an encoding, with the likely one."""
    position = error.start - error.object.rfind(b"\n", 0, error.start)
    where = f"byte 0x{error.object[error.start]:02x} at position {position}"
    name = encoding.upper() if encoding.startswith("utf") else encoding
    if encoding.startswith(("utf-16", "utf-32")):
        fix = "The file is cut off or damaged: export it again."
    elif encoding == "utf-8" and error.reason == "unexpected end of data" and _has_utf_8(read_head(file)):
        fix = "It ends within a character: the file is cut off. Export it again."
    elif encoding != "utf-8":
        fix = "Name the encoding that it has, or save it as UTF-8."
    elif (likely := likely_encoding(file, error.object)) is not None:
        advice = file.reading.advice(file.base_name, "encoding", likely)
        return JudgmentDataError(
            f"is not UTF-8 ({where}), and looks like {likely}",
            source=file.name,
            row=line,
            fix=f"{advice[0].upper()}{advice[1:]}, or save the file as UTF-8.",
        )
    else:
        fix = "Save the file as UTF-8."
    return JudgmentDataError(f"is not {name} ({where})", source=file.name, row=line, fix=fix)


def _has_utf_8(sample: bytes) -> bool:
    return _UTF_8.search(sample) is not None


def _are_letters(sample: bytes, encoding: str) -> bool:
    """Whether all characters beyond ASCII are letters in an encoding."""
    text = sample.decode(encoding, errors="replace")
    return all(character.isalpha() for character in text if not character.isascii())


def likely_encoding(file: DataFile, wrong: bytes) -> str | None:
    """The encoding that a file that is not UTF-8 most likely has; `None` if it is UTF-8 with some damage, or unclear.

    Args:
        file ([`DataFile`]): read from its beginning.
        wrong (`bytes`): a part of it that is not UTF-8.
    """
    from charset_normalizer import from_bytes

    sample = read_head(file, 1 << 16) + wrong[: 1 << 16]
    damaged = len(_UTF_8.findall(sample))
    foreign = len(re.sub(rb"[\xc2-\xf4][\x80-\xbf]+|[\x00-\x7f]+", b"", sample))
    if damaged > foreign:
        return None
    best = from_bytes(sample, cp_isolation=list(_LIKELY)).best()
    if best is None:
        return None
    if foreign <= _FEW and _are_letters(sample, "cp1252"):
        return "cp1252"
    if best.encoding == "cp1250":
        try:  # the letters of German and most French stand in the same places
            if sample.decode("cp1252") == sample.decode("cp1250"):
                return "cp1252"
        except UnicodeDecodeError:
            pass
    return best.encoding
