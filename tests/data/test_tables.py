"""Delimited text as spreadsheets and programs write it: encodings, line ends, delimiters, empty cells, names."""

import codecs
from collections import Counter
from dataclasses import replace

import pytest

from distjudge_trl.data.columns import missing_column
from distjudge_trl.data.reading import Reading
from distjudge_trl.data.rows import own_fields, read_rows
from distjudge_trl.data.source_files import find_files
from distjudge_trl.errors import UserInputError, listing


TABLE = 'Nr;Antwort;Güte\r\n1;"Das Café schließt; später mehr";2\r\n2;Straße;5\r\n'
ROWS = [
    {"Nr": "1", "Antwort": "Das Café schließt; später mehr", "Güte": "2"},
    {"Nr": "2", "Antwort": "Straße", "Güte": "5"},
]


def read(path, notes=None, **reading):
    (file,) = find_files(path, ("*",))
    return [own_fields(row) for _, row in read_rows(replace(file, reading=Reading(**reading)), notes=notes)]


def write(folder, name, content):
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("bom.csv", codecs.BOM_UTF8 + TABLE.encode()),
        ("utf16.csv", TABLE.encode("utf-16")),
        ("utf16le.txt", TABLE.replace(";", "\t").replace("\t später", "; später").encode("utf-16-le")),
        ("utf16be.tsv", TABLE.replace(";", "\t").replace("\t später", "; später").encode("utf-16-be")),
        ("utf16be_bom.csv", codecs.BOM_UTF16_BE + TABLE.encode("utf-16-be")),
        ("sep.csv", "sep=;\r\n" + TABLE),
        ("sep_bom.csv", codecs.BOM_UTF8 + b'"sep=;"\r\n' + TABLE.encode()),
        ("returns.csv", TABLE.replace("\r\n", "\r")),
        ("returns16.csv", TABLE.replace("\r\n", "\r").encode("utf-16")),
        ("trailing_rows.csv", TABLE + ";;\r\n;;\r\n\r\n"),
        ("leading_rows.csv", "\r\n;;\r\n" + TABLE),
        ("trailing_column.csv", TABLE.replace("\r\n", ";\r\n")),
        ("trailing_cells.csv", TABLE.replace("2\r\n", "2;;\r\n")),
        ("zero_width.csv", TABLE.replace("Nr", "\u200bNr\ufeff").replace("Güte", " Güte\u200d ")),
        ("nfd.csv", TABLE.replace("Güte", "Gu\u0308te")),
    ],
)
def test_what_a_spreadsheet_writes(tmp_path, name, content):
    assert read(write(tmp_path, name, content)) == ROWS


def test_an_encoding_that_is_named(tmp_path):
    path = write(tmp_path, "a.csv", TABLE.encode("cp1252"))
    assert read(path, encoding="cp1252") == read(path, encoding="latin-1") == ROWS
    # A byte order mark is certain, whatever is named.
    assert read(write(tmp_path, "b.csv", TABLE.encode("utf-16")), encoding="cp1252") == ROWS
    for name in ("utf-16", "utf-8"):  # bytes of value 0 are in no text of UTF-8
        assert read(write(tmp_path, "c.csv", TABLE.encode("utf-16-le")), encoding=name) == ROWS


@pytest.mark.parametrize(
    ("text", "delimiter"),
    [
        ("a;b;c\n1;2,0;3,5\n2;1,0;4,5\n", ";"),
        ("a;Antwort, kurz, lang, egal;c\n1;2,0;3,5\n2;1,0;4,5\n", ";"),
        ("a|b\nx, y, z|2\n", "|"),
        ("a\tb;c\n1\t2\n", "\t"),
        ('"a, b";c\n"1, 2";3\n', ";"),
        ("a,b\n1;2;3,4\n", ","),
    ],
)
def test_the_delimiter_is_seen_from_the_rows(tmp_path, text, delimiter):
    (row, *_) = read(write(tmp_path, "f.csv", text))
    assert row == read(tmp_path / "f.csv", delimiter=delimiter)[0]
    assert len(row) == text.split("\n")[-2].count(delimiter) + 1


def test_txt_files_are_tables_only_where_they_are_named(tmp_path):
    write(tmp_path, "README.txt", "text")
    write(tmp_path, "ratings.txt", "a\tb\n1\t2\n")
    write(tmp_path, "ratings.csv", "a,b\n1,2\n")
    assert [file.base_name for file in find_files(tmp_path, ["*"])] == ["ratings.csv"]
    assert [file.base_name for file in find_files(tmp_path, ["ratings*.txt"])] == ["ratings.txt"]
    assert read(tmp_path / "ratings.txt") == read(tmp_path / "ratings.csv")


def test_empty_rows_between_others_are_counted(tmp_path):
    notes = Counter()
    path = write(tmp_path, "f.csv", "a,b\n1,2\n,\n\n , \n3,4\n,\n")
    assert read(path, notes) == [{"a": "1", "b": "2"}, {"a": "3", "b": "4"}]
    assert notes == {"empty rows left out": 2}


def test_columns_with_one_name(tmp_path):
    path = write(tmp_path, "f.csv", "id,text,vote,vote,vote (1)\n1,x,A,B,C\n")
    (row,) = read(path)
    assert row == {"id": "1", "text": "x", "vote (2)": "A", "vote (3)": "B", "vote (1)": "C"}
    assert missing_column("vote", row) == (
        "3 columns of the file have this name: write vote (2), vote (3) or vote (1)."
    )
    assert missing_column("votes", {f"c{i}": 1 for i in range(20)}).endswith("c6, c7, ... and 12 more.")


def test_every_row_knows_its_file(tmp_path):
    path = write(tmp_path, "anna.v2.csv", "a\n1\n")
    assert [row for _, row in read_rows(find_files(path, ())[0])] == [{"a": "1", "_file": "anna.v2"}]
    path = write(tmp_path, "own.csv", "a,_file\n1,x\n")
    rows = [row for _, row in read_rows(find_files(path, ())[0])]
    assert rows == [{"a": "1", "_file": "x"}] == [own_fields(row) for row in rows]


@pytest.mark.parametrize(
    ("name", "content", "reading", "message"),
    [
        (
            "a.csv",
            TABLE.encode("cp1252"),
            {"written": "in/a.csv"},
            r"row 1: is not UTF-8 \(byte 0xfc at position 13\), and looks like cp1252. Write `source: {path: in/a.csv,"
            + " encoding: cp1252}` in the task file, or save",
        ),
        ("a.csv", TABLE.encode("cp1252"), {"by_options": True}, "Pass --encoding cp1252, or save the file as UTF-8"),
        ("a.csv", "id,text\n1,Привет как дела\n".encode("cp1251"), {}, "row 2.* looks like cp1251"),
        ("a.csv", TABLE.encode() + b"3;caf\xe9;1\n", {}, r"row 4: is not UTF-8 \(byte 0xe9.*\)\. Save the file"),
        ("a.csv", "id,text\n1,ä\n".encode("cp1252"), {}, "looks like cp1252"),
        ("a.csv", "id,text\n1,ä\n2,ö".encode()[:-1], {}, "row 3: .* the file is cut off. Export it again"),
        ("a.csv", TABLE.encode(), {"encoding": "cp1252"}, "is UTF-8 throughout.*Take `encoding: cp1252` out"),
        ("a.csv", b"id,text\n1,\x81\n", {"encoding": "cp1252"}, r"row 2: is not cp1252 \(byte 0x81 at position 3\)"),
        ("a.csv", TABLE.encode("utf-16")[:-1], {}, "is not UTF-16-LE.*cut off or damaged"),
        ("a.csv", b"\0\1\2\0\0\3" * 20, {}, "holds bytes of value 0, so it is no text"),
        ("a.csv", b"a,b\n1,x\0y\n", {}, "holds bytes of value 0, so it is no text"),
        ("a.csv.gz", b"a,b\n1,2\n", {}, "It is not compressed: take .gz off its name"),
        ("a.csv", b"PK\3\4 rest", {}, "is a zip archive or an Excel workbook. Give it the ending .xlsx or .zip"),
        ("a.csv", b"\xd0\xcf\x11\xe0 rest", {}, r"is an old Excel workbook \(.xls\). Save it as .xlsx or as CSV"),
        ("a.tsv", b"\x1f\x8b rest", {}, "is compressed with gzip. Add .gz to its name"),
        ("a.json", b"PAR1 rest", {}, "is a Parquet file. Give it the ending .parquet"),
        ("a.csv", b"\n<!DOCTYPE html><html>", {}, "is a page of HTML or XML. Download"),
        ("a.jsonl", b"version https://git-lfs.github.com/spec/v1\n", {}, "pointer of Git LFS.*Run `git lfs pull`"),
        ("a.csv", "a,b\n1,2,3\n", {}, "row 2: has 3 cells, the header has 2. Quote cells that hold the delimiter ','"),
        ("a.csv", "a,b\n1,x,y\n", {"quoting": "none"}, "row 2: has 3 cells.*Without quoting, no cell may hold"),
        ("a.csv", "Gu\u0308te,G\u00fcte,b\n1,2\n", {}, "row 2: has 2 cells"),
        ("a.jsonl", '{"Gu\u0308te": 1, "G\u00fcte": 2}\n', {}, "field `Güte`: occurs twice, in two spellings"),
        ("a.xls", b"x", {}, "is an old Excel workbook. Save it as .xlsx or as CSV"),
        ("a.ods", b"x", {}, "is a LibreOffice workbook. Save it as .xlsx or as CSV"),
        ("a.pkl", b"x", {}, "may run code when it is read. Save its rows"),
    ],
)
def test_files_that_are_not_what_they_seem(tmp_path, name, content, reading, message):
    path = write(tmp_path, name, content)
    with pytest.raises(UserInputError, match=message) as caught:
        read(path, **reading)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_lists_of_names_are_short():
    assert listing([]) == "" and listing(["a"], "or") == "a" and listing("ab", "or") == "a or b"
    assert listing(range(9)) == "0, 1, 2, 3, 4, 5, 6, 7, ... and 1 more"
    assert len(listing(["x" * 1000])) == 80
