"""Label spaces: the answers a judge may give, the tokens that mean them, and their log-probabilities (eq. 2).

A label is read off the next-token logits at the end of the prompt. Several tokens mean the same label ("neutral",
" neutral", a stem): their probabilities are summed into the one label.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from distjudge_trl.errors import LabelSpaceError, listing, nearest
from distjudge_trl.labels.binding import BoundSpelling, bind_spellings
from distjudge_trl.labels.spelling import comparison_key


if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase


# Probability given to a label that the top-k extraction does not see. The paper states no floor; its raw judges reach
# a KL of up to 14, which is -log of about 1e-6.
TOP_K_FLOOR = 1e-6

# Finite stand-in for a logit of minus infinity, so that no probability of 0 ever meets it as 0 * inf.
_MIN_LOGIT = -1e9


class LabelSpace:
    """The K labels of a task, in their fixed order, and the way to read them off a language model.

    Args:
        labels (`Sequence[str]`): K >= 2 distinct labels, as the data name them and, unless `answers` says otherwise,
            as the judge answers. The order is the order of every distribution.
        synonyms (`Mapping[str, Sequence[str]]`, *optional*): further spellings of a label, in the data and as answers:
            inflections, stems, other words. Case and leading-space variants of answers and synonyms are added by
            themselves where their first token is a complete word. A synonym whose first token another label has is no
            answer.
        ordinal (`bool`, defaults to `False`): whether the order means something (ratings).
        answers (`Mapping[str, str]`, *optional*): per label, the word with which the judge answers instead of it, such
            as a letter.

    Raises:
        [`LabelSpaceError`]: fewer than two labels; an empty, blank or repeated label, synonym or answer; synonyms for
            an unknown label; answers for some labels only.

    Example:
        >>> space = LabelSpace(["entailment", "neutral", "contradiction"], {"contradiction": ["contradict", "contra"]})
        >>> space.bind(tokenizer).log_probs(logits)  # (B, V) -> (B, 3)
    """

    def __init__(
        self,
        labels: Sequence[str],
        synonyms: Mapping[str, Sequence[str]] | None = None,
        ordinal: bool = False,
        answers: Mapping[str, str] | None = None,
    ) -> None:
        if isinstance(labels, str) or not isinstance(labels, Sequence):
            raise LabelSpaceError(f"`labels` must be a list of strings, got {labels!r}.")
        self.labels = tuple(labels)
        self.ordinal = ordinal
        if len(self.labels) < 2:
            raise LabelSpaceError(f"A label space needs at least two labels, got {list(self.labels)}.")
        self.synonyms: dict[str, tuple[str, ...]] = {}
        for label, spellings in (synonyms or {}).items():
            self._check_known(label, "Synonyms")
            if isinstance(spellings, str):
                raise LabelSpaceError(
                    f"The synonyms of {label!r} must be a list of strings, got the string {spellings!r}."
                )
            self.synonyms[label] = tuple(spellings)
        self._index_of = self._indices((label, *self.synonyms.get(label, ())) for label in self.labels)
        self.answers: dict[str, str] | None = None
        self._index_of_answer = self._index_of
        if answers is not None:
            for label in answers:
                self._check_known(label, "Answers")
            if missing := [label for label in self.labels if label not in answers]:
                raise LabelSpaceError(
                    f"`answers` lacks the labels {listing(map(repr, missing))}: every label has one."
                )
            self.answers = {label: answers[label] for label in self.labels}
            self._index_of_answer = self._indices((answer,) for answer in self.answers.values())
        self.bindings: tuple[BoundSpelling, ...] = ()
        self.uncounted: dict[str, str] = {}
        self._token_ids: tuple[tuple[int, ...], ...] = ()

    def _check_known(self, label: str, what: str) -> None:
        if label not in self.labels:
            raise LabelSpaceError(
                f"{what} are given for {label!r}, which is not a label{_nearest(label, self.labels)}. Labels:"
                f" {listing(map(repr, self.labels))}."
            )

    def _indices(self, spellings: Iterable[Sequence[str]]) -> dict[str, int]:
        """The label of every spelling, in the form by which spellings are compared."""
        indices: dict[str, int] = {}
        for index, given in enumerate(spellings):
            for number, spelling in enumerate(given):
                if not isinstance(spelling, str) or not spelling.strip():
                    raise LabelSpaceError(
                        f"Label {self.labels[index]!r} has the empty or non-text spelling {spelling!r}; every label,"
                        " synonym and answer must be a non-empty string (quote numbers in YAML)."
                    )
                other = indices.setdefault(comparison_key(spelling), index)
                if other != index or (number == 0 and self.labels.count(self.labels[index]) > 1):
                    raise LabelSpaceError(
                        f"The spelling {spelling!r} belongs to the label {self.labels[other]!r} and to"
                        f" {self.labels[index]!r}; each may have it once."
                    )
        return indices

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        state = "bound" if self._token_ids else "unbound"
        return f"LabelSpace({list(self.labels)}, ordinal={self.ordinal}, {state})"

    def index(self, answer: str) -> int:
        """Position of the label that `answer` (a label or synonym) means. Case, Unicode form and blanks around it do
        not matter, and numbers are compared by value.

        Raises:
            `KeyError`: no such label; the message lists labels and the nearest one.
        """
        key = comparison_key(answer)
        if key not in self._index_of:
            raise KeyError(
                f"unknown label {answer!r}{_nearest(str(answer), self.labels)}; labels: {listing(self.labels)}"
            )
        return self._index_of[key]

    def answer(self, index: int) -> str:
        """What the judge answers for the label at a position."""
        label = self.labels[index]
        return self.answers[label] if self.answers is not None else label

    @property
    def legend(self) -> str:
        """What the judge answers for each label, one a line: "A: 1.5", or the labels if it answers with them."""
        if self.answers is None:
            return "\n".join(self.labels)
        return "\n".join(f"{answer}: {label}" for label, answer in self.answers.items())

    def index_of_answer(self, text: str) -> int:
        """Position of the label for which the judge answers `text`, compared as in [`index`].

        Raises:
            `KeyError`: no such answer.
        """
        if self.answers is None:
            return self.index(text)
        key = comparison_key(text)
        if key not in self._index_of_answer:
            raise KeyError(f"unknown answer {text!r}; the judge answers {listing(self.answers.values())}")
        return self._index_of_answer[key]

    def copy(self) -> LabelSpace:
        """The same labels, not bound: trainers and judges bind copies, so that two tokenizers never share a
        binding.
        """
        return LabelSpace(**self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """The arguments of the constructor as JSON-ready values (for `judge.json`); `answers` only if there are
        any.
        """
        return {
            "labels": list(self.labels),
            "synonyms": {label: list(spellings) for label, spellings in self.synonyms.items()},
            "ordinal": self.ordinal,
            **({"answers": dict(self.answers)} if self.answers is not None else {}),
        }

    # Binding

    def bind(self, tokenizer: PreTrainedTokenizerBase, prompt: str | None = None) -> LabelSpace:
        """Find the first token of every spelling as it follows the rendered prompt, and keep them for `log_probs` and
        `mass`. `bindings` then has all spellings, and `uncounted` the synonyms that are no answers, with the reason.

        The prompt is tokenized alone and with each spelling behind it; the first id that the spelling adds is its
        token. So a token is only bound if the model can really produce it there.

        Args:
            tokenizer (`PreTrainedTokenizerBase`): any Hugging Face tokenizer.
            prompt (`str`, *optional*): rendered text that ends where the answer begins. By default the tokenizer's
                generation prompt if it has a chat template, else the end of our plain-text rendering.

        Returns:
            `LabelSpace`: itself, bound (a later `bind` replaces the binding).

        Raises:
            [`LabelSpaceError`]: two labels share a first token, an answer has none or an unknown one, or the prompt's
                end merges with the answer; the message prints the tokens and a way out.
        """
        if prompt is None:
            from distjudge_trl.batching.prompts import render_prompt

            prompt = render_prompt(tokenizer, [{"role": "user", "content": "?"}])
        answers = {label: self.answer(index) for index, label in enumerate(self.labels)}
        self.bindings, self.uncounted = bind_spellings(tokenizer, prompt, answers, self.synonyms)
        self._token_ids = tuple(
            tuple(sorted({b.token_id for b in self.bindings if b.label == label and not b.ambiguous}))
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
