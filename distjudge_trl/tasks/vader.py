"""VADER's lexicon: how positive or negative a word, emoticon or slang expression feels, each rated by ten people.

Source: `vader_lexicon.txt` of the PyPI package `vaderSentiment` (MIT; Hutto and Gilbert 2014). Each line has an
expression, the mean, the standard deviation and the ten ratings from -4 to 4, separated by tabs. We shift the ratings
to 1..9, which are one token each in the usual vocabularies. The group is the word family (`word_families.py`).
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from distjudge_trl.data.source_files import DataFile
from distjudge_trl.data.template import PromptTemplate
from distjudge_trl.errors import JudgmentDataError, UserInputError
from distjudge_trl.runtime.extras import install_hint
from distjudge_trl.tasks.items import Item, Source
from distjudge_trl.tasks.task import JudgmentTask
from distjudge_trl.tasks.word_families import word_families


LEXICON_NAME = "vader_lexicon.txt"
LOWEST_RATING, HIGHEST_RATING = -4, 4
LABELS = tuple(str(rating - LOWEST_RATING + 1) for rating in range(LOWEST_RATING, HIGHEST_RATING + 1))

TEMPLATE = PromptTemplate(
    [
        {"role": "system", "content": "You tell how words, slang and emoticons feel to the people who read them."},
        {
            "role": "user",
            "content": (
                "How negative or positive is the feeling that the expression below carries when it stands alone?\n"
                "1 is extremely negative, 5 is neutral, 9 is extremely positive.\n"
                "Answer only with one number: 1, 2, 3, 4, 5, 6, 7, 8 or 9.\n"
                "Expression: {{ text }}"
            ),
        },
    ]
)


def find(data_path: Path | None) -> list[DataFile]:
    """Find the lexicon: a file of this format, the one in a folder, or that of the installed package
    `vaderSentiment`.
    """
    if data_path is None:
        try:
            import vaderSentiment
        except ImportError:
            raise UserInputError(
                "The vader task reads the lexicon of the package vaderSentiment, which is not installed:"
                f" {install_hint('vaderSentiment')}, or pass --data_path with a copy of vader_lexicon.txt."
            ) from None
        data_path = Path(vaderSentiment.__file__).parent
    path = data_path / LEXICON_NAME if data_path.is_dir() else data_path
    if not path.is_file():
        raise UserInputError(
            f"{path}: no such file. Pass --data_path with a copy of {LEXICON_NAME}, or the folder that holds it."
        )
    return [DataFile(str(path), path.name, "txt", lambda: path.open("rb"))]


def read_expressions(source: Source) -> Iterator[Item]:
    """Items of the lexicon, one per line. It is read at once, because word families need all expressions.

    Raises:
        [`UserInputError`]: the file cannot be read, or snowballstemmer is not installed.
        [`JudgmentDataError`]: a line that is not UTF-8 or not of the form above, naming the line and the field.
    """
    (file,) = source.files
    expressions, counts, lines = [], [], []
    for number, line in enumerate(_read_lines(file), start=1):
        if line.strip():
            expression, votes = _parse_line(line, file.name, number)
            expressions.append(expression)
            counts.append(votes)
            lines.append(number)
    families = word_families(expressions) if expressions else []
    for item_id, expression, family, votes, number in zip(
        _unique_ids(expressions), expressions, families, counts, lines, strict=True
    ):
        yield Item(item_id, family, {"text": expression}, votes, file.name, number)


def _read_lines(file: DataFile) -> list[str]:
    try:
        with file.open() as stream:
            content: bytes = stream.read()
        return content.decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise JudgmentDataError("is not UTF-8", source=file.name, row=line, fix="Save the file as UTF-8.") from None
    except OSError as error:
        raise UserInputError(f"{file.name}: cannot be read ({error.strerror}).") from None


def _parse_line(line: str, source: str, number: int) -> tuple[str, list[int]]:
    """The expression and its K vote counts."""
    parts = line.rstrip("\r").split("\t")
    if len(parts) != 4:
        raise JudgmentDataError(
            f"has {len(parts)} tab-separated fields, not 4",
            source=source,
            row=number,
            fix="A line is: expression, mean, standard deviation, list of ratings.",
        )
    expression = parts[0].strip()
    if not expression:
        raise JudgmentDataError("is empty", source=source, row=number, field="expression")
    try:
        ratings = ast.literal_eval(parts[3].strip())
    except (ValueError, SyntaxError):
        ratings = None
    if not isinstance(ratings, list):
        raise JudgmentDataError(
            f"is not a list of numbers: {parts[3][:40]!r}",
            source=source,
            row=number,
            field="ratings",
            fix="Expected e.g. [-1, 0, 2].",
        )
    if not ratings:
        raise JudgmentDataError(
            "no votes", source=source, row=number, field="ratings", fix="Every item needs at least one annotator."
        )
    counts = [0] * len(LABELS)
    for rating in ratings:
        if isinstance(rating, bool) or not isinstance(rating, int) or not LOWEST_RATING <= rating <= HIGHEST_RATING:
            raise JudgmentDataError(
                f"unknown label {rating!r}",
                source=source,
                row=number,
                field="ratings",
                fix="Ratings are whole numbers from -4 to 4.",
            )
        counts[rating - LOWEST_RATING] += 1
    return expression, counts


def _unique_ids(expressions: list[str]) -> list[str]:
    """Unique ids. The lexicon lists a few expressions twice, rated by two panels: both are kept, and the later ones
    get a number.
    """
    seen: dict[str, int] = {}
    ids = []
    for expression in expressions:
        seen[expression] = seen.get(expression, 0) + 1
        ids.append(expression if seen[expression] == 1 else f"{expression} #{seen[expression]}")
    return ids


TASK = JudgmentTask(
    name="vader",
    description="How negative or positive a word, emoticon or slang feels; ten people each",
    labels=LABELS,
    template=TEMPLATE,
    read_items=read_expressions,
    find=find,
    ordinal=True,
    size="about 7,500 expressions",
)
