"""Prompt ids to model inputs whose judgment positions are known: left-padded rows, or packs that share a prefix."""

from distjudge_trl.batching.collator import (
    JudgmentCollator,
    check_sharing,
    context_length,
    judgment_logits,
    read_head_in_float32,
)
from distjudge_trl.batching.prompts import encode_prompts, render_prompt


__all__ = [
    "JudgmentCollator",
    "check_sharing",
    "context_length",
    "encode_prompts",
    "judgment_logits",
    "read_head_in_float32",
    "render_prompt",
]
