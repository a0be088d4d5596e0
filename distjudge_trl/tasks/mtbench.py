"""MT-Bench human judgments: which of two models answers better, after one turn or two?

Each row is one vote. The same pair of models occurs in both orders. Votes are brought to one order before they are
counted: the model whose name sorts first is A. An item is a question, an unordered pair and a turn; the question is
the group.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from distjudge_trl.data.download import RemoteFile
from distjudge_trl.data.splits import SWAPPED, stable_key
from distjudge_trl.data.template import PromptTemplate
from distjudge_trl.errors import JudgmentDataError
from distjudge_trl.labels.spelling import in_all_cases
from distjudge_trl.tasks.items import Item, Source, TaskOptions
from distjudge_trl.tasks.task import JudgmentTask


LABELS = ("A", "B", "tie")
# Capitals are spelled out, because some vocabularies begin them with a fragment, and fragments count only where they
# are asked for.
SYNONYMS = {"tie": in_all_cases(("tie", "draw", "equal"))}
# Replaces an answer without text, of which the data has a few, so that the other answer can be compared with
# something.
EMPTY_ANSWER = "(no answer)"

PAIR_TEMPLATE = PromptTemplate(
    [
        {
            "role": "system",
            "content": "You compare the answers of two assistants, fairly and without favouring a position.",
        },
        {
            "role": "user",
            "content": (
                "Which assistant serves the user better? Weigh how well each follows the request, and how correct,"
                " helpful, deep and clear it is. Length and order do not count.\n\n"
                "{% if question_2 %}Two turns follow; judge the answers to the second question, in the light of the"
                " first.\n\n{% endif %}"
                "Question:\n{{ question_1 }}\n\n"
                "Assistant A:\n{{ answer_a_1 }}\n\n"
                "Assistant B:\n{{ answer_b_1 }}\n\n"
                "{% if question_2 %}"
                "Second question:\n{{ question_2 }}\n\n"
                "Assistant A:\n{{ answer_a_2 }}\n\n"
                "Assistant B:\n{{ answer_b_2 }}\n\n"
                "{% endif %}"
                "Choose one of: A (assistant A is better), B (assistant B is better), tie (about the same)."
                " Answer only with A, B or tie."
            ),
        },
    ]
)


@dataclass
class PairOptions(TaskOptions):
    """Preferences between two answers: the order in which the judge sees them."""

    swap: Literal["both", "random", "none"] = field(
        default="both",
        metadata={
            "help": (
                "Order of the two answers: 'both' makes two records of every item, the swapped one with the swapped"
                " distribution; 'random' one of them (by a hash of id and --draw_seed); 'none' the canonical one."
            )
        },
    )


# Fields that are exchanged when a pair is swapped.
_MIRRORED = (("answer_a_1", "answer_b_1"), ("answer_a_2", "answer_b_2"), ("response_a", "response_b"))


def orders(item: Item, options: PairOptions) -> Iterator[Item]:
    """Yield an item in canonical order, swapped, or both, as `options.swap` says. Its counts are those of A, B and
    tie.
    """
    fields = dict(item.fields)
    for a, b in _MIRRORED:
        if a in fields:
            fields[a], fields[b] = fields[b], fields[a]
    a_votes, b_votes, ties = item.counts
    # The reference follows its response. Otherwise the reference of a tied pair would always prefer the first
    # response.
    reference = item.reference if item.reference is None else (1, 0, 2)[item.reference]
    swapped = item._replace(id=item.id + SWAPPED, fields=fields, counts=[b_votes, a_votes, ties], reference=reference)
    if options.swap == "both":
        yield item
        yield swapped
    elif options.swap == "none":
        yield item
    else:
        yield swapped if stable_key(options.draw_seed, f"order of {item.id}")[0] % 2 else item


def read_votes(source: Source) -> Iterator[Item]:
    """Fields `question_id`, `model_a`, `model_b`, `winner`, `judge`, `conversation_a`, `conversation_b`, `turn`."""
    items: dict[str, Item] = {}
    judges: dict[str, set[str]] = {}
    required = ("question_id", "model_a", "model_b", "winner", "conversation_a", "conversation_b", "turn")
    for name, number, row in source.rows(required):
        first, second = sorted((str(row["model_a"]), str(row["model_b"])))
        if first == second:
            raise JudgmentDataError(f"is the same as model_b: {first!r}", source=name, row=number, field="model_a")
        turn = _turn(row["turn"], name, number)
        item_id = f"{row['question_id']}/{first}/{second}/turn {turn}"
        is_reversed = str(row["model_a"]) != first
        sides = ("conversation_b", "conversation_a") if is_reversed else ("conversation_a", "conversation_b")
        fields = _fields(*(_turns(row[side], side, turn, name, number) for side in sides), turn=turn)
        if item_id not in items:
            items[item_id] = Item(item_id, str(row["question_id"]), fields, [0, 0, 0], name, number)
        elif items[item_id].fields != fields:
            raise JudgmentDataError(
                f"shows other texts than row {items[item_id].row} of the same question, models and turn",
                source=name,
                row=number,
                field="conversation_a",
                fix="Votes are collected per question, pair of models and turn, so each has one answer.",
            )
        cast(list[int], items[item_id].counts)[_winner(row["winner"], is_reversed, name, number)] += 1
        if row.get("judge") is not None:
            judge = str(row["judge"])
            if judge in judges.setdefault(item_id, set()):
                source.report.notes["votes by someone who had voted on the item before (counted)"] += 1
            judges[item_id].add(judge)
    yield from items.values()


def _turn(value: Any, source: str, row: int) -> int:
    """The turn, 1 or 2, in any spelling (pandas writes 1.0, CSV "1")."""
    if str(value) not in ("1", "2", "1.0", "2.0"):
        raise JudgmentDataError(f"must be 1 or 2, got {value!r}", source=source, row=row, field="turn")
    return int(float(value))


def _winner(winner: Any, is_reversed: bool, source: str, row: int) -> int:
    """Index of the winner among A, B, tie, in canonical order. Every spelling that starts with "tie" is a tie: "tie",
    GPT-4's "tie (inconsistent)" and the arena's "tie (bothbad)".
    """
    text = str(winner).strip().casefold()
    if text in ("tie", "tied") or text.startswith(("tie (", "tie(")):
        return 2
    if text not in ("model_a", "model_b"):
        raise JudgmentDataError(
            f"unknown label {winner!r}",
            source=source,
            row=row,
            field="winner",
            fix="Known are model_a, model_b and tie.",
        )
    return int((text == "model_b") != is_reversed)


def _turns(conversation: Any, field_name: str, turn: int, source: str, row: int) -> list[str]:
    """Contents of user, assistant, user, assistant, up to the judged turn."""
    messages = conversation[: 2 * turn] if isinstance(conversation, list) else []
    ok = len(messages) == 2 * turn and all(
        isinstance(m, dict) and isinstance(m.get("content"), str) and m.get("role") == ("user", "assistant")[i % 2]
        for i, m in enumerate(messages)
    )
    if not ok:
        raise JudgmentDataError(
            f"must be a list of messages by user and assistant in turns, at least {2 * turn}",
            source=source,
            row=row,
            field=field_name,
        )
    return [message["content"].strip() or EMPTY_ANSWER for message in messages]


def _fields(a: list[str], b: list[str], *, turn: int) -> dict[str, str]:
    fields = {"question_1": a[0], "answer_a_1": a[1], "answer_b_1": b[1]}
    if turn == 2:
        fields |= {"question_2": a[2], "answer_a_2": a[3], "answer_b_2": b[3]}
    return fields


TASK = JudgmentTask(
    name="mtbench",
    description="Which of two assistants answers better, after one turn or two? One to a few people each",
    labels=LABELS,
    synonyms=SYNONYMS,
    template=PAIR_TEMPLATE,
    read_items=read_votes,
    expand=orders,
    # gpt4_pair is left out, because its verdicts are those of a model.
    file_patterns=("human*", "mtbench_human*"),
    remote_files=(
        RemoteFile(
            "mtbench_human.parquet",
            "https://huggingface.co/datasets/lmsys/mt_bench_human_judgments/resolve/"
            "f7d2896d2cc5d80f8b55c2bbc722613555233c25/data/human-00000-of-00001-25f4910818759289.parquet",
            "4877bc46a40929f4082c3c79593700fb897b1d6c7f4c473032694a01322f5769",
            "MT-Bench human judgments, CC BY 4.0",
        ),
    ),
    size="3,355 votes on pairs of 6 models, 80 questions, 2 turns",
    options=PairOptions,
    optional_fields=frozenset({"question_2"}),
)
