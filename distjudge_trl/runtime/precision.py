"""The number type to compute in. It is chosen from the hardware in this one place, for recipes, the trainer, quantised
and frozen weights, benchmarks and `distjudge-trl env`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from distjudge_trl.runtime.launches import launcher_asks


Dtype = Literal["bfloat16", "float16", "float32"]
# The types that a machine may lack.
HALF: tuple[Dtype, ...] = ("bfloat16", "float16")


@dataclass(frozen=True)
class Precision:
    """The number type that a run computes in.

    Args:
        dtype (`str`): `"bfloat16"`, `"float16"` (with loss scaling) or `"float32"` (no autocast).
        reason (`str`): why it was chosen, as text for users.
    """

    dtype: Dtype
    reason: str

    @property
    def bf16(self) -> bool:
        """The trainer's option of this name."""
        return self.dtype == "bfloat16"

    @property
    def fp16(self) -> bool:
        """The trainer's option of this name."""
        return self.dtype == "float16"

    def of_weights(self, *, frozen: bool) -> Dtype:
        """The type in which weights are loaded. Frozen weights are only computed with. Trained weights stay in
        float32, because an update is often too small to change a half-precision number.
        """
        return self.dtype if frozen else "float32"


def decide_precision(use_cpu: bool = False) -> Precision:
    """The type that is fast on this machine and safe for training: bfloat16 if the hardware multiplies it, float16 on
    GPUs that have tensor cores only for float16, else float32. An emulated type is never chosen.

    Args:
        use_cpu (`bool`): the CPU computes, even if there is an accelerator.
    """
    import torch

    if use_cpu or not torch.accelerator.is_available():
        if is_fast("bfloat16", use_cpu):
            return Precision("bfloat16", "the CPU has instructions for it (AVX512-BF16 or AMX)")
        return Precision("float32", "the CPU has no instructions for bfloat16, which would be emulated")
    if torch.cuda.is_available():
        name = torch.cuda.get_device_name()
        if is_fast("bfloat16"):
            return Precision("bfloat16", f"{name} has it")
        if is_fast("float16"):
            return Precision("float16", f"{name} has tensor cores for float16, and emulates bfloat16")
        return Precision("float32", f"{name} has no tensor cores")
    name = _accelerator()
    if name == "mps":
        return Precision("float32", "half precision is not tested on mps")
    if is_fast("bfloat16"):
        return Precision("bfloat16", f"{name} has it")
    return Precision("float32", f"{name} has no bfloat16")


def is_fast(dtype: Dtype, use_cpu: bool = False) -> bool:
    """Whether this machine multiplies numbers of a type in hardware. If not, they are emulated, which takes ten times
    as long or more, or the combination is untested (half precision on MPS).

    Args:
        dtype (`str`): `"bfloat16"`, `"float16"` or `"float32"`, which every machine has.
        use_cpu (`bool`): the CPU computes, even if there is an accelerator.
    """
    import torch

    if dtype == "float32":
        return True
    if use_cpu or not torch.accelerator.is_available():
        # Hardly any CPU multiplies float16, and those that do multiply bfloat16, too.
        return dtype == "bfloat16" and cpu_has_bfloat16()
    if torch.cuda.is_available():
        if dtype == "bfloat16":
            return bool(torch.cuda.is_bf16_supported(including_emulation=False))
        return torch.cuda.get_device_capability() >= (7, 0)
    if _accelerator() == "mps":
        return False
    from transformers.utils import is_torch_bf16_gpu_available

    return dtype == "float16" or bool(is_torch_bf16_gpu_available())


def _accelerator() -> str:
    """Kind of the accelerator, such as `"xpu"`."""
    import torch

    kind = torch.accelerator.current_accelerator()
    return kind.type if kind is not None else "the accelerator"


def resolve_precision(bf16: bool | None, fp16: bool | None, *, use_cpu: bool = False) -> Precision:
    """The precision that the options `bf16` and `fp16` ask for. Options that are `None` are decided from the hardware.

    `bf16=False` alone means float32. The caller refuses both at once.
    """
    if bf16 or fp16:
        return Precision("bfloat16" if bf16 else "float16", "asked for")
    if bf16 is None:
        decided = decide_precision(use_cpu)
        if not (decided.fp16 and fp16 is False):
            return decided
    return Precision("float32", "asked for")


def runs_on_cpu() -> bool:
    """Whether the CPU computes if no option says so: there is no accelerator, or the launcher asks for the CPU."""
    import torch

    return launcher_asks("ACCELERATE_USE_CPU") or not torch.accelerator.is_available()


def cpu_has_bfloat16() -> bool:
    """Whether the CPU multiplies bfloat16 in hardware (AVX512-BF16 or AMX)."""
    import torch

    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
