"""The type to compute in, for each kind of hardware: only what torch says of the hardware is exchanged."""

import json
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from conftest import LABELS, make_records, make_tiny_model
from peft import LoraConfig, get_peft_model

from distjudge_trl import Judge
from distjudge_trl.cli import main
from distjudge_trl.judge_folder.judge_file import JudgeFile
from distjudge_trl.judges.placement import ReadingTypes, computing_device, usable_types
from distjudge_trl.labels import LabelSpace
from distjudge_trl.recipe.defaults import derived_defaults
from distjudge_trl.runtime.precision import Precision, decide_precision, is_fast, resolve_precision, runs_on_cpu
from distjudge_trl.trainer import DistributionSFTConfig


GPU, CPU = torch.device("cuda"), torch.device("cpu")
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
    accelerator = torch.device("mps") if kind == "mps" else GPU if kind in GPUS else None
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: kind == "AMX")
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: kind == "AVX512-BF16")
    monkeypatch.setattr(torch.accelerator, "is_available", lambda *_, **__: kind in GPUS or kind == "mps")
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda *_, **__: accelerator)
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


@pytest.mark.parametrize("kind", DECIDED)
def test_nothing_is_decided_that_would_be_emulated(monkeypatch, kind):
    pretend(monkeypatch, kind)
    for use_cpu in (False, True):
        assert is_fast(decide_precision(use_cpu).dtype, use_cpu) and is_fast("float32", use_cpu)
        assert decide_precision(use_cpu).bf16 == is_fast("bfloat16", use_cpu)


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
    monkeypatch.setattr(
        "distjudge_trl.runtime.precision.decide_precision", lambda use_cpu: Precision("float16", "a T4")
    )
    assert DistributionSFTConfig(str(tmp_path)).fp16 and not DistributionSFTConfig(str(tmp_path), bf16=False).fp16


# Judges: what they are read in where they were trained in bfloat16, and in float16.
READ = {
    "AMX": ("bfloat16", "bfloat16"),
    "AVX512-BF16": ("bfloat16", "bfloat16"),
    "AVX2": ("float32", "float32"),
    "A100": ("bfloat16", "float16"),
    "H100": ("bfloat16", "float16"),
    "T4": ("float16", "float16"),
    "V100": ("float16", "float16"),
    "P100": ("float32", "float32"),
    "mps": ("float32", "float32"),
}


def judge_file(dtype, **kwargs):
    """Of a QLoRA run in one type throughout."""
    bits = {"load_in_4bit": True, "bnb_4bit_compute_dtype": dtype}
    return JudgeFile(LabelSpace(LABELS).to_dict(), autocast=dtype, dtype=dtype, quantization=bits, **kwargs)


@pytest.mark.parametrize("trained", ["bfloat16", "float16"])
@pytest.mark.parametrize("kind", READ)
def test_a_judge_is_read_in_what_it_was_trained_in_unless_that_is_emulated(monkeypatch, kind, trained):
    pretend(monkeypatch, kind)
    device = torch.device("mps") if kind == "mps" else GPU if kind in GPUS else CPU
    read = dict(zip(("bfloat16", "float16"), READ[kind], strict=True))[trained]
    file = judge_file(trained)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        types = usable_types(file, device)
    assert types.autocast == (None if read == "float32" else read)
    assert types.dtype(trained) == (None if read == trained else getattr(torch, read))
    assert types.quantization(file.quantization) == judge_file(read).quantization
    if read == trained:
        assert not told
    else:
        (message,) = [str(warning.message) for warning in told]
        assert message == (
            f"The judge was trained in {trained}, and is read in {read} here ({decide_precision().reason}): its"
            f" numbers differ by rounding. --autocast {trained} forces it."
        )
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        for asked in ({"autocast": trained}, {"dtype": trained}, {"dtype": getattr(torch, trained)}):
            assert usable_types(file, device, **asked) == ReadingTypes(trained, {})
        plain = usable_types(file, device, autocast="none")
        assert plain.autocast == "none" and set(plain.replaced.values()) <= {"float32"}
        assert usable_types(judge_file("float32"), device).replaced == {}
        assert usable_types(JudgeFile({}), device).autocast is None


@pytest.mark.parametrize(
    ("device_map", "expected"),
    [
        (None, GPU),
        ("auto", GPU),
        ({"": 0}, GPU),
        ({"model": "cuda:1", "lm_head": "cpu"}, GPU),
        ({"model": "cpu", "lm_head": "disk"}, CPU),
        ({"": CPU}, CPU),
    ],
)
def test_a_map_of_devices_says_where_a_judge_computes(device_map, expected):
    assert computing_device(GPU, device_map) == expected
    assert computing_device(CPU, device_map) == CPU


@pytest.fixture(scope="module")
def lora(tokenizer, tmp_path_factory):
    """A LoRA judge on a base model in bfloat16, trained under autocast."""
    folder = tmp_path_factory.mktemp("lora")
    base, judge = folder / "base", folder / "judge"
    model = make_tiny_model(len(tokenizer), hidden_size=64)
    model.to(torch.bfloat16).save_pretrained(base)
    torch.manual_seed(0)
    config = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    get_peft_model(model, config).save_pretrained(judge)
    tokenizer.save_pretrained(judge)
    template = [{"role": "user", "content": "rate {{ text }}"}]
    JudgeFile(
        LabelSpace(LABELS).to_dict(), template, base_model=str(base), autocast="bfloat16", dtype="bfloat16"
    ).write(judge)
    return judge


def test_a_judge_from_elsewhere_computes_in_float32_on_a_cpu_without_bfloat16(monkeypatch, lora, tmp_path):
    pretend(monkeypatch, "AVX2")
    with pytest.warns(UserWarning, match="was trained in bfloat16, and is read in float32 here .the CPU has no instr"):
        judge = Judge.from_pretrained(str(lora))
    told = {"device": "cpu", "dtype": "float32", "autocast": "none", "attn_implementation": "sdpa"}
    assert judge.reading() == told and not judge._autocast_context(CPU)._enabled
    assert {weight.dtype for weight in judge.model.parameters()} == {torch.float32}
    assert judge.judge_file.autocast == "bfloat16", "how it was trained"
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        forced = Judge.from_pretrained(str(lora), autocast="bfloat16")
        plain = Judge.from_pretrained(str(lora), autocast="none")
    assert forced.reading() == {**told, "autocast": "bfloat16", "dtype": "bfloat16"}
    records = make_records(8)
    np.testing.assert_allclose(judge.judge(records), forced.judge(records), atol=0.05)
    np.testing.assert_array_equal(judge.judge(records), plain.judge(records))
    assert not np.array_equal(judge.judge(records), forced.judge(records))


def test_the_command_says_so_and_takes_an_autocast(monkeypatch, lora, tmp_path):
    pretend(monkeypatch, "AVX2")
    (tmp_path / "in.jsonl").write_text('{"text": "yes"}\n')
    command = ["judge", "--model", str(lora), "--input", str(tmp_path / "in.jsonl"), "--out"]
    outputs = []
    for options, warned in (((), True), (("--autocast", "none"), False), (("--autocast", "bfloat16"), False)):
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            done = CliRunner().invoke(main, [*command, str(tmp_path / "out.jsonl"), *options])
        assert done.exit_code == 0, done.output
        assert any("--autocast bfloat16 forces it" in str(warning.message) for warning in told) == warned
        outputs.append(json.loads((tmp_path / "out.jsonl").read_text())["label_distribution"])
    assert outputs[0] == outputs[1] != outputs[2]


def test_a_full_judge_in_half_precision_is_read_in_float32_too(monkeypatch, tmp_path, tokenizer):
    pretend(monkeypatch, "AVX2")
    make_tiny_model(len(tokenizer)).to(torch.float16).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    JudgeFile(LabelSpace(LABELS).to_dict(), dtype="float16").write(tmp_path)
    with pytest.warns(UserWarning, match="was trained in float16, and is read in float32"):
        assert Judge.from_pretrained(str(tmp_path)).model.dtype == torch.float32


def write_qlora(lora, folder, **quantization):
    """The judge of `lora`, trained on 4-bit weights that computed in bfloat16."""
    pytest.importorskip("bitsandbytes")
    file = judge_file("bfloat16", base_model=str(lora.parent / "base"))
    file.quantization |= {"bnb_4bit_quant_type": "nf4", **quantization}
    for path in lora.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    file.write(folder)


@pytest.mark.parametrize("storage", ["uint8", "bfloat16"])
def test_4_bit_weights_follow(monkeypatch, lora, tmp_path, storage):
    """With the numbers of training, which were made from weights in bfloat16."""
    write_qlora(lora, tmp_path, bnb_4bit_quant_storage=storage)
    records, numbers, judged = make_records(8), [], []
    for kind, dtype in (("AVX512-BF16", "bfloat16"), ("AVX2", "float32")):
        pretend(monkeypatch, kind)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            judge = Judge.from_pretrained(str(tmp_path))
        assert any("was trained in bfloat16" in str(warning.message) for warning in told) == (kind == "AVX2")
        assert judge.reading() == {
            "device": "cpu",
            "dtype": dtype,
            "autocast": "none" if dtype == "float32" else dtype,
            "attn_implementation": "sdpa",
            "bnb_4bit_compute_dtype": dtype,
        }
        weights = list(judge.model.parameters())
        quantised = [weight for weight in weights if hasattr(weight, "quant_state")]
        numbers.append(b"".join(weight.data.view(torch.uint8).numpy().tobytes() for weight in quantised))
        kinds = {weight.dtype for weight in weights if not hasattr(weight, "quant_state")}
        assert kinds == {getattr(torch, dtype)}
        computes = {module.compute_dtype for module in judge.model.modules() if hasattr(module, "compute_dtype")}
        assert computes == {getattr(torch, dtype)}
        judged.append(judge.judge(records))
    assert numbers[0] == numbers[1] and len(numbers[0])
    np.testing.assert_allclose(judged[0], judged[1], atol=0.05)


def test_no_two_half_precision_types_meet_where_float16_takes_the_place_of_bfloat16(monkeypatch, lora, tmp_path):
    """As on a T4, with the CPU in its place."""
    write_qlora(lora, tmp_path)
    expected = Judge.from_pretrained(str(tmp_path), autocast="bfloat16").judge(make_records(4))
    t4 = Precision("float16", "as a T4")
    monkeypatch.setattr("distjudge_trl.judges.placement.decide_precision", lambda use_cpu: t4)
    monkeypatch.setattr("distjudge_trl.judges.placement.is_fast", lambda dtype, use_cpu: dtype == "float16")
    with pytest.warns(UserWarning, match="was trained in bfloat16, and is read in float16 here"):
        judge = Judge.from_pretrained(str(tmp_path))
    assert judge.reading()["autocast"] == judge.reading()["dtype"] == "float16"
    np.testing.assert_allclose(judge.judge(make_records(4)), expected, atol=0.05)


@pytest.mark.parametrize("where", [{"device": "cpu"}, {"device_map": {"": "cpu"}}])
def test_the_cpu_beside_a_gpu_reads_in_its_own_type(monkeypatch, lora, where):
    """The GPU has bfloat16, the CPU has not."""
    pretend(monkeypatch, "AVX2")
    monkeypatch.setattr("distjudge_trl.judges.local.find_device", lambda device: torch.device(device or "cuda"))
    monkeypatch.setattr("distjudge_trl.judges.placement.is_fast", lambda dtype, use_cpu: not use_cpu)
    with pytest.warns(UserWarning, match="is read in float32 here"):
        reading = Judge.from_pretrained(str(lora), **where).reading()
    assert (reading["autocast"], reading["dtype"]) == ("none", "float32")
