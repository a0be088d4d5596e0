"""Which label a token means that a server returned.

With the model's tokenizer a token means what it means for a local judge (`labels/binding.py`): it is the first token
of one of the label's spellings. Without it only the tokens' texts are known, and [`TextMatcher`] decides:

1. A token that is a complete spelling (answer, synonym, or a variant of these in another case or after a blank)
   counts for its label. As in binding, an answer goes before a synonym, a synonym before a variant.
2. Else a token that begins an answer or synonym, as it is written or after a blank, may be its first token, "ent" of
   "entailment". It counts if it begins spellings of one label only. Of a variant in another case only a beginning
   that ends between words counts, "Not" of "Not toxic".
3. A spelling has one first token. So its beginnings do not count beside the complete spelling, and of several
   beginnings the likeliest counts.

Binding by text errs where a word that means something else begins exactly one answer, such as "I" and "Irrelevant".
`prefix_mass` and `ambiguous_mass` say how much probability rests on rule 2.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from distjudge_trl.labels import LabelSpace
from distjudge_trl.labels.binding import spellings_of


if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_KINDS = ("answer", "synonym", "variant")
# How vocabularies write a blank before a word, in servers that return tokens of the vocabulary.
_BLANKS = ("\u2581", "\u0120")
# Rounding may make a log-probability a little greater than 0.
_HIGHEST = 0.1
_TOKEN_ID = re.compile(r"token_id:(\d+)")
_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_ESCAPED_BYTE = re.compile(r"\\x([0-9A-Fa-f]{2})")


class Entry(NamedTuple):
    """A returned token: its text, its log-probability in nats, and its id if the server says it."""

    text: str
    log_prob: float
    token_id: int | None = None


class Matches(NamedTuple):
    """Per entry the position of its label, or `None`; the probability of labels that are read from a beginning
    (`prefix`), and that of beginnings of several labels (`ambiguous`).
    """

    labels: list[int | None]
    prefix: float = 0.0
    ambiguous: float = 0.0


class Matcher(Protocol):
    """Finds the labels of returned tokens. `num_forms` says how many tokens can mean each label, at most; `token_ids`
    are all tokens that mean a label, empty if they are not known.
    """

    num_forms: list[int]
    token_ids: tuple[int, ...]

    def match(self, entries: Sequence[Entry]) -> Matches: ...


def parse_entry(raw: Mapping[str, Any]) -> Entry:
    """One of `top_logprobs` as the server writes it: `token`, `bytes` and `logprob`; llama.cpp adds `id`, vLLM writes
    `token_id:N` as the token on request.

    Raises:
        `KeyError`, `TypeError`, `ValueError` or `OverflowError`: it is malformed.
    """
    token, log_prob = raw["token"], float(raw["logprob"])
    if not isinstance(token, str):
        raise TypeError("token is not a text")
    if not log_prob < _HIGHEST:
        raise ValueError(f"logprob {log_prob:g} is no log-probability")
    named = _TOKEN_ID.fullmatch(token)
    token_id = int(named[1]) if named is not None else raw.get("id")
    return Entry(_text(token, raw.get("bytes")), log_prob, token_id if isinstance(token_id, int) else None)


def _text(token: str, given: Any) -> str:
    """The text of a token. Its bytes go before its name, because a token may be a part of a character."""
    if byte := _BYTE.fullmatch(token):
        data = bytes([int(byte[1], 16)])
    elif token.startswith("bytes:"):
        data = bytes(int(byte, 16) for byte in _ESCAPED_BYTE.findall(token))
    elif isinstance(given, list):
        data = bytes(given)
    else:
        data = token.encode()
    text = data.decode("utf-8", "replace")
    return " " + text[1:] if text.startswith(_BLANKS) else text


class TextMatcher:
    """Labels of tokens by their text; see the rules above."""

    def __init__(self, label_space: LabelSpace) -> None:
        self._whole: dict[str, dict[str, set[int]]] = {kind: {} for kind in _KINDS}
        self._explicit: list[tuple[str, int]] = []
        self._variants: list[tuple[str, int]] = []
        self.token_ids: tuple[int, ...] = ()
        forms = []
        for index, label in enumerate(label_space.labels):
            count = 0
            for spelling, kind in spellings_of(label_space.answer(index), label_space.synonyms.get(label, ())):
                count += 1
                self._whole[kind].setdefault(spelling, set()).add(index)
                if kind == "variant":
                    self._variants.append((spelling, index))
                else:
                    self._explicit += [(spelling, index), (" " + spelling.lstrip(), index)]
            forms.append(count)
        self.num_forms = forms

    def match(self, entries: Sequence[Entry]) -> Matches:
        labels = [self._complete(entry.text) for entry in entries]
        taken = {entry.text for entry in entries}
        prefix = ambiguous = 0.0
        first: set[str] = set()  # spellings whose first token is found
        for i in sorted(range(len(entries)), key=lambda i: -entries[i].log_prob):
            text = entries[i].text
            if not text.strip() or self._is_whole(text):
                continue
            begun = [(spelling, label) for spelling, label in self._begun(text) if spelling not in taken | first]
            owners = {label for _, label in begun}
            if len(owners) == 1:
                labels[i] = owners.pop()
                first |= {spelling for spelling, _ in begun}
                prefix += _exp(entries[i].log_prob)
            elif owners:
                ambiguous += _exp(entries[i].log_prob)
        return Matches(labels, prefix, ambiguous)

    def _is_whole(self, text: str) -> bool:
        return any(text in spellings for spellings in self._whole.values())

    def _complete(self, text: str) -> int | None:
        for kind in _KINDS:
            if owners := self._whole[kind].get(text):
                return next(iter(owners)) if len(owners) == 1 else None
        return None

    def _begun(self, text: str) -> list[tuple[str, int]]:
        """The spellings that the text may begin, each with its label."""
        begun = [one for one in self._explicit if one[0].startswith(text)]
        begun += [
            (spelling, label)
            for spelling, label in self._variants
            if spelling.startswith(text) and not spelling[len(text) :][:1].isalnum()
        ]
        return begun


class TokenMatcher:
    """Labels of tokens by the model's tokenizer, as for a local judge. A token without an id is found by its text.

    Args:
        label_space ([`LabelSpace`]): bound to the tokenizer.
        tokenizer: the model's.
    """

    def __init__(self, label_space: LabelSpace, tokenizer: PreTrainedTokenizerBase) -> None:
        self._by_id = {id_: index for index, ids in enumerate(label_space.token_ids) for id_ in ids}
        self._by_text = {_decoded(tokenizer, id_): index for id_, index in self._by_id.items()}
        self.num_forms = [len(ids) for ids in label_space.token_ids]
        self.token_ids = tuple(sorted(self._by_id))

    def match(self, entries: Sequence[Entry]) -> Matches:
        return Matches(
            [
                self._by_text.get(entry.text) if entry.token_id is None else self._by_id.get(entry.token_id)
                for entry in entries
            ]
        )


def _decoded(tokenizer: PreTrainedTokenizerBase, token_id: int) -> str:
    text = str(tokenizer.decode([token_id]))
    piece = str(tokenizer.convert_ids_to_tokens(token_id))
    # SentencePiece drops the blank before the first word of a text.
    return " " + text if piece.startswith(_BLANKS) and not text.startswith(" ") else text


def _exp(log_prob: float) -> float:
    return math.exp(min(log_prob, 0.0))
