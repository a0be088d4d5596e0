"""The same rows are the same task, whether they come from CSV, JSON, Parquet or the hub with their types."""

import csv
import datetime
import decimal
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from conftest import make_tiny_model
from datasets import ClassLabel, Dataset, Features, List, Value
from test_custom import counts, load, write_task

from distjudge_trl.cli import main
from distjudge_trl.data.values import as_json, plain_value
from distjudge_trl.errors import JudgmentDataError, UserInputError
from distjudge_trl.labels.spelling import spelling
from distjudge_trl.recipe import Recipe


RATINGS = [("a", 1, -1, 3), ("b", 2, 2, -1), ("c", -1, 3, 3)]
RATED = {"labels": ["1", "2", "3"], "template": "How clear? {{ text }}", "id": "text"}


@pytest.fixture(params=["csv", "jsonl", "floats.jsonl", "parquet", "floats.parquet", "hub"])
def ratings(request, tmp_path):
    """A source with numbers for votes, in the types of each format."""
    kind = float if request.param.startswith("floats") else int
    rows = [{"text": row[0], **dict(zip("xyz", map(kind, row[1:]), strict=True))} for row in RATINGS]
    for row in rows:
        row["list"] = [row["x"], row["y"], row["z"]]
    name = f"r.{request.param}"
    if request.param == "csv":
        with (tmp_path / name).open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    elif name.endswith("jsonl"):
        (tmp_path / name).write_text("\n".join(map(json.dumps, rows)))
    elif name.endswith("parquet"):
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / name)
    else:
        (tmp_path / "repo").mkdir()
        Dataset.from_list(rows).to_parquet(tmp_path / "repo" / "train.parquet")
        return {"hub": str(tmp_path / "repo")}
    return name


@pytest.mark.parametrize("missing", [-1, "-1", -1.0, "-1.0"])
@pytest.mark.parametrize("votes", [{"annotator_columns": ["x", "y", "z"]}, {"list": "list"}])
def test_a_number_that_stands_for_a_missing_vote(tmp_path, ratings, missing, votes):
    rows, _ = load(write_task(tmp_path, **RATED, source=ratings, votes=votes, missing=[missing]))
    assert {row["id"]: counts(row) for row in rows} == {"a": [1, 0, 1], "b": [0, 2, 0], "c": [0, 0, 2]}


@pytest.mark.parametrize("votes", [{"annotator_columns": ["x", "y", "z"]}, {"list": "list"}])
def test_a_number_that_nothing_is_said_of_is_no_vote(tmp_path, ratings, votes):
    with pytest.raises(JudgmentDataError, match="unknown label"):
        load(write_task(tmp_path, **RATED, source=ratings, votes=votes, missing=[-9]))


def test_missing_numbers_in_rows_and_counts(tmp_path):
    (tmp_path / "r.jsonl").write_text(
        "\n".join(json.dumps({"text": "a", "vote": vote, "n": {"1": vote, "2": -1}}) for vote in (2, -1, 3, -1.0))
    )
    task = write_task(tmp_path, **RATED, source="r.jsonl", votes={"rows": "vote"}, missing=[-1])
    rows, report = load(task)
    assert counts(rows[0]) == [0, 1, 1] and report.notes == {"rows without a vote left out": 2}
    by_row = {**RATED, "id": None}
    task = write_task(tmp_path, **by_row, source="r.jsonl", votes={"counts": "n"}, missing=[-1])
    assert [counts(row) for row in load(task, min_annotators=1)[0]] == [[2, 0, 0], [3, 0, 0]]


@pytest.mark.parametrize("code", [9, "9.0", "n/a"])
@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_a_code_is_missing_among_the_labels_of_counts_and_a_count_is_a_count(tmp_path, code, form):
    """`missing: [9]` says nothing of nine votes."""
    shown = str(code).removesuffix(".0")
    given = [{"1": 9, "2": 3}, {"1": 4, shown: 2, "": 5}, {shown: 9, "3": 9.0}, {"1": -1, "2": 1, "3": None}]
    if form == "csv":
        given = [json.dumps(votes) for votes in given]
        with (tmp_path / "r.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("text", "n"), *(("a", votes) for votes in given)])
    else:
        (tmp_path / "r.jsonl").write_text("\n".join(json.dumps({"text": "a", "n": votes}) for votes in given))
    task = {**RATED, "id": None, "source": f"r.{form}", "votes": {"counts": "n"}, "missing": [code, -1]}
    rows, _ = load(write_task(tmp_path, **task))
    assert [counts(row) for row in rows] == [[9, 3, 0], [4, 0, 0], [0, 0, 9], [0, 1, 0]]


def test_a_code_in_a_column_of_counts(tmp_path):
    (tmp_path / "r.csv").write_text("text,a,b\na,-1,3\nb,n/a,9\n")
    columns = {"label_columns": {"1": "a", "2": "b"}}
    task = {**RATED, "source": "r.csv", "votes": columns}
    rows, _ = load(write_task(tmp_path, **task, missing=[-1, "n/a"]))
    assert [counts(row) for row in rows] == [[0, 3, 0], [0, 9, 0]]
    for code in (9, "9.0", 0, "1e1"):
        with pytest.raises(
            UserInputError,
            match=r"task.yaml: `missing` names (9|0|1e1), which may also be a count of `votes: label_columns`",
        ):
            load(write_task(tmp_path, **task, missing=[-1, code]))


@pytest.mark.parametrize("names", [["No", "Yes", "Maybe"], ["3", "1", "2"], ["1", "2", "3"]])
@pytest.mark.parametrize("where", ["hub", "file"])
def test_classes_of_a_hub_data_set_are_their_names(tmp_path, names, where):
    """Also where the names are numbers: `1` must not be read as the class of number 1. A copy of a file says the same
    as the hub.
    """
    kind = ClassLabel(names=names)
    features = Features(
        {"text": Value("string"), "x": kind, "y": kind, "list": List(kind), "deep": List({"who": kind}), "genre": kind}
    )
    rows = {
        "text": ["a", "b"],
        "x": [0, 1],
        "y": [2, -1],
        "list": [[0, 2], [1, None]],
        "deep": [[{"who": 1}], []],
        "genre": [1, 2],
    }
    (tmp_path / "repo").mkdir()
    Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "repo" / "train.parquet")
    source = {"hub": str(tmp_path / "repo")} if where == "hub" else "repo/train.parquet"
    template = "{{ text }} of {{ genre }} by {% for one in deep %}{{ one.who }}{% endfor %}"
    common = {"labels": names, "template": template, "id": "text", "source": source}
    for votes in ({"annotator_columns": ["x", "y"]}, {"list": "list"}):
        loaded, _ = load(write_task(tmp_path, **common, votes=votes))
        assert [counts(row) for row in loaded] == [[1, 0, 1], [0, 1, 0]]
        shown = [row["prompt"][0]["content"] for row in loaded]
        assert shown == [f"a of {names[1]} by {names[1]}", f"b of {names[2]} by "]


def test_maps_of_parquet_are_counts(tmp_path):
    table = pa.table({"text": ["a"], "n": pa.array([[("1", 2), ("3", 1)]], pa.map_(pa.string(), pa.int64()))})
    pq.write_table(table, tmp_path / "r.parquet")
    assert counts(load(write_task(tmp_path, **RATED, source="r.parquet", votes={"counts": "n"}))[0][0]) == [2, 0, 1]


def test_times_and_decimals_are_what_json_would_hold(tmp_path):
    rows = [{"text": "a", "when": datetime.datetime(2026, 1, 2, 3), "price": decimal.Decimal("2.50"), "v": "1"}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "r.parquet")
    (tmp_path / "r.jsonl").write_text('{"text": "a", "when": "2026-01-02T03:00:00", "price": 2.5, "v": 1}')
    task = {**RATED, "template": "{{ text }} {{ when }} {{ price }}", "votes": {"annotator_columns": ["v"]}}
    parquet, lines = (load(write_task(tmp_path, **task, source=f"r.{form}"))[0] for form in ("parquet", "jsonl"))
    assert parquet == lines and parquet[0]["prompt"][0]["content"] == "a 2026-01-02T03:00:00 2.5"


def test_bytes_are_no_text_for_a_prompt(tmp_path):
    pq.write_table(pa.table({"text": [b"yes"], "v": ["1"]}), tmp_path / "r.parquet")
    with pytest.raises(JudgmentDataError, match=r"r.parquet, row 1, field `text`: is bytes, not text"):
        load(write_task(tmp_path, **{**RATED, "id": None}, source="r.parquet", votes={"annotator_columns": ["v"]}))


@pytest.mark.parametrize("value", [[b"yes"], [[b"no"], [b"yes"]], {"a": "no", "b": {"c": b"yes"}}])
def test_bytes_within_lists_and_mappings_are_no_text_either(tmp_path, value):
    pq.write_table(pa.table({"text": [value], "v": ["1"]}), tmp_path / "r.parquet")
    with pytest.raises(JudgmentDataError, match=r"r.parquet, row 1, field `text`: holds bytes, not text"):
        load(write_task(tmp_path, **{**RATED, "id": None}, source="r.parquet", votes={"annotator_columns": ["v"]}))


@pytest.mark.parametrize("key", ["id", "group"])
def test_bytes_are_no_name_of_an_item(tmp_path, key):
    """An id `b'7'` would draw and split otherwise than the `7` of another format."""
    pq.write_table(pa.table({"text": ["a"], "who": [b"7"], "v": ["1"]}), tmp_path / "r.parquet")
    task = {**RATED, key: "who", "source": "r.parquet", "votes": {"annotator_columns": ["v"]}}
    with pytest.raises(
        JudgmentDataError, match=r"row 1, field `who`: holds bytes, not text. Write the column as text"
    ):
        load(write_task(tmp_path, **task))


# A column called prompt


def test_a_task_with_a_column_called_prompt_trains_and_judges(tmp_path, tokenizer):
    make_tiny_model(len(tokenizer)).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    rows = [{"prompt": f"say {i}", "response": f"the text {i}", "x": i % 3 + 1, "y": -1} for i in range(30)]
    (tmp_path / "r.jsonl").write_text("\n".join(map(json.dumps, rows)))
    changes = {"template": "How polite? {{ prompt }} / {{ response }}", "id": None, "missing": [-1]}
    votes = {"annotator_columns": ["x", "y"]}
    task = write_task(tmp_path, **{**RATED, **changes}, source="r.jsonl", votes=votes)
    recipe = Recipe(task=None, model=str(tmp_path / "model"), training={"max_steps": 1, "save_strategy": "no"})
    recipe.run(["--task", task, "--output_dir", str(tmp_path / "judge"), "--bf16", "False"])
    (tmp_path / "new.jsonl").write_text(json.dumps(rows[0]) + "\n")
    command = ["judge", "--model", str(tmp_path / "judge"), "--input", str(tmp_path / "new.jsonl")]
    done = CliRunner().invoke(main, [*command, "--out", str(tmp_path / "out.jsonl")])
    assert done.exit_code == 0, done.output
    assert json.loads((tmp_path / "out.jsonl").read_text()).keys() > {*rows[0], "label_distribution"}


def test_a_column_of_messages_called_prompt_is_refused_where_it_trains(tmp_path):
    """A judge would take it for the whole prompt, and leave the template out."""
    row = {"prompt": [{"role": "user", "content": "Hi"}], "v": 1}
    (tmp_path / "r.jsonl").write_text(json.dumps(row))
    task = {**RATED, "id": None, "template": "{% for m in prompt %}{{ m.content }}{% endfor %}: polite?"}
    path = write_task(tmp_path, **task, source="r.jsonl", votes={"annotator_columns": ["v"]})
    with pytest.raises(JudgmentDataError, match=r"row 1, field `prompt`: is a list of messages: a judge takes it for"):
        load(path)


# Values


@pytest.mark.parametrize("value", [-1, -1.0, "-1", " -1.0 ", "-01", decimal.Decimal("-1.0")])
def test_a_whole_number_has_one_spelling(value):
    assert spelling(plain_value(value)) == "-1"


@pytest.mark.parametrize("cell", ["9" * 5000, "-" + "0" * 5000 + "1", "9" * 5000 + ".0"])
@pytest.mark.parametrize(
    "votes", [{"annotator_columns": ["x"]}, {"list": "x"}, {"rows": "x"}, {"label_columns": {1: "x"}}]
)
def test_a_cell_of_thousands_of_digits_is_a_broken_one(tmp_path, cell, votes):
    assert spelling(cell) == cell
    (tmp_path / "r.csv").write_text(f"text,x\na,{cell}\n")
    with pytest.raises(JudgmentDataError, match=r"r.csv, row 2, field `x`: .*(unknown label|the count of '1')"):
        load(write_task(tmp_path, **RATED, source="r.csv", votes=votes, missing=[-1]))


def test_other_values_keep_theirs():
    assert [spelling(value) for value in (True, 1.5, "1e0", "n/a")] == ["true", "1.5", "1e0", "n/a"]


def test_a_decimal_that_a_float_would_round_stays_a_text():
    exact = "0.12345678901234567890"
    assert plain_value([decimal.Decimal(exact), decimal.Decimal("0.1"), decimal.Decimal("3.00")]) == [exact, 0.1, 3]


def test_nan_is_an_empty_cell_in_json():
    nan = float("nan")
    assert as_json({"a": nan, "b": [nan, {"c": nan}], "d": 1.0}) == {"a": None, "b": [None, {"c": None}], "d": 1.0}
