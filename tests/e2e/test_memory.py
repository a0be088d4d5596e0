"""What `distjudge-trl plan` estimates against the peak memory of real training processes."""

import importlib.util

import pytest
from conftest import ROOT


pytestmark = pytest.mark.e2e


@pytest.mark.parametrize("case", ["LoRA", "QLoRA", "full, ZeRO-2", "full, ZeRO-3"])
def test_a_plan_is_within_a_fifth_of_the_measured_peak(case):
    spec = importlib.util.spec_from_file_location("memory", ROOT / "scripts/benchmarks/memory.py")
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    measured = benchmark.measure(*benchmark.CASES[case])["peak"]
    planned = benchmark.plan(*benchmark.CASES[case]).peak
    print(f"{case}: measured {measured / 2**30:.2f} GiB, planned {planned / 2**30:.2f} GiB")
    assert planned == pytest.approx(measured, rel=0.2)
