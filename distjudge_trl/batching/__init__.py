"""Prompt ids to model inputs whose judgment positions are known: left-padded rows, or packs that share a prefix."""

from distjudge_trl.batching.collator import (
    JudgmentCollator,
    check_sharing,
    context_length,
    judgment_logits,
    read_head_in_float32,
    sharing_pays,
)
from distjudge_trl.batching.fitting import PromptFitter, Truncation
from distjudge_trl.batching.prompts import count_tokens, encode_prompts, render_prompt


__all__ = [
    "JudgmentCollator",
    "PromptFitter",
    "Truncation",
    "check_sharing",
    "context_length",
    "count_tokens",
    "encode_prompts",
    "judgment_logits",
    "read_head_in_float32",
    "render_prompt",
    "sharing_pays",
]
