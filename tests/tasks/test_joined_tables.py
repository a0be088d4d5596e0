"""A table with the votes and another one with the texts."""

import json

import pytest
from test_custom import counts, load, write_task
from test_drafting import TEXTS, draft, init, table

from distjudge_trl.errors import UserInputError


VOTES = [{"item": f"{i}.0", "who": f"w{k}", "grade": 1 + (i * i + k * i) % 3} for i in range(12) for k in range(3)]
ITEMS = [{"item": i, "comment": f"{TEXTS[i % 4]} Number {i}.", "grade": "of the item"} for i in range(12)]


def joining(folder, join, items=ITEMS, **changes):
    table(folder, VOTES, "votes.csv")
    table(folder, items, "items.tsv", "\t")
    keys = {"id": "item", "labels": ["1", "2", "3"], "template": "Judge: {{ comment }}", "group": None}
    source = {"path": "votes.csv", "join": {"path": "items.tsv", **join}}
    return write_task(
        folder, None, **{**keys, "source": source, "votes": {"rows": "grade", "annotator": "who"}, **changes}
    )


@pytest.mark.parametrize("by", ["item", ["item"], {"item": "item"}])
def test_a_row_gets_the_columns_of_the_other_table(tmp_path, by):
    """Keys are compared by value, and a row keeps its own columns."""
    items, report = load(joining(tmp_path, {"by": by}))
    grades = [row["grade"] for row in VOTES]
    assert [sum(column) for column in zip(*map(counts, items), strict=True)] == [grades.count(n) for n in (1, 2, 3)]
    assert items[3]["prompt"][0]["content"] == f"Judge: {TEXTS[3]} Number 3."
    assert [name.rpartition("/")[2] for name in report.files] == ["votes.csv", "items.tsv"]


@pytest.mark.parametrize(
    ("join", "items", "match"),
    [
        ({"by": "item"}, ITEMS[:-1], r"votes.csv, row 35, field `item`: '11' is in no row of .*items.tsv"),
        ({"by": "item"}, [*ITEMS, ITEMS[0]], r"items.tsv, row 14, field `item`: '0' occurs twice"),
        ({"by": {"item": "nr"}}, ITEMS, r"items.tsv, row 2, field `nr`: is missing, and `join` names it"),
        ({}, ITEMS, r"`source.file.join.by`: is missing|join.by"),
        ({"by": "item", "sheets": "x"}, ITEMS, r"join.sheets`: is not a key .* did you mean `sheet`"),
    ],
)
def test_tables_that_do_not_fit(tmp_path, join, items, match):
    with pytest.raises(UserInputError, match=match):
        load(joining(tmp_path, join, items))


@pytest.mark.parametrize("people", [False, True])
def test_a_draft_for_both(tmp_path, people):
    folder = tmp_path / "data"
    folder.mkdir()
    items = [{name: row[name] for name in ("item", "comment")} for row in ITEMS]
    table(folder, items, "items.csv")
    votes = [{**row, "item": row["item"][:-2]} for row in VOTES]
    if people:
        for who in ("w0", "w1", "w2"):
            own = [{"item": row["item"], "grade": row["grade"], "sure": 1} for row in votes if row["who"] == who]
            table(folder, own, f"{who}.csv")
    else:
        table(folder, votes, "votes.csv")
    found, total = draft(folder)
    assert found["source"]["join"] == {"path": "data/items.csv", "by": "item"}
    assert found["votes"] == {"rows": "grade", "annotator": "_file" if people else "who"} and found["id"] == "item"
    assert sum(total) == 36


def test_a_folder_of_unlike_files(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    for name, row in (("a", {"x": 1, "y": 2}), ("b", {"z": 1, "v": 2}), ("c", {"p": 1, "q": 1})):
        (folder / f"{name}.json").write_text(json.dumps([row]))
    done = init(folder, tmp_path / "task.yaml")
    assert done.exit_code == 2 and "the files have different columns: a.json, b.json, c.json" in done.output
