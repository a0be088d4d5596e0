"""The four data sets of LeWiDi 2025: sarcasm from 0 to 6 (CSC), irony in nine languages (MP), paraphrases from -5 to 5
(Par), and natural language inference with several labels a person (VEN, VariErrNLI).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from distjudge_trl.data.template import PromptTemplate
from distjudge_trl.data.votes import votes_to_counts
from distjudge_trl.errors import JudgmentDataError
from distjudge_trl.labels import LabelSpace
from distjudge_trl.tasks.items import Item, Source, TaskOptions
from distjudge_trl.tasks.lewidi import (
    SHARED_TASKS,
    Entry,
    check_shares,
    entries,
    find_parts,
    given_labels,
    joined,
    text_in,
)
from distjudge_trl.tasks.lewidi2023 import LABELS as NO_AND_YES
from distjudge_trl.tasks.lewidi2023 import binary_counts
from distjudge_trl.tasks.task import JudgmentTask


# The official bins. People were asked for 1 to 6; a few answers are 0.
SARCASM = ("0", "1", "2", "3", "4", "5", "6")
# The grades of Par, and the letters by which a judge answers: "-5" to "-1" begin with the same token.
GRADES = tuple(str(grade) for grade in range(-5, 6))
LETTERS = tuple("ABCDEFGHIJK")
RELATIONS = SHARED_TASKS["ven"].parts

_LANGUAGES = {
    "ar": "Arabic",
    "de": "German",
    "en": "English",
    "es": "Spanish",
    "fr": "French",
    "hi": "Hindi",
    "it": "Italian",
    "nl": "Dutch",
    "pt": "Portuguese",
}
_EXPLANATIONS = "{% if explanations %}\n\nWhat annotators wrote about it:\n{{ explanations }}{% endif %}"


@dataclass
class ExplanationOptions(TaskOptions):
    """Par and VEN: whether a judge reads the annotators' explanations."""

    explanations: bool = field(
        default=False,
        metadata={
            "help": (
                "Show the judge what the annotators wrote about their labels. This tells part of the answer, also in"
                " the test inputs: say so where you report such figures."
            )
        },
    )


def _explanations(entry: Entry, source: Source) -> str:
    """The explanations if they are asked for, else nothing."""
    if not source.options.explanations:
        return ""
    info = entry.row.get("other_info")
    text = joined(info.get("explanations") if isinstance(info, dict) else None)
    source.report.notes["entries shown with their annotators' explanations, which tell part of the answer"] += 1
    return text


def _scale_counts(entry: Entry, source: Source, scale: tuple[str, ...]) -> list[int]:
    """How many annotators gave each grade of a scale."""
    labels = given_labels(entry, source)
    space = LabelSpace(scale, ordinal=True)
    counts = votes_to_counts(labels, space, source=entry.source, row=entry.number, field="annotations")
    shares = {grade: count / len(labels) for grade, count in zip(scale, counts, strict=True) if labels}
    check_shares(entry, source, shares, entry.row.get("soft_label"))
    return counts


def read_sarcasm(source: Source) -> Iterator[Item]:
    """CSC: `text` has `context` and `response`. A context has many responses, and is the group."""
    for entry in entries(source):
        context, response = (text_in(entry, name) for name in ("context", "response"))
        yield entry.item(context, {"context": context, "response": response}, _scale_counts(entry, source, SARCASM))


def read_irony(source: Source) -> Iterator[Item]:
    """MP: `text` has `post` and `reply`; the post is the group."""
    for entry in entries(source):
        post, reply = (text_in(entry, name) for name in ("post", "reply"))
        code = str(entry.row.get("lang") or "")
        fields = {"post": post, "reply": reply, "language": _LANGUAGES.get(code, code)}
        yield entry.item(post, fields, binary_counts(entry, source))


def read_paraphrases(source: Source) -> Iterator[Item]:
    """Par: `text` has `Question1` and `Question2`; the first question is the group."""
    for entry in entries(source):
        first, second = (text_in(entry, name) for name in ("Question1", "Question2"))
        fields = {"first": first, "second": second, "explanations": _explanations(entry, source)}
        yield entry.item(first, fields, _scale_counts(entry, source, GRADES))


def read_relations(source: Source) -> Iterator[Item]:
    """VEN: `text` has `context` and `statement`. Each annotator chose one or several of three labels, and whether they
    chose it is a question of its own for each label: three items an entry. The context is the group.

    `annotators` repeats a person for each of their labels, so people are counted in `annotations`.
    """
    for entry in entries(source):
        context, statement = (text_in(entry, name) for name in ("context", "statement"))
        chosen = _chosen(entry, source)
        explanations = _explanations(entry, source)
        soft_labels = entry.row.get("soft_label")
        for relation in RELATIONS:
            number = sum(relation in labels for labels in chosen)
            if chosen and isinstance(soft_labels, dict):
                share = number / len(chosen)
                check_shares(entry, source, {"0": 1 - share, "1": share}, soft_labels.get(relation))
            fields = {
                "relation": relation,
                "context": context,
                "statement": statement,
                "explanations": explanations,
            }
            yield entry.item(context, fields, [len(chosen) - number, number], part=relation)


def _chosen(entry: Entry, source: Source) -> list[set[str]]:
    """The labels of each annotator."""
    annotations = entry.row.get("annotations")
    if annotations and not isinstance(annotations, dict):
        raise entry.error(f"must be an object of annotators, got {str(annotations)[:60]!r}", "annotations")
    chosen = [{label.strip() for label in labels.split(",")} for labels in given_labels(entry, source)]
    for label in sorted(set().union(*chosen) - set(RELATIONS)):
        raise JudgmentDataError(
            f"unknown label {label!r}; labels: {', '.join(RELATIONS)}",
            source=entry.source,
            row=entry.number,
            field="annotations",
        )
    return chosen


CSC = JudgmentTask(
    name="csc",
    description="How sarcastic is a reply, from 1 to 6? Four to six people each (CSC, LeWiDi 2025)",
    labels=SARCASM,
    template=PromptTemplate(
        [
            {"role": "system", "content": "You judge how remarks in a conversation are meant."},
            {
                "role": "user",
                "content": (
                    "Somebody is told of the situation below, and answers. How sarcastic is the answer?\n"
                    "1 is not sarcastic at all, 6 is completely sarcastic; 0 is for an answer that cannot be judged."
                    "\n\nSituation: {{ context }}\n\nAnswer: {{ response }}\n\n"
                    "Choose one of: 0, 1, 2, 3, 4, 5, 6. Answer only with that number."
                ),
            },
        ]
    ),
    read_items=read_sarcasm,
    find=find_parts("csc"),
    ordinal=True,
    size="5,628 + 704 + 704 replies",
    official_split=True,
)

MP = JudgmentTask(
    name="mp",
    description="Is a reply ironic, in nine languages? Two to 21 people each (MultiPICo, LeWiDi 2025)",
    labels=NO_AND_YES,
    template=PromptTemplate(
        [
            {"role": "system", "content": "You read many languages, and judge how posts on social media are meant."},
            {
                "role": "user",
                "content": (
                    "Would a reader call the reply below ironic?{% if language %} It is in {{ language }}.{% endif %}"
                    "\n\nPost: {{ post }}\n\nReply: {{ reply }}\n\n"
                    "Choose one of: yes, no. Answer only with that word."
                ),
            },
        ]
    ),
    read_items=read_irony,
    find=find_parts("mp"),
    size="12,017 + 3,005 + 3,756 replies",
    official_split=True,
)

PAR = JudgmentTask(
    name="par",
    description="Are two questions paraphrases, from -5 to 5? Four people each (Par, LeWiDi 2025)",
    labels=GRADES,
    answers=dict(zip(GRADES, LETTERS, strict=True)),
    template=PromptTemplate(
        [
            {"role": "system", "content": "You compare what questions ask for."},
            {
                "role": "user",
                "content": (
                    "How far are the two questions below paraphrases of each other, from -5 (not at all) to 5"
                    " (completely)?\n\nFirst question: {{ first }}\n\nSecond question: {{ second }}"
                    + _EXPLANATIONS
                    + "\n\nChoose one of:\n"
                    + "\n".join(f"{letter}: {grade}" for letter, grade in zip(LETTERS, GRADES, strict=True))
                    + "\nAnswer only with that letter."
                ),
            },
        ]
    ),
    read_items=read_paraphrases,
    find=find_parts("par"),
    ordinal=True,
    size="400 + 50 + 50 pairs of questions",
    official_split=True,
    options=ExplanationOptions,
)

VEN = JudgmentTask(
    name="ven",
    description="Does each of three relations hold between two sentences? Up to four people (VariErrNLI, LeWiDi 2025)",
    labels=NO_AND_YES,
    template=PromptTemplate(
        [
            {"role": "system", "content": "You judge what a text says about a statement; several readings may hold."},
            {
                "role": "user",
                "content": (
                    "Take the context as true. "
                    '{% if relation == "contradiction" %}Can it be read so that the statement is definitely false'
                    " (contradiction)?"
                    '{% elif relation == "entailment" %}Can it be read so that the statement is definitely true'
                    " (entailment)?"
                    '{% elif relation == "neutral" %}Can it be read so that the statement may be true or false'
                    " (neutral)?{% endif %}"
                    "\n\nContext: {{ context }}\n\nStatement: {{ statement }}" + _EXPLANATIONS + "\n\n"
                    "Choose one of: yes, no. Answer only with that word."
                ),
            },
        ]
    ),
    read_items=read_relations,
    find=find_parts("ven"),
    size="(388 + 50 + 50) pairs x 3 relations",
    official_split=True,
    options=ExplanationOptions,
)
