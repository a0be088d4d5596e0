"""scripts/study_tables.py: the pages show what the results say."""

import sys

import pytest
from conftest import ROOT
from PIL import Image

from distjudge_trl.errors import UserInputError
from distjudge_trl.report.cells import Table
from distjudge_trl.report.plots import Line, Panel, Plot
from distjudge_trl.study import read_plan


TABLES = {
    "gains-plain": Table(
        "gains-plain", "Gains", ["data", "KL"], [["first", "-0.010"], ["second", "+0.002"]], ["less is *"]
    ),
    "data-first": Table("data-first", "First", ["method", "KL"], [["raw", "1.234"]]),
}
PAGE = """# A page

<!-- from docs/results: gains-plain -->
<!-- end -->

Words.

<!-- from docs/results: data-first -->

old

<!-- end -->

<!-- from docs/quickstart.json -->
other
<!-- end -->
"""


@pytest.fixture(scope="module")
def script(scripts):
    return scripts("study_tables")


@pytest.fixture()
def page(tmp_path):
    path = tmp_path / "page.md"
    path.write_text(PAGE, encoding="utf-8")
    return path


@pytest.mark.skipif(not (ROOT / "docs/results").is_dir(), reason="an sdist has no docs/results")
def test_the_pages_show_what_the_results_say(script, monkeypatch):
    """`python scripts/study_tables.py --write` draws them again."""
    monkeypatch.setattr(sys, "argv", ["study_tables.py", "--check"])
    script.main()


def test_blocks_are_drawn_and_the_rest_stays(script, page):
    assert script.write_pages(TABLES, [page]) == [page]
    text = page.read_text(encoding="utf-8")
    gains = "\n| data   | KL     |\n|--------|--------|\n| first  | -0.010 |\n| second | +0.002 |\n\n- less is *\n\n"
    assert f"<!-- from docs/results: gains-plain -->\n{gains}<!-- end -->\n\nWords.\n" in text
    assert "| raw    | 1.234 |" in text and "old" not in text and "##" not in text
    assert text.endswith("<!-- from docs/quickstart.json -->\nother\n<!-- end -->\n")
    assert script.write_pages(TABLES, [page]) == [] and list(script.find_differences(page, TABLES)) == []


def test_a_changed_number_is_found(script, page, tmp_path, monkeypatch, capsys):
    script.write_pages(TABLES, [page])
    page.write_text(page.read_text(encoding="utf-8").replace("+0.002", "-0.002"), encoding="utf-8")
    monkeypatch.setattr(script, "PAGES", (page,))
    monkeypatch.setattr(script, "read_study", lambda *_, **__: ["a result"])
    monkeypatch.setattr(script, "RESULTS", tmp_path)
    monkeypatch.setattr(script, "LINEAR", tmp_path)
    monkeypatch.setattr(script, "all_tables", lambda *_: TABLES)
    monkeypatch.setattr(sys, "argv", ["study_tables.py", "--check"])
    with pytest.raises(SystemExit) as ended:
        script.main()
    assert ended.value.code == 1
    first, second = capsys.readouterr().err.splitlines()
    assert first == f"{page}: gains-plain: the page has '| second | -0.002 |', the results say '| second | +0.002 |'"
    assert second == "error: 1 difference. Draw again: python scripts/study_tables.py --write"


def test_wrong_blocks_change_no_page(script, page, tmp_path):
    other = tmp_path / "other.md"
    for block, match in (
        ("<!-- from docs/results: gains-plan -->\n<!-- end -->\n", "no table 'gains-plan'. Did you mean gains-plain"),
        ("<!-- from docs/results: data-first -->\n\n" + PAGE, "the block of 'data-first' does not end"),
    ):
        other.write_text(block, encoding="utf-8")
        with pytest.raises(UserInputError, match=f"{other}: .*{match}"):
            script.write_pages(TABLES, [page, other])
        assert page.read_text(encoding="utf-8") == PAGE


def test_names_are_listed(script, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(script, "read_study", lambda *_, **__: ["a result"])
    monkeypatch.setattr(script, "RESULTS", tmp_path)
    monkeypatch.setattr(script, "LINEAR", tmp_path)
    monkeypatch.setattr(script, "all_tables", lambda *_: TABLES)
    monkeypatch.setattr(sys, "argv", ["study_tables.py", "--list"])
    script.main()
    assert capsys.readouterr().out == "gains-plain: Gains\ndata-first: First\n"


def plot_of(x):
    line = Line("a line", [x], [0.0], 0, [x - 0.01], [x + 0.01])
    return Plot("gains", "Gains", "", "x", "", [Panel("data", [line], reference=0.0, ticks=["one"])], "dots")


def test_plots_are_drawn_again_if_their_figures_change(script, tmp_path):
    path = tmp_path / "study-gains.png"
    assert script.write_plots({path: plot_of(-0.1)}) == [path]
    with Image.open(path) as image:
        image.verify()
    assert script.write_plots({path: plot_of(-0.10001)}) == []  # another machine's last digits
    assert script.outdated({path: plot_of(-0.2)}) == [path]


def test_a_page_may_show_plots_that_there_are(script, tmp_path, monkeypatch):
    page = tmp_path / "page.md"
    page.write_text("![gains](assets/study-gains.png)", encoding="utf-8")
    monkeypatch.setattr(script, "study_plots", lambda *_: [plot_of(0.1)])
    assert [path.name for path in script.find_plots([page], read_plan(script.PLAN), [])] == ["study-gains.png"]
    page.write_text("![gain](docs/assets/study-gain.png)", encoding="utf-8")
    with pytest.raises(UserInputError, match=f"{page}: there is no plot 'gain'. Plots: gains"):
        script.find_plots([page], read_plan(script.PLAN), [])
