"""4-bit weights under ZeRO-3, which casts what it shards: they must be the numbers of one plain process, whatever the
type that the other weights are loaded in.
"""

import pytest
import yaml
from conftest import ROOT
from tiny_runs import EIGHT, LORA, accelerate


FOUR_BIT = (*LORA, "--load_in_4bit", "--use_bnb_nested_quant", "--bf16", "True", "--max_steps", "1")


def first_step(result):
    return {name: result["steps"][0][name] for name in ("loss", "label_mass", "grad_norm")}


@pytest.fixture(scope="module")
def zero3(tmp_path_factory):
    """One process under ZeRO-3 on the CPU."""
    content = yaml.safe_load((ROOT / "accelerate_configs/zero3_cpu.yaml").read_text())
    path = tmp_path_factory.mktemp("config") / "zero3_one.yaml"
    path.write_text(yaml.safe_dump(content | {"num_processes": 1}))
    return accelerate(path)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_sharding_keeps_4_bit_numbers_whatever_the_dtype(tiny_runs, zero3, dtype):
    pytest.importorskip("bitsandbytes")
    pytest.importorskip("deepspeed")
    import sys

    # A plain process cannot mix float16 with bfloat16; the numbers are the same.
    plain = "float32" if dtype == "float32" else "bfloat16"
    name = f"plain-{plain}"
    done = tiny_runs.folder / f"{name}.json"
    if not done.exists():
        tiny_runs.run(name, [sys.executable], *EIGHT, *FOUR_BIT, "--dtype", plain)
    expected = first_step(tiny_runs.finish(name)[0])
    result, _ = tiny_runs.run(f"zero3-{dtype}", zero3, *EIGHT, *FOUR_BIT, "--dtype", dtype)
    assert result["zero_stage"] == 3
    assert first_step(result) == pytest.approx(expected, rel=3e-3)
