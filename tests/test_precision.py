"""The type to compute in, for each kind of hardware: only what torch says of the hardware is exchanged."""

from types import SimpleNamespace

import pytest
import torch

from distjudge_trl.precision import Precision, decide_precision, resolve_precision, runs_on_cpu
from distjudge_trl.recipe_options import derived_defaults
from distjudge_trl.trainer import DistributionSFTConfig


# Name and compute capability of NVIDIA GPUs.
GPUS = {"A100": (8, 0), "H100": (9, 0), "T4": (7, 5), "V100": (7, 0), "P100": (6, 0)}
# What is decided: the autocast, and the weights of full fine-tuning, under LoRA and under 4-bit.
DECIDED = {
    "AMX": ("bfloat16", "float32", "bfloat16", "bfloat16"),
    "AVX512-BF16": ("bfloat16", "float32", "bfloat16", "bfloat16"),
    "AVX2": ("float32", "float32", "float32", "float32"),
    "A100": ("bfloat16", "float32", "bfloat16", "bfloat16"),
    "H100": ("bfloat16", "float32", "bfloat16", "bfloat16"),
    "T4": ("float16", "float32", "float16", "float16"),
    "V100": ("float16", "float32", "float16", "float16"),
    "P100": ("float32", "float32", "float32", "float32"),
    "mps": ("float32", "float32", "float32", "float32"),
}


def pretend(monkeypatch, kind):
    """Make torch speak of another machine. Every NVIDIA GPU can do bfloat16 when emulation counts."""
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: kind == "AMX")
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: kind == "AVX512-BF16")
    monkeypatch.setattr(torch.accelerator, "is_available", lambda *_, **__: kind in GPUS or kind == "mps")
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda *_, **__: torch.device("mps"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: kind in GPUS)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "_check_bf16_tensor_supported", lambda device: True)
    major, minor = GPUS.get(kind, (0, 0))
    properties = SimpleNamespace(name=kind, major=major, minor=minor)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda *_: properties)


@pytest.mark.parametrize("kind", DECIDED)
def test_the_type_that_each_kind_of_hardware_computes_in(monkeypatch, kind):
    pretend(monkeypatch, kind)
    autocast, full, lora, four_bit = DECIDED[kind]
    decided = decide_precision()
    assert decided.dtype == autocast and decided.reason
    assert (decided.bf16, decided.fp16) == (autocast == "bfloat16", autocast == "float16")
    adapter, bits = {"use_peft": True}, {"use_peft": True, "load_in_4bit": True}
    for given, dtype in (({}, full), (adapter, lora), (bits, four_bit)):
        defaults = derived_defaults(given, {}, "t")
        assert (defaults["dtype"], defaults["bf16"], defaults["fp16"]) == (dtype, decided.bf16, decided.fp16)


def test_a_cpu_that_computes_beside_a_gpu_decides(monkeypatch):
    pretend(monkeypatch, "H100")
    assert not runs_on_cpu() and decide_precision().dtype == "bfloat16"
    assert decide_precision(use_cpu=True).dtype == "float32"
    assert derived_defaults({"use_cpu": True}, {}, "t")["bf16"] is False
    monkeypatch.setenv("ACCELERATE_USE_CPU", "True")
    assert runs_on_cpu() and derived_defaults({}, {}, "t")["bf16"] is False


@pytest.mark.parametrize(
    ("bf16", "fp16", "on_h100", "on_t4"),
    [
        (None, None, "bfloat16", "float16"),
        (True, None, "bfloat16", "bfloat16"),
        (None, True, "float16", "float16"),
        (False, None, "float32", "float32"),
        (None, False, "bfloat16", "float32"),
        (False, True, "float16", "float16"),
    ],
)
def test_options_are_stronger_than_the_hardware(monkeypatch, bf16, fp16, on_h100, on_t4):
    for kind, dtype in (("H100", on_h100), ("T4", on_t4)):
        pretend(monkeypatch, kind)
        assert resolve_precision(bf16, fp16).dtype == dtype


@pytest.mark.parametrize(("kind", "bf16"), [("AVX512-BF16", True), ("AVX2", False)])
def test_a_config_of_one_s_own_asks_the_hardware_too(monkeypatch, tmp_path, kind, bf16):
    pretend(monkeypatch, kind)
    args = DistributionSFTConfig(str(tmp_path))
    assert (args.bf16, args.fp16) == (bf16, False)
    assert DistributionSFTConfig(str(tmp_path), bf16=not bf16).bf16 is not bf16
    with pytest.raises(ValueError, match="At most one of fp16 and bf16"):
        DistributionSFTConfig(str(tmp_path), bf16=True, fp16=True)
    monkeypatch.setattr("distjudge_trl.precision.decide_precision", lambda use_cpu: Precision("float16", "a T4"))
    assert DistributionSFTConfig(str(tmp_path)).fp16 and not DistributionSFTConfig(str(tmp_path), bf16=False).fp16
