"""Reading what people have: every format, and every way in which a file is broken, named by file and row."""

import gzip
import io
import itertools
import json
import struct
import tarfile
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distjudge_trl.data.rows import MAX_FIELD_LENGTH, own_fields, read_rows
from distjudge_trl.data.source_files import find_files
from distjudge_trl.errors import JudgmentDataError, UserInputError


ROWS = [{"id": "a", "text": "eins"}, {"id": "b", "text": 'zwei, "drei"'}]
JSONL = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
CSV = b'id,text\na,eins\nb,"zwei, ""drei"""\n'


def rows_of(path, patterns=("*",)):
    return [own_fields(row) for file in find_files(path, patterns) for _, row in read_rows(file)]


def write_parquet(path):
    pq.write_table(pa.Table.from_pylist(ROWS), path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("f.jsonl", JSONL),
        ("f.jsonl.gz", gzip.compress(JSONL, mtime=0)),
        ("f.jsonl", b"\xef\xbb\xbf" + JSONL + b"\n"),
        ("f.json", json.dumps(ROWS, indent=1).encode()),
        ("f.json.gz", gzip.compress(json.dumps(ROWS).encode(), mtime=0)),
        ("f.json", JSONL),
        ("f.csv", CSV),
        ("f.csv", b"\xef\xbb\xbf" + CSV.replace(b"\n", b"\r\n")),
        ("f.csv.gz", gzip.compress(CSV, mtime=0)),
        ("f.csv", CSV.replace(b"id,text", b"id;text").replace(b"a,eins\nb,", b"a;eins\nb;")),
        ("f.tsv", b'id\ttext\na\teins\nb\t"zwei, ""drei"""\n'),
    ],
)
def test_every_format_gives_the_same_rows(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    assert rows_of(tmp_path / name) == ROWS


def test_parquet(tmp_path):
    write_parquet(tmp_path / "f.parquet")
    assert rows_of(tmp_path / "f.parquet") == ROWS
    (tmp_path / "f.parquet.gz").write_bytes(gzip.compress((tmp_path / "f.parquet").read_bytes()))
    assert rows_of(tmp_path / "f.parquet.gz") == ROWS


def test_folders_and_archives_are_searched_by_pattern(tmp_path):
    folder = tmp_path / "folder"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "Data_1.jsonl").write_bytes(JSONL)
    (folder / "other.jsonl").write_bytes(b"not read")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(folder / "deep" / "Data_1.jsonl", "top/Data_1.jsonl")
        archive.writestr("__MACOSX/top/Data_1.jsonl", "rubbish")
        archive.writestr("top/other.jsonl", "rubbish")
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as archive:
        archive.add(folder, "top")
    for path in (folder, tmp_path / "a.zip", tmp_path / "a.tar.gz"):
        assert rows_of(path, ["data_*.jsonl"]) == ROWS


def test_a_compressed_file_in_an_archive(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("data.csv.gz", gzip.compress(CSV))
    assert rows_of(tmp_path / "a.zip", ["data.csv"]) == ROWS


def test_row_numbers_are_lines(tmp_path):
    (tmp_path / "f.csv").write_bytes(b'id,text\na,"two\nlines"\n\nb,x\n')
    assert [number for number, _ in read_rows(find_files(tmp_path / "f.csv", ())[0])] == [2, 5]
    (tmp_path / "f.jsonl").write_bytes(b'{"a": 1}\n\n{"a": 2}\n')
    assert [number for number, _ in read_rows(find_files(tmp_path / "f.jsonl", ())[0])] == [1, 3]


@pytest.mark.parametrize(
    ("name", "content", "row", "problem"),
    [
        ("cut.jsonl.gz", gzip.compress(JSONL * 5000, mtime=0)[:-200], None, "ends early or is damaged"),
        ("no.jsonl.gz", b"this is no gzip", 1, "damaged"),
        ("cut.jsonl", JSONL[:-9], 2, "not valid JSON.*seems cut off"),
        ("list.jsonl", b"[1, 2]\n", 1, "a JSON list, not an object"),
        ("cut.json", b'[{"id": "a"}, {"id"', 2, "not valid JSON.*seems cut off"),
        ("number.json", b"[1]", 1, "not an object"),
        ("latin.jsonl", '{"a": "caf\u00e9"}\n'.encode("latin-1"), 1, "not UTF-8 .byte 0xe9"),
        ("latin.csv", "id,text\na,caf\u00e9\n".encode("latin-1"), 2, "not UTF-8"),
        ("ragged.csv", b"id,text\na,b,c\n", 2, "has 3 cells, the header has 2"),
        ("short.csv", b"id,text\na,b\nc\n", 3, "has 1 cells, the header has 2"),
        ("open.csv", b'id,text\na,"never closed\nb,c\n', 2, "not valid CSV"),
        ("twice.jsonl", b'{"id": 1}\n{"id": 1, "votes": {"a": 1, "a": 2}}\n', 2, "occurs twice"),
        ("twice.json", b'[{"id": 1, "id": 2}]', 1, "occurs twice"),
        ("not.parquet", b"PAR1 and rubbish", 1, "not a readable Parquet"),
        ("long.jsonl", json.dumps({"text": "x" * 10_000_000}).encode(), 1, "holds 10,000,000 characters"),
        ("long.csv", b"id,text\na," + b"x" * 10_000_000 + b"\n", 2, "holds 10,000,000 characters"),
    ],
)
def test_broken_files_are_named_by_file_and_row(tmp_path, name, content, row, problem):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(JudgmentDataError, match=problem) as caught:
        rows_of(tmp_path / name)
    assert caught.value.source == str(tmp_path / name)
    assert caught.value.fix
    if row is not None:
        assert caught.value.row == row


def test_a_truncated_gzip_says_how_far_it_got(tmp_path):
    (tmp_path / "f.jsonl.gz").write_bytes(gzip.compress(JSONL * 5000, mtime=0)[:-200])
    with pytest.raises(JudgmentDataError) as caught:
        rows_of(tmp_path / "f.jsonl.gz")
    assert 1000 < caught.value.row <= 10_001


def test_a_field_may_be_a_million_characters_long(tmp_path):
    (tmp_path / "f.jsonl").write_text(json.dumps({"text": "x" * MAX_FIELD_LENGTH}))
    assert len(rows_of(tmp_path / "f.jsonl")[0]["text"]) == MAX_FIELD_LENGTH


@pytest.mark.parametrize("name", ["../climbs.jsonl", "/etc/absolute.jsonl", "a/../../b.jsonl", "..\\windows.jsonl"])
def test_archives_that_climb_out_are_refused(tmp_path, name):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("fine.jsonl", JSONL)
        archive.writestr(name, JSONL)
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        info = tarfile.TarInfo(name)
        info.size = len(JSONL)
        archive.addfile(info, io.BytesIO(JSONL))
    for path in (tmp_path / "a.zip", tmp_path / "a.tar"):
        with pytest.raises(UserInputError, match="leads out of the archive"):
            find_files(path, ["*.jsonl"])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.tar", "a.zip"]


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda folder: folder / "nothing.jsonl", "no such file or folder"),
        (lambda folder: folder, "holds no file of rows named like want.*it holds other.jsonl"),
        (lambda folder: folder / "text.docx", "none of the known formats"),
        (lambda folder: folder / "cut.zip", "damaged or incomplete archive"),
        (lambda folder: folder / "cut.tar.gz", "damaged or incomplete archive"),
    ],
)
def test_paths_that_give_no_rows(tmp_path, make, match):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "other.jsonl").write_bytes(JSONL)
    for name in ("text.docx", "cut.zip", "cut.tar.gz"):
        (tmp_path / "sub" / name).write_bytes(b"PK\x03\x04 but not whole")
    with pytest.raises(UserInputError, match=match):
        if make(tmp_path) == tmp_path:
            (tmp_path / "only").mkdir()
            (tmp_path / "only" / "other.jsonl").write_bytes(JSONL)
            find_files(tmp_path / "only", ["want*.jsonl"])
        find_files(make(tmp_path / "sub"), ["want*.jsonl"])


def test_hidden_folders_and_copies(tmp_path):
    (tmp_path / ".ipynb_checkpoints").mkdir()
    (tmp_path / ".ipynb_checkpoints" / "f-checkpoint.jsonl").write_bytes(JSONL)
    (tmp_path / "f.jsonl").write_bytes(JSONL)
    assert rows_of(tmp_path) == ROWS
    (tmp_path / "f.jsonl.gz").write_bytes(gzip.compress(JSONL))
    with pytest.raises(UserInputError, match="is there without compression, too"):
        rows_of(tmp_path)


def test_a_member_that_stands_twice_in_an_archive(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for content in (b'{"old": 1}\n', JSONL):
            info = tarfile.TarInfo("f.jsonl")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    with pytest.raises(UserInputError, match="holds the member 'f.jsonl' twice"):
        rows_of(tmp_path / "a.tar")


def test_an_archive_in_a_folder_is_found(tmp_path):
    with zipfile.ZipFile(tmp_path / "official_1.0.zip", "w") as archive:
        archive.writestr("official_1.0/official_1.0_test.jsonl", JSONL)
        archive.writestr("official_1.0/README.txt", "text")
    assert rows_of(tmp_path, ["official_1.0_*"]) == ROWS
    # A file beside it, in whatever format, comes first.
    (tmp_path / "official_1.0_dev.csv").write_bytes(CSV)
    assert len(find_files(tmp_path, ["official_1.0_*"])) == 1


def test_an_encrypted_archive(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("f.jsonl", JSONL)
    content = bytearray((tmp_path / "a.zip").read_bytes())
    content[6] |= 1  # the flag of an encrypted member, in its header and in the directory
    content[content.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(UserInputError, match="is encrypted.*Unpack the archive yourself"):
        rows_of(tmp_path / "a.zip")


@pytest.mark.parametrize("row", [b'{"a": "hi \\ud83d"}', b'{"a": [{"b": "\\udc00"}]}', b'{"a": {"\\ud800": 1}}'])
def test_half_a_character_is_named(tmp_path, row):
    (tmp_path / "f.jsonl").write_bytes(b'{"a": 1}\n' + row)
    with pytest.raises(JudgmentDataError, match="half a character") as caught:
        rows_of(tmp_path / "f.jsonl")
    assert (caught.value.row, caught.value.field) == (2, "a")


def test_length_is_checked_deep_inside(tmp_path):
    (tmp_path / "f.jsonl").write_text(json.dumps({"turns": [{"content": "x" * 2_000_000}]}))
    with pytest.raises(JudgmentDataError, match="holds 2,000,000 characters") as caught:
        rows_of(tmp_path / "f.jsonl")
    assert caught.value.field == "turns"


def test_columns_without_a_name_are_numbered(tmp_path):
    (tmp_path / "f.csv").write_text("id,,\na,b,c\n")
    assert rows_of(tmp_path / "f.csv") == [{"id": "a", "column 2": "b", "column 3": "c"}]


def test_a_file_that_vanishes(tmp_path):
    (tmp_path / "f.jsonl").write_bytes(JSONL)
    (file,) = find_files(tmp_path / "f.jsonl", ())
    (tmp_path / "f.jsonl").unlink()
    with pytest.raises(UserInputError, match="cannot be read .No such file"):
        list(read_rows(file))


def _twice():
    kind = pa.map_(pa.string(), pa.int64())
    return pa.array([[("a", 1)]] * 2 + [[("a", 1), ("b", 1), ("a", 2)]], kind)


def _texts(*values):
    ends = [0, *itertools.accumulate(map(len, values))]
    buffers = [None, pa.py_buffer(struct.pack(f"<{len(ends)}i", *ends)), pa.py_buffer(b"".join(values))]
    return pa.Array.from_buffers(pa.string(), len(values), buffers)


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        (_twice(), "holds a map with the key 'a' twice. Keep one of them"),
        (pa.array([[], [], _twice()[2:].to_pylist()], pa.list_(_twice().type)), "holds a map with the key 'a' twice"),
        (pa.array([1, 2, 10**9], pa.date32()), "holds a value that cannot be read .days=.* Correct it, or write the"),
        (pa.array([[], [], [([1], 1)]], pa.map_(pa.list_(pa.int64()), pa.int64())), "cannot be read .unhashable"),
        (_texts(b"a", b"b", b"\xff"), "cannot be read .'utf-8' codec can't decode"),
    ],
)
def test_a_value_that_parquet_holds_and_rows_do_not(tmp_path, values, problem):
    """The file is whole; one cell is not, and it is named."""
    pq.write_table(pa.table({"id": ["a", "b", "c"], "v": values}), tmp_path / "f.parquet")
    with pytest.raises(JudgmentDataError, match=problem) as caught:
        rows_of(tmp_path / "f.parquet")
    assert (caught.value.row, caught.value.field) == (3, "v") and "damaged" not in str(caught.value)


def test_columns_of_one_name_in_a_parquet_file(tmp_path):
    """As in a table: which of them a task means cannot be known."""
    pq.write_table(pa.table([["x"], ["y"], ["z"]], names=["text", "text", "v"]), tmp_path / "f.parquet")
    assert rows_of(tmp_path / "f.parquet") == [{"text (1)": "x", "text (2)": "y", "v": "z"}]


def test_a_damaged_parquet_page_is_one_line(tmp_path):
    pq.write_table(pa.table({"text": ["x" * 50] * 9}), tmp_path / "f.parquet")
    content = (tmp_path / "f.parquet").read_bytes()
    (tmp_path / "f.parquet").write_bytes(content[:4] + b"\xff" * 30 + content[34:])
    with pytest.raises(UserInputError, match="f.parquet") as caught:
        rows_of(tmp_path / "f.parquet")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "fix"),
    [
        (b"a,b\n1,2\n", "It is not compressed: take .gz off its name"),
        (gzip.compress(b"a,b\n1,2\n") + b"rest", "The file is incomplete: fetch or copy it again"),
        (gzip.compress(gzip.compress(b"a,b\n1,2\n")), "is compressed with gzip twice. Unpack it once"),
    ],
    ids=["plain", "trailing", "twice"],  # gzip writes the time into its header
)
def test_what_is_wrong_with_a_gzip_file(tmp_path, content, fix):
    (tmp_path / "f.csv.gz").write_bytes(content)
    with pytest.raises(UserInputError, match=fix):
        rows_of(tmp_path / "f.csv.gz")


def test_a_broken_value_in_a_later_batch(tmp_path):
    values = pa.array([[("a", 1)]] * 2999 + [[("a", 1), ("a", 2)]], pa.map_(pa.string(), pa.int64()))
    pq.write_table(pa.table({"v": values}), tmp_path / "f.parquet")
    with pytest.raises(JudgmentDataError, match="row 3000, field `v`: holds a map"):
        rows_of(tmp_path / "f.parquet")
