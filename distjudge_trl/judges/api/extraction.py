"""From a server's answers to label probabilities: off the returned tokens of one position, or by counting votes."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from distjudge_trl.errors import JudgmentDataError, UserInputError, listing
from distjudge_trl.judges.api.matching import Entry, Matcher, parse_entry
from distjudge_trl.judges.api.options import MissingLabels
from distjudge_trl.judges.base import Judgments
from distjudge_trl.labels import TOP_K_FLOOR, LabelSpace
from distjudge_trl.labels.spelling import comparison_key


# The answer that is kept for a prompt that the provider's filter refuses to read.
REFUSED = "refused"
NO_LOG_PROBS = (
    "gives no log-probabilities (reasoning models and some servers do not). Ask it several times instead: --readout"
    " samples --samples 20"
)


class Answer(NamedTuple):
    """A server's answer: the returned tokens at the first position (`None` without log-probabilities), the text, and
    whether the model or the provider's filter refused.
    """

    entries: list[Entry] | None
    text: str
    refused: bool


class MalformedAnswerError(ValueError):
    """The answer is JSON, but not in the documented format."""


def parse_answer(raw: str) -> Answer:
    """The part of an answer that is read.

    Raises:
        [`MalformedAnswerError`]: it is not in the documented format.
    """
    try:
        content = json.loads(raw)
        if REFUSED in content:
            return Answer(None, "", True)
        choice = content["choices"][0]
        message = choice.get("message") or {}
        positions = (choice.get("logprobs") or {}).get("content")
        entries = [parse_entry(entry) for entry in positions[0]["top_logprobs"]] if positions else None
        refused = bool(message.get("refusal")) or choice.get("finish_reason") == "content_filter"
        return Answer(entries or None, str(message.get("content") or ""), refused)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError, RecursionError) as error:
        raise MalformedAnswerError(f"{type(error).__name__}: {error}") from None


def usage_of(raw: str) -> tuple[int, int]:
    """The tokens that an answer says it cost, in and out; 0 where it does not say."""
    usage = json.loads(raw).get("usage")
    if not isinstance(usage, Mapping):
        return 0, 0
    counts = (usage.get("prompt_tokens"), usage.get("completion_tokens"))
    return tuple(count if isinstance(count, int) else 0 for count in counts)  # type: ignore[return-value]


@dataclass
class Findings:
    """What a result file says about the answers of a judge, over all items that it has read."""

    items: int = 0
    refused: int = 0
    items_with_missing: int = 0
    items_without_labels: int = 0
    missing_labels: int = 0
    prefix_mass: float = 0.0
    ambiguous_mass: float = 0.0
    answers: int = 0
    unparsed: int = 0


def read_log_probs(
    answers: Sequence[Answer],
    matcher: Matcher,
    label_space: LabelSpace,
    *,
    policy: MissingLabels,
    findings: Findings,
) -> Judgments:
    """Label distributions off the returned tokens. A label's probability is the sum over its tokens; for a label that
    has none among them see [`ApiOptions`].

    `bounds` `(2, N, K)` has the least and the most that every label's probability can be before normalisation. A
    missing label has at most the probability that all returned tokens leave, and at most that of the least likely
    returned token for each of its forms.

    Raises:
        [`JudgmentDataError`]: a label is missing, and the policy is `"error"`.
    """
    shape = (len(answers), len(label_space))
    log_probs, mass, floored = np.empty(shape), np.empty(len(answers)), np.zeros(shape, bool)
    bounds = np.empty((2, *shape)) if policy == "bound" else None
    for row, answer in enumerate(answers):
        found = np.zeros(len(label_space))
        entries = answer.entries or []
        matches = matcher.match(entries)
        for entry, label in zip(entries, matches.labels, strict=True):
            if label is not None:
                found[label] += math.exp(min(entry.log_prob, 0.0))
        found = np.minimum(found, 1.0)
        missing = found <= 0
        if missing.any() and policy == "error":
            names = [label for label, gone in zip(label_space.labels, missing, strict=True) if gone]
            raise JudgmentDataError(
                f"{'the model refused, and ' if answer.refused else ''}the labels {listing(names)} are not among the"
                f" {len(entries)} returned tokens",
                row=row + 1,
                fix="Raise --top-logprobs, or choose --missing-labels floor or bound.",
            )
        # As `LabelSpace.log_probs` does it for local models, floor included.
        cuts = missing.any() or not matcher.token_ids
        given = np.maximum(found, TOP_K_FLOOR) if cuts else found
        log_probs[row] = np.log(given) - math.log(given.sum())
        mass[row] = min(found.sum(), 1.0)
        floored[row] = cuts & (given <= TOP_K_FLOOR * (1 + 1e-6))
        if bounds is not None:
            bounds[0, row] = bounds[1, row] = given
            bounds[1, row, missing] = _most(entries, np.asarray(matcher.num_forms))[missing]
        findings.refused += answer.refused
        findings.items_with_missing += bool(missing.any())
        findings.items_without_labels += bool(missing.all())
        findings.missing_labels += int(missing.sum())
        findings.prefix_mass += matches.prefix
        findings.ambiguous_mass += matches.ambiguous
    findings.items += len(answers)
    return Judgments(log_probs, mass, floored, bounds=bounds)


def _most(entries: Sequence[Entry], num_forms: np.ndarray) -> np.ndarray:
    """The most that labels without a returned token can have."""
    if not entries:
        return np.ones(len(num_forms))
    returned = [math.exp(min(entry.log_prob, 0.0)) for entry in entries]
    left = max(0.0, 1.0 - sum(returned))
    return np.maximum(np.minimum(left, num_forms * min(returned)), TOP_K_FLOOR)


def read_samples(
    answers: Sequence[Sequence[Answer]], label_space: LabelSpace, *, smoothing: float, findings: Findings
) -> Judgments:
    """Label distributions from several answers per item: (votes + λ) / (n + K λ), where n counts the answers that can
    be parsed. `mass` and `unparsed` are the shares of answers that can and cannot be.
    """
    parser = AnswerParser(label_space)
    shape = (len(answers), len(label_space))
    votes, unparsed = np.zeros(shape), np.zeros(len(answers))
    for row, given in enumerate(answers):
        for answer in given:
            label = None if answer.refused else parser.parse(answer.text)
            if label is None:
                unparsed[row] += 1
            else:
                votes[row, label] += 1
            findings.refused += answer.refused
        findings.answers += len(given)
        findings.unparsed += int(unparsed[row])
        unparsed[row] /= max(len(given), 1)
    findings.items += len(answers)
    if findings.answers and findings.unparsed == findings.answers:
        said = next((answer.text for given in answers for answer in given if answer.text.strip()), "")
        line = " ".join(said.split())[:60]
        raise UserInputError(
            f"None of the {findings.answers:,} answers is a label. "
            + (
                f"One begins with {line!r}: ask for the label alone in the prompt."
                if line
                else "They are empty: a model that thinks first needs a greater --max-tokens."
            )
        )
    total = votes.sum(-1, keepdims=True)
    probabilities = (votes + smoothing) / (total + len(label_space) * smoothing)
    return Judgments(np.log(probabilities), 1 - unparsed, np.zeros(shape, bool), unparsed=unparsed)


class AnswerParser:
    """Finds the label that an answer in words means: the answer, a synonym or, if the judge answers with the labels
    themselves, a label; in any case, with quotes or emphasis around it, or before a punctuation mark.
    """

    def __init__(self, label_space: LabelSpace) -> None:
        self._labels: dict[str, int] = {}
        for index, label in enumerate(label_space.labels):
            for spelling in (label_space.answer(index), *label_space.synonyms.get(label, ())):
                self._labels.setdefault(comparison_key(spelling), index)

    def parse(self, text: str) -> int | None:
        """The label's position; `None` if the answer is no label."""
        text = text.rpartition("</think>")[2].strip()
        for candidate in (text, text.partition("\n")[0]):
            bare = candidate.strip(" \t\r\n\"'`*_.!()[]{}\u201c\u201d\u2018\u2019")
            if (label := self._labels.get(comparison_key(bare))) is not None:
                return label
        # "B: the second one", "Neutral. The text", but not "A good text". A point within a number ends no answer.
        begin = re.match(r"[\"'`*_(\[]*(.+?)[\"'`*_)\]]*(?:[:,;\n)]|[.!](?!\d)|\s[-\u2013\u2014])", text, re.DOTALL)
        return self._labels.get(comparison_key(begin[1])) if begin is not None else None
