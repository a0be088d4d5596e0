"""JSON files: lists, an object of objects, one object, values after each other; as a stream, with errors by row."""

import json
import tracemalloc

import pytest

from distjudge_trl.data import json_rows
from distjudge_trl.data.rows import own_fields, read_rows
from distjudge_trl.data.source_files import find_files
from distjudge_trl.errors import JudgmentDataError


ITEMS = {"a1": {"text": "eins", "votes": {"Ann1": "3"}}, "a2": {"text": "zwei", "votes": {"Ann2": "-1"}}}


def read(path):
    (file,) = find_files(path, ())
    return [row for _, row in read_rows(file)]


@pytest.fixture(params=[1 << 18, 7, 1])
def pieces(request, monkeypatch):
    """A file is read in pieces: of any size, the rows are the same."""
    monkeypatch.setattr("distjudge_trl.data.encodings._CHUNK", request.param)


@pytest.mark.parametrize("indent", [None, 2])
def test_an_object_of_objects_has_a_row_for_each(tmp_path, pieces, indent):
    (tmp_path / "dev.json").write_text(json.dumps(ITEMS, indent=indent))
    rows = read(tmp_path / "dev.json")
    assert rows == [{**item, "_key": key, "_file": "dev"} for key, item in ITEMS.items()]
    assert list(map(own_fields, rows)) == list(ITEMS.values())


def test_an_object_of_objects_that_have_a_key_of_that_name(tmp_path):
    (tmp_path / "f.json").write_text(json.dumps({"x": {"_key": 1}, "y": {"a": 2}}))
    assert list(map(own_fields, read(tmp_path / "f.json"))) == [{"_key": 1}, {"a": 2}]


def test_an_object_of_very_many_objects(tmp_path, pieces):
    items = {f"k{i}": {"n": i} for i in range(json_rows._MOST_COLUMNS + 50)}
    (tmp_path / "f.json").write_text(json.dumps(items))
    assert [(row["_key"], row["n"]) for row in read(tmp_path / "f.json")] == [(f"k{i}", i) for i in range(len(items))]


@pytest.mark.parametrize(
    ("content", "rows"),
    [
        ('{"id": 1, "meta": {"a": 1}}', [{"id": 1, "meta": {"a": 1}}]),
        ('{"meta": {"a": 1}, "prompt": [{"role": "user"}]}', [{"meta": {"a": 1}, "prompt": [{"role": "user"}]}]),
        ('{"text": "x", "votes": [1, 2]}', [{"text": "x", "votes": [1, 2]}]),
        ("[]", []),
        ('[{"a": 1.5e3}, {"a": [[1, 2], {"b": null}]}]', [{"a": 1500.0}, {"a": [[1, 2], {"b": None}]}]),
        ('{\n "a": 1\n}\n{\n "a": 2\n}\n', [{"a": 1}, {"a": 2}]),
        ('{"a": 1}\n\n{"a": 2}', [{"a": 1}, {"a": 2}]),
        (' [ {"a": "\\u00e9, ü"} ] ', [{"a": "é, ü"}]),
    ],
)
def test_other_forms(tmp_path, pieces, content, rows):
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        (tmp_path / "f.json").write_text(content, encoding=encoding)
        assert list(map(own_fields, read(tmp_path / "f.json"))) == rows


def test_json_lines_in_utf_16(tmp_path):
    (tmp_path / "f.jsonl").write_text('{"a": "ü"}\r\n{"a": 2}\r\n', encoding="utf-16")
    assert list(map(own_fields, read(tmp_path / "f.jsonl"))) == [{"a": "ü"}, {"a": 2}]


MANY = {f"k{i}": i for i in range(3005)}


@pytest.mark.parametrize(
    ("name", "content", "row", "message"),
    [
        ("f.json", '[{"a": 1}, {"a": 2},]', 2, "character 21.*Take out the comma before the closing bracket"),
        ("f.json", '[{"a": 1}, {"a": 2,}]', 2, "Take out the comma before the closing bracket"),
        ("f.json", '[{"a": 1}, {"a": 2}', 2, "the file must hold one list of objects. The file seems cut off"),
        ("f.json", '[{"a": 1}\n {"a": 2}]', 1, r"Expecting ',' delimiter at line 2, character 2"),
        ("f.json", '[{"a": 1},\n {"a": "2}]', 2, r"Unterminated string.* at line 2, character 8.*seems cut off"),
        ("f.json", '[{"a": 1}] rest', None, "not valid JSON"),
        ("f.json", '{"a": 1} rest', None, "not valid JSON"),
        ("f.json", "[1, 2]", 1, "is a JSON number, not an object"),
        ("f.json", '"text"', 1, "is a JSON text, not an object"),
        ("f.json", json.dumps(MANY), None, "is one JSON object of 3,005 values, and the value of 'k0' is a number"),
        (
            "f.json",
            json.dumps({**{f"k{i}": {} for i in range(2000)}, "end": []}),
            None,
            "is one JSON object of objects, and the value of 'end' is a list, not an object. Rows are a list",
        ),
        ("f.json", '{"a": {"x": 1}, "b": {"x": 1}, "a": {"x": 2}}', None, "field `a`: occurs twice in an object"),
        ("f.json", '{"a": {"x": 1, "x": 2}}', None, "field `x`: occurs twice in an object"),
        ("f.json", '[{"a": 1}, {"b": 1, "b": 2}]', 2, "field `b`: occurs twice in an object"),
        ("f.json", '[{"a": ' + "[" * 100_000, 1, "is nested too deeply"),
        ("f.json", "[1" + "0" * 5000 + "]", 1, "has a number of thousands of digits"),
        ("f.jsonl", '{"a": 1' + "0" * 5000 + "}", 1, "has a number of thousands of digits"),
        ("f.jsonl", '{"a": 1},\n{"a": 2},\n', 1, "Take out the comma at the end: every line holds one object"),
        ("f.json", '{"text": ["a", "b"], "votes": [[1, 2], [2]]}', None, r"is a table by columns \(text, votes\)"),
        (
            "f.json",
            '{"text": {"0": "a", "1": "b"}, "vote": {"0": 1, "1": 2}}',
            None,
            r"is a table by columns \(text, vote\), as pandas writes by default. Write it with `to_json",
        ),
        ("f.json", '{"a"; 1}', None, "Expecting ':' delimiter"),
        ("f.json", "{a: 1}", None, "Expecting property name enclosed in double quotes"),
        ("f.jsonl", '[\n {"a": 1}\n]', 1, "It seems to be JSON over several lines: give the file the ending .json"),
        ("f.jsonl", '[{"a": 1}]', 1, "is a JSON list, not an object. It seems to be a list of rows"),
    ],
)
def test_broken_json_is_one_line(tmp_path, name, content, row, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(JudgmentDataError, match=f"(?i){message}") as caught:
        read(tmp_path / name)
    assert caught.value.row == row
    assert len(str(caught.value)) < 400 and "\n" not in str(caught.value)


@pytest.mark.parametrize("as_object", [False, True])
def test_a_large_file_needs_little_memory(tmp_path, as_object):
    rows = [{"text": "word " * 200, "votes": [1, 2, 3]} for _ in range(20_000)]
    content = {f"k{i}": row for i, row in enumerate(rows)} if as_object else rows
    (tmp_path / "f.json").write_text(json.dumps(content))
    size = (tmp_path / "f.json").stat().st_size
    assert size > 20e6
    (file,) = find_files(tmp_path / "f.json", ())
    tracemalloc.start()
    try:
        assert sum(1 for _ in read_rows(file)) == len(rows)
        assert tracemalloc.get_traced_memory()[1] < size / 3
    finally:
        tracemalloc.stop()
