"""Quote marks in delimited text enclose cells or belong to the texts. No row is lost without a word."""

import csv
import io
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_tables import read, write

from distjudge_trl.errors import JudgmentDataError


HEADER = ["id", "text", "score"]


def as_tsv(texts, delimiter="\t"):
    """Rows as a program writes them that knows no quoting."""
    rows = [HEADER, *([str(i), text, "1"] for i, text in enumerate(texts))]
    return "".join(delimiter.join(row) + "\n" for row in rows)


def as_csv(texts, **form):
    """Rows as the csv module writes them."""
    file = io.StringIO(newline="")
    csv.writer(file, **form).writerows([HEADER, *([i, text, 1] for i, text in enumerate(texts))])
    return file.getvalue()


@pytest.mark.parametrize(
    "texts",
    [
        ["one", '"He said', "two", 'and left"', "three"],  # standard quoting would make three rows of one
        ["one", '"Open', "two"],
        ["one", '"A," he said, "B"', '"Whole."', "two"],
    ],
)
def test_tab_separated_text_without_quoting_keeps_its_quote_marks(tmp_path, texts):
    notes = Counter()
    rows = read(write(tmp_path, "f.tsv", as_tsv(texts)), notes)
    assert [row["text"] for row in rows] == texts
    assert notes["lines in which a quote mark was read as part of a text"] >= 1
    # In a table of one file the same text gives the same rows with any ending.
    assert read(write(tmp_path, "f.txt", as_tsv(texts))) == rows


def test_quoted_tab_separated_text(tmp_path):
    texts = ["one", "a\tb", 'He said "no"', "two\nlines", '"all"']
    notes = Counter()
    rows = read(write(tmp_path, "f.tsv", as_csv(texts, delimiter="\t")), notes)
    assert [row["text"] for row in rows] == texts and notes == {"cells that span lines": 1}


def test_cells_that_span_lines_are_counted(tmp_path):
    notes = Counter()
    texts = ["one", "Dear Anna,\nthanks, bye,\nyours, Ben", "a,b", "x\ry", "three\r\nlines\r\n"]
    rows = read(write(tmp_path, "f.csv", as_csv(texts)), notes)
    assert [row["text"] for row in rows] == texts and notes == {"cells that span lines": 2}


@pytest.mark.parametrize(
    ("name", "content", "row", "problem"),
    [
        # Seven rows, or one that holds five of them.
        ("f.csv", as_tsv(["one", '"He said', "two", "three", 'and left"', "four"], ","), 3, "goes on to line 6 if"),
        # A row with too many cells would vanish in a cell of several lines.
        ("f.tsv", as_tsv(["one", '"He said', "too\tmany", 'left"', "four"]), 3, "goes on to line 5 if"),
        ("f.tsv", as_tsv(["one", '"so ""it"" is"', '"He said', "x"]), 4, "begins a cell with a quote mark that the"),
        # One text of two lines, or two texts.
        ("f.txt", 'text\none\n"He said\nand left"\n', 3, "goes on to line 4 if"),
        ("f.csv", as_tsv(["one", '"He said', "two"], ","), 3, "is no valid CSV"),
        ("f.csv", as_tsv(["one", '"No," he said', "two"], ","), 3, "is no valid CSV"),
    ],
)
def test_what_can_be_understood_in_two_ways_is_refused(tmp_path, name, content, row, problem):
    path = write(tmp_path, name, content)
    with pytest.raises(JudgmentDataError, match=problem) as caught:
        read(path, written="f.x")
    assert caught.value.row == row
    assert "If quote marks are part of the texts, write `source: {path: f.x, quoting: none}`" in caught.value.fix


def test_quoting_can_be_named(tmp_path):
    path = write(tmp_path, "f.csv", as_tsv(["one", '"He said', "two", "three", 'and left"', "four"], ","))
    assert [row["text"] for row in read(path, quoting="none")][1] == '"He said'
    assert len(read(path, quoting="none")) == 6
    assert len(read(path, quoting="standard")) == 3


TEXTS = st.lists(st.text('ab",\n ', max_size=8), min_size=1, max_size=6)


@settings(max_examples=300, deadline=None)
@given(TEXTS, st.sampled_from([",", "\t", ";"]), st.booleans())
def test_standard_quoting_is_read_or_refused(tmp_path_factory, texts, delimiter, everything):
    """Never misread: what the csv module has written is what is read, whatever the texts."""
    form = {"delimiter": delimiter, "quoting": csv.QUOTE_ALL if everything else csv.QUOTE_MINIMAL}
    path = write(tmp_path_factory.getbasetemp(), "random.csv", as_csv(texts, **form))
    assert [row["text"] for row in read(path, delimiter=delimiter, quoting="standard")] == texts
    try:
        assert [row["text"] for row in read(path, delimiter=delimiter)] == texts
    except JudgmentDataError as error:
        assert "quoting: none" in str(error) and not everything


@settings(max_examples=300, deadline=None)
@given(st.lists(st.text('ab", ', max_size=8), min_size=1, max_size=6))
def test_no_quoting_is_read_or_refused(tmp_path_factory, texts):
    path = write(tmp_path_factory.getbasetemp(), "random.tsv", as_tsv(texts))
    assert [row["text"] for row in read(path, quoting="none")] == texts
    try:
        rows = read(path)
    except JudgmentDataError as error:
        assert "quoting: none" in str(error)
    else:
        # If every quote mark could enclose a cell, the outer ones are taken off. No row is lost.
        assert [row["text"].replace('"', "") for row in rows] == [text.replace('"', "") for text in texts]
