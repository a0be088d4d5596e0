"""The memory of a run on each device, and the bytes that devices send each other in a step.

DeepSpeed's and accelerate's estimators (`estimate_zero2_model_states_mem_needs`, `accelerate estimate-memory`) know
neither adapters nor quantised weights, activations or buffers, so they are not used. Which parts each stage shards,
and how much is sent, follows the ZeRO paper (Rajbhandari et al. 2020, sections 5 and 7).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from distjudge_trl.errors import UserInputError
from distjudge_trl.planning.footprint import Footprint, Sizes
from distjudge_trl.planning.sharding import Sharding
from distjudge_trl.planning.training import Training


GIB = 2**30
_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
# NF4 with double quantisation: half a byte, a byte of scale per 64 numbers, a float32 scale of scales per 256 of them.
_FOUR_BIT = 0.5 + 1 / 64 + 4 / (64 * 256)
# DeepSpeed's defaults, which the shipped configs keep, in numbers of parameters.
_REDUCE_BUCKET = 500_000_000
_LIVE_PARAMETERS = 1_000_000_000
_SUBGROUP = 1_000_000_000
# Rows of a half-precision head that are converted to float32 at a time (`batching.head`).
HEAD_ROWS_AT_A_TIME = 8192
# The memory of a process without the model: on a GPU the context, the libraries' kernels and workspaces and memory
# that the allocator cannot use (a rough allowance, not measured); on a CPU the interpreter with torch and the
# libraries (measured, scripts/benchmarks/memory.py).
_RUNTIME = {"gpu": 1.0 * GIB, "cpu": 0.45 * GIB}


@dataclass(frozen=True)
class Estimate:
    """Memory and traffic of a run.

    Args:
        moments (`dict[str, dict[str, int]]`): for each moment that can be the peak, the bytes per device by part.
        host (`int`): bytes of host memory that offloading takes, of all devices together.
        sent (`int`): bytes that a device sends per optimizer step.
        loading (`int`): bytes of host memory, of all devices together, while the model is loaded.
    """

    moments: dict[str, dict[str, int]]
    host: int
    sent: int
    loading: int = 0

    @property
    def peak_moment(self) -> str:
        return max(self.moments, key=lambda moment: sum(self.moments[moment].values()))

    @property
    def peak(self) -> int:
        """Bytes per device."""
        return sum(self.moments[self.peak_moment].values())


def estimate(footprint: Footprint, training: Training, sharding: Sharding) -> Estimate:
    """Estimate the memory of one device by part.

    Args:
        footprint (`Footprint`): measured with the same `training`.
        training (`Training`): the computation.
        sharding (`Sharding`): how it is distributed.
    """
    sizes, n = footprint.sizes, sharding.devices
    adapter = sizes.adapter > 0
    trained = sizes.adapter or sizes.base
    size = _BYTES[training.adapter_dtype if adapter else training.compute_dtype]
    own = 4 if sharding.casts else size  # DeepSpeed and FSDP keep trained weights in float32
    frozen = _frozen(sizes, training) if adapter else 0
    weights = frozen + trained * size
    zero, fsdp = sharding.kind == "zero", sharding.kind == "fsdp"
    # How many devices share each part.
    by_optimizer = n if sharding.stage >= 1 else 1
    by_gradients = n if sharding.stage >= 2 else 1
    by_weights = n if sharding.stage >= 3 else 1

    resting = (frozen + trained * (own if fsdp else size)) // by_weights
    gathered = _gathered(weights, sizes, training, sharding) if sharding.stage >= 3 else 0
    gradients = trained * (own if fsdp else size) // by_gradients
    # Two moments of Adam, and DeepSpeed's float32 weights beside the ones that it computes with.
    optimizer = trained * own * (3 if zero else 2) // by_optimizer
    # DeepSpeed flattens the gradients and copies them to float32 to step, under ZeRO-3 for a part of the weights at a
    # time. The default optimizer, fused AdamW, has no temporaries of its own.
    stepping = (
        min(trained // by_optimizer, _SUBGROUP if sharding.stage >= 3 else trained) * (own + size) if zero else 0
    )
    buffers = _buffers(trained, size, sharding)

    # The part of the head that is converted to float32, its gradient, and logits, their log-softmax and its gradient.
    widened = min(sizes.head, HEAD_ROWS_AT_A_TIME * sizes.head // sizes.vocabulary)
    copies = (widened if training.compute_dtype != "float32" else 0) + (0 if adapter else sizes.head)
    head = 4 * copies + 3 * 4 * training.batch_size * sizes.vocabulary
    dequantised = sizes.largest * 2 if training.bits < 16 else 0

    host = 0
    if sharding.offload_optimizer:
        # DeepSpeed's gradients in float32, and the copies that are transferred in the type of the weights (of the
        # weights under ZeRO-2, of the gradients under ZeRO-3). FSDP's gradients already have the optimizer's type.
        host += (optimizer + trained * (own + (size if zero else 0)) // by_optimizer) * n
        optimizer = stepping = 0
        gradients = 0 if fsdp or sharding.stage >= 2 else gradients
    if sharding.offload_weights:
        host += resting * n
        resting = 0
    held = {"weights": resting, "gathered weights": gathered, "optimizer": optimizer}
    process = {"runtime": round(_RUNTIME[sharding.device])}
    begins = {
        **held,
        # ZeRO-3 keeps memory for them at all times, the others allocate them in every backward pass.
        "gradients": gradients if training.gradient_accumulation_steps > 1 or (zero and sharding.stage >= 3) else 0,
        "activations": footprint.first + dequantised,
        "logits and head": head,
        "buffers": buffers,
        **process,
    }
    ends = {
        **held,
        "gradients": gradients,
        "activations": footprint.last + dequantised,
        "logits and head": 0,
        "buffers": buffers,
        **process,
    }
    steps = {
        **held,
        "gathered weights": 0,
        "optimizer": optimizer + stepping,
        "gradients": gradients,
        "activations": 0,
        "logits and head": 0,
        # DDP's buffers are never freed.
        "buffers": buffers if sharding.kind == "replicas" else 0,
        **process,
    }
    moments = {"backward begins": begins, "backward ends": ends, "optimizer steps": steps}
    # FSDP adds gradients up in float32 (`modeling.workarounds.keeping_outputs`).
    sent = _sent(weights, trained * (own if fsdp else size), training, sharding)
    return Estimate(moments, host, sent, _loading(footprint, training, sharding))


def _loading(footprint: Footprint, training: Training, sharding: Sharding) -> int:
    """Bytes of host memory of several processes that each load the full model before it is sharded or moved.

    Weights in the checkpoint's own type stay mapped from its files, which processes share. Quantised weights go to the
    GPU at once, and ZeRO-3's processes keep only their shards. (transformers uses FSDP's `cpu_ram_efficient_loading`
    only for missing weights.)
    """
    whole = sharding.device == "gpu" and sharding.devices > 1 and not (sharding.kind == "zero" and sharding.stage == 3)
    if not whole or training.bits < 16 or training.dtype == footprint.saved_dtype:
        return 0
    return sharding.devices * footprint.sizes.base * _BYTES[training.dtype]


def _frozen(sizes: Sizes, training: Training) -> int:
    """Bytes of base weights under an adapter, as they are stored."""
    full = _BYTES[training.compute_dtype]
    linear = {4: _FOUR_BIT, 8: 1.0, 16: float(full)}[training.bits]
    return round(sizes.linear * linear + sizes.other * full)


def _gathered(weights: int, sizes: Sizes, training: Training, sharding: Sharding) -> int:
    """Bytes of gathered weights on a device while they are used: two layers, or the parameters that DeepSpeed keeps
    alive.
    """
    two_layers = 2 * sizes.layer * weights // sizes.base + sizes.head * _BYTES[training.compute_dtype]
    alive = round(weights * min(1.0, _LIVE_PARAMETERS / sizes.base)) if sharding.kind == "zero" else 0
    return min(weights, max(two_layers, alive))


def _buffers(trained: int, size: int, sharding: Sharding) -> int:
    """Bytes of gradients that are being sent. DDP's buckets hold all of them. DeepSpeed's bucket takes its full size
    on a GPU, and on a CPU only the part that is written to.
    """
    if sharding.kind == "replicas":
        return trained * size if sharding.devices > 1 else 0
    if sharding.kind == "fsdp" or not sharding.stage:
        return 0
    return (_REDUCE_BUCKET if sharding.device == "gpu" else min(_REDUCE_BUCKET, trained)) * size


def _sent(weights: int, gradients: int, training: Training, sharding: Sharding) -> int:
    """Bytes a device sends per optimizer step, by ring algorithms."""
    share = (sharding.devices - 1) / sharding.devices
    forwards = training.gradient_accumulation_steps
    if sharding.stage >= 3:
        return round(share * forwards * (2 * weights + gradients))
    # All-reduce, or reduce-scatter of the gradients and all-gather of the weights. ZeRO-2 reduces gradients in every
    # forward-backward pass.
    reductions = forwards if sharding.stage == 2 else 1
    return round(share * gradients * (reductions + 1))


def describe(size: float) -> str:
    """Bytes as text in GiB."""
    return f"{size / GIB:.1f} GiB"


def local_memory() -> int | None:
    """Bytes of this machine's smallest GPU; `None` if it has no GPU."""
    import torch

    if not torch.cuda.is_available():
        return None
    return min(torch.cuda.get_device_properties(i).total_memory for i in range(torch.cuda.device_count()))


def parse_memory(text: str) -> int:
    """Bytes of `40GiB`, `80GB`, `40` (GiB).

    Raises:
        [`UserInputError`]: it is not a positive size.
    """
    units: dict[str, Any] = {"gib": GIB, "gb": 10**9, "mib": 2**20, "mb": 10**6, "": GIB}
    number = text.strip().lower().rstrip("gimb ")
    unit = text.strip().lower()[len(number) :].strip()
    try:
        size = float(number) * units[unit]
    except (KeyError, ValueError):
        size = 0.0
    if not 0 < size < 2**60:
        raise UserInputError(f"--gpu-memory {text}: give a size such as 40GiB or 80GB.")
    return int(size)
