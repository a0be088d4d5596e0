"""Label spaces: the answers a judge may give, the tokens that mean them, and their log-probabilities (eq. 2).

A label is read off the next-token logits at the end of the prompt. Several tokens mean the same label ("neutral",
"Neutral", " neutral", a stem): their probabilities are summed into the one label.

The module is longer than most, because it is one class about one idea: binding, reading and storing belong together.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from distjudge_trl.errors import LabelSpaceError, nearest


if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase


# Probability given to a label that the top-k extraction does not see. The paper states no floor; its raw judges reach
# a KL of up to 14, which is -log of about 1e-6.
TOP_K_FLOOR = 1e-6

# Finite stand-in for a logit of minus infinity, so that no probability of 0 ever meets it as 0 * inf.
_MIN_LOGIT = -1e9


@dataclass(frozen=True)
class BoundSpelling:
    """One spelling of a label under one tokenizer.

    `token_id` is the first token that the spelling adds to the prompt, `token` its text in the vocabulary. `explicit`
    spellings are the label and its given synonyms; the others are their case and leading-space variants. An
    `ambiguous` variant shares its first token with another label (or starts with a blank token) and is not counted for
    any.
    """

    label: str
    spelling: str
    token_id: int
    token: str
    explicit: bool
    ambiguous: bool


class LabelSpace:
    """The K labels of a task, in their fixed order, and the way to read them off a language model.

    Args:
        labels (`Sequence[str]`): K >= 2 distinct labels, as the judge should answer them. The order is the order of
            every distribution.
        synonyms (`Mapping[str, Sequence[str]]`, *optional*): further spellings of a label: inflections, stems, other
            words. Case and leading-space variants of labels and synonyms are added by themselves.
        ordinal (`bool`, defaults to `False`): whether the order means something (ratings).

    Raises:
        [`LabelSpaceError`]: fewer than two labels, an empty, blank or repeated label or synonym, synonyms for an
            unknown label.

    Example:
        >>> space = LabelSpace(["entailment", "neutral", "contradiction"], {"contradiction": ["contradict", "contra"]})
        >>> space.bind(tokenizer).log_probs(logits)  # (B, V) -> (B, 3)
    """

    def __init__(
        self,
        labels: Sequence[str],
        synonyms: Mapping[str, Sequence[str]] | None = None,
        ordinal: bool = False,
    ) -> None:
        if isinstance(labels, str) or not isinstance(labels, Sequence):
            raise LabelSpaceError(f"`labels` must be a list of strings, got {labels!r}.")
        self.labels = tuple(labels)
        self.ordinal = ordinal
        if len(self.labels) < 2:
            raise LabelSpaceError(f"A label space needs at least two labels, got {list(self.labels)}.")
        self.synonyms: dict[str, tuple[str, ...]] = {}
        for label, spellings in (synonyms or {}).items():
            if label not in self.labels:
                raise LabelSpaceError(
                    f"Synonyms are given for {label!r}, which is not a label{_nearest(label, self.labels)}. "
                    f"Labels: {list(self.labels)}."
                )
            if isinstance(spellings, str):
                raise LabelSpaceError(
                    f"The synonyms of {label!r} must be a list of strings, got the string {spellings!r}."
                )
            self.synonyms[label] = tuple(spellings)
        self._index_of: dict[str, int] = {}
        for index, label in enumerate(self.labels):
            for spelling in (label, *self.synonyms.get(label, ())):
                if not isinstance(spelling, str) or not spelling.strip():
                    raise LabelSpaceError(
                        f"Label {label!r} has the empty or non-text spelling {spelling!r}; every label and synonym"
                        " must be a non-empty string (quote numbers in YAML)."
                    )
                key = spelling.strip().casefold()
                other = self._index_of.setdefault(key, index)
                if other != index or (spelling == label and self.labels.count(label) > 1):
                    raise LabelSpaceError(
                        f"The spelling {spelling!r} belongs to the label {self.labels[other]!r} and to {label!r}; each"
                        " may have it once."
                    )
        self.bindings: tuple[BoundSpelling, ...] = ()
        self._token_ids: tuple[tuple[int, ...], ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        state = "bound" if self._token_ids else "unbound"
        return f"LabelSpace({list(self.labels)}, ordinal={self.ordinal}, {state})"

    def index(self, answer: str) -> int:
        """Position of the label that `answer` (a label or synonym, any case, blanks around it ignored) means.

        Raises:
            `KeyError`: no such label; the message lists the labels and the nearest one.
        """
        key = str(answer).strip().casefold()
        if key not in self._index_of:
            raise KeyError(
                f"unknown label {answer!r}{_nearest(str(answer), self.labels)}; labels: {', '.join(self.labels)}"
            )
        return self._index_of[key]

    def copy(self) -> LabelSpace:
        """The same labels, not bound: trainers and judges bind copies, so that two tokenizers never share a
        binding.
        """
        return LabelSpace(**self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """The arguments of the constructor as JSON-ready values (for `judge.json`)."""
        return {
            "labels": list(self.labels),
            "synonyms": {label: list(spellings) for label, spellings in self.synonyms.items()},
            "ordinal": self.ordinal,
        }

    # Binding

    def bind(self, tokenizer: PreTrainedTokenizerBase, prompt: str | None = None) -> LabelSpace:
        """Find the first token of every spelling as it follows the rendered prompt, and keep them for `log_probs` and
        `mass`.

        The prompt is tokenized alone and with each spelling behind it; the first id that the spelling adds is its
        token. So a token is only bound if the model can really produce it there.

        Args:
            tokenizer (`PreTrainedTokenizerBase`): any Hugging Face tokenizer.
            prompt (`str`, *optional*): rendered text that ends where the answer begins. By default the tokenizer's
                generation prompt if it has a chat template, else the end of our plain-text rendering.

        Returns:
            `LabelSpace`: itself, bound (a later `bind` replaces the binding).

        Raises:
            [`LabelSpaceError`]: two labels share a first token, a spelling has none or an unknown one, or the prompt's
                end merges with the answer; the message prints the tokens and a way out.
        """
        if prompt is None:
            from distjudge_trl.batching.prompts import render_prompt

            prompt = render_prompt(tokenizer, [{"role": "user", "content": "?"}])
        prompt_ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
        found = [
            (label, spelling, explicit, self._first_token(tokenizer, prompt, prompt_ids, label, spelling, explicit))
            for label in self.labels
            for spelling, explicit in self._spellings(label)
        ]
        labels_of: dict[int, set[str]] = {}
        explicit_labels_of: dict[int, set[str]] = {}
        for label, _, explicit, token_id in found:
            if token_id is not None:
                labels_of.setdefault(token_id, set()).add(label)
                if explicit:
                    explicit_labels_of.setdefault(token_id, set()).add(label)
        self._refuse_collisions(tokenizer, found, explicit_labels_of)

        bindings = []
        for label, spelling, explicit, token_id in found:
            if token_id is None:
                continue
            # A variant that only we derived never takes a token away from a label that was spelled out.
            owners = explicit_labels_of.get(token_id) or labels_of[token_id]
            ambiguous = owners != {label}
            token = str(tokenizer.convert_ids_to_tokens(token_id))
            bindings.append(BoundSpelling(label, spelling, token_id, token, explicit, ambiguous))
        self.bindings = tuple(bindings)
        self._token_ids = tuple(
            tuple(sorted({b.token_id for b in bindings if b.label == label and not b.ambiguous}))
            for label in self.labels
        )
        return self

    @property
    def token_ids(self) -> tuple[tuple[int, ...], ...]:
        """Per label, the ids of the tokens that mean it. Raises [`LabelSpaceError`] before `bind`."""
        if not self._token_ids:
            raise LabelSpaceError(
                "The label space is not bound to a tokenizer yet: call `label_space.bind(tokenizer)` first."
            )
        return self._token_ids

    def _spellings(self, label: str) -> Iterable[tuple[str, bool]]:
        """All spellings of a label, the given ones first; `True` marks a given one."""
        given = (label, *self.synonyms.get(label, ()))
        yield from ((spelling, True) for spelling in given)
        seen = set(given)
        for spelling in given:
            word = spelling.strip()
            for variant in (word, word.lower(), word.capitalize(), word.upper()):
                for text in (variant, " " + variant):
                    if text not in seen:
                        seen.add(text)
                        yield text, False

    def _first_token(
        self,
        tokenizer: PreTrainedTokenizerBase,
        prompt: str,
        prompt_ids: list[int],
        label: str,
        spelling: str,
        explicit: bool,
    ) -> int | None:
        """Id of the first token that `spelling` adds to the prompt; `None` for a derived variant that has no usable
        one.
        """
        ids = tokenizer(prompt + spelling, add_special_tokens=False)["input_ids"]
        if ids[: len(prompt_ids)] != prompt_ids:
            if not explicit:
                return None
            raise LabelSpaceError(
                f"The end of the prompt ({prompt[-20:]!r}) merges with the answer {spelling!r} into other tokens"
                f" ({tokenizer.convert_ids_to_tokens(ids)[-4:]}), so the prompt never ends where the answer begins."
                " End the prompt template with a line break or a colon, without a trailing space."
            )
        added = ids[len(prompt_ids) :]
        problem = None
        if not added:
            problem = "adds no token to the prompt"
        elif added[0] == tokenizer.unk_token_id:
            problem = f"is unknown to the tokenizer (its first token is {tokenizer.unk_token!r})"
        elif not tokenizer.decode([added[0]]).strip():
            problem = (
                f"starts with the blank token {tokenizer.convert_ids_to_tokens(added[0])!r}, which says nothing about"
                " the label"
            )
        if problem is None:
            return int(added[0])
        if explicit:
            raise LabelSpaceError(
                f"The spelling {spelling!r} of label {label!r} {problem}. Use another word for it, or answer with"
                " letters (A, B, C) or digits (1-9), and say so in the prompt."
            )
        return None

    def _refuse_collisions(self, tokenizer, found, explicit_labels_of: dict[int, set[str]]) -> None:
        collisions = {token_id: labels for token_id, labels in explicit_labels_of.items() if len(labels) > 1}
        if not collisions:
            return
        lines = []
        for token_id, labels in collisions.items():
            spelled = ", ".join(
                f"{spelling!r} ="
                f" {tokenizer.convert_ids_to_tokens(tokenizer(spelling, add_special_tokens=False)['input_ids'])}"
                for _, spelling, explicit, tid in found
                if explicit and tid == token_id
            )
            token = tokenizer.convert_ids_to_tokens(token_id)
            lines.append(f"{sorted(labels)} all begin with the token {token!r} ({spelled})")
        raise LabelSpaceError(
            "Labels cannot be told apart by their first token: "
            + "; ".join(lines)
            + ". Let the judge answer with distinct single tokens instead: letters (A, B, C) or digits (1-9)."
        )

    # Reading logits

    def log_probs(
        self,
        logits: Tensor,
        top_k: int | None = None,
        normalization: Literal["labels", "vocab"] = "labels",
        floor: float = TOP_K_FLOOR,
    ) -> Tensor:
        """Label log-probabilities from next-token logits (eq. 2), in float32.

        Args:
            logits (`Tensor` of shape `(B, V)`, any float dtype): logits at the judgment position.
            top_k (`int`, *optional*): keep only the k likeliest tokens of the vocabulary, as the paper does with 5
                because closed APIs return no more; a label without any of them gets probability `floor` before
                normalisation. `None` uses all label tokens.
            normalization (`"labels"` or `"vocab"`, defaults to `"labels"`): softmax over the labels alone, or over the
                full vocabulary (then the K probabilities sum to `mass`, not to 1).
            floor (`float`, defaults to 1e-6): see `top_k`; not used without it.

        Returns:
            `Tensor` of shape `(B, K)`, float32, always finite for logits without NaN.

        Raises:
            [`LabelSpaceError`]: not bound, or a bound id beyond V (another model's tokenizer).
        """
        import torch

        if top_k is not None and top_k < 1:
            raise ValueError(f"`top_k` must be at least 1, got {top_k}.")
        if not 0 < floor < 1:
            raise ValueError(f"`floor` must lie between 0 and 1, got {floor}.")
        scores = self._label_scores(logits)
        if top_k is None:
            if normalization == "labels":
                return torch.log_softmax(scores, dim=-1)
            return scores - torch.logsumexp(logits.float().clamp(min=_MIN_LOGIT), dim=-1, keepdim=True)
        floats = logits.float().clamp(min=_MIN_LOGIT)
        values, indices = floats.topk(min(top_k, floats.shape[-1]), dim=-1)
        kept = torch.full_like(floats, _MIN_LOGIT).scatter(-1, indices, values)
        probabilities = (
            (self._label_scores(kept) - torch.logsumexp(floats, dim=-1, keepdim=True)).exp().clamp(min=floor)
        )
        if normalization == "labels":
            probabilities = probabilities / probabilities.sum(-1, keepdim=True)
        return probabilities.log()

    def mass(self, logits: Tensor) -> Tensor:
        """Probability in [0, 1] that the full vocabulary gives to the labels together: logits `(B, V)` to `(B,)`,
        float32.

        Near 1 the judge answers with a label by itself; near 0 the label distribution is read off a model that wants
        to say something else.
        """
        return self.log_probs(logits, normalization="vocab").logsumexp(-1).exp().clamp(max=1.0)

    def _label_scores(self, logits: Tensor) -> Tensor:
        """log of the summed exp-logits of each label's tokens: `(B, V)` to `(B, K)`, float32."""
        import torch

        token_ids = self.token_ids
        largest = max(max(ids) for ids in token_ids)
        if largest >= logits.shape[-1]:
            raise LabelSpaceError(
                f"A label is bound to token {largest}, but the logits cover {logits.shape[-1]} tokens: bind the label"
                " space to this model's own tokenizer."
            )
        columns = [logits[..., list(ids)].float().clamp(min=_MIN_LOGIT).logsumexp(-1) for ids in token_ids]
        return torch.stack(columns, dim=-1)


def _nearest(word: str, known: Iterable[str]) -> str:
    close = nearest(word, known)
    return f" (did you mean {close!r}?)" if close else ""
