"""Which tokens mean which label under one tokenizer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from distjudge_trl.errors import LabelSpaceError, listing


if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Kind = Literal["answer", "synonym", "variant"]

LETTERS_HELP = (
    "Let the judge answer with letters: write `answers: letters` into the task file and {{ legend }} into its template"
    " (A, B, C, ... stand for the labels, which keep their names everywhere else)."
)


@dataclass(frozen=True)
class BoundSpelling:
    """One spelling of a label under one tokenizer.

    `token_id` is the first token that the spelling adds to the prompt, `token` its text in the vocabulary. `explicit`
    spellings are what the judge is asked to answer and the given synonyms; the others are their case and leading-space
    variants. An `ambiguous` spelling is not counted for any label: another label has its first token, or it is a
    variant of which that token is only a fragment. `fragment` is the first token's text if it ends within a word.
    """

    label: str
    spelling: str
    token_id: int
    token: str
    explicit: bool
    ambiguous: bool
    fragment: str | None = None


class _Found(NamedTuple):
    label: str
    spelling: str
    kind: Kind
    token_id: int
    fragment: str | None


class _Token(NamedTuple):
    """The first token of a spelling and, if it ends within a word, its text."""

    id: int
    fragment: str | None


class _Problem(NamedTuple):
    """Why a spelling has no usable token, as the end of a sentence, and a sentence that says what to do."""

    reason: str
    fix: str


def bind_spellings(
    tokenizer: PreTrainedTokenizerBase,
    prompt: str,
    answers: Mapping[str, str],
    synonyms: Mapping[str, Sequence[str]],
) -> tuple[tuple[BoundSpelling, ...], dict[str, str]]:
    """Bind labels to tokens as they follow a prompt.

    Args:
        tokenizer (`PreTrainedTokenizerBase`): the model's.
        prompt (`str`): rendered text that ends where the answer begins.
        answers (`Mapping[str, str]`): per label, what the judge answers.
        synonyms (`Mapping[str, Sequence[str]]`): further answers.

    Returns:
        the bound spellings, and the synonyms that are no answers, each with the reason.

    Raises:
        [`LabelSpaceError`]: two answers share a first token, an answer has none or an unknown one, or the prompt's end
            merges with an answer.
    """
    prompt_ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    found: list[_Found] = []
    refused: dict[str, str] = {}
    for label, answer in answers.items():
        for spelling, kind in spellings_of(answer, synonyms.get(label, ())):
            first = _first_token(tokenizer, prompt, prompt_ids, spelling)
            if isinstance(first, _Token):
                found.append(_Found(label, spelling, kind, first.id, first.fragment))
            elif kind == "answer":
                raise LabelSpaceError(f"The answer {spelling!r} of the label {label!r} {first.reason}. {first.fix}")
            elif kind == "synonym":
                refused[spelling] = first.reason
    owners = {kind: _labels_of(one for one in found if one.kind == kind) for kind in ("answer", "synonym", "variant")}
    _refuse_collisions(tokenizer, found, owners["answer"])
    bindings = []
    for one in found:
        # A spelling never takes a token away from one that is closer to what was asked for.
        own = next(labels for kind in owners if (labels := owners[kind].get(one.token_id)))
        ambiguous = own != {one.label} or (
            one.kind == "variant" and one.fragment is not None and not _is_explicit(one, owners)
        )
        token = str(tokenizer.convert_ids_to_tokens(one.token_id))
        if own != {one.label} and one.kind == "synonym":
            others = sorted(map(repr, own - {one.label}))
            refused[one.spelling] = f"begins with the token {token!r}, as {listing(others)} does"
        bindings.append(
            BoundSpelling(one.label, one.spelling, one.token_id, token, one.kind != "variant", ambiguous, one.fragment)
        )
    return tuple(bindings), refused


def _labels_of(found: Iterable[_Found]) -> dict[int, set[str]]:
    labels: dict[int, set[str]] = {}
    for one in found:
        labels.setdefault(one.token_id, set()).add(one.label)
    return labels


def _is_explicit(one: _Found, owners: Mapping[str, Mapping[int, set[str]]]) -> bool:
    """Whether a fragment is also the first token of an answer or synonym of the same label."""
    return any(one.label in owners[kind].get(one.token_id, ()) for kind in ("answer", "synonym"))


def spellings_of(answer: str, synonyms: Sequence[str]) -> Iterable[tuple[str, Kind]]:
    """All spellings of a label: its answer, the synonyms, and variants of both."""
    given = (answer, *synonyms)
    yield answer, "answer"
    yield from ((spelling, "synonym") for spelling in synonyms)
    seen = set(given)
    for spelling in given:
        word = spelling.strip()
        for variant in (word, word.lower(), word.capitalize(), word.upper()):
            for text in (variant, " " + variant):
                if text not in seen:
                    seen.add(text)
                    yield text, "variant"


def _first_token(
    tokenizer: PreTrainedTokenizerBase, prompt: str, prompt_ids: list[int], spelling: str
) -> _Token | _Problem:
    """The first token that `spelling` adds to the prompt."""
    ids = tokenizer(prompt + spelling, add_special_tokens=False)["input_ids"]
    if ids[: len(prompt_ids)] != prompt_ids:
        return _Problem(
            f"merges with the end of the prompt ({prompt[-20:]!r}) into other tokens"
            f" ({tokenizer.convert_ids_to_tokens(ids)[-4:]}), so the prompt never ends where the answer begins",
            "End the prompt template with a line break or a colon, without a trailing space.",
        )
    added = ids[len(prompt_ids) :]
    fix = f"Take another word for it. {LETTERS_HELP}"
    if not added:
        return _Problem("adds no token to the prompt", fix)
    if added[0] == tokenizer.unk_token_id:
        return _Problem(f"is unknown to the tokenizer (its first token is {tokenizer.unk_token!r})", fix)
    text = tokenizer.decode([added[0]]).strip()
    if not text:
        token = tokenizer.convert_ids_to_tokens(added[0])
        return _Problem(f"starts with the blank token {token!r}, which says nothing about the label", fix)
    within = len(added) > 1 and _ends_within_a_word(text, spelling.strip())
    return _Token(int(added[0]), text if within else None)


def _ends_within_a_word(text: str, spelling: str) -> bool:
    """Whether a first token ends within a word: "T" of "Toxic", half a letter, but not "not" of "not toxic"."""
    if not spelling.startswith(text):
        return True  # half a character, which decodes to something else
    return spelling[len(text) :][:1].isalnum()


def _refuse_collisions(
    tokenizer: PreTrainedTokenizerBase, found: Sequence[_Found], owners: Mapping[int, set[str]]
) -> None:
    groups = []
    for token_id, labels in owners.items():
        if len(labels) > 1:
            spelled = [
                f"{one.spelling!r} ="
                f" {tokenizer.convert_ids_to_tokens(tokenizer(one.spelling, add_special_tokens=False)['input_ids'])}"
                for one in found
                if one.kind == "answer" and one.token_id == token_id
            ]
            token = tokenizer.convert_ids_to_tokens(token_id)
            names = listing(repr(one.label) for one in found if one.kind == "answer" and one.token_id == token_id)
            groups.append(f"{names} all begin with the token {token!r} ({listing(spelled, most=3)})")
    if groups:
        more = f"; and {len(groups) - 3} more such groups" if len(groups) > 3 else ""
        raise LabelSpaceError(
            f"Labels cannot be told apart by their first token: {'; '.join(groups[:3])}{more}. {LETTERS_HELP}"
        )
