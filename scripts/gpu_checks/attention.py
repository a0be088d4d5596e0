"""Attention: implementations against each other, which kernels run, and packs along shared prefixes."""

from __future__ import annotations

import re
from typing import Any

from gpu_checks.check import Check, Findings, Skip
from gpu_checks.models import layers_config
from gpu_checks.trainers import Fit, fit, half_precision, make_rows


# Relative, of losses and gradient norms: of two kernels in float32, and in half precision.
REL = {"float32": (1e-4, 1e-3), "bfloat16": (1e-2, 5e-2), "float16": (5e-3, 2e-2)}
# PyTorch's own names of what attention was computed with, and of the kernels on a GPU.
_CHOSEN = re.compile(
    r"aten::_(scaled_dot_product_\w+?|flash_attention_forward|efficient_attention_forward)(_backward)?$"
    r"|.*(flex_attention)"
)
_CUDA = re.compile(r"fmha|flash|cudnn.*(attn|attention|sdpa)|mha_", re.IGNORECASE)


def _rows(find: Findings, count: int, shared: int, own: tuple[int, int]) -> list[dict[str, Any]]:
    """A tenth as long for tiny models."""
    from transformers import AutoTokenizer

    if find.machine.tiny:
        shared, own = shared // 10, (own[0] // 10, own[1] // 10)
    return make_rows(AutoTokenizer.from_pretrained(find.machine.small), count, shared, own)


def _train(find: Findings, rows: list[dict[str, Any]], **options: Any) -> Fit:
    return fit(find.machine, layers_config(find.machine), rows, folder=str(find.folder / "out"), **options)


def compare(find: Findings, name: str, found: Fit, expected: Fit, dtype: str) -> None:
    """Losses and gradient norms, step by step."""
    loss, norm = REL[dtype]
    for i in range(len(expected.losses)):
        find.close(f"{name}, loss of step {i + 1}", found.losses[i], expected.losses[i], rel=loss)
        find.close(f"{name}, gradient norm of step {i + 1}", found.norms[i], expected.norms[i], rel=norm)
    worst = max(abs(a / b - 1) for a, b in zip(found.losses, expected.losses, strict=True))
    worst_norm = max(abs(a / b - 1) for a, b in zip(found.norms, expected.norms, strict=True))
    find.figure(f"{name}: relative difference of losses", f"{worst:.0e}, of gradient norms {worst_norm:.0e}")


def padding(find: Findings) -> None:
    """sdpa against eager attention, both in float32, on left-padded rows."""
    rows = _rows(find, 12, 100, (50, 400))
    eager, sdpa = (_train(find, rows, batch_size=4, dtype="float32", attention=kind) for kind in ("eager", "sdpa"))
    compare(find, "sdpa against eager", sdpa, eager, "float32")
    find.figure("seconds a step, eager and sdpa", f"{eager.seconds:.3f}, {sdpa.seconds:.3f}")


def flash(find: Findings) -> None:
    """FlashAttention, which unpads, against sdpa, which masks, on left-padded rows."""
    import torch
    from transformers.utils import is_flash_attn_2_available

    if not is_flash_attn_2_available():
        raise Skip("needs the package flash-attn, which is not installed")
    if torch.cuda.get_device_capability() < (8, 0):
        raise Skip("FlashAttention 2 needs a GPU of capability 8.0 or more")
    rows = _rows(find, 24, 400, (400, 800))
    dtype = half_precision(find.machine)
    both = [_train(find, rows, batch_size=8, dtype=dtype, attention=k) for k in ("sdpa", "flash_attention_2")]
    compare(find, "flash_attention_2 against sdpa", both[1], both[0], dtype)
    find.figure("seconds a step, sdpa and flash", f"{both[0].seconds:.3f}, {both[1].seconds:.3f}")


def kernels(find: Findings) -> None:
    """What `scaled_dot_product_attention` chooses for full, left-padded and packed batches."""
    dtype = half_precision(find.machine)
    lines = []
    for name, own, share in (("full", (600, 600), False), ("padded", (400, 600), False), ("packed", (200, 200), True)):
        rows = _rows(find, 24, 400, own)
        found = _train(find, rows, batch_size=8, dtype=dtype, share_prefixes=share, profiled=True)
        chosen = sorted({match[1] or match[3] for key in found.kernels if (match := _CHOSEN.match(key))})
        find.figure(name, ", ".join(chosen) or "none found")
        find.expect(bool(chosen), f"{name}: no attention was seen by the profiler")
        if find.machine.device == "cuda":
            math_kernel = [key for key in chosen if "math" in key]
            find.expect(not math_kernel, f"{name}: the math kernel ran, which keeps all scores")
        times = [(key, s) for key, s in found.kernels.items() if _CHOSEN.match(key) or _CUDA.search(key)]
        lines += [
            f"{name}: {seconds * 1e3:9.2f} ms  {key[:150]}" for key, seconds in sorted(times, key=lambda p: -p[1])
        ]
    find.section("attention's kernels in three steps", "\n".join(lines))


def prefixes(find: Findings) -> None:
    """The same rows packed and padded: loss and gradient in float32, time in the type that is trained in."""
    rows = _rows(find, 48, 400, (50, 200))
    found = {
        share: _train(find, rows, batch_size=16, dtype="float32", share_prefixes=share) for share in (False, True)
    }
    compare(find, "packed against padded", found[True], found[False], "float32")
    dtype = half_precision(find.machine)
    if dtype != "float32":
        found = {s: _train(find, rows, batch_size=16, dtype=dtype, share_prefixes=s, steps=6) for s in (False, True)}
    padded, packed = found[False].seconds, found[True].seconds
    find.figure(f"seconds a step in {dtype}", f"{padded:.3f} padded, {packed:.3f} packed ({padded / packed:.1f} x)")


CHECKS = [
    Check(
        "padding",
        "sdpa and eager attention agree on left-padded rows in float32: losses within 1e-4, gradient norms 1e-3",
        padding,
        after=("weights",),
    ),
    Check(
        "flash",
        "flash_attention_2 and sdpa agree on left-padded rows in bfloat16: losses within 1e-2, gradient norms 5e-2",
        flash,
        needs=("gpu",),
        after=("weights",),
    ),
    Check(
        "kernels",
        "attention is seen; on GPUs the math kernel never runs. Expected: cuDNN, flash or memory-efficient attention"
        " for full and padded batches, FlexAttention for packs",
        kernels,
        after=("weights",),
    ),
    Check(
        "prefixes",
        "packed along shared prefixes, 16 rows of about 400 + 125 tokens have the padded loss (1e-4) and gradient"
        " norm (1e-3) in float32; the time is reported",
        prefixes,
        after=("weights",),
    ),
]
