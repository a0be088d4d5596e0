"""The text of a drafted task file."""

from __future__ import annotations

import json
import re
from typing import Any

from distjudge_trl.data.reading import KEY_COLUMN
from distjudge_trl.errors import listing
from distjudge_trl.labels.spelling import comparison_key
from distjudge_trl.tasks.drafting.columns import Column, ListEntry, step
from distjudge_trl.tasks.drafting.drafted import Draft
from distjudge_trl.tasks.drafting.texts import message_keys


_PLAIN = re.compile(r"[^\W\d]\w*(?:[ ./-]\w+)*")
_PLAIN_PATH = re.compile(r"[A-Za-z_./][\w./-]*[A-Za-z_][\w./-]*", re.ASCII)
_NOT_TEXTS = {"yes", "no", "on", "off", "true", "false", "null", "y", "n", "none", "nan", "inf"}
_WIDTH = 110
_MOST_OTHERS = 6


def as_yaml(draft: Draft) -> str:
    """The task file with its comments."""
    labels, votes = draft.labels, draft.votes
    counts = ", ".join(f"{label}: {labels.counts.get(comparison_key(label), 0):,}" for label in labels.labels[:8])
    lines = [
        f"# Drafted from {draft.num_items}. Correct what is marked with CHECK, then look at the prompts:",
        f"#   distjudge-trl data THIS_FILE --stats --show 2{' --min_annotators 1' if draft.unvoted else ''}",
        f"name: {scalar(draft.name)}",
        "# CHECK: one line on what is judged and by whom",
        f"description: {scalar(f'Ratings of {draft.name}')}",
        *_comments([f"votes for each: {counts}{', ...' if len(labels.labels) > 8 else ''}"]),
        *_comments(f"CHECK: {check}" for check in labels.checks),
        f"labels: {flow(labels.labels)}",
        f"ordinal: {str(labels.ordinal).lower()}",
    ]
    if labels.spellings:
        lines += ["# how the file spells them", f"spellings: {flow(labels.spellings)}"]
    if labels.letters:
        lines += ["# some tokenizers read the labels by the same first token, so the judge answers with a letter"]
        lines += ["answers: letters"]
    lines += ["# CHECK: write the question that the people were asked", "template: |", *_template(draft)]
    lines += [*_comments(draft.sample.remarks), f"source: {_source(draft.source)}"]
    if (skip := votes.keys.get("skip")) is not None:
        lines += ["# rows for which this is true are left out", f"skip: {scalar(skip)}"]
    if draft.id is not None:
        lines += [f"id: {_one_or_several(draft.id)}"]
    else:
        keyed = any(KEY_COLUMN in row for row in draft.sample.rows[:1])
        lines += [
            "# the id is the key of each item"
            if keyed
            else "# CHECK: no column names the items; the row's number is the id"
        ]
    if draft.group is not None:
        lines += [f"# CHECK: items that share `{draft.group}` are kept on one side of a split"]
        lines += [f"group: {scalar(draft.group)}"]
    lines += _split(draft)
    lines += [*_comments([votes.seen]), *_comments(f"CHECK: {check}" for check in votes.checks)]
    named = dict(votes.votes)
    if labels.multiple:
        lines += ["# CHECK: some annotators give several labels: a vote for each, or `shares` of one vote"]
        named["multiple"] = "votes"
    lines += _votes(named)
    missing = [*votes.keys.get("missing", []), *labels.missing]
    if missing:
        lines += ["# CHECK: these stand for a missing vote, as empty cells do", f"missing: {flow(missing)}"]
    lines += _questions(draft)
    if draft.others:
        lines += ["# other ways to read votes from this file:"]
        for other in draft.others[:_MOST_OTHERS]:
            lines += [f"#   votes: {flow(other.votes)}  # {other.per_item:.3g} an item"]
    return "\n".join(lines) + "\n"


def _split(draft: Draft) -> list[str]:
    if draft.split is None:
        return []
    lines = _comments([draft.split.seen, *(f"CHECK: {check}" for check in draft.split.checks)])
    return [*lines, f"split: {flow(draft.split.keys)}"] if draft.split.keys else lines


def _questions(draft: Draft) -> list[str]:
    """Comments that are the key `questions` once their marks are taken away."""
    if not draft.questions:
        return []
    lines = [
        f"# CHECK: the file has {len(draft.questions)} ratings of an item: {listing(draft.questions)}.",
        "# To ask all of them in one task take away the marks below, and write {{ question }} into the template.",
    ]
    if draft.votes.may_be_questions:
        lines[0] = "# If the columns are questions and no people:"
        lines[1] = lines[1].replace("To ask all of them", "to ask all of them")
    if any("labels" in question for question in draft.questions.values()):
        lines += ["# Questions with different labels need a judge each: --question NAME says which."]
    lines += ["# questions:"]
    return [*lines, *(f"#   {scalar(name)}: {flow(question)}" for name, question in draft.questions.items())]


def _template(draft: Draft) -> list[str]:
    labels = draft.labels
    lines = ["  Which label fits?"]
    for column in draft.texts:
        lines += [f"  {line}" for line in _shown(column, alone=len(draft.texts) == 1)]
    plain = not any("{" in label for label in labels.labels)
    if labels.letters:
        lines += ["  The answers are:", "  {{ legend }}", "  Answer only with one letter."]
    elif plain and len(labels.labels) == 2:
        lines += [f"  Answer only with {labels.labels[0]} or {labels.labels[1]}."]
    elif plain:
        lines += [f"  Answer only with one of these: {', '.join(labels.labels)}."]
    else:
        lines += ["  Answer only with one of these:", "  {{ legend }}"]
    if draft.reasons:
        names = ", ".join(column.path for column in draft.reasons[:4])
        lines += ["", f"# left out of the prompt, because people may explain their votes in it: {_one_line(names)}"]
        lines = [line for line in lines if line]
    return lines


def _shown(column: Column, *, alone: bool) -> list[str]:
    keys = message_keys(column)
    if keys is not None:
        speaker, text = keys
        name = column.expression
        return [
            f"{_title(column)}:",
            f"{{% for message in {name} %}}{{{{ message['{speaker}'] }}}}: {{{{ message['{text}'] }}}}",
            "{% endfor %}",
        ]
    may_be_empty = len(column.filled) < len(column.values)
    line = column.shown if alone else f"{_title(column)}: {column.shown}"
    return [f"{{% if {column.expression} %}}{line}{{% endif %}}"] if may_be_empty and not alone else [line]


def _title(column: Column) -> str:
    name = column.name
    if len(column.steps) > 1 and isinstance(entry := column.steps[-2], ListEntry):
        name = f"{entry.name} {int(entry[len(step(entry.name)) + 1 : -1]) + 1}"
    words = re.sub(r"[_.\s{}%#]+", " ", name).strip() or "Text"
    return words[0].upper() + words[1:]


def _votes(votes: dict[str, Any]) -> list[str]:
    line = f"votes: {flow(votes)}"
    if len(line) <= _WIDTH:
        return [line]
    lines = ["votes:"]
    for key, value in votes.items():
        if isinstance(value, dict):
            lines += [f"  {key}:", *(f"    {scalar(name)}: {flow(part)}" for name, part in value.items())]
        elif isinstance(value, list):
            lines += [f"  {key}:", *(f"    - {scalar(part)}" for part in value)]
        else:
            lines += [f"  {key}: {scalar(value)}"]
    return lines


def _source(source: dict[str, Any]) -> str:
    if "path" not in source:
        return flow({part: own["path"] if set(own) == {"path"} else own for part, own in source.items()})
    path = source["path"] if _PLAIN_PATH.fullmatch(source["path"]) else scalar(source["path"])
    rest = [f"{key}: {flow(value)}" for key, value in source.items() if key != "path"]
    return "{" + ", ".join([f"path: {path}", *rest]) + "}" if rest else path


def _one_or_several(names: list[str]) -> str:
    return scalar(names[0]) if len(names) == 1 else flow(names)


def _comments(texts: Any) -> list[str]:
    return [f"# {_one_line(text)}" for text in texts]


def _one_line(text: str) -> str:
    return " ".join(text.split())


def flow(value: Any) -> str:
    """A value in one line of YAML."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{scalar(key)}: {flow(part)}" for key, part in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(flow, value)) + "]"
    return scalar(value)


def scalar(value: Any) -> str:
    """A text or number as YAML takes it. Texts of numbers are quoted, as labels are texts."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, (int, float)):
        return str(value)
    text = str(value)
    if (_PLAIN.fullmatch(text) or _PLAIN_PATH.fullmatch(text)) and text.casefold() not in _NOT_TEXTS:
        return text
    return json.dumps(text, ensure_ascii=False)
