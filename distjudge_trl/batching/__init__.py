"""From prompts to model inputs with known judgment positions: left-padded rows, or packs that share prefixes."""

from distjudge_trl.batching.chat_templates import describe_way, pin_date
from distjudge_trl.batching.collator import JudgmentCollator, context_length, judgment_logits
from distjudge_trl.batching.fitting import PromptFitter, Truncation
from distjudge_trl.batching.head import read_head_in_float32
from distjudge_trl.batching.prefixes import PrefixGroupSampler, PrefixSharing, reading_order, saved_by_grouping
from distjudge_trl.batching.prompts import count_tokens, encode_prompts, render_prompt
from distjudge_trl.batching.sharing import SharePrefixes, agree_on_sharing, attention_name, find_sharing


__all__ = [
    "JudgmentCollator",
    "PrefixGroupSampler",
    "PrefixSharing",
    "PromptFitter",
    "SharePrefixes",
    "Truncation",
    "agree_on_sharing",
    "attention_name",
    "context_length",
    "count_tokens",
    "describe_way",
    "encode_prompts",
    "find_sharing",
    "judgment_logits",
    "pin_date",
    "read_head_in_float32",
    "reading_order",
    "render_prompt",
    "saved_by_grouping",
]
