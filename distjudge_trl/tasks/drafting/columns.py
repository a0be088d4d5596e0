"""The columns of a sample, those inside other columns too, and what their names and values look like."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

from distjudge_trl.data.reading import FILE_COLUMN, KEY_COLUMN
from distjudge_trl.data.template import as_column, is_empty
from distjudge_trl.data.values import parse_structure
from distjudge_trl.labels.spelling import comparison_key, spelling
from distjudge_trl.tasks.custom.cells import no_answer_fix


# A judge tells so many labels apart by letters; ratings of many points are slider values.
MOST_LABELS = 26
_LONGEST_LABEL = 48
_MOST_PARTS = 40
# Ratings are whole, half or quarter points; a mean of three ratings is none.
_MOST_DIGITS = 2
_DEPTH = 3
# Parts of names.
ANNOTATOR = re.compile(
    r"(?i)(^|[^a-z])(annotators?|annotatorid|workers?|workerid|raters?|users?|userid|username|judges?|coders?|"
    r"labell?ers?|participants?|reviewers?|evaluators?|assessors?|who|sessions?|completed_by|created_by|email)([^a-z]|$)"
)
ID = re.compile(
    r"(?i)(^|[^a-z])(id|ids|uid|uuid|key|hash|idx|index|nr|no|number|item|instance|pair|segment|seg)$|[a-z]ID$|^id([^a-z]|$)"
)
GROUP = re.compile(
    r"(?i)group|thread|article|premise|context|conv|dialog|doc|question|prompt|topic|post|caption|customer|case|story"
)
SYSTEM = re.compile(r"(?i)(^|[^a-z])(model|system|turn|method|generator|bot)s?([^a-z]|$)")
LABEL = re.compile(
    r"(?i)label|annot|vote|rating|score|judg|verdict|answer|choice|class|categor|winner|grade|quality|sentiment|tone|"
    r"overall|stance|accept|offensive|toxic|preference"
)
ABOUT = re.compile(
    r"(?i)^(split|subset|fold|partition|lang(uage)?|source|domain|year|month|day|date|time|timestamp|created_at|"
    r"exported_at|updated_at|age|gender|sex|race|ethnicity|education|occupation|country|nationality|version|genre|"
    r"platform|status|lead_time|part|phase|progress|finished|ip.?address)$|"
    r"number.of|^num_|majority|gold|hard.label|old.label|(^|[_\s])(age|gender|race|education|occupation|ethnicity)$|"
    r"seconds|duration|(^|_)time(_|$)|status$|_count$|confidence|lifetime|reward|assignments?$|approval(rate|time|delay)|"
    r"^(hint|accept):|^assignment:(link|status|started|submitted|accepted|reward)|^_(trust|tainted|channel|country|region|city|ip|missed|golden|unit_state)$"
)
# What names a person, unlike `annotator_2` or `rater_anna`, which hold that person's labels.
PERSON = re.compile(
    r"(?i)(.*[_.:])?(annotators?|workers?|raters?|users?|judges?|coders?|labell?ers?|participants?|reviewers?|"
    r"evaluators?|assessors?|sessions?|completed_by|created_by|email|who)([_\s.-]?(id|ids|name|uid|uuid|email))?"
)
# Columns and values that say which part of a split a row belongs to.
SPLIT = re.compile(r"(?i)(^|[^a-z])(split|subset|fold|partition|set|part)([^a-z]|$)")
# Free text in which annotators say why: a judge that reads it sees the answer.
REASON = re.compile(r"(?i)explanation|rationale|reason|comment|justif|note|feedback|remark|highlight")
TECHNICAL = re.compile(r"(?i)parse|tokens?$|tree|url|html|hash|path|file|embedding")
# "1 - poor", "3 (good)".
LEADING_NUMBER = re.compile(r"(-?\d+)\s*(?:[-–:.=)(]|\s)\s*\S.*|(\d+)\s*/\s*\d+")
_DATE = re.compile(r"\d{4}-\d\d-\d\d|\d{1,2}[/.]\d{1,2}[/.]\d{2,4}|https?:")
# "yes: 2, no: 1" counts votes.
_COUNTS = re.compile(r"[^:=]+[:=]\s*\d+\s*[,;|]")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# Names that Jinja reads as something else, or that every mapping has.
_TAKEN = {
    *("row", "legend", "loop", "self", "range", "dict", "lipsum", "cycler", "joiner", "namespace", "true", "false"),
    *("none", "True", "False", "None", "and", "or", "not", "in", "is", "if", "else", "for"),
    *dir(dict),
}


class ListEntry(str):
    """A step to an entry of a list: `summaries[0]`."""

    __slots__ = ("name",)
    name: str

    def __new__(cls, name: str, number: int) -> Self:
        made = super().__new__(cls, f"{step(name)}[{number}]")
        made.name = name
        return made


@dataclass(frozen=True)
class Column:
    """A column, or a part of one: the steps to it, and its value in each row (`None` where there is none). `raw` has
    the texts, if the values are lists or mappings that the file writes as texts.
    """

    steps: tuple[str, ...]
    values: Sequence[Any]
    raw: Sequence[Any] | None = None

    @property
    def name(self) -> str:
        return self.steps[-1]

    @property
    def path(self) -> str:
        """As a task file names it."""
        return self.steps[0] if len(self.steps) == 1 else ".".join(map(step, self.steps))

    @property
    def parent(self) -> tuple[str, ...]:
        """The steps to the column as names alone, without places in lists."""
        return tuple(one.name if isinstance(one, ListEntry) else one for one in self.steps)

    @property
    def shown(self) -> str:
        """As a template shows it."""
        return f"{{{{ {self.expression} }}}}"

    @property
    def expression(self) -> str:
        """As a template names it."""
        if all(isinstance(n, ListEntry) or (_NAME.fullmatch(n) and n not in _TAKEN) for n in self.steps):
            return ".".join(self.steps)
        first = as_column(self.steps[0]).strip("{} ")
        return first + "".join(f"[{json.dumps(name, ensure_ascii=False)}]" for name in self.steps[1:])

    @cached_property
    def filled(self) -> list[Any]:
        """Values of rows that have some."""
        return [value for value in self.values if not is_empty(value) and value not in ([], {})]

    @cached_property
    def is_scalar(self) -> bool:
        return bool(self.filled) and not any(isinstance(value, (list, dict)) for value in self.filled)

    @cached_property
    def keys(self) -> set[str]:
        """Different values of a column of texts, numbers or booleans, without codes for missing ones. Of texts such
        as "1 - poor" it is the number.
        """
        keys = {comparison_key(value) for value in self.filled if not is_missing_code(value)}
        numbered = [LEADING_NUMBER.fullmatch(key) for key in keys if not is_number(key)]
        if numbered and all(numbered):
            keys = {match[1] or match[2] for match in numbered if match} | {key for key in keys if is_number(key)}
        return keys

    @cached_property
    def is_label_like(self) -> bool:
        """Whether the values may be the labels of one annotator."""
        return self.is_scalar and are_label_like(self.filled) and len(self.keys) <= MOST_LABELS

    @cached_property
    def mean_length(self) -> float:
        texts = [value for value in self.filled if isinstance(value, str)]
        return sum(map(len, texts)) / len(texts) if texts else 0.0

    def differs(self) -> bool:
        """Whether every row has a value of this column and no other row has it."""
        return len(self.filled) == len(self.values) and len(set(map(str, self.filled))) == len(self.values)


def find_columns(rows: Sequence[dict[str, Any]]) -> list[Column]:
    """The columns of the rows in their order, each before the parts inside it. Texts of lists and mappings count as
    these, but no path reads their parts.
    """
    names = dict.fromkeys(name for row in rows for name in row if name not in (FILE_COLUMN, KEY_COLUMN))
    found: list[Column] = []
    for name in names:
        values = [row.get(name) for row in rows]
        texts = [value for value in values if isinstance(value, str) and value.strip()]
        if texts and not any(isinstance(parse_structure(text), str) for text in texts):
            found.append(Column((str(name),), [parse_structure(value) for value in values], values))
            continue
        found += _with_parts((str(name),), values)
    return found


def _with_parts(steps: tuple[str, ...], values: list[Any]) -> list[Column]:
    columns = [Column(steps, values)]
    mappings = [value for value in values if isinstance(value, dict)]
    names = list(dict.fromkeys(str(name) for value in mappings for name in value))
    if mappings and len(steps) < _DEPTH and len(names) <= _MOST_PARTS:
        for name in names:
            parts = [value.get(name) if isinstance(value, dict) else None for value in values]
            columns += _with_parts((*steps, name), parts)
    return columns


def step(name: str) -> str:
    """A name as a step of a path."""
    return name if isinstance(name, ListEntry) or _NAME.fullmatch(name) else json.dumps(name, ensure_ascii=False)


def are_label_like(values: Iterable[Any]) -> bool:
    """Whether all values may be labels: short texts, numbers or booleans, and no dates."""
    for value in values:
        if isinstance(value, (list, dict)):
            return False
        if isinstance(value, str) and (len(value) > _LONGEST_LABEL or "\n" in value or _DATE.match(value)):
            return False
        if isinstance(value, str) and _COUNTS.match(value):
            return False
        if re.fullmatch(r"-?\d*\.\d+", text := spelling(value)) and len(text.partition(".")[2]) > _MOST_DIGITS:
            return False
    return True


def is_number(key: str) -> bool:
    """Whether a value in its comparable spelling is a number."""
    return re.fullmatch(r"-?\d+(\.\d+)?", key) is not None


def is_missing_code(value: Any) -> bool:
    """Whether a value is a word for no answer."""
    return is_empty(value) or (isinstance(value, str) and no_answer_fix(value) is not None)


def overlapping(sets: Sequence[set[str]]) -> bool:
    """Whether each of several sets of values shares at least half of its values with the others together."""
    for number, own in enumerate(sets):
        others = set().union(*sets[:number], *sets[number + 1 :])
        if 2 * len(own & others) < len(own):
            return False
    return True


def label_names(names: list[str]) -> list[str]:
    """The parts in which the names of columns differ."""
    start = re.sub(r"[^\s_.:\-(]*$", "", os.path.commonprefix(names))
    ends = os.path.commonprefix([name[len(start) :][::-1] for name in names])[::-1]
    end = re.sub(r"^[^\s_.:\-)(]*", "", ends)
    found = [name[len(start) : len(name) - len(end)].strip(" _.:-") for name in names]
    return found if all(found) and len(set(found)) == len(found) else names
