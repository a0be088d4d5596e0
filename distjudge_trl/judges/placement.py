"""Devices, number types and batch sizes with which a judge's model computes."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from accelerate.utils.memory import clear_device_cache
from tqdm.auto import tqdm
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.utils.import_utils import (
    is_flash_attn_2_available,
    is_flash_attn_3_available,
    is_flash_attn_4_available,
)

from distjudge_trl.errors import RunFailedError, UserInputError, memory_exhausted
from distjudge_trl.judge_folder.judge_file import JudgeFile
from distjudge_trl.runtime.precision import HALF, Dtype, decide_precision, is_fast


# Values of `device_map` with which transformers spreads a model over all devices.
DEVICE_MAPS = ("auto", "balanced", "balanced_low_0", "sequential")
_FLASH = {
    "flash_attention_2": is_flash_attn_2_available,
    "flash_attention_3": is_flash_attn_3_available,
    "flash_attention_4": is_flash_attn_4_available,
}
# The compute type of 4-bit weights, as `bitsandbytes` and `judge.json` call it.
_COMPUTES = "bnb_4bit_compute_dtype"
LESS_MEMORY = (
    "Give --dtype bfloat16 (or float16), a smaller --max-length, or --device-map auto, which spreads the model over"
    " all GPUs and the host's memory"
)


def find_device(device: str | torch.device | None = None) -> torch.device:
    """The device of this name; by default the accelerator that torch sees (CUDA, ROCm, XPU, NPU, MPS), else the CPU.

    Raises:
        [`UserInputError`]: this machine has no such device.
    """
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if device is None:
        return accelerator if accelerator is not None else torch.device("cpu")
    available = [accelerator.type] if accelerator is not None else []
    try:
        found = torch.device(device)
    except RuntimeError:
        raise UserInputError(
            f"--device {device}: is not the name of a device such as {available[0] if available else 'cpu'}."
        ) from None
    if found.type == "cpu":
        return found
    if found.type not in available:
        raise UserInputError(f"--device {device}: this machine has {' and '.join(['cpu', *available])}.")
    if (found.index or 0) >= torch.accelerator.device_count():
        raise UserInputError(f"--device {device}: this machine has {torch.accelerator.device_count()} of them.")
    return found


def check_device_map(device: Any, device_map: Any) -> None:
    """Raise [`UserInputError`] for a device map that transformers does not know, or that is given together with a
    device.
    """
    if device_map is None:
        return
    if device is not None:
        raise UserInputError("--device and --device-map: give one of them.")
    if isinstance(device_map, str) and device_map not in DEVICE_MAPS:
        raise UserInputError(f"--device-map {device_map}: choose one of {', '.join(DEVICE_MAPS)}.")


def computing_device(device: torch.device, device_map: Any = None) -> torch.device:
    """The device on which a model computes that is loaded on `device` or spread by a device map. Weights that a map
    offloads to the host or the disk are used on its accelerators, unless it names none.
    """
    places = device_map.values() if isinstance(device_map, Mapping) else [device_map]
    return torch.device("cpu") if all(str(place) in ("cpu", "disk") for place in places) else device


def default_dtype(device: torch.device) -> torch.dtype:
    """The type in which an untrained model is loaded: half precision if the device computes in it, because float32
    weights take twice the memory and training would not use them either. The head always computes in float32.
    """
    return torch.float32 if device.type == "cpu" else getattr(torch, decide_precision().dtype)


def usable_attention(name: str | None, trust_remote_code: bool) -> str | None:
    """The attention implementation that a judge was trained with, if this machine has it. With another one a judge
    gives the same numbers up to rounding, and a warning says so.

    A kernel from the hub (`org/name`) is code, and a `judge.json` may come from anywhere, so such a kernel needs
    `trust_remote_code`.
    """
    if name is None or name in ("eager", "sdpa"):
        return name
    if "/" in name:
        usable = trust_remote_code
    elif name in _FLASH:
        usable = torch.cuda.is_available() and _FLASH[name]()
    else:
        usable = name in ALL_ATTENTION_FUNCTIONS
    if not usable:
        missing = "not used without --trust-remote-code" if "/" in name else "not there on this machine"
        warnings.warn(
            f"The judge was trained with attn_implementation={name}, which is {missing}: its numbers differ by"
            " rounding.",
            stacklevel=3,
        )
    return name if usable else None


@dataclass(frozen=True)
class ReadingTypes:
    """The number types with which a trained judge is loaded.

    Args:
        autocast (`str`, *optional*): `"bfloat16"`, `"float16"` or `"none"`; `None` for none, too.
        replaced (`dict`): types of training that the device would emulate, and the types that replace them. Empty if
            the judge is loaded as it was trained.
    """

    autocast: str | None
    replaced: dict[str, Dtype]

    def dtype(self, trained: str | None) -> torch.dtype | None:
        """The type in which weights of the type `trained` are loaded; `None` if they are loaded as they were saved."""
        return getattr(torch, self.replaced[trained]) if trained in self.replaced else None

    def quantization(self, trained: dict[str, Any] | None) -> dict[str, Any] | None:
        """The `bitsandbytes` settings of training with the compute type of this machine."""
        computes = (trained or {}).get(_COMPUTES)
        return {**trained, _COMPUTES: self.replaced[computes]} if trained and computes in self.replaced else trained

    def cast(self, model: Any) -> None:
        """Cast all weights that are not quantised: torch's autocast does not mix two half-precision types, and without
        autocast a model computes in the type of its weights. This happens after quantisation, which would give other
        numbers from weights of another type.
        """
        for weight in model.parameters():
            dtype = self.dtype(str(weight.dtype).removeprefix("torch."))
            # 4-bit numbers may be stored as a floating type.
            if dtype is not None and not hasattr(weight, "quant_state"):
                weight.data = weight.data.to(dtype)


def usable_types(
    file: JudgeFile, device: torch.device, *, autocast: str | None = None, dtype: Any = None
) -> ReadingTypes:
    """The types that a judge was trained in (autocast, weights, compute type of 4-bit weights), if the device supports
    them in hardware. A type that would be emulated is replaced by the choice of `decide_precision`. The judge then
    gives the same numbers up to rounding, and a warning says so.

    Args:
        file ([`JudgeFile`]): of the judge; that of an untrained model sets no types.
        device (`torch.device`): on which it computes.
        autocast (`str`, *optional*), dtype (`torch.dtype` or `str`, *optional*): the caller's choices. A type that is
            given explicitly is kept even if it is emulated, and an explicit autocast type is the one that replaces
            others.
    """
    use_cpu = device.type == "cpu"
    decided = decide_precision(use_cpu)
    instead: Dtype = decided.dtype
    if autocast is not None:
        instead = autocast if autocast in HALF else "float32"
    explicit = {autocast, str(dtype).removeprefix("torch.")}
    weights = file.dtype if dtype is None else None
    trained = {file.autocast, weights, (file.quantization or {}).get(_COMPUTES)} - explicit
    slow = [name for name in HALF if name in trained and not is_fast(name, use_cpu)]
    replaced: dict[str, Dtype] = dict.fromkeys(slow, instead)
    if replaced and autocast is None:
        names = " and ".join(slow)
        warnings.warn(
            f"The judge was trained in {names}, and is read in {instead} here ({decided.reason}): its numbers differ"
            f" by rounding. --autocast {slow[0]} forces it.",
            stacklevel=3,
        )
    if autocast is None:
        autocast = replaced.get(file.autocast or "", file.autocast)
    return ReadingTypes(None if autocast == "float32" else autocast, replaced)


def put_on(model: Any, device: torch.device) -> None:
    """Move a model to one device.

    Raises:
        [`RunFailedError`]: it does not fit.
    """
    try:
        model.to(device)
    except RuntimeError as error:
        if memory_exhausted(error) is None:
            raise
        raise RunFailedError(f"The model does not fit into the memory of {device}. {LESS_MEMORY}.") from error


def check_adaptable(model: Any, name: str) -> None:
    """Raise [`UserInputError`] for a model with offloaded weights: PEFT cannot put an adapter on those."""
    if any(weight.is_meta for weight in model.parameters()):
        raise UserInputError(
            f"The base model {name!r} fits the GPUs only in part, and an adapter cannot be put on offloaded weights."
            " Merge them first (distjudge-trl merge), and read the merged judge."
        )


def input_device(model: Any) -> torch.device:
    """The device on which a batch has to be. If the model's first weights are offloaded, it is the device to which
    they are moved for use.
    """
    table = model.get_input_embeddings()
    device = getattr(getattr(table, "_hf_hook", None), "execution_device", None)
    return torch.device(device) if device is not None else table.weight.device


def read_in_batches(
    read: Callable[[list[int]], None], rows: Sequence[int], batch_size: int, *, progress: bool = False
) -> int:
    """Call `read` with batches of `rows`, in order. If a batch does not fit into memory, it and all later batches are
    halved. Returns the size of batches at the end.

    Raises:
        [`RunFailedError`]: not even a single row fits.
    """
    start = 0
    # Below another bar it is shown only where it takes a while, and does not stay.
    with tqdm(total=len(rows), desc="Judging", unit=" items", disable=not progress, leave=None, delay=2) as bar:
        while start < len(rows):
            batch = list(rows[start : start + batch_size])
            if _fits(read, batch):
                start += len(batch)
                bar.update(len(batch))
                continue
            if len(batch) == 1:
                raise RunFailedError(f"Not even a single prompt fits into memory beside the model. {LESS_MEMORY}.")
            batch_size = len(batch) // 2
            warnings.warn(
                f"{len(batch)} prompts in one forward pass do not fit into memory: going on with {batch_size}.",
                stacklevel=4,
            )
    return batch_size


def _fits(read: Callable[[list[int]], None], batch: list[int]) -> bool:
    try:
        read(batch)
    except RuntimeError as error:
        if memory_exhausted(error) is None:
            raise
    else:
        return True
    # Outside the `except` block the error is gone, and with it the tensors that its frames hold.
    clear_device_cache()
    return False
