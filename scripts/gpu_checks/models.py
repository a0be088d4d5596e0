"""The models of the checks: a small one (bundled, or tiny) and a large one (random, in the shape of Qwen2.5-7B)."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING

from gpu_checks.check import Check, Findings, Machine


if TYPE_CHECKING:
    from transformers import PretrainedConfig

BUNDLED, LARGE = "smollm2-135m", "Qwen/Qwen2.5-7B"
# Of tiny models: 4-bit blocks hold 64 numbers, and with 64 x 49,152 numbers in its embeddings ZeRO-3 cuts them up.
_WIDTH, _LAYERS = 64, 2


def shrink(config: PretrainedConfig, vocabulary: int) -> PretrainedConfig:
    """The same architecture, tiny, with weights so large that attention looks somewhere."""
    config.hidden_size, config.intermediate_size, config.num_hidden_layers = _WIDTH, 2 * _WIDTH, _LAYERS
    config.num_attention_heads, config.num_key_value_heads, config.head_dim = 4, 2, _WIDTH // 4
    config.vocab_size, config.initializer_range = vocabulary, 1.2 / math.sqrt(_WIDTH)
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[:_LAYERS]
    return config


def layers_config(machine: Machine, layers: int = 4) -> PretrainedConfig:
    """The large model with a few layers and the small model's vocabulary: what attention and head cost, in seconds."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(machine.large)
    if not machine.tiny:
        config.num_hidden_layers = layers
        if getattr(config, "layer_types", None):
            config.layer_types = config.layer_types[:layers]
        config.vocab_size = AutoConfig.from_pretrained(machine.small).vocab_size
    return config


def weights(find: Findings) -> None:
    """Both models' folders in the work folder; those that are whole are kept."""
    import torch
    from benchmarks import throughput
    from transformers import AutoConfig, AutoTokenizer

    from distjudge_trl.modeling.bundled import resolve_model
    from distjudge_trl.planning import load_config

    bundled = Path(resolve_model(BUNDLED))
    small, large = Path(find.machine.small), Path(find.machine.large)
    small.parent.mkdir(parents=True, exist_ok=True)
    tokenizer = AutoTokenizer.from_pretrained(bundled)
    vocabulary = AutoConfig.from_pretrained(bundled).vocab_size

    def make(config: PretrainedConfig, folder: Path) -> None:
        torch.manual_seed(0)
        config.save_pretrained(find.folder / folder.name)
        throughput.make_weights(argparse.Namespace(model=str(find.folder / folder.name), weights=str(folder)))
        tokenizer.save_pretrained(folder)  # written last: a folder that has it is whole

    def is_whole(folder: Path) -> bool:
        return (folder / "tokenizer.json").exists()

    if not is_whole(small):
        if find.machine.tiny or not list(bundled.glob("*.safetensors")):
            config = load_config(str(bundled))
            make(shrink(config, vocabulary) if find.machine.tiny else config, small)
        else:
            small.symlink_to(bundled, target_is_directory=True)
    if not is_whole(large):
        config = load_config(LARGE)
        make(shrink(config, vocabulary) if find.machine.tiny else config, large)
    for name, folder in (("small", small), ("large", large)):
        size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
        find.figure(f"{name} model, GiB", size / 2**30)
    find.figure("small model", "trained weights" if small.is_symlink() else "random weights")


CHECKS = [
    Check(
        "weights",
        "the bundled model is found; random weights in the shape of Qwen2.5-7B are made on the device and saved",
        weights,
        limit=240,
    ),
]
