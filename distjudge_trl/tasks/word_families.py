"""Word families: groups of expressions that are so similar that knowing one reveals the others.

"abandon", "abandoned" and "abandonment" have similar ratings. If a judge is trained on one and tested on another, the
test measures memory. In doubt words are merged: two unrelated words in one family cost nothing, while a split family
leaks.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import cache

from distjudge_trl.errors import UserInputError
from distjudge_trl.runtime.extras import install_hint


# Negations and intensifiers that leave the stem recognisable ("happy", "unhappy").
_PREFIXES = (
    "anti",
    "counter",
    "dis",
    "hyper",
    "im",
    "in",
    "ir",
    "mis",
    "non",
    "out",
    "over",
    "re",
    "self",
    "super",
    "un",
    "under",
)

# Two words that share this many first letters belong together, and so do a word of four letters and all words that
# begin with it.
_SHARED_BEGINNING = 5


def word_families(expressions: Sequence[str]) -> list[str]:
    """Family of each expression, named after its shortest member (ties: the alphabetically first).

    Words belong together if their Snowball stems agree, if they share their first five letters, if one begins with
    another of four letters ("evil", "evildoer"), if one is another's three-letter stem plus a usual ending, or if one
    of these holds after a prefix such as "un-" is removed. Emoticons and other symbols belong together if they consist
    of the same characters, apart from noses and repetition. The relation is made transitive.
    """
    try:
        from snowballstemmer import stemmer
    except ImportError:
        raise UserInputError(
            f"Word families need the package snowballstemmer: {install_hint('snowballstemmer')}."
        ) from None

    stem_of = cache(stemmer("english").stemWord)
    parent = list(range(len(expressions)))

    def find(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    first_with: dict[str, int] = {}

    def join(i: int, key: str) -> None:
        parent[find(i)] = find(first_with.setdefault(key, i))

    normal = [_normalize(expression) for expression in expressions]
    words = {word for word in normal if word.isalpha()}
    four_letter_words = {word for word in words if len(word) == 4}
    three_letter_stems = {stem for stem in map(stem_of, words) if len(stem) == 3}
    for i, word in enumerate(normal):
        if not word.isalpha():
            join(i, "symbols:" + _skeleton(word))
            continue
        for form in (word, *_without_prefixes(word)):
            join(i, "stem:" + stem_of(form))
            if len(form) >= _SHARED_BEGINNING:
                join(i, "begins:" + form[:_SHARED_BEGINNING])
            if form[:4] in four_letter_words:
                join(i, "begins:" + form[:4])
            if form[:3] in three_letter_stems and _ENDING.fullmatch(form[3:]):
                join(i, "stem:" + form[:3])
    names: dict[int, str] = {}
    for i in range(len(expressions)):
        root = find(i)
        names[root] = min(names.get(root, expressions[i]), expressions[i], key=lambda name: (len(name), name))
    return [names[find(i)] for i in range(len(expressions))]


# Endings that form words from a three-letter stem, after an optional doubled consonant: "sad" + "der", "joy" +
# "fulness".
_ENDING = re.compile(
    r"[bdglmnprt]?(?:s|es|ed|d|er|ers|est|en|ens|ened|ening|ing|ings|in|y|ies|ied|ier|iest|ily|iness|ish|ly|ness|nesses|ful|fully|fulness|"
    r"less|lessly|lessness|able|al|ous|ously|ousness|or|ors|ity|ic|ical|ive|ion|ions|ment|ments|ship|ships|hood|some|someness)"
)


def _normalize(expression: str) -> str:
    """Normalise an expression: lower case, compatibility forms folded, apostrophes and joining hyphens dropped, three
    or more equal letters reduced to one.
    """
    text = unicodedata.normalize("NFKC", expression).casefold()
    joined = re.sub(r"[\s'\u2019_-]", "", text)
    if joined.isalpha():
        text = joined
    return re.sub(r"(.)\1{2,}", r"\1", text)


def _without_prefixes(word: str) -> list[str]:
    return [word[len(prefix) :] for prefix in _PREFIXES if word.startswith(prefix) and len(word) - len(prefix) >= 4]


def _skeleton(symbols: str) -> str:
    """The set of characters of an emoticon or mixed token, without noses and spaces. Equivalent eyes count as the same
    character.
    """
    eyes = symbols.translate(str.maketrans("=;8", ":::", "-^' *"))
    return "".join(sorted(set(eyes or symbols)))
