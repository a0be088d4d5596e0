"""scripts/study_tables.py: the pages show what the results say."""

import sys

import pytest
from conftest import ROOT

from distjudge_trl.errors import UserInputError
from distjudge_trl.report.cells import Table


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


def test_a_changed_number_is_found(script, page, monkeypatch, capsys):
    script.write_pages(TABLES, [page])
    page.write_text(page.read_text(encoding="utf-8").replace("+0.002", "-0.002"), encoding="utf-8")
    monkeypatch.setattr(script, "PAGES", (page,))
    monkeypatch.setattr(script, "draw_tables", lambda names: TABLES)
    monkeypatch.setattr(sys, "argv", ["study_tables.py", "--check"])
    with pytest.raises(SystemExit) as ended:
        script.main()
    assert ended.value.code == 1
    first, second = capsys.readouterr().err.splitlines()
    assert first == f"{page}: gains-plain: the page has '| second | -0.002 |', the results say '| second | +0.002 |'"
    assert second == "error: 1 block to draw again: python scripts/study_tables.py --write"


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


def test_names_are_listed(script, monkeypatch, capsys):
    monkeypatch.setattr(script, "draw_tables", lambda names: TABLES)
    monkeypatch.setattr(sys, "argv", ["study_tables.py", "--list"])
    script.main()
    assert capsys.readouterr().out == "gains-plain: Gains\ndata-first: First\n"
