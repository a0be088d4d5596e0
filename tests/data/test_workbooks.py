"""Excel workbooks, Arrow files and data sets that were saved to disk."""

import datetime
import re
import sys
import zipfile
from dataclasses import replace

import openpyxl
import pyarrow as pa
import pyarrow.feather
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

from distjudge_trl.data.reading import Reading
from distjudge_trl.data.rows import own_fields, read_rows
from distjudge_trl.data.source_files import find_files
from distjudge_trl.errors import JudgmentDataError, UserInputError


def read(path, **reading):
    files = find_files(path, ("*",))
    return [own_fields(row) for f in files for _, row in read_rows(replace(f, reading=Reading(**reading)))]


def book(path, *sheets, change=lambda workbook: None):
    workbook = openpyxl.Workbook()
    workbook.remove(workbook.active)
    for number, rows in enumerate(sheets, start=1):
        sheet = workbook.create_sheet(f"Blatt {number}")
        for row in rows:
            sheet.append(row)
    change(workbook)
    workbook.save(path)
    return path


RATINGS = [["Nr", "Antwort", "Güte"], [1, "Das Café", 2.0], [2, "Straße", 4.5]]
ROWS = [{"Nr": 1, "Antwort": "Das Café", "Güte": 2}, {"Nr": 2, "Antwort": "Straße", "Güte": 4.5}]


def test_cells_are_as_excel_shows_them(tmp_path):
    day, time = datetime.datetime(2026, 1, 2), datetime.time(3, 4)
    values = [1.0, 0.1 + 0.2, 1e300, -3, "007", "2,0", True, day, datetime.datetime.combine(day, time), time, None]
    path = book(tmp_path / "f.xlsx", [[f"c{i}" for i in range(len(values))], values])
    shown = [1, 0.3, 1e300, -3, "007", "2,0", True, "2026-01-02", "2026-01-02T03:04:00", "03:04:00", ""]
    (row,) = read(path)
    assert list(row.values()) == shown and list(map(type, row.values())) == list(map(type, shown))


@pytest.mark.parametrize("formula", ["=1+1", "=B1", '=IF(A1="x",1,"")'])
def test_formulas_that_nobody_has_computed_are_not_empty(tmp_path, formula):
    """An empty cell would be a missing vote."""
    path = book(tmp_path / "f.xlsx", [["text", "vote"], ["x", 2], ["y", formula]])
    with pytest.raises(JudgmentDataError, match="row 3: the cell B3 holds a formula without its value.* save it"):
        read(path)
    # As Excel saves them.
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(tmp_path / "g.xlsx", "w") as new:
        for name in old.namelist():
            new.writestr(name, re.sub(rb"</f><v ?/>|</f><v></v>", b"</f><v>7</v>", old.read(name)))
    assert read(tmp_path / "g.xlsx")[1]["vote"] == 7


def test_errors_in_cells_are_not_empty(tmp_path):
    """An empty cell would be a missing vote."""

    def fail(workbook):
        sheet = workbook["Blatt 2"]
        sheet["B5"], sheet["C5"], sheet["D5"] = "#N/A", "x", "#DIV/0!"
        sheet["B5"].data_type = sheet["D5"].data_type = "e"

    path = book(tmp_path / "f.xlsx", [["x"]], [[], [], [], [None, "a", "b", "c"]], change=fail)
    assert read(path, sheet="Blatt 2") == [{"a": "#N/A", "b": "x", "c": "#DIV/0!"}]


def test_empty_rows_and_columns_are_none(tmp_path):
    path = book(tmp_path / "f.xlsx", [[], [*RATINGS[0], None, " "], RATINGS[1], [], RATINGS[2], [None, ""], []], [])
    assert read(path) == ROWS
    # The numbers are those that Excel shows.
    assert [number for number, _ in read_rows(find_files(path, ())[0])] == [3, 5]


def test_a_column_without_a_name_is_numbered(tmp_path):
    path = book(tmp_path / "f.xlsx", [[None, "a", "b"], [0, 1, 2, 3]])
    assert read(path) == [{"column 1": 0, "a": 1, "b": 2, "column 4": 3}]


def test_a_sheet_is_named_where_there_are_several(tmp_path):
    path = book(tmp_path / "f.xlsx", RATINGS, [["Legende"], ["x"]])
    assert read(path, sheet="Blatt 1") == ROWS and read(path, sheet="Blatt 2") == [{"Legende": "x"}]

    def hide(workbook):
        workbook["Blatt 2"].sheet_state = "hidden"

    assert read(book(tmp_path / "hidden.xlsx", RATINGS, [["Legende"]], change=hide)) == ROWS


def merge(workbook):
    workbook["Blatt 1"].merge_cells("B1:C1")


@pytest.mark.parametrize(
    ("make", "reading", "message"),
    [
        (lambda p: book(p, RATINGS, RATINGS), {}, r"has the sheets Blatt 1, Blatt 2. Name one: write `source: {path:"),
        (lambda p: book(p, RATINGS), {"sheet": "Tabelle"}, "has no sheet 'Tabelle'; it has Blatt 1"),
        (lambda p: book(p, RATINGS, change=merge), {}, r"row 1: has merged cells \(B1:C1\).*Unmerge them in Excel"),
        (
            lambda p: p.write_bytes(b"PK\3\4 no workbook"),
            {},
            "is not a readable Excel workbook.*Save it as .xlsx again",
        ),
        (lambda p: p.write_text("a,b\n1,2\n"), {}, "is not a readable Excel workbook"),
    ],
)
def test_workbooks_that_are_refused(tmp_path, make, reading, message):
    make(tmp_path / "f.xlsx")
    with pytest.raises(UserInputError, match=message) as caught:
        read(tmp_path / "f.xlsx", **reading)
    assert "f.xlsx" in str(caught.value) and "\n" not in str(caught.value)


def test_without_the_library_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "python_calamine", None)
    with pytest.raises(UserInputError, match=r"is an Excel workbook.*pip install 'distjudge-trl\[excel\]'"):
        read(book(tmp_path / "f.xlsx", RATINGS))


NESTED = [{"id": "a", "votes": [{"who": "x", "labels": ["1", "2"]}]}, {"id": "b", "votes": []}]


def test_arrow_files(tmp_path):
    table = pa.Table.from_pylist(NESTED)
    pa.feather.write_feather(table, tmp_path / "f.feather")
    with pa.ipc.new_stream(tmp_path / "f.arrow", table.schema) as writer:
        writer.write_table(table)
    assert read(tmp_path / "f.feather") == read(tmp_path / "f.arrow") == NESTED
    (tmp_path / "f.arrow").write_bytes((tmp_path / "f.arrow").read_bytes()[:100])
    with pytest.raises(UserInputError, match="f.arrow, row 1: is not a readable Arrow file.*damaged or incomplete"):
        read(tmp_path / "f.arrow")


def test_saved_data_sets(tmp_path):
    features = Features({"id": Value("string"), "label": ClassLabel(names=["no", "yes"])})
    dataset = Dataset.from_dict({"id": ["a", "b", "c"], "label": [1, 0, -1]}, features=features)
    dataset.save_to_disk(tmp_path / "one", num_shards=2)
    rows = [{"id": "a", "label": "yes"}, {"id": "b", "label": "no"}, {"id": "c", "label": None}]
    assert read(tmp_path / "one") == rows
    DatasetDict(train=dataset, test=dataset).save_to_disk(tmp_path / "two")
    with pytest.raises(
        UserInputError, match="is a saved data set with the splits test, train. Name the folder of one"
    ):
        read(tmp_path / "two")
    assert read(tmp_path / "two" / "train") == rows
    (tmp_path / "one" / "data-00001-of-00002.arrow").unlink()
    with pytest.raises(UserInputError, match="lacks data-00001-of-00002.arrow of the saved data set"):
        read(tmp_path / "one")
