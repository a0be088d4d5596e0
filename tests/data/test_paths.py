"""Paths into rows: exact names first, JMESPath otherwise, and what a path reads."""

import pytest

from distjudge_trl.data.paths import ColumnPath, compile_expression, overlaps, without
from distjudge_trl.errors import JudgmentDataError, UserInputError


@pytest.mark.parametrize(
    ("path", "branches"),
    [
        ("a", {("a",)}),
        ("a.b.c", {("a", "b", "c")}),
        ("a.*", {("a",)}),
        ("a[?!x].b[].c[0]", {("a",)}),
        ("a.b[0].c", {("a", "b")}),
        ("a.b.*.c", {("a", "b")}),
        ("a.[b, c]", {("a", "b"), ("a", "c")}),
        ("[a.x, b]", {("a", "x"), ("b",)}),
        ("a.x || a", {("a", "x"), ("a",)}),
        ("values(a.b)", {("a", "b")}),
        ("length(a.b[?c=='x'])", {("a", "b")}),
        ("a | b", {("a",)}),
        ("answer != 'accept'", {("answer",)}),
        ('"How polite? (Anna)"', {("How polite? (Anna)",)}),
        ("How polite? [Anna]", {("How polite? [Anna]",)}),
        ("*.a", {()}),
        ("keys(@)", {()}),
    ],
)
def test_what_a_path_reads(path, branches):
    assert ColumnPath(path).branches == branches


ROW = {"a": {"b": {"x": 1, "y": 2}, "text": "t"}, "a.b": "exact", "m[0]": 3, "m": [{"k": 5}]}


@pytest.mark.parametrize(
    ("path", "value"), [("a.b", "exact"), ("a.b.x", 1), ("m[0]", 3), ("m[0].k", 5), ("values(a.b)", "fails")]
)
def test_an_exact_name_wins(path, value):
    found = ColumnPath(path).find(ROW, "f", 1)
    assert found == value or sorted(found) == [1, 2]


def test_unicode_forms_of_a_name_are_one_name():
    assert ColumnPath("Gu\u0308te").find({"G\u00fcte": 1}, "f", 1) == 1


def test_what_paths_read_is_removed_and_the_rest_kept():
    kept = without(ROW, [ColumnPath("a.b.x"), ColumnPath("m[0].k")])
    assert kept == {"a": {"b": {"y": 2}, "text": "t"}, "a.b": "exact", "m[0]": 3}
    assert ROW["a"]["b"] == {"x": 1, "y": 2}
    assert "a.b" not in without(ROW, [ColumnPath("a.b")]) and "a" in without(ROW, [ColumnPath("a.b")])


@pytest.mark.parametrize(
    ("branch", "is_hidden"),
    [(("a", "b"), True), (("a",), True), (("a", "b", "x"), True), (("a", "text"), False), (("b",), False)],
)
def test_what_holds_votes(branch, is_hidden):
    assert overlaps(branch, [ColumnPath("a.b")]) == is_hidden


def test_a_missing_column_names_the_row_s_own():
    with pytest.raises(JudgmentDataError, match="f, row 3, field `txt`: is missing. The row has: text, id. Did you"):
        ColumnPath("txt").find({"text": 1, "id": 2}, "f", 3)


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("text.Question3", "finds nothing in any of the 9 rows. `text` has: Question1, Question2"),
        ("notes[].labl", r"finds nothing in any of the 9 rows. `notes\[\]` has: id, label"),
        ("txt.Question1", "no column 'txt' in any of the 9 rows. The row has: id, text, notes. Did you mean 'text'"),
        ("id.part", "finds nothing in any of the 9 rows. `id` holds 7."),
    ],
)
def test_a_path_that_finds_nothing_names_what_there_is(path, problem):
    row = {"id": 7, "text": {"Question1": "a", "Question2": "b"}, "notes": [{"id": 1, "label": "x"}]}
    found = ColumnPath(path)
    assert found.find(row, "f", 1) in (None, []) and not found.found
    with pytest.raises(JudgmentDataError, match=problem):
        raise found.nothing_found(row, "f", 9)


def test_an_expression_that_fails_on_a_row_names_it():
    with pytest.raises(JudgmentDataError, match=r"row 4, field `length\(n\)`: the expression fails on the row"):
        ColumnPath("length(n)").find({"n": 3}, "f", 4)


def test_what_must_be_an_expression():
    assert compile_expression("a != 'b'", "skip").branches == {("a",)}
    with pytest.raises(UserInputError, match="`skip`: 'a != \"' is no JMESPath expression.*single quotes"):
        compile_expression('a != "', "skip")
