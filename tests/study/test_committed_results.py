"""docs/results: small, without texts of data sets and without paths of the machines that made it."""

import pytest
from conftest import ROOT

from distjudge_trl.evaluation import read_predictions
from distjudge_trl.study import read_plan, read_study


RESULTS = ROOT / "docs/results"
pytestmark = pytest.mark.skipif(not RESULTS.is_dir(), reason="an sdist has no docs/results")


def test_they_are_small():
    files = [path for path in RESULTS.rglob("*") if path.is_file() and ".locks" not in path.parts]
    assert sum(path.stat().st_size for path in files) < 20e6
    assert all(path.parent.parent.parent == RESULTS or path.name == "training_items.json" for path in files)


def test_all_are_those_of_the_plan():
    of_the_plan = read_study(RESULTS, plan=read_plan(ROOT / "recipes/studies/paper.yaml"))
    left_out = {result.path for result in read_study(RESULTS)} - {result.path for result in of_the_plan}
    assert not left_out, "no table shows these"


def test_a_page_shows_every_data_set():
    shown, curves = ((ROOT / f"docs/{name}.md").read_text(encoding="utf-8") for name in ("study-tables", "paper"))
    varied = set()
    for result in read_study(RESULTS):
        if "transfer" in result.about:
            continue
        if result.about["vary"]:
            varied.add(result.about["data"])
        else:
            assert f"<!-- from docs/results: data-{result.about['data']} -->" in shown
    assert varied and all(f"<!-- from docs/results: curve-{data}-" in curves for data in varied)


def test_they_hold_no_texts_and_paths():
    for result in read_study(RESULTS):
        assert '"/' not in (result.path / "results.json").read_text(encoding="utf-8"), result.path
        rows = read_predictions(result.path)
        assert not any(rows["prompt"][:]), result.path
        assert not any(" " in group for group in rows["group"][:]), f"{result.path}: a group is a text"
