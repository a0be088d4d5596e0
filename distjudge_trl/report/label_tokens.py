"""Which tokens mean the labels of a task under a model's tokenizer, and what is doubtful about them."""

from __future__ import annotations

from collections.abc import Iterator

from distjudge_trl.errors import listing
from distjudge_trl.labels import BoundSpelling, LabelSpace


def label_rows(space: LabelSpace) -> Iterator[tuple[str, ...]]:
    """Rows of a table about a bound label space: label, answer (if it is another word), and the tokens that count."""
    for index, label in enumerate(space.labels):
        tokens = dict.fromkeys(
            f"{bound.token!r} ({bound.token_id})"
            for bound in space.bindings
            if bound.label == label and not bound.ambiguous
        )
        answer = (space.answer(index),) if space.answers is not None else ()
        yield (label, *answer, ", ".join(tokens))


def describe_doubts(space: LabelSpace) -> Iterator[str]:
    """Sentences about answers of which the judge only reads a fragment, and about synonyms that are no answers."""
    own = (next(bound for bound in space.bindings if bound.label == label) for label in space.labels)
    fragments = [f"{bound.spelling!r} is read off the fragment {_shown(bound)}" for bound in own if bound.fragment]
    if fragments:
        yield (f"{listing(fragments)}. The label mass counts all words that begin so; `answers: letters` avoids that.")
    if space.uncounted:
        spelled = listing(f"{spelling!r} ({reason})" for spelling, reason in space.uncounted.items())
        yield f"Synonyms that are no answers: {spelled}. `spellings` is the key for what only the data says."


def _shown(bound: BoundSpelling) -> str:
    # Half a character decodes to something that cannot be shown.
    return repr(bound.token if "\ufffd" in (bound.fragment or "") else bound.fragment)
