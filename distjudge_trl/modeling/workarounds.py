"""Workarounds for libraries that change a model's weights, types or outputs, and with them the judge."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    import torch


def keep_training_layout(model: Any) -> None:
    """Stop bitsandbytes from repacking 4-bit weights for CPU inference.

    On CPUs with AVX512-BF16 the first evaluation of a 4-bit model rewrites its weights into a layout whose kernel has
    no backward and computes in bfloat16. Training after that silently gets no gradient (seen with bitsandbytes
    0.50.2), and a reloaded judge would give other numbers than the trainer evaluated. This has no effect on other
    models and on GPUs.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


@contextmanager
def keeping_hook(module: torch.nn.Module) -> Iterator[None]:
    """Within the block `module` may get a new `forward`, which then runs inside accelerate's hook, if there is one. On
    a model that is spread over devices (`device_map`) the hook moves weights and inputs to one device.
    """
    hooked = module.forward if hasattr(module, "_hf_hook") else None
    yield
    if hooked is not None and module.forward is not hooked:
        # accelerate's wrapper calls this between the two halves of the hook.
        module._old_forward = module.forward  # type: ignore[assignment]
        module.forward = hooked


@contextmanager
def keeping_dtypes(model: torch.nn.Module) -> Iterator[None]:
    """Restore the types of trainable weights at the end of the block.

    PEFT widens half-precision adapters to float32 as it loads them (`autocast_adapter_dtype`), and TRL trains those on
    4-bit weights in bfloat16: a run that resumes, or loads its best checkpoint, would continue in another precision.
    """
    dtypes = {name: weight.dtype for name, weight in model.named_parameters() if weight.requires_grad}
    yield
    for name, weight in model.named_parameters():
        if weight.dtype != dtypes.get(name, weight.dtype):
            weight.data = weight.data.to(dtypes[name])


def widen_trained_weights(model: torch.nn.Module) -> None:
    """Convert trained weights from half precision to float32, which loss scaling needs.

    TRL casts adapters on quantised weights to bfloat16, for which torch's GradScaler has no kernel
    (huggingface/trl#4901), and it refuses gradients in float16.
    """
    import torch

    for weight in model.parameters():
        if weight.requires_grad and weight.dtype in (torch.bfloat16, torch.float16):
            weight.data = weight.data.to(torch.float32)


def keeping_outputs(plugin: Any) -> None:
    """Make FSDP2 keep a model's outputs in the type in which they were computed, and add up gradients in float32.

    accelerate's policy for mixed precision (that of `accelerate.utils.FullyShardedDataParallelPlugin`) rounds outputs
    to bfloat16, in which the logits of two labels are often the same number, and the gradients of every process before
    their mean is taken.
    """
    import torch

    policy = plugin.mixed_precision_policy
    if getattr(policy, "output_dtype", None) is not None:
        plugin.mixed_precision_policy = dataclasses.replace(policy, output_dtype=None, reduce_dtype=torch.float32)


def gather_trained_weights(model: torch.nn.Module) -> dict[str, Any]:
    """All trainable weights of a model that FSDP2 shards, in the host memory of the first process; empty on the
    others. This is a collective: every process has to call it.
    """
    import torch.distributed
    from torch.distributed.checkpoint.state_dict import get_model_state_dict
    from torch.distributed.tensor import DTensor

    # Names as they are saved, without the wrappers of checkpointed layers. Tied weights and the numbers of a quantiser
    # have further names, which torch's `ignore_frozen_params` would not remove.
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
