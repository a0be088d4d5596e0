"""A judge's folder: which files in it say how it is read, and how one judge takes the place of another."""

from __future__ import annotations

import re
from contextlib import AbstractContextManager
from pathlib import Path

from distjudge_trl.files.atomic import replacing_files
from distjudge_trl.judge_folder.judge_file import JUDGE_FILE_NAME
from distjudge_trl.judge_folder.training_items import SEEN_ITEMS_NAME


# What transformers, PEFT or vLLM would read, unasked, beside a judge's own files or in their place: weights whole or
# in pieces with an index, their configs, a quantiser's; a tokenizer's files and its chat templates; Mistral's own
# weights and tokenizers, which vLLM prefers to all others; and which items the judge has seen. Not here: what is read
# only if it is named (GGUF), by older releases (TensorFlow's and Flax's weights), or beside others that go (Mistral's
# params.json, a name that users give to files of their own).
_WEIGHTS = re.compile(
    r"(model|pytorch_model|pytorch_model_fsdp|adapter_model|consolidated)(\.[\w-]+)*(-\d+-of-\d+)?"
    r"\.(safetensors|bin|index\.json)"
)
_MISTRAL_TOKENIZER = re.compile(r"tokenizer(\.mm)?\.model\.v[\w.]+")
_NAMES = frozenset(
    {
        *("config.json", "generation_config.json", "adapter_config.json"),
        *("quantize_config.json", "quant_config.json", "hf_quant_config.json"),
        *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
        *("vocab.json", "merges.txt", "vocab.txt", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model"),
        *("sentencepiece.model", "spm.model", "tiktoken.model", "tekken.json"),
        *("preprocessor_config.json", "processor_config.json"),
        *("chat_template.jinja", "chat_template.json", "additional_chat_templates"),
        SEEN_ITEMS_NAME,
    }
)
_ADAPTER_FILES = frozenset({"adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"})


def replacing_judge(folder: str | Path) -> AbstractContextManager[Path]:
    """A temporary folder to write a judge into, `judge.json` included; at the end of the block it takes the place of
    the judge in `folder`, whatever kind that was: an adapter, a full model, in pieces or not. A user's own files,
    checkpoints and results stay. See [`~distjudge_trl.files.atomic.replacing_files`] for what a failure leaves.
    """
    return replacing_files(folder, stale=is_of_a_judge, mark=JUDGE_FILE_NAME)


def is_of_a_judge(path: Path) -> bool:
    """Whether a file or folder in a judge's folder, if it stayed beside a new judge, would change how that is read."""
    if path.name in _NAMES or _WEIGHTS.fullmatch(path.name) or _MISTRAL_TOKENIZER.fullmatch(path.name):
        return True
    return path.is_dir() and not path.is_symlink() and _is_further_adapter(path)


def _is_further_adapter(folder: Path) -> bool:
    """Whether PEFT wrote a folder for an adapter beside the one called `default`: such a one holds these files alone,
    where an adapter that was saved by itself has a README.md, and a checkpoint more.
    """
    names = {path.name for path in folder.iterdir()}
    return "adapter_config.json" in names and names <= _ADAPTER_FILES
