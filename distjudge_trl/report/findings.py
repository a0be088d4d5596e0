"""What a user should know about records and model before training: said by `distjudge-trl data` and by recipes."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from datasets import Dataset

from distjudge_trl.batching import describe_way
from distjudge_trl.data.template import PromptTemplate
from distjudge_trl.errors import listing
from distjudge_trl.report.label_tokens import describe_doubts


if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from distjudge_trl.labels import LabelSpace


class Finding(NamedTuple):
    """One line of text, and whether it is about a problem."""

    text: str
    problem: bool


def split_findings(train: Dataset, others: Mapping[str, Dataset], *, by_group: bool) -> list[Finding]:
    """Prompts that repeat within a part of a split, and prompts and groups of the `others` (validation, test) that are
    in training, too. `by_group`: the split keeps groups together.
    """
    sides = {"train": train, **others}
    counts = {name: Counter(json.dumps(prompt) for prompt in side["prompt"]) for name, side in sides.items()}
    within = {name: sum(count - 1 for count in counter.values()) for name, counter in counts.items()}
    repeated = ", ".join(f"{count:,} within {name}" for name, count in within.items())
    findings = [Finding(f"Repeated prompts: {repeated}", any(within.values()))]
    for name, side in others.items():
        across = sum(prompt in counts["train"] for prompt in counts[name].elements())
        groups = set(train["group"]) & set(side["group"])
        leaking = sum(group in groups for group in side["group"])
        where = "both sides" if len(others) == 1 else f"train and {name}"
        hint = " (use --split group)" if groups and not by_group else ""
        findings += [
            Finding(f"{name.capitalize()} prompts that are in train, too: {across:,}", across > 0),
            Finding(f"Groups on {where}: {len(groups):,}, with {leaking:,} of the {name} records{hint}", bool(groups)),
        ]
    return findings


def length_finding(lengths: np.ndarray, limit: int) -> Finding:
    """How many prompts, by their lengths in tokens, are longer than the model or the run allows."""
    too_long = int((lengths > limit).sum())
    share = 100 * too_long / len(lengths)
    text = f"Longer than {limit:,} tokens, so they would be shortened: {too_long:,} ({share:.1f} %)"
    return Finding(text, too_long > 0)


def template_findings(tokenizer: PreTrainedTokenizerBase) -> list[Finding]:
    """What is done to prompts because of the tokenizer's chat template."""
    return [Finding(line, True) for line in describe_way(tokenizer)]


def label_findings(space: LabelSpace) -> list[Finding]:
    """Answers of which the judge reads only a part, and synonyms that are no answers. `space` is bound."""
    return [Finding(line, True) for line in describe_doubts(space)]


def answer_findings(space: LabelSpace, template: PromptTemplate) -> list[Finding]:
    """Answers that the prompt does not explain: nobody can know that A means the grade 1.5, unless the template shows
    the legend or says so in words.
    """
    if space.answers is None or template.shows_legend:
        return []
    text = template.own_text
    missing = [
        f"{answer}: {label}"
        for label, answer in space.answers.items()
        if not _says(answer, text) or (len(answer) == 1 and not _says(label, text))
    ]
    if not missing:
        return []
    return [
        Finding(
            "The prompt does not say what the judge's answers mean:"
            f" {listing(missing)}. Let the template show {{{{ legend }}}}, which lists them.",
            True,
        )
    ]


def _says(word: str, text: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text) is not None


def vote_findings(train: Dataset, labels: Sequence[str]) -> list[Finding]:
    """Labels that no training item has a vote for."""
    shares = np.asarray(train["label_distribution"][:]).sum(0)
    unused = [label for label, share in zip(labels, shares, strict=True) if not share]
    return [Finding(f"No training item has a vote for: {listing(unused)}", True)] if unused else []
