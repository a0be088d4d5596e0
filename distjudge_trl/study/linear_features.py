"""Features of linear judges: the words of a prompt (TF-IDF), what a language model holds of it, or both."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
from datasets import Dataset
from scipy import sparse
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.pipeline import FeatureUnion

from distjudge_trl.errors import UserInputError
from distjudge_trl.evaluation.metrics import whole_votes
from distjudge_trl.evaluation.scoring import human_side


Prompt: TypeAlias = list[dict[str, str]]
Block: TypeAlias = "sparse.csr_matrix | np.ndarray"
# The squared length of an item's features in a block: TF-IDF of words and of letters have a length of 1 each. The step
# size of the judges fits it.
SQUARED_LENGTH = 2.0


class Items(NamedTuple):
    """Blocks of features `(N, D)` of items, their votes `(N, K)`, and their groups and ids `(N,)`."""

    features: tuple[Block, ...]
    counts: np.ndarray
    groups: np.ndarray
    ids: np.ndarray

    def take(self, rows: np.ndarray) -> Items:
        blocks = tuple(block[rows] for block in self.features)
        return Items(blocks, self.counts[rows], self.groups[rows], self.ids[rows])

    @property
    def shares(self) -> np.ndarray:
        return np.asarray(self.counts / self.counts.sum(-1, keepdims=True))


def read_items(
    train: Dataset,
    test: Dataset,
    *,
    words: bool = True,
    read_states: Callable[[Sequence[Prompt]], np.ndarray] | None = None,
) -> tuple[Items, Items]:
    """Features and votes of training and test records. Items on which people divide a vote are left out.

    Args:
        words (`bool`, defaults to `True`): with those of [`word_features`].
        read_states (`Callable`, *optional*): gives what a language model holds of prompts, `(N, D)`.

    Raises:
        [`UserInputError`]: no item with whole votes, or no words that are in several prompts.
    """
    parts = []
    for part in (train, test):
        whole = whole_votes(*human_side(part))
        if not len(whole.counts):
            raise UserInputError("No item has whole votes: linear judges are trained on counts of votes.")
        parts.append((part.select(np.flatnonzero(whole.chosen)), whole.counts))
    prompts: list[list[Prompt]] = [part["prompt"][:] for part, _ in parts]
    blocks: list[tuple[Block, Block]] = []
    if words:
        texts = [["\n".join(message["content"] for message in prompt) for prompt in each] for each in prompts]
        blocks.append(word_features(texts[0], texts[1]))
    if read_states is not None:
        blocks.append(standardized(*map(read_states, prompts)))
    first, second = (
        Items(tuple(block[i] for block in blocks), counts, np.array(part["group"][:]), np.array(part["id"][:]))
        for i, (part, counts) in enumerate(parts)
    )
    return first, second


def word_features(train: Sequence[str], test: Sequence[str]) -> tuple[sparse.csr_matrix, sparse.csr_matrix]:
    """TF-IDF of words, pairs of words, and 2 to 5 letters within words; known from the training texts alone. What four
    fifths of the prompts have in common, the question, is no feature.

    Raises:
        [`UserInputError`]: no words are left.
    """
    options = {"sublinear_tf": True, "min_df": 2, "max_df": 0.8, "dtype": np.float32}
    words = TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"(?u)\b\w+\b", **options)
    letters = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), max_features=30_000, **options)
    union = FeatureUnion([("words", words), ("letters", letters)])
    try:
        found = union.fit_transform(train)
    except ValueError:  # scikit-learn's: no term is left
        raise UserInputError(f"{len(train)} prompts have too few words in common to count words.") from None
    return found.tocsr(), union.transform(test).tocsr()


def standardized(train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """States `(N, D)`, every dimension with mean 0 and the same variance over the training items (0 if it
    never changes).
    """
    mean, spread = train.mean(0, dtype=np.float64), train.std(0, dtype=np.float64)
    # What never changes says nothing, and its spread is rounding.
    changes = spread > 1e-6 * np.maximum(1, abs(mean))
    scale = np.where(changes, 1 / np.where(changes, spread, 1), 0) * np.sqrt(SQUARED_LENGTH / train.shape[1])
    first, second = (((part - mean) * scale).astype(np.float32) for part in (train, test))
    return first, second
