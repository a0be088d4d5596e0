"""Prompt ids to model inputs whose judgment positions are known: left-padded rows, or packs that share a prefix."""

from distjudge_trl.batching.collator import JudgmentCollator, check_sharing, judgment_logits
from distjudge_trl.batching.prompts import encode_prompts, render_prompt


__all__ = ["JudgmentCollator", "check_sharing", "encode_prompts", "judgment_logits", "render_prompt"]
