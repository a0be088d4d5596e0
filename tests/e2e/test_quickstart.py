"""The quickstart as `make quickstart` runs it, on fewer words; its recipes are warm processes."""

import subprocess
import sys

from conftest import ROOT

from distjudge_trl.evaluation import read_results


def test_quickstart_trains_compares_and_draws(tmp_path, bundled_model, warm_python):
    command = [str(ROOT / "scripts/quickstart.py"), "--output-dir", str(tmp_path / "out")]
    command += ["--max-train-samples", "96", "--max-eval-samples", "60"]
    done = subprocess.run([warm_python, *command], check=False, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    kl = {
        name: read_results(tmp_path / "out" / name)["metrics"]["kl"]
        for name in ("raw", "single-point", "distribution")
    }
    assert kl["distribution"]["high"] < kl["raw"]["low"] and kl["single-point"]["high"] < kl["raw"]["low"]
    for expected in ("| raw ", "| single-point ", "| distribution ", "| noise floor ", "What to try next"):
        assert expected in done.stdout
    assert (tmp_path / "out" / "disagreement.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert (tmp_path / "out" / "table.md").read_text().strip() in done.stdout
    again = subprocess.run([sys.executable, *command], check=False, capture_output=True, text=True, timeout=300)
    assert again.stdout.count("done before") == 3 and again.returncode == 0
