"""Items inside the objects of a file, titles above the header of a table, and the extra lines of Qualtrics."""

import json
from collections import Counter
from dataclasses import replace

import pytest

from distjudge_trl.cli.judge import judge
from distjudge_trl.data.reading import Reading
from distjudge_trl.data.rows import own_fields, read_rows
from distjudge_trl.data.source_files import find_files
from distjudge_trl.errors import UserInputError
from distjudge_trl.judges.inputs import InputFile


def rows_of(path, notes=None, **reading):
    (file,) = find_files(path, ("*",))
    return [
        (number, own_fields(row))
        for number, row in read_rows(
            replace(file, reading=Reading(**reading)), notes=notes if notes is not None else Counter()
        )
    ]


ITEMS = [{"id": i, "text": f"t{i}"} for i in (1, 2)]


@pytest.mark.parametrize(
    ("content", "path", "around"),
    [
        ({"version": "1.1", "data": ITEMS}, "data", {"version": "1.1"}),
        (
            {"features": [], "rows": [{"row_idx": i, "row": item} for i, item in enumerate(ITEMS)]},
            "rows[].row",
            {"features": []},
        ),
        ({"a": {"items": [ITEMS[:1], ITEMS[1:]]}, "n": 2}, "a.items[]", {"n": 2}),
    ],
)
def test_items_in_an_object(tmp_path, content, path, around):
    file = tmp_path / "c.json"
    file.write_text(json.dumps(content))
    assert rows_of(file, items=path) == [(number, around | item) for number, item in enumerate(ITEMS, start=1)]


def test_items_in_each_line(tmp_path):
    file = tmp_path / "c.jsonl"
    lines = [{"talk": k, "text": "of the talk", "turns": [{"text": f"{k}{n}"} for n in "ab"[:k]]} for k in (1, 2)]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert rows_of(file, items="turns") == [
        (1, {"talk": 1, "text": "1a"}),
        (2, {"talk": 2, "text": "2a"}),
        (3, {"talk": 2, "text": "2b"}),
    ]


@pytest.mark.parametrize(
    ("content", "path", "match"),
    [
        (
            {"data": ITEMS, "n": 1},
            "n",
            r"row 1, field `n`: `items` must name a list of items, got '1'. Lists of items here: data",
        ),
        ({"data": [1, 2], "n": 1}, "data", r"field `data`: the 1. entry is no object but '1'"),
        ({"data": ITEMS, "n": 1}, "dat", r"field `dat`: is missing. The row has: data, n"),
    ],
)
def test_what_are_no_items(tmp_path, content, path, match):
    file = tmp_path / "c.json"
    file.write_text(json.dumps(content))
    with pytest.raises(UserInputError, match=match):
        rows_of(file, items=path)


@pytest.mark.parametrize(
    "title", ["Ratings of May;;\n\n", "Ratings of May\n", '"Ratings; of ""May"""\nby three people\n']
)
def test_a_title_above_the_header(tmp_path, title):
    file = tmp_path / "r.csv"
    file.write_text(f"{title}nr;text;anna\n1;x;2\n2;y;3\n")
    row = title.count("\n") + 1
    with pytest.raises(UserInputError, match=rf"row 1: has one cell.*write `source: {{path: r.csv, header: {row}}}`"):
        rows_of(file)
    expected = [(row + 1, {"nr": "1", "text": "x", "anna": "2"}), (row + 2, {"nr": "2", "text": "y", "anna": "3"})]
    assert rows_of(file, header=row) == expected


@pytest.mark.parametrize("content", ["text\nhello\nbye\n", "text,,\nhello,1,2\n", ",text\n1,hello\n2,bye\n"])
def test_what_is_no_title(tmp_path, content):
    file = tmp_path / "r.csv"
    file.write_text(content)
    assert "hello" in rows_of(file)[0][1].values()


def test_a_merged_title_in_a_workbook(tmp_path):
    openpyxl = pytest.importorskip("openpyxl")
    pytest.importorskip("python_calamine")
    book = openpyxl.Workbook()
    for cells in (["Ratings of May"], [], ["nr", "text", "anna"], [1, "x", 2]):
        book.active.append(cells)
    book.active.merge_cells("A1:C1")
    book.save(tmp_path / "r.xlsx")
    assert rows_of(tmp_path / "r.xlsx", header=3) == [(4, {"nr": 1, "text": "x", "anna": 2})]
    book.active.merge_cells("A4:B4")
    book.save(tmp_path / "r.xlsx")
    with pytest.raises(UserInputError, match="row 4: has merged cells"):
        rows_of(tmp_path / "r.xlsx", header=3)


def test_lines_of_qualtrics(tmp_path):
    file = tmp_path / "q.csv"
    file.write_text(
        'ResponseId,reply,Q1_1\nResponse ID,"What, then?",Rating - Anna\n'
        '"{""ImportId"":""_recordId""}","{""ImportId"":""QID1""}","{""ImportId"":""QID2""}"\nR_1,Hello,4\n'
    )
    notes = Counter()
    assert rows_of(file, notes) == [(4, {"ResponseId": "R_1", "reply": "Hello", "Q1_1": "4"})]
    assert notes["lines of Qualtrics between header and data left out"] == 2


def test_exports_that_are_no_tables_of_items(tmp_path):
    file = tmp_path / "anna.tsv"
    file.write_text("#FORMAT=WebAnno TSV 3.3\n\n#Text=Hello.\n1-1\t0-5\tHello\tKind\n")
    with pytest.raises(UserInputError, match="is an export of INCEpTION or WebAnno"):
        rows_of(file)
    file = tmp_path / "p.json"
    file.write_text(json.dumps({"columns": ["a"], "index": [0], "data": [["x"]]}))
    with pytest.raises(UserInputError, match=r"is a table in parts.*orient=.records"):
        rows_of(file)


def test_the_input_of_a_judge_is_read_alike(tmp_path):
    """`distjudge-trl judge` has the keys as options, and an error names these."""
    (tmp_path / "c.json").write_text(json.dumps({"data": ITEMS, "n": 1}))
    reading = Reading(items="data", by_options=True)
    assert [row.content["text"] for row in InputFile(tmp_path / "c.json", reading).rows()] == ["t1", "t2"]
    (tmp_path / "r.csv").write_text("Replies of May\nnr,text,by\n1,hello,x\n")
    with pytest.raises(UserInputError, match="pass --header 2"):
        list(InputFile(tmp_path / "r.csv", Reading(by_options=True)).rows())
    options = {name for option in judge.params for name in option.opts}
    assert {"--header", "--items"} <= options
