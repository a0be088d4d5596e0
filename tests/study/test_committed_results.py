"""docs/results and docs/linear: small, without texts of data sets and without paths of the machines that made them."""

import pyarrow.parquet as pq
import pytest
from conftest import ROOT

from distjudge_trl.evaluation import read_predictions
from distjudge_trl.study import read_plan, read_study


RESULTS, LINEAR = ROOT / "docs/results", ROOT / "docs/linear"
pytestmark = pytest.mark.skipif(not RESULTS.is_dir(), reason="an sdist has no docs/results")


def test_they_are_small():
    files = [path for path in RESULTS.rglob("*") if path.is_file() and ".locks" not in path.parts]
    assert sum(path.stat().st_size for path in [*files, *LINEAR.rglob("*.*")]) < 20e6
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


def test_linear_judges_hold_no_texts_and_paths():
    files = [*LINEAR.rglob("*.json")]
    assert files
    for path in files:
        text = path.read_text(encoding="utf-8")
        assert '"/' not in text and " /" not in text, path
    for path in LINEAR.rglob("*.parquet"):
        assert max(len(name) for name in pq.read_table(path)["id"].to_pylist()) < 80, f"{path}: an id is a text"
