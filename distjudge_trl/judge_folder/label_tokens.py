"""`label_tokens.json`: the token ids of each label, for programs that read a judge's logits without this package."""

from __future__ import annotations

from pathlib import Path

from distjudge_trl.files.atomic import write_json
from distjudge_trl.labels import LabelSpace


LABEL_TOKENS_NAME = "label_tokens.json"


def write_label_tokens(folder: str | Path, label_space: LabelSpace) -> None:
    """Write the labels of a bound label space in their order, each with the ids of the tokens that mean it."""
    tokens = dict(zip(label_space.labels, map(list, label_space.token_ids), strict=True))
    write_json(Path(folder) / LABEL_TOKENS_NAME, tokens)
