"""Write a merged judge (or any model) of Llama's or Qwen2's architecture as a GGUF file, for llama.cpp.

    python scripts/to_gguf.py runs/merged --out judge.gguf --type q8_0

It does what llama.cpp's own `convert_hf_to_gguf.py` does for these two architectures and for byte-level BPE
tokenizers, with the tensor names of the package `gguf`. For other models it stops and names that program.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path


import distjudge_trl  # noqa: F401  # isort: skip (before torch: it says how OpenMP's threads wait)
import gguf
import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from transformers import AutoTokenizer

from distjudge_trl.errors import UserInputError, first_line, run_script, writing
from distjudge_trl.files.atomic import replacing


ARCHITECTURES = {"llama": gguf.MODEL_ARCH.LLAMA, "qwen2": gguf.MODEL_ARCH.QWEN2}
TYPES = {
    "f32": gguf.GGMLQuantizationType.F32,
    "f16": gguf.GGMLQuantizationType.F16,
    "bf16": gguf.GGMLQuantizationType.BF16,
    "q8_0": gguf.GGMLQuantizationType.Q8_0,
}
# llama.cpp's names of the ways to cut a text before BPE, by what is special in their regular expressions.
SPLITS = {r"\p{N}{1,3}|": "llama-bpe", r"|\p{N}| ?": "qwen2"}


def unsupported(what: str) -> UserInputError:
    return UserInputError(f"{what} is not supported here. Use llama.cpp's convert_hf_to_gguf.py.")


def pre_tokenizer(tokenizer: dict) -> str:
    """llama.cpp's name of the tokenizer's way to cut a text."""
    if tokenizer["model"]["type"] != "BPE" or tokenizer["model"].get("byte_fallback"):
        raise unsupported("A tokenizer other than byte-level BPE")
    steps = tokenizer["pre_tokenizer"]
    steps = steps["pretokenizers"] if steps["type"] == "Sequence" else [steps]
    kinds = [step["type"] for step in steps]
    if kinds == ["ByteLevel"] and steps[0]["use_regex"]:
        return "gpt-2"
    if kinds == ["Digits", "ByteLevel"] and steps[0]["individual_digits"]:
        return "smollm"
    if kinds == ["Split", "ByteLevel"]:
        pattern = steps[0]["pattern"].get("Regex", "")
        for sign, name in SPLITS.items():
            if pattern.startswith("(?i:'s|'t|'re|'ve|'m|'ll|'d)|") and sign in pattern:
                return name
    raise unsupported(f"The tokenizer's way to cut a text ({', '.join(kinds)})")


def add_vocabulary(writer: gguf.GGUFWriter, folder: Path, file: dict, size: int) -> None:
    """The tokens, merges, special tokens and the chat template."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    added = {token["id"]: token for token in file["added_tokens"]}
    names = {index: token for token, index in tokenizer.get_vocab().items()}
    special = {True: gguf.TokenType.CONTROL, False: gguf.TokenType.USER_DEFINED}
    kinds = [
        gguf.TokenType.UNUSED
        if index not in names
        else special[added[index]["special"]]
        if index in added
        else gguf.TokenType.NORMAL
        for index in range(size)
    ]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre_tokenizer(file))
    writer.add_token_list([names.get(index, f"[PAD{index}]") for index in range(size)])
    writer.add_token_types(kinds)
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in file["model"]["merges"]]
    writer.add_token_merges(merges)
    for name, add in (("bos", writer.add_bos_token_id), ("eos", writer.add_eos_token_id)):
        if (index := getattr(tokenizer, f"{name}_token_id")) is not None:
            add(index)
    # A chat template writes the special tokens itself.
    writer.add_add_bos_token(False)
    if tokenizer.chat_template is not None:
        writer.add_chat_template(tokenizer.get_chat_template())


def rotated(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """Rows of a query or key projection in llama.cpp's order, in which the two halves of a rotation alternate."""
    return weight.reshape(heads, 2, -1, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)


def needed(layers: int, *, tied: bool) -> set[str]:
    """The tensors without which llama.cpp has no model."""
    parts = ("attn_norm", "attn_q", "attn_k", "attn_v", "attn_output", "ffn_norm", "ffn_gate", "ffn_up", "ffn_down")
    names = {f"blk.{layer}.{part}.weight" for layer in range(layers) for part in parts}
    return names | {"token_embd.weight", "output_norm.weight", *(() if tied else ("output.weight",))}


def convert(folder: Path, out: Path, kind: str) -> None:
    """Write the model of `folder` to `out`, its matrices in the type `kind`.

    Raises:
        [`UserInputError`]: the folder holds no such model, or a damaged one, or `out` is no regular file.
    """
    if out.exists() and not out.is_file():
        raise UserInputError(f"{out}: is not a regular file; name the file to write.")
    try:
        _convert(folder, out, kind)
    except (SafetensorError, KeyError, TypeError, AttributeError, ValueError) as error:
        if isinstance(error, UserInputError):
            raise
        raise UserInputError(f"{folder}: is damaged ({type(error).__name__}: {first_line(error)}).") from error


def _convert(folder: Path, out: Path, kind: str) -> None:
    path = folder / "config.json"
    if not path.is_file() or not (folder / "tokenizer.json").is_file():
        raise UserInputError(f"{folder}: is not a full model with a tokenizer.json. Merge an adapter first.")
    config = json.loads(path.read_text(encoding="utf-8"))
    rope = config.get("rope_parameters") or {"rope_theta": config.get("rope_theta", 10_000.0)}
    if config["model_type"] not in ARCHITECTURES:
        raise unsupported(f"The architecture {config['model_type']!r}")
    if rope.get("rope_type", "default") != "default" or config.get("rope_scaling"):
        raise unsupported("A scaled rotary embedding")
    if config.get("quantization_config"):
        raise unsupported("A quantised model")
    vocabulary = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    pre_tokenizer(vocabulary)
    heads, layers = config["num_attention_heads"], config["num_hidden_layers"]
    key_heads = config.get("num_key_value_heads") or heads
    architecture = ARCHITECTURES[config["model_type"]]
    names = gguf.get_tensor_name_map(architecture, layers)
    with writing(out), replacing(out) as temporary:
        writer = gguf.GGUFWriter(temporary, gguf.MODEL_ARCH_NAMES[architecture])
        writer.add_name(folder.resolve().name)
        writer.add_file_type(int(gguf.LlamaFileType["ALL_F32" if kind == "f32" else f"MOSTLY_{kind.upper()}"]))
        sizes = {"context_length": "max_position_embeddings", "embedding_length": "hidden_size"}
        sizes |= {"feed_forward_length": "intermediate_size", "vocab_size": "vocab_size"}
        for name, key in sizes.items():
            getattr(writer, f"add_{name}")(config[key])
        writer.add_block_count(layers)
        writer.add_head_count(heads)
        writer.add_head_count_kv(key_heads)
        writer.add_rope_dimension_count(config.get("head_dim") or config["hidden_size"] // heads)
        writer.add_rope_freq_base(rope["rope_theta"])
        writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
        add_vocabulary(writer, folder, vocabulary, config["vocab_size"])
        missing = needed(layers, tied=bool(config.get("tie_word_embeddings")))
        for file in sorted(folder.glob("model*.safetensors")):
            with safe_open(file, "pt") as weights:
                for key in weights.keys():  # noqa: SIM118 (it has no __iter__)
                    if key == "lm_head.weight" and config.get("tie_word_embeddings"):
                        continue
                    weight = weights.get_tensor(key).float()
                    if config["model_type"] == "llama" and (".q_proj." in key or ".k_proj." in key):
                        weight = rotated(weight, heads if ".q_proj." in key else key_heads)
                    name = names.get_name(key, try_suffixes=(".weight", ".bias"))
                    if name is None:
                        raise unsupported(f"The weight {key!r}")
                    missing.discard(name)
                    stored = TYPES["f32"] if weight.dim() == 1 else TYPES[kind]
                    array = weight.contiguous().numpy().astype(np.float32)
                    writer.add_tensor(name, gguf.quantize(array, stored), raw_dtype=stored)
        if missing:
            raise UserInputError(f"{folder}: lacks {len(missing)} weights, {min(missing)!r} among them.")
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder of a full model, such as `distjudge-trl merge` writes")
    parser.add_argument("--out", type=Path, required=True, help="GGUF file to write")
    parser.add_argument("--type", choices=list(TYPES), default="f16", help="type of the matrices")
    args = parser.parse_args()
    convert(args.folder, args.out, args.type)
    print(f"{args.out}: {args.out.stat().st_size / 1e6:,.0f} MB, {args.type}")


if __name__ == "__main__":
    run_script(main)
