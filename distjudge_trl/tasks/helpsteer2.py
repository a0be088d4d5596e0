"""HelpSteer2: the annotators' single ratings of a response in five attributes, and their preferences between two.

NVIDIA publishes both beside the data set's main files, whose scores are means: `disagreements/disagreements.jsonl.gz`
(fields `prompt`, `response`, and for each attribute the list of ratings from 0 to 4) and
`preference/preference.jsonl.gz` (fields `prompt`, `response_1`, `response_2`, and `all_preferences_unprocessed`, a
list of objects with `strength` from -3, the first response is much better, to 3). The prompt is the group.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from distjudge_trl.data.download import RemoteFile
from distjudge_trl.data.template import PromptTemplate
from distjudge_trl.data.values import parse_structure
from distjudge_trl.data.votes import votes_to_counts
from distjudge_trl.errors import JudgmentDataError
from distjudge_trl.labels import LabelSpace
from distjudge_trl.tasks.items import Item, Source, TaskOptions, text_of
from distjudge_trl.tasks.mtbench import EMPTY_ANSWER, SYNONYMS, PairOptions, orders
from distjudge_trl.tasks.mtbench import LABELS as PAIR_LABELS
from distjudge_trl.tasks.task import JudgmentTask


RATINGS = ("0", "1", "2", "3", "4")
ATTRIBUTES = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")
# How the official prompts mark the turns of a conversation.
_TURN_MARK = "<extra_id_1>"

_CRITERIA = """\
{% if attribute == "helpfulness" -%}
Helpfulness: all in all, how much does the response help with what was asked?
{%- elif attribute == "correctness" -%}
Correctness: is what the response says true, and is all there that it takes?
{%- elif attribute == "coherence" -%}
Coherence: is the response clear and free of contradictions?
{%- elif attribute == "complexity" -%}
Complexity: how much expertise would it take to write this response? Simple is not bad here, only simple.
{%- elif attribute == "verbosity" -%}
Verbosity: how much detail does the response give, measured by what was asked? Brief is not bad here, only brief.
{%- endif %}"""

RATING_TEMPLATE = PromptTemplate(
    [
        {"role": "system", "content": "You rate responses of an assistant, one attribute at a time."},
        {
            "role": "user",
            "content": (
                "Rate the response below by this attribute alone:\n" + _CRITERIA + "\n\n"
                "Prompt:\n{{ prompt_text }}\n\n"
                "Response:\n{{ response }}\n\n"
                "How high is the {{ attribute }} of the response, from 0 (lowest) to 4 (highest)?\n"
                "Choose one of: 0, 1, 2, 3, 4. Answer only with that number."
            ),
        },
    ]
)

PREFERENCE_TEMPLATE = PromptTemplate(
    [
        {"role": "system", "content": "You compare two responses of an assistant, fairly and whatever their order."},
        {
            "role": "user",
            "content": (
                "Which response is the better one for the prompt below? Weigh helpfulness, correctness and"
                " clarity.\n\nPrompt:\n{{ prompt_text }}\n\nResponse A:\n{{ response_a }}\n\nResponse B:\n{{"
                " response_b }}\n\nChoose one of: A (response A is better), B (response B is better), tie (no clear"
                " difference). Answer only with A, B or tie."
            ),
        },
    ]
)


@dataclass
class PreferenceOptions(PairOptions):
    """HelpSteer2-Preference: which annotators' preferences are used."""

    preferences: Literal["all", "similar"] = field(
        default="all",
        metadata={
            "help": (
                "'all' annotators' preferences, or the three most 'similar' ones of each item, which the publishers"
                " keep for their overall score and which understate disagreement."
            )
        },
    )


def _readable(prompt: str) -> str:
    return prompt.replace(f"{_TURN_MARK}Assistant", "\nAssistant:").replace(f"{_TURN_MARK}User", "\nUser:").strip()


def _key(*texts: str) -> str:
    """A hash of the content as an id, because the files have none. It does not depend on the order of rows."""
    return hashlib.sha256("\x00".join(texts).encode()).hexdigest()[:16]


def _shown(row: dict[str, Any], field_name: str, source: str, number: int) -> str:
    return text_of(row, field_name, source, number, blank=True) or EMPTY_ANSWER


def _numbered(key: str, seen: dict[str, int]) -> str:
    """`key`, or `key#2` if the publishers list the same texts again with the votes of other people, which are kept
    apart.
    """
    seen[key] = seen.get(key, 0) + 1
    return key if seen[key] == 1 else f"{key}#{seen[key]}"


def read_ratings(source: Source) -> Iterator[Item]:
    """Five items per row, one for each attribute."""
    space = LabelSpace(RATINGS, ordinal=True)
    seen: dict[str, int] = {}
    for name, number, row in source.rows(("prompt", "response", *ATTRIBUTES)):
        prompt, response = (_shown(row, field, name, number) for field in ("prompt", "response"))
        key = _numbered(_key(prompt, response), seen)
        for attribute in ATTRIBUTES:
            ratings = row[attribute]
            if not isinstance(ratings, list):
                raise JudgmentDataError(
                    f"must be the list of the annotators' ratings, got {ratings!r}",
                    source=name,
                    row=number,
                    field=attribute,
                    fix="That is disagreements.jsonl.gz; train.jsonl.gz and validation.jsonl.gz have means only.",
                )
            yield Item(
                id=f"{key}/{attribute}",
                group=_key(prompt),
                fields={"attribute": attribute, "prompt_text": _readable(prompt), "response": response},
                counts=(
                    votes_to_counts(ratings, space, source=name, row=number, field=attribute)
                    if ratings
                    else [0] * len(RATINGS)
                ),
                source=name,
                row=number,
                part=attribute,
            )


def read_preferences(source: Source) -> Iterator[Item]:
    """One item per row. Strengths -3 and -2 are A, -1 to 1 a tie, 2 and 3 B."""
    field_name = (
        "all_preferences_unprocessed" if source.options.preferences == "all" else "three_most_similar_preferences"
    )
    seen: dict[str, int] = {}
    for name, number, row in source.rows(("prompt", "response_1", "response_2", field_name)):
        prompt, first, second = (_shown(row, field, name, number) for field in ("prompt", "response_1", "response_2"))
        counts = [0, 0, 0]
        for entry in _preferences(row[field_name], field_name, name, number):
            strength = entry.get("strength")
            if isinstance(strength, bool) or not isinstance(strength, int):
                raise JudgmentDataError(
                    f"holds the strength {strength!r}, which is not a whole number",
                    source=name,
                    row=number,
                    field=field_name,
                )
            if not -3 <= strength <= 3:
                source.report.notes[
                    "votes without a preference (a strength outside -3..3, both invalid) left out"
                ] += 1
                continue
            counts[0 if strength < -1 else 1 if strength > 1 else 2] += 1
        yield Item(
            id=_numbered(_key(prompt, first, second), seen),
            group=_key(prompt),
            fields={"prompt_text": _readable(prompt), "response_a": first, "response_b": second},
            counts=counts,
            source=name,
            row=number,
        )


def _preferences(value: Any, field_name: str, source: str, row: int) -> list[dict[str, Any]]:
    """The preferences of a row, which the hub's files hold as a list or as Python text."""
    value = parse_structure(value)
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        raise JudgmentDataError("must be a list of objects with `strength`", source=source, row=row, field=field_name)
    return value


_HUB = "https://huggingface.co/datasets/nvidia/HelpSteer2/resolve/990b2711a36180dd19d9c94b8627844866f8982a"

RATINGS_TASK = JudgmentTask(
    name="helpsteer2",
    description="How high is a response in one of five attributes? Two to six people each",
    labels=RATINGS,
    template=RATING_TEMPLATE,
    read_items=read_ratings,
    file_patterns=("*disagreements*",),
    remote_files=(
        RemoteFile(
            "helpsteer2_disagreements.jsonl.gz",
            f"{_HUB}/disagreements/disagreements.jsonl.gz",
            "53435e0e2926620bf08ce91f278d7368ee6903f416a47764fe8839f3b71b3ab4",
            "HelpSteer2's single ratings, 13 MB, CC BY 4.0",
        ),
    ),
    ordinal=True,
    size="about 23,600 responses x 5 attributes",
    parts=ATTRIBUTES,
    options=TaskOptions,
)

PREFERENCE_TASK = JudgmentTask(
    name="helpsteer2_pref",
    description="Which of two responses is better? Three or more people each",
    labels=PAIR_LABELS,
    synonyms=SYNONYMS,
    template=PREFERENCE_TEMPLATE,
    read_items=read_preferences,
    expand=orders,
    file_patterns=("*preference*",),
    remote_files=(
        RemoteFile(
            "helpsteer2_preference.jsonl.gz",
            f"{_HUB}/preference/preference.jsonl.gz",
            "a5cd48600fb7a330cf0ccc8f59051e24e8f236907c379f42eff1ba18da55204b",
            "HelpSteer2-Preference, 15 MB, CC BY 4.0",
        ),
    ),
    size="about 9,100 pairs",
    options=PreferenceOptions,
)
