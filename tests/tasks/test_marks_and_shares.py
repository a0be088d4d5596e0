"""Votes in marks, shares and lists side by side, as crowdsourcing platforms and public data sets have them."""

import json

import pytest
import yaml
from test_custom import counts
from test_custom import load as load_with_report
from test_vote_forms import GRADES, rated, shares

from distjudge_trl.errors import UserInputError


def load(path):
    return load_with_report(path, min_annotators=1)[0]


EMOTIONS = ["joy", "anger", "fear"]


def marks(item, rater, *given):
    return {"id": item, "rater": rater, **{label: int(label in given) for label in EMOTIONS}}


MARKED = {"label_columns": {label: label for label in EMOTIONS}, "annotator": "rater"}


def test_a_row_an_annotator_with_a_mark_for_each_label(tmp_path):
    rows = [marks(1, "a", "joy"), marks(1, "b", "joy"), marks(1, "c", "fear"), marks(2, "a", "anger"), marks(2, "b")]
    items = load(rated(tmp_path, rows, MARKED, EMOTIONS, id="id"))
    assert [counts(item) for item in items] == [[2, 0, 1], [0, 1, 0]]


@pytest.mark.parametrize(("multiple", "expected"), [("votes", [2 / 3, 1 / 3, 0]), ("shares", [0.75, 0.25, 0])])
def test_several_marks_by_one_annotator(tmp_path, multiple, expected):
    rows = [marks(1, "a", "joy", "anger"), marks(1, "b", "joy")]
    with pytest.raises(UserInputError, match=r"row 1.*one annotator gives two labels: joy, anger.*`multiple: votes`"):
        load(rated(tmp_path, rows, MARKED, EMOTIONS, id="id"))
    (item,) = load(rated(tmp_path, rows, {**MARKED, "multiple": multiple}, EMOTIONS, id="id"))
    assert shares(item) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("rows", "changes", "match"),
    [
        (
            [marks(1, "a", "joy"), marks(1, "a", "fear")],
            {},
            "row 2, field `rater`: 'a' votes on the item '1' a second",
        ),
        ([{**marks(1, "a"), "joy": 2}], {}, "row 1.*gives the label 'joy' 2 times.*drop it"),
        ([marks(1, "a", "joy")], {"id": None}, "`votes: annotator` needs `id`"),
    ],
)
def test_marks_that_are_refused(tmp_path, rows, changes, match):
    with pytest.raises(UserInputError, match=match):
        load(rated(tmp_path, rows, MARKED, EMOTIONS, **{"id": "id", **changes}))


@pytest.mark.parametrize(
    ("row", "columns", "expected"),
    [
        ({"toxic": 0.4, "n": 5}, {"no": None, "yes": "toxic"}, [3, 2]),
        ({"toxic": 1 / 47 * 11, "n": 47}, {"yes": "toxic"}, [36, 11]),
        ({"p_no": "67%", "p_yes": "33 %", "n": 3}, {"no": "p_no", "yes": "p_yes"}, [2, 1]),
        ({"p_no": "33,3 %", "p_yes": 0.667, "n": 3}, {"no": "p_no", "yes": "p_yes"}, [1, 2]),
    ],
)
def test_a_column_of_shares_for_each_label(tmp_path, row, columns, expected):
    columns = {label: column for label, column in columns.items() if column is not None}
    votes = {"shares": columns, "num_annotators": "n"}
    (item,) = load(rated(tmp_path, [row], votes, ["no", "yes"]))
    assert counts(item) == expected


def test_shares_of_columns_that_do_not_fit(tmp_path):
    votes = {"shares": {"1": "p1", "2": "p2"}, "num_annotators": 4}
    with pytest.raises(UserInputError, match=r"the shares of 4 annotators are 6 votes together"):
        load(rated(tmp_path, [{"p1": 0.75, "p2": 0.75}], votes))
    with pytest.raises(UserInputError, match=r"the share of '1' is '120%', not a number from 0 to 1"):
        load(rated(tmp_path, [{"p1": "120%", "p2": 0}], votes))
    with pytest.raises(UserInputError, match=r"names no columns for 2 and 3; only one label may have the rest"):
        load(rated(tmp_path, [{"p1": 0.5}], {"shares": {"1": "p1"}, "num_annotators": 4}))


def test_a_list_beside_the_votes_says_which_count(tmp_path):
    rows = [
        {"tone.responses": ["1", "2", "3"], "tone.responses.status": ["submitted", "draft", "submitted"]},
        {"tone.responses": json.dumps(["2", "2"]), "tone.responses.status": json.dumps(["discarded", "submitted"])},
    ]
    votes = {"list": "tone.responses", "only": {"tone.responses.status": "submitted"}}
    assert [counts(item) for item in load(rated(tmp_path, rows, votes))] == [[1, 0, 1], [0, 1, 0]]
    rows[1]["tone.responses.status"] = ["submitted"]
    with pytest.raises(UserInputError, match=r"row 2, field `tone.responses.status`: must be a list as long as that"):
        load(rated(tmp_path, rows, votes))
    with pytest.raises(UserInputError, match=r"`only` goes with `list`"):
        load(rated(tmp_path, rows, {"rows": "grade", "only": {"s": "x"}}, id="text"))


@pytest.mark.parametrize(
    ("cell", "path"),
    [
        ('{"choices": ["1", "1"]}', "tone.choices"),
        ('[{"rating": 1}, {"rating": 1}]', "tone[].rating"),
        ("{'a': 1, 'b': 1}", "values(tone)"),
        ([{"content": '{"crowd": {"label": "1"}}'}] * 2, "tone[].parse_json(content).crowd.label"),
    ],
)
def test_paths_go_into_the_texts_of_lists_and_mappings(tmp_path, cell, path):
    (item,) = load(rated(tmp_path, [{"tone": cell}], {"list": path}, GRADES))
    assert counts(item) == [2, 0, 0]


def test_a_text_that_is_compared_stays_a_text(tmp_path):
    rows = [{"v": "1", "state": "[draft]"}, {"v": "2", "state": "done"}]
    (item,) = load(rated(tmp_path, rows, {"list": "v"}, skip="state == '[draft]'"))
    assert counts(item) == [0, 1, 0]


@pytest.mark.parametrize(
    ("row", "votes", "hint"),
    [
        (
            {"a.b": [{"tone": {"x-y": "1"}}]},
            {"annotator_columns": ["a.b"]},
            """annotator_columns: '"a.b"[].tone."x-y"'""",
        ),
        ({"a": {"p1": {"rate": 2, "why": "so"}, "p2": {"rate": 1}}}, {"list": "a"}, 'list: "a.*.rate"'),
        ({"a": '{"choices": ["1"]}'}, {"annotator_columns": ["a"]}, 'annotator_columns: "a.choices"'),
    ],
)
def test_the_path_that_an_error_names_reads_the_label(tmp_path, row, votes, hint):
    with pytest.raises(UserInputError) as error:
        load(rated(tmp_path, [row], votes))
    assert hint in str(error.value)
    (key, path), *_ = yaml.safe_load("{" + hint + "}").items()
    (item,) = load(rated(tmp_path, [row], {key: path if key == "list" else [path]}))
    assert sum(counts(item)) >= 1


@pytest.mark.parametrize(
    ("cell", "votes", "hint"),
    [
        ("1: 2, 2: 0, 3: 1", {"counts": "a"}, r'Write each cell as JSON, \{"1": 2, "2": 0, "3": 1\}'),
        ("1/3", {"annotator_columns": ["a"]}, r'If it is one label: `spellings: \{LABEL: \["1/3"\]\}`'),
    ],
)
def test_hints_about_texts_in_cells(tmp_path, cell, votes, hint):
    with pytest.raises(UserInputError, match=hint):
        load(rated(tmp_path, [{"a": cell}], votes))
