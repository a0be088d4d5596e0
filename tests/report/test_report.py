"""Tables and figures."""

import numpy as np
import pytest
from conftest import small_files

from distjudge_trl.errors import RunFailedError
from distjudge_trl.report import build, plot_distributions, results_table
from distjudge_trl.report.plots import Panel, Plot
from distjudge_trl.report.plots_png import save_png


def run(method, kl, **interval):
    return {
        "method": method,
        "metrics": {
            "kl": {"value": kl, "low": kl - 0.05, "high": kl + 0.05, **interval},
            "accuracy": {"value": 0.471, "low": 0.44, "high": 0.5},
            "noise_floor": 0.226,
            "excess_kl": {"value": kl - 0.226, "low": kl - 0.3, "high": kl - 0.2},
            "label_mass": 0.6,
        },
    }


def test_table_is_aligned_markdown_with_the_floor_last():
    lines = results_table([run("single-point", 0.63), run("distribution", 0.53)]).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert lines[0].startswith("| method ") and set(lines[1]) == {"|", "-"}
    assert "0.630 [0.580, 0.680] | 0.404" in lines[2] and "47.1 % [44.0, 50.0]" in lines[3]
    assert lines[-1].startswith("| noise floor") and "0.226" in lines[-1]


def test_an_interval_that_does_not_exist_is_said_so():
    assert "no interval" in results_table([run("raw", 1.0, low=None, high=None)])


def test_picture_is_a_png_and_takes_any_text(tmp_path):
    pytest.importorskip("matplotlib")
    human = np.array([[0.2, 0.8], [0.5, 0.5], [1.0, 0.0]])
    path = tmp_path / "sub" / "figure.png"
    plot_distributions(path, ["$:", "<b>", "\\frac{x"], human, {"judge": human[:, ::-1]}, ["1", "2"], "title")
    assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n" and path.stat().st_size > 5000


def test_a_full_disk_is_told(tmp_path):
    plot = Plot("p", "A title", "A caption", "x", "y", [Panel("A panel", [])])
    for write in (
        lambda path: build._write_text(path, "a" * 5000),
        lambda path: build._write_csv(path, ["a"], [["b" * 5000]]),
        lambda path: save_png(plot, path),
    ):
        with small_files(100), pytest.raises(RunFailedError, match=r"a.out: cannot be written \(.*File too large"):
            write(tmp_path / "a.out")
    assert not list(tmp_path.iterdir())
