"""The four data sets of LeWiDi 2023 (SemEval-2023 task 11): is a text offensive, abusive, hateful, misogynistic?

The labels are yes and no, and the instructions are in English, also where the text is Arabic (ArMIS). So each answer
is one token, and a judge of one task can be evaluated on the others. The Arabic words are several tokens in many
tokenizers, and the first one, a letter, says little about the answer.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from distjudge_trl.data.template import PromptTemplate
from distjudge_trl.data.votes import votes_to_counts
from distjudge_trl.labels import LabelSpace
from distjudge_trl.tasks.items import Item, Source
from distjudge_trl.tasks.lewidi import NO_TEXT, Entry, check_shares, entries, find_parts, given_labels
from distjudge_trl.tasks.task import JudgmentTask


# In the order of the organisers' 0 and 1.
LABELS = ("no", "yes")
_VOTES = LabelSpace(("0", "1"))
# ConvAbuse's severities, from very strongly abusive to not abusive. 0 is ambivalent, and counts as not abusive.
_SEVERITIES = LabelSpace(("-3", "-2", "-1", "0", "1"))
_ABUSIVE = 3
# How ConvAbuse writes a turn that is not there.
_NO_TURN = "_"


def _template(system: str, question: str, shown: str) -> PromptTemplate:
    ask = f"{question}\n\n{shown}\n\nChoose one of: yes, no. Answer only with that word."
    return PromptTemplate([{"role": "system", "content": system}, {"role": "user", "content": ask}])


def binary_counts(entry: Entry, source: Source) -> list[int]:
    """How many annotators said 0 and 1."""
    labels = given_labels(entry, source)
    counts = votes_to_counts(labels, _VOTES, source=entry.source, row=entry.number, field="annotations")
    _check(entry, source, counts)
    return counts


def _check(entry: Entry, source: Source, counts: list[int]) -> None:
    total = sum(counts)
    shares = {str(label): count / total for label, count in enumerate(counts)} if total else {}
    check_shares(entry, source, shares, entry.row.get("soft_label"))


def _texts_as(field: str) -> Callable[[Source], Iterator[Item]]:
    """A reader of texts, each of which is its own group. The field's name differs between tasks: a judge uses its own
    prompt on another task that has the prompt's fields, and these prompts ask different questions.
    """

    def read_texts(source: Source) -> Iterator[Item]:
        for entry in entries(source):
            text = entry.row["text"]
            if not isinstance(text, str):
                raise entry.error(f"must be a text, got {str(text)[:60]!r}", "text")
            text = text.strip() or NO_TEXT
            yield entry.item(text, {field: text}, binary_counts(entry, source))

    return read_texts


def read_dialogues(source: Source) -> Iterator[Item]:
    """ConvAbuse: `text` is JSON inside a text, four turns of bot and user, of which the first may be missing. Its
    conversations' ids went through a spreadsheet that rounded them, so the turns are the group.
    """
    for entry in entries(source):
        turns = _turns(entry)
        labels = given_labels(entry, source)
        votes = votes_to_counts(labels, _SEVERITIES, source=entry.source, row=entry.number, field="annotations")
        counts = [sum(votes[_ABUSIVE:]), sum(votes[:_ABUSIVE])]
        _check(entry, source, counts)
        yield entry.item("\n".join(turns.values()), turns, counts)


def _turns(entry: Entry) -> dict[str, str]:
    content: Any = entry.row["text"]
    if isinstance(content, str):
        try:
            content = json.loads(content)
        except ValueError:
            content = None
    if not isinstance(content, dict) or "user" not in content:
        raise entry.error(
            "must hold the turns prev_agent, prev_user, agent and user as JSON", "text", "That is ConvAbuse's form."
        )
    turns = {name: str(content.get(name) or "").strip() for name in ("prev_agent", "prev_user", "agent", "user")}
    turns = {name: "" if turn == _NO_TURN else turn for name, turn in turns.items()}
    return {**turns, "user": turns["user"] or NO_TEXT}


MD_AGREEMENT = JudgmentTask(
    name="md_agreement",
    description="Is a tweet offensive? Five of 800 people each (MD-Agreement, LeWiDi 2023)",
    labels=LABELS,
    template=_template(
        "You judge tweets the way the people who read them do.",
        "Would a reader call the tweet below offensive? It is about Black Lives Matter, Covid-19 or the US elections"
        " of 2020.",
        "Tweet: {{ tweet }}",
    ),
    read_items=_texts_as("tweet"),
    find=find_parts("md_agreement"),
    size="6,592 + 1,104 + 3,057 tweets",
    official_split=True,
)

CONVABUSE = JudgmentTask(
    name="convabuse",
    description="Is what a user says to a chatbot abusive? Two or more people each (ConvAbuse, LeWiDi 2023)",
    labels=LABELS,
    template=_template(
        "You judge how people talk to chatbots, the way other people would.",
        "Would a reader call the last message of the user abusive?",
        "{% if prev_agent %}Bot: {{ prev_agent }}\n{% endif %}{% if prev_user %}User: {{ prev_user }}\n{% endif %}"
        "{% if agent %}Bot: {{ agent }}\n{% endif %}Last message of the user: {{ user }}",
    ),
    read_items=read_dialogues,
    find=find_parts("convabuse"),
    size="2,398 + 812 + 840 dialogues",
    official_split=True,
)

HS_BREXIT = JudgmentTask(
    name="hs_brexit",
    description="Is a tweet about Brexit hate speech? Six people each (HS-Brexit, LeWiDi 2023)",
    labels=LABELS,
    template=_template(
        "You judge tweets the way the people who read them do.",
        "Would a reader call the tweet below, about Brexit, hate speech against immigrants or Muslims?",
        "Tweet: {{ brexit_tweet }}",
    ),
    read_items=_texts_as("brexit_tweet"),
    find=find_parts("hs_brexit"),
    size="784 + 168 + 168 tweets",
    official_split=True,
)

ARMIS = JudgmentTask(
    name="armis",
    description="Is an Arabic tweet misogynistic? Three people each (ArMIS, LeWiDi 2023)",
    labels=LABELS,
    template=_template(
        "You read Arabic, and judge tweets the way the people who read them do.",
        "Would a reader call the Arabic tweet below misogynistic or sexist?",
        "Tweet: {{ arabic_tweet }}",
    ),
    read_items=_texts_as("arabic_tweet"),
    find=find_parts("armis"),
    size="657 + 141 + 145 tweets",
    official_split=True,
)
