"""A sweep in a report: Figure 3 and importances from its trials, and no validation score among the test scores."""

import json

import numpy as np
import pytest
from report.made_runs import make_sweep

from distjudge_trl.errors import UserInputError
from distjudge_trl.report.build import build_report
from distjudge_trl.report.sweeps import importance_plot, load_sweeps, sweep_tables


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    out = tmp_path_factory.mktemp("swept") / "snli"
    make_sweep(out)
    return out


def test_a_sweep_s_report_has_figure_3_importances_and_its_own_table(swept, tmp_path):
    lines = list(build_report([swept], tmp_path))
    assert "7 runs on 2 test sets: snli, snli (validation items)." in lines[0]
    names = {path.stem for path in (tmp_path / "figures").iterdir()}
    assert {"figure3", "importance"} <= names
    for name in ("figure3", "importance"):
        assert (tmp_path / "figures" / f"{name}.png").read_bytes()[:4] == b"\x89PNG"
    table = (tmp_path / "tables" / "sweep_snli.md").read_text()
    rows = [line for line in table.splitlines() if line.startswith(("| 1 ", "| 6 "))]
    assert "0.8" in rows[0] and rows[1].split("|")[2].strip() == "0.0"
    assert "6 configurations (6 done), 1 seed each." in table and "its test score does not" in table
    page = (tmp_path / "index.html").read_text()
    assert "Which parameters mattered" in page and "Sweep snli" in page


def test_validation_scores_are_not_among_test_scores(swept, tmp_path):
    list(build_report([swept], tmp_path))
    for path in (tmp_path / "tables").glob("*.md"):
        if path.stem != "sweep_snli":
            assert "validation" not in path.read_text(), path
    # Nothing is lost: every run is in the table of all runs, told apart.
    text = (tmp_path / "all_runs.csv").read_text()
    assert text.count("snli (validation items),snli") >= 6


def test_importances_find_the_parameter_that_mattered(swept):
    (sweep,) = load_sweeps([swept])
    plot = importance_plot([sweep])
    shares = dict(zip(plot.panels[0].ticks, plot.panels[0].lines[0].x, strict=True))
    assert shares["alpha"] > 0.8
    assert np.isclose(sum(shares.values()), 1.0)
    assert importance_plot([sweep._replace(trials=sweep.trials[:2])]).panels == []
    equal = [{**trial, "value": 0.5} for trial in sweep.trials]
    assert importance_plot([sweep._replace(trials=equal)]).panels == []
    assert sweep_tables([sweep._replace(trials=[])]) == []


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda content: "{", "is damaged (JSONDecodeError"),
        (lambda content: json.dumps({**content, "format_version": 9}), "has format version 9, 1 is read"),
        (lambda content: json.dumps({**content, "trials": [{}]}), "is damaged (KeyError"),
        (lambda content: json.dumps([]), "is damaged (TypeError"),
    ],
)
def test_a_damaged_file_is_named(swept, tmp_path, damage, words):
    content = json.loads((swept / "trials.json").read_text())
    path = tmp_path / "trials.json"
    path.write_text(damage(content))
    with pytest.raises(UserInputError) as error:
        load_sweeps([tmp_path])
    assert words in str(error.value) and str(path) in str(error.value)
