"""Replacing one judge by another in its folder, and which files of the folder belong to a judge."""

from __future__ import annotations

import re
from contextlib import AbstractContextManager
from pathlib import Path

from distjudge_trl.files.atomic import replacing_files
from distjudge_trl.judge_folder.judge_file import JUDGE_FILE_NAME
from distjudge_trl.judge_folder.label_tokens import LABEL_TOKENS_NAME
from distjudge_trl.judge_folder.training_items import SEEN_ITEMS_NAME


# Files that transformers, PEFT or vLLM would read on their own beside a judge's files or instead of them: weights in
# one file or in pieces with an index, their configs and a quantiser's; a tokenizer's files and its chat templates;
# Mistral's own weights and tokenizers, which vLLM prefers to all others; the list of items that it has seen; and
# the tokens of its labels. Not listed are files that are read only if they are named (GGUF), only by older releases
# (TensorFlow's and Flax's weights), or only beside others that are listed (Mistral's params.json, a name that users
# also give to their own files).
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
        *(SEEN_ITEMS_NAME, LABEL_TOKENS_NAME),
    }
)
_ADAPTER_FILES = frozenset({"adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"})


def replacing_judge(folder: str | Path) -> AbstractContextManager[Path]:
    """Yield a temporary folder to write a judge into, `judge.json` included. At the end of the block it replaces the
    judge in `folder`, whether that was an adapter or a full model, in one file or in pieces. A user's own files,
    checkpoints and results are kept. See [`~distjudge_trl.files.atomic.replacing_files`] for the state after a
    failure.
    """
    return replacing_files(folder, stale=is_of_a_judge, mark=JUDGE_FILE_NAME)


def is_of_a_judge(path: Path) -> bool:
    """Whether a file or folder of an old judge would change how a new judge in the same folder is read."""
    if path.name in _NAMES or _WEIGHTS.fullmatch(path.name) or _MISTRAL_TOKENIZER.fullmatch(path.name):
        return True
    return path.is_dir() and not path.is_symlink() and _is_further_adapter(path)


def _is_further_adapter(folder: Path) -> bool:
    """Whether PEFT wrote this folder for an adapter beside the one called `default`. Such a folder holds only these
    files. An adapter that was saved by itself also has a README.md, and a checkpoint has more files.
    """
    names = {path.name for path in folder.iterdir()}
    return "adapter_config.json" in names and names <= _ADAPTER_FILES
