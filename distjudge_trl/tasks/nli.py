"""Natural language inference: SNLI, MultiNLI and ChaosNLI. Does the hypothesis follow from the premise?

The official archives have the annotators' single labels (`annotator_labels`); the copies on the hub have only the
majority. SNLI and MultiNLI rows have one label (most of the training part) or five, of which the first is the
author's; the paper needs five. ChaosNLI has a hundred labels for some of the same pairs, and their five old ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from distjudge_trl.data.download import RemoteFile
from distjudge_trl.data.template import PromptTemplate
from distjudge_trl.data.votes import votes_to_counts
from distjudge_trl.errors import JudgmentDataError
from distjudge_trl.labels import LabelSpace
from distjudge_trl.labels.spelling import in_all_cases
from distjudge_trl.tasks.items import Item, Source, TaskOptions, text_of
from distjudge_trl.tasks.task import JudgmentTask


LABELS = ("entailment", "neutral", "contradiction")
# Capitals are spelled out, because many vocabularies begin them with a fragment ("Ent", "Ne", "Contr"), and fragments
# count only where they are asked for.
SYNONYMS = {
    "entailment": in_all_cases(("entailment", "entail", "entails", "entailed")),
    "neutral": in_all_cases(("neutral",)),
    "contradiction": in_all_cases(("contradiction", "contradict", "contradicts", "contra")),
}
# ChaosNLI's letters.
_LETTERS = {"e": "entailment", "n": "neutral", "c": "contradiction"}

TEMPLATE = PromptTemplate(
    [
        {
            "role": "system",
            "content": "You annotate pairs of sentences the way a careful reader with common sense would.",
        },
        {
            "role": "user",
            "content": (
                "Take the premise as true and decide what it says about the hypothesis.\n"
                "entailment: given the premise, the hypothesis is definitely true.\n"
                "neutral: given the premise, the hypothesis may be true or false.\n"
                "contradiction: given the premise, the hypothesis is definitely false.\n\n"
                "Premise: {{ premise }}\n"
                "Hypothesis: {{ hypothesis }}\n\n"
                "Choose one of: entailment, neutral, contradiction. Answer only with that word."
            ),
        },
    ]
)


@dataclass
class NLIOptions(TaskOptions):
    """SNLI and MultiNLI: the paper uses items with five labels."""

    min_annotators: int = field(
        default=5,
        metadata={"help": "Leave out items with fewer non-empty labels, and report how many. The paper needs five."},
    )


@dataclass
class MNLIOptions(NLIOptions):
    """MultiNLI: the paper samples 10,000 items."""

    max_items: int | None = field(
        default=10_000,
        metadata={"help": "Keep at most this many items, drawn by a hash of id and --draw_seed. The paper: 10,000."},
    )


@dataclass
class ChaosNLIOptions(TaskOptions):
    """ChaosNLI: which of the two sets of labels is used."""

    labels: Literal["new", "old"] = field(
        default="new",
        metadata={"help": "'new': the hundred labels of ChaosNLI; 'old': the five of SNLI or MultiNLI, same items."},
    )


def _item(
    row: dict[str, Any], names: tuple[str, str, str], pair: Any, counts: list[int], source: str, number: int
) -> Item:
    """An item from the id in `row` and the sentences in `pair`, under the given names."""
    pair_id = text_of(row, names[0], source, number)
    premise, hypothesis = (text_of(pair, name, source, number) for name in names[1:])
    # The group is the premise and not its id, because the same sentence occurs in several files and data sets.
    fields = {"premise": premise, "hypothesis": hypothesis}
    return Item(id=pair_id, group=premise, fields=fields, counts=counts, source=source, row=number)


def read_pairs(source: Source) -> Iterator[Item]:
    """SNLI and MultiNLI: fields `annotator_labels`, `pairID`, `sentence1`, `sentence2`. Empty labels do not count."""
    space = LabelSpace(LABELS, SYNONYMS)
    for name, number, row in source.rows(("annotator_labels", "pairID", "sentence1", "sentence2")):
        labels = row["annotator_labels"]
        if not isinstance(labels, list):
            raise JudgmentDataError(
                f"must be a list of labels, got {labels!r}", source=name, row=number, field="annotator_labels"
            )
        given = [label for label in labels if label]
        counts = votes_to_counts(given, space, source=name, row=number, field="annotator_labels")
        yield _item(row, ("pairID", "sentence1", "sentence2"), row, counts, name, number)


def read_chaos(source: Source) -> Iterator[Item]:
    """ChaosNLI: fields `uid`, `example`, and `label_counter` (a hundred) or `old_labels` (five)."""
    space = LabelSpace(LABELS, {label: (letter, *SYNONYMS.get(label, ())) for letter, label in _LETTERS.items()})
    field_name = "label_counter" if source.options.labels == "new" else "old_labels"
    for name, number, row in source.rows(("uid", "example", field_name)):
        votes, example = row[field_name], row["example"]
        if not isinstance(votes, dict if field_name == "label_counter" else list):
            raise JudgmentDataError(f"cannot be read as votes: {votes!r}", source=name, row=number, field=field_name)
        if not isinstance(example, dict):
            raise JudgmentDataError(
                f"must hold premise and hypothesis, got {example!r}", source=name, row=number, field="example"
            )
        if isinstance(votes, dict):
            # Parquet copies have null for letters that nobody chose.
            votes = {letter: count for letter, count in votes.items() if count is not None}
        counts = votes_to_counts(votes, space, source=name, row=number, field=field_name)
        yield _item(row, ("uid", "premise", "hypothesis"), example, counts, name, number)


SNLI = JudgmentTask(
    name="snli",
    description="Does the hypothesis follow from the premise (a photo's caption)? Five people each",
    labels=LABELS,
    synonyms=SYNONYMS,
    template=TEMPLATE,
    read_items=read_pairs,
    file_patterns=("snli_1.0_*",),
    remote_files=(
        RemoteFile(
            "snli_1.0.zip",
            "https://nlp.stanford.edu/projects/snli/snli_1.0.zip",
            "afb3d70a5af5d8de0d9d81e2637e0fb8c22d1235c2749d83125ca43dab0dbd3e",
            "SNLI 1.0, 90 MB, CC BY-SA 4.0",
        ),
    ),
    size="570,152 pairs, of which about 57,000 carry five labels",
    options=NLIOptions,
)

MNLI = JudgmentTask(
    name="mnli",
    description="Does the hypothesis follow from the premise (ten genres)? Five people each",
    labels=LABELS,
    synonyms=SYNONYMS,
    template=TEMPLATE,
    read_items=read_pairs,
    file_patterns=("multinli_1.0_*",),
    remote_files=(
        RemoteFile(
            "multinli_1.0.zip",
            "https://cims.nyu.edu/~sbowman/multinli/multinli_1.0.zip",
            "049f507b9e36b1fcb756cfd5aeb3b7a0cfcb84bf023793652987f7e7e0957822",
            "MultiNLI 1.0, 227 MB",
        ),
    ),
    size="about 413,000 pairs, of which 20,000 carry five labels; 10,000 of them are drawn",
    options=MNLIOptions,
)

# The authors' own archive (a Dropbox link) was deleted by September 2026; these are copies with its checksums.
CHAOSNLI = JudgmentTask(
    name="chaosnli",
    description="SNLI and MultiNLI pairs again, with a hundred people each",
    labels=LABELS,
    synonyms=SYNONYMS,
    template=TEMPLATE,
    read_items=read_chaos,
    file_patterns=("chaosnli_snli*", "chaosnli_mnli*"),
    remote_files=(
        RemoteFile(
            "chaosNLI_snli.jsonl",
            "https://huggingface.co/datasets/earino/chaosnli/resolve/eb7cc18dbfa0f161d93a2b22c7856ca0faafcf2b/raw/"
            "chaosNLI_snli.jsonl",
            "99f9015ddda7d85f66a087452bc30d53974314fe27e7d589e2f41ad44bd509c1",
            "ChaosNLI 1.0, SNLI part, CC BY-NC 4.0",
        ),
        RemoteFile(
            "chaosNLI_mnli_m.jsonl",
            "https://huggingface.co/datasets/earino/chaosnli/resolve/eb7cc18dbfa0f161d93a2b22c7856ca0faafcf2b/raw/"
            "chaosNLI_mnli_m.jsonl",
            "8eb49b589488e7b1a9ec95fb8a864bd50f0509b4f808eed0aed3f8167617664d",
            "ChaosNLI 1.0, MultiNLI part, CC BY-NC 4.0",
        ),
    ),
    size="3,113 pairs",
    options=ChaosNLIOptions,
)
