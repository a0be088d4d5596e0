"""A user's own task: YAML to records, in every shape that votes come in, and every mistake named by key."""

import gzip
import json
import shutil

import pytest
import yaml
from conftest import ROOT, SHARED

from distjudge_trl.errors import JudgmentDataError, UserInputError
from distjudge_trl.files.yaml import parse_yaml
from distjudge_trl.tasks import LoadReport, get_task
from distjudge_trl.tasks.custom.schema import TaskFile


BASE = {
    "name": "clarity",
    "labels": ["bad", "fair", "good"],
    "ordinal": True,
    "template": "How clear is this?\n{{ text }}\nbad, fair or good?",
    "source": "ratings.csv",
    "id": "item",
    "votes": {"annotator_columns": ["ann", "ben", "cleo"]},
}
CSV = "item,text,ann,ben,cleo\n1,first,good,good,fair\n2,second,,bad,bad\n3,third,NA,fair,\n"


def write_task(folder, content=None, **changes):
    task = {**BASE, **changes} if content is None else content
    task = {key: value for key, value in task.items() if value is not None} if isinstance(task, dict) else task
    path = folder / "task.yaml"
    path.write_text(task if isinstance(task, str) else yaml.safe_dump(task, sort_keys=False), encoding="utf-8")
    return str(path)


def load(path, **options):
    task, report = get_task(path), LoadReport()
    records = task.load(options.pop("data_path", None), task.options(**options), report=report)
    return list(records), report


def counts(row):
    return [round(share * row["num_annotators"]) for share in row["label_distribution"]]


def source(folder, name, content):
    path = folder / name
    data = content if isinstance(content, bytes) else content.encode()
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return path


EXPECTED = {"1": [0, 1, 2], "2": [2, 0, 0], "3": [0, 1, 0]}


@pytest.mark.parametrize(
    ("votes", "name", "content"),
    [
        ({"annotator_columns": ["ann", "ben", "cleo"]}, "r.csv", CSV),
        (
            {"list": "votes"},
            "r.jsonl.gz",
            "\n".join(
                json.dumps({"item": i, "text": "t", "votes": v})
                for i, v in [(1, ["good", "Good", "fair"]), (2, ["bad", None, "bad"]), (3, ["NA", "fair"])]
            ),
        ),
        ({"list": "votes"}, "r.csv", "item,text,votes\n1,t,good;good; fair\n2,t,bad;;bad\n3,t,fair;NA\n"),
        ({"list": "votes", "separator": "|"}, "r.csv", "item,text,votes\n1,t,good|good|fair\n2,t,bad|bad\n3,t,fair\n"),
        (
            {"list": "votes"},
            "r.csv",
            'item,text,votes\n1,t,"[""good"", ""good"", ""fair""]"\n2,t,"[\'bad\', \'bad\']"\n3,t,fair\n',
        ),
        (
            {"counts": "votes"},
            "r.json",
            json.dumps(
                [
                    {"item": 1, "text": "t", "votes": {"good": 2, "fair": 1}},
                    {"item": 2, "text": "t", "votes": {"bad": 2.0, "good": 0, "fair": None}},
                    {"item": 3, "text": "t", "votes": {"fair": 1}},
                ]
            ),
        ),
        (
            {"label_columns": {"bad": "n_bad", "fair": "n_fair", "good": "n_good"}},
            "r.tsv",
            "item\ttext\tn_bad\tn_fair\tn_good\n1\tt\t0\t1\t2\n2\tt\t2\t\t0\n3\tt\t\t1.0\t\n",
        ),
        (
            {"rows": "vote", "annotator": "who"},
            "r.csv",
            "item,text,who,vote,age\n1,t,a,good,9\n2,t,a,bad,9\n1,t,b,good,8\n3,t,a,fair,9\n2,t,b,bad,8\n1,t,c,fair,7\n3,t,b,NA,8\n",
        ),
    ],
)  # fmt: skip
def test_votes_in_every_shape_give_the_same_records(tmp_path, votes, name, content):
    source(tmp_path, name, content)
    rows, _ = load(write_task(tmp_path, source=name, votes=votes, missing=["NA"]))
    assert {row["id"]: counts(row) for row in rows} == EXPECTED


def test_parquet_with_real_lists(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [
        {"item": i, "text": "t", "votes": v}
        for i, v in [(1, ["good"] * 2 + ["fair"]), (2, ["bad"] * 2), (3, ["fair"])]
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "r.parquet")
    loaded, _ = load(write_task(tmp_path, source="r.parquet", votes={"list": "votes"}))
    assert {row["id"]: counts(row) for row in loaded} == EXPECTED


def test_a_hub_data_set_is_loaded_by_its_library(tmp_path):
    """A local folder in the hub's layout goes the same way as a repository."""
    (tmp_path / "repo").mkdir()
    source(tmp_path / "repo", "train.csv", CSV.replace("NA", ""))
    path = write_task(tmp_path, source={"hub": str(tmp_path / "repo"), "split": "train"})
    assert {row["id"]: counts(row) for row in load(path)[0]} == EXPECTED


def test_a_hub_data_set_that_does_not_exist(tmp_path):
    path = write_task(tmp_path, source={"hub": "no-such-org/no-such-data"})
    with pytest.raises(UserInputError, match="'no-such-org/no-such-data' cannot be loaded.*--data_path"):
        load(path)


def test_the_prompt_sees_the_row_but_not_the_votes(tmp_path):
    source(tmp_path, "ratings.csv", CSV)
    rows, _ = load(write_task(tmp_path, missing=["NA"]))
    assert rows[0]["prompt"] == [{"role": "user", "content": "How clear is this?\nfirst\nbad, fair or good?"}]
    for template in ("{{ text }} {{ ann }}", "{{ text }}{% if ben %}!{% endif %}"):
        with pytest.raises(UserInputError, match="the prompt shows '(ann|ben)', a column of votes"):
            get_task(write_task(tmp_path, template=template))
    with pytest.raises(JudgmentDataError, match="asks for a field the item lacks .'txt' is undefined"):
        load(write_task(tmp_path, template="{{ txt }}", missing=["NA"]))


def test_a_tested_field_that_no_item_has_is_a_misspelling(tmp_path):
    source(tmp_path, "ratings.csv", CSV)
    with pytest.raises(UserInputError, match="tests the field 'contxt', which no item has"):
        load(write_task(tmp_path, template="{% if contxt %}{{ contxt }}{% endif %}{{ text }}", missing=["NA"]))


def test_data_path_replaces_the_source(tmp_path):
    other = source(tmp_path, "other.csv", CSV.replace("NA", ""))
    assert len(load(write_task(tmp_path, source="missing.csv"), data_path=str(other))[0]) == 3


def test_group_and_default_ids(tmp_path):
    source(tmp_path, "ratings.csv", CSV.replace("third", "first"))
    rows, _ = load(write_task(tmp_path, group="text", missing=["NA"]))
    assert [row["group"] for row in rows] == ["first", "second", "first"]
    rows, _ = load(write_task(tmp_path, id=None, missing=["NA"]))
    assert [(row["id"], row["group"]) for row in rows] == [("2", "2"), ("3", "3"), ("4", "4")]


def test_id_and_group_of_several_columns(tmp_path):
    source(tmp_path, "ratings.csv", "item,part,text,ann\n1,a,t,good\n1,b,t,bad\n1,,t,bad\n")
    path = write_task(tmp_path, id=["item", "part"], group=["text", "item"], votes={"annotator_columns": ["ann"]})
    assert [(row["id"], row["group"]) for row in load(path)[0]] == [
        ("1 / a", "t / 1"),
        ("1 / b", "t / 1"),
        ("1 / ", "t / 1"),
    ]


def test_a_template_of_messages_and_one_in_a_file(tmp_path):
    source(tmp_path, "ratings.csv", CSV)
    messages = [{"role": "system", "content": "Be fair."}, {"role": "user", "content": "{{ text }}?"}]
    rows, _ = load(write_task(tmp_path, template=messages, missing=["NA"]))
    assert [m["role"] for m in rows[0]["prompt"]] == ["system", "user"]
    (tmp_path / "prompt.jinja").write_text("From a file: {{ text }}\n")
    rows, _ = load(write_task(tmp_path, template=None, template_file="prompt.jinja", missing=["NA"]))
    assert rows[0]["prompt"][0]["content"] == "From a file: first"


def test_labels_may_be_numbers_and_synonyms_map_the_data_s_words(tmp_path):
    source(tmp_path, "ratings.csv", "item,text,ann,ben\n1,t,1.0,2\n2,t,lousy,1\n")
    path = write_task(tmp_path, labels=[1, 2], synonyms={1: ["lousy"]}, votes={"annotator_columns": ["ann", "ben"]})
    assert [counts(row) for row in load(path)[0]] == [[1, 1], [2, 0]]


def test_empty_parts_of_an_id_keep_items_apart(tmp_path):
    source(tmp_path, "ratings.csv", "a,b,text,v\nx,,same,bad\n,x,same,good\n")
    rows, _ = load(write_task(tmp_path, id=["a", "b"], votes={"rows": "v"}))
    assert [(row["id"], counts(row)) for row in rows] == [("x / ", [1, 0, 0]), (" / x", [0, 0, 1])]


def test_default_ids_of_a_folder_are_relative_to_it(tmp_path):
    for name in ("a", "b"):
        (tmp_path / "in" / name).mkdir(parents=True)
        source(tmp_path / "in" / name, "r.csv", CSV.replace("NA", ""))
    rows, _ = load(write_task(tmp_path, source="in", id=None))
    assert len({row["id"] for row in rows}) == 6


def test_a_field_with_a_default_may_be_missing(tmp_path):
    source(tmp_path, "r.jsonl", '{"item": 1, "text": "t", "n": null, "v": ["bad"]}\n')
    template = "{{ text }} {{ n | default('-', true) }}"
    rows, _ = load(write_task(tmp_path, source="r.jsonl", votes={"list": "v"}, template=template))
    assert rows[0]["prompt"][0]["content"] == "t -"


@pytest.mark.parametrize(
    "text", ["{{ text | map() | list }}", "{{ '%(a)s' | format(b=text) }}", "{{ text.x.y }}", "{{ 1 / 0 }}"]
)
def test_a_template_that_fails_on_an_item_names_the_row(tmp_path, text):
    source(tmp_path, "ratings.csv", CSV)
    with pytest.raises(JudgmentDataError, match="prompt template (fails on|asks for)") as caught:
        load(write_task(tmp_path, template="{{ text }}" + text, missing=["NA"]))
    assert caught.value.row == 2


def test_the_examples_of_the_documentation_are_valid(tmp_path):
    """Every YAML block of docs/data.md, on rows of the form that it describes."""
    import re

    blocks = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "data.md").read_text(encoding="utf-8"), re.DOTALL)
    parts = [yaml.safe_load(block) for block in blocks if not block.startswith("name:")]
    blocks = [block for block in blocks if block.startswith("name:")]
    assert len(blocks) == 2 and len(parts) > 8
    for keys in parts:  # of a task file
        if "questions" in keys:
            write_task(tmp_path, yaml.safe_dump({"name": "several", "source": "r.jsonl", **keys}))
            assert get_task(str(tmp_path / "task.yaml")).parts == tuple(keys["questions"])
            continue
        TaskFile.model_validate({**BASE, **keys, "labels": ["Yes", "No"]})
    shutil.copy(ROOT / "docs" / "examples" / "replies.csv", tmp_path)
    assert len(load(write_task(tmp_path, blocks[0]), min_annotators=1)[0]) == 27
    assert (
        yaml.safe_load(blocks[0])["votes"]
        == yaml.safe_load((ROOT / "docs/examples/replies.yaml").read_text())["votes"]
    )
    (tmp_path / "data" / "dices").mkdir(parents=True)
    row = {"item_id": 7, "context": "USER: hi", "response": "hello", "Q_overall": ["No", "Yes", "No"]}
    source(tmp_path / "data" / "dices", "dices_350.jsonl.gz", json.dumps(row))
    rows, _ = load(write_task(tmp_path, blocks[1]))
    assert counts(rows[0]) == [1, 2, 0]


# Mistakes in the YAML


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"labels": None}, "`labels`: is missing"),
        ({"labels": ["one"]}, "`labels`: .*at least 2"),
        ({"labels": "bad, good"}, "`labels`: must be a list, such as .a, b., got 'bad, good'"),
        ({"labels": [True, False]}, '`labels.0`: YAML reads an unquoted yes.*write it in quotes, "Yes"'),
        ({"labels": [1.5, "1,50"]}, "spelling '1,50' belongs to the label '1.5'"),
        ({"labels": ["good", "Good"]}, "spelling 'Good' belongs to the label 'good'"),
        ({"synonyms": {"fine": ["x"]}}, "Synonyms are given for 'fine', which is not a label"),
        ({"lables": ["a", "b"]}, "`lables`: is not a key of a task file; known here are name, description, labels"),
        ({"votes": None}, "`votes`: is missing"),
        ({"votes": {}}, "`votes`: needs exactly one of list, counts.*got none"),
        ({"votes": {"list": "a", "counts": "b"}}, "`votes`: needs exactly one.*got list, counts"),
        ({"votes": {"lists": "a"}}, "`votes.lists`: is not a key of a task file; known here are list, counts"),
        ({"votes": {"rows": "v"}, "id": None}, "`votes: rows` needs `id`"),
        ({"votes": {"list": "v", "annotator": "a"}}, "`annotator` goes with `rows`"),
        ({"votes": {"label_columns": {"gold": "n"}}}, "`votes.label_columns`: unknown label 'gold'"),
        ({"source": {"path": "a.csv", "delimiter": ";;"}}, "`source.delimiter`: must be one mark"),
        ({"source": {"hub": "a/b", "splitt": "train"}}, "`source.splitt`: is not a key.*known here are hub, config"),
        ({"source": 7}, "`source`: must be a mapping of keys to values, got 7"),
        ({"ordinal": "maybe"}, "`ordinal`: .*boolean"),
        ({"name": "my task"}, "`name`: may have letters, digits"),
        ({"missing": ["Fair "]}, "`missing`: 'Fair ' is a code for a missing vote and means the label 'fair'"),
        ({"synonyms": {"bad": ["poor"]}, "missing": ["NA", "POOR"]}, "`missing`: 'POOR' .* means the label 'bad'"),
        ({"labels": ["0", "1"], "missing": ["00"]}, "`missing`: '00' is a code .* means the label '0'"),
        ({"labels": ["0", "1"], "missing": [0]}, "`missing`: '0' is a code .* means the label '0'"),
        ({"labels": ["00", "1"], "missing": [0]}, "`missing`: '0' is a code .* means the label '00'"),
        ({"labels": ["1.0", "2"], "missing": [1]}, "`missing`: '1' is a code .* means the label '1.0'"),
        ({"labels": ["yes", "true"], "missing": ["True"]}, "`missing`: 'True' is a code .* means the label 'true'"),
        ({"template": None}, "exactly one of `template` and `template_file`"),
        ({"template": "{{ text"}, "Message 1 of the prompt template does not parse"),
        ({"template": [{"role": "user"}]}, "`template.0.content`: is missing"),
        ({"template": None, "template_file": "none.jinja"}, "none.jinja: cannot be read"),
    ],
)  # fmt: skip
def test_a_mistake_in_the_yaml_names_key_and_expectation(tmp_path, changes, match):
    source(tmp_path, "ratings.csv", CSV)
    path = write_task(tmp_path, **changes)
    with pytest.raises(UserInputError, match=match) as caught:
        get_task(path)
    assert str(caught.value).startswith(path) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("labels: [a, b", "is not valid YAML"),
        ("name: a\nvotes: {list: a}\nvotes: {list: b}\n", "the key 'votes' occurs twice"),
        ("? [a, b]\n: c\n", "YAML|dictionary"),
        ("name: 2026-99-99\n", "YAML|missing"),
        ("- a\n- b\n", "must be a mapping of keys"),
        ("", "must be a mapping of keys"),
    ],
)
def test_what_is_no_task_file(tmp_path, content, match):
    with pytest.raises(UserInputError, match=match):
        get_task(write_task(tmp_path, content))


@pytest.mark.parametrize(
    ("content", "made"),
    [
        ("x: {<<: *b, c: 2}", {"a": 1, "c": 2}),
        ("x: {<<: *b, a: 2}", {"a": 2}),
        ("x: {a: 2, <<: *b}", {"a": 2}),
        ("x: {<<: [*b, {a: 3, d: 4}]}", {"a": 1, "d": 4}),
        # Merged before it is made itself, and made after that.
        ("y: {z: &d {<<: *b, a: 2}}\nx: {<<: *d, e: 5}", {"a": 2, "e": 5}),
        ("y: {<<: &d {<<: *b, a: 2}, a: 3}\nx: *d", {"a": 2}),
        ("x: {'<<': 1, =: 2}", {"<<": 1, "=": 2}),
    ],
)
def test_keys_of_another_mapping_can_be_merged(content, made):
    text = f"base: &b {{a: 1}}\n{content}\n"
    assert parse_yaml(text, "f.yaml")["x"] == made == yaml.safe_load(text)["x"]


@pytest.mark.parametrize(
    "content",
    ["x: {<<: *b, c: 1, c: 2}", "x: {c: 1, <<: *b, c: 2}", "x: {<<: {c: 1, c: 2}}", "x: {'<<': 1, '<<': 2}"],
)
def test_a_key_that_occurs_twice_beside_merged_ones(content):
    with pytest.raises(UserInputError, match="f.yaml: is not valid YAML .the key '(c|<<)' occurs twice"):
        parse_yaml(f"base: &b {{a: 1}}\n{content}\n", "f.yaml")


def test_a_task_file_that_is_missing_or_not_utf8(tmp_path):
    with pytest.raises(UserInputError, match="cannot be read"):
        get_task(str(tmp_path / "none.yaml"))
    (tmp_path / "task.yaml").write_bytes("name: caf\u00e9".encode("latin-1"))
    with pytest.raises(UserInputError, match="is not valid YAML"):
        get_task(str(tmp_path / "task.yaml"))


# Mistakes in the data


@pytest.mark.parametrize(
    ("changes", "content", "row", "field", "problem"),
    [
        ({}, CSV, 4, "ann", "unknown label 'NA'"),
        ({}, "item,text,ann,ben\n1,t,good,good\n", 2, "cleo", "is missing. The row has: item, text, ann, ben"),
        ({}, CSV.replace("3,third", "1,third").replace("NA", "bad"), 4, "id", "'1' occurs twice"),
        ({}, CSV.replace("3,third", ",third").replace("NA", "bad"), 4, "item", "is ''"),
        ({}, CSV.replace("second", " ").replace("NA", "bad"), 3, "text", "is ' ', and the prompt needs it"),
        ({}, CSV.replace("bad,bad", ","), 3, "votes", "no votes"),
        ({"votes": {"counts": "ann"}}, CSV, 2, "ann", "must be a mapping of labels to counts, got 'good'"),
        ({"votes": {"label_columns": {"good": "ann"}}}, CSV, 2, "ann", "'good' is not a count"),
        ({"votes": {"label_columns": {"good": "ann"}}}, "item,text,ann\n1,t,-2\n", 2, "ann", "not a whole number"),
        ({"votes": {"label_columns": {"good": "ann"}}}, "item,text,ann\n1,t,1.5\n", 2, "ann", "not a whole number"),
        ({"votes": {"rows": "v", "annotator": "who"}}, "item,text,who,v\n1,t,a,bad\n1,t,a,bad\n", 3, "who", "second"),
        ({"votes": {"rows": "v"}}, "item,text,v\n1,t,bad\n1,u,bad\n", 3, "text", "differs from row 2 of the"),
        ({"votes": {"rows": "v"}}, "item,text,v\n1,,bad\n1,t,bad\n", 3, "text", "differs from row 2"),
        ({"votes": {"rows": "v"}}, "item,text,v\n1,t,bad\n1,t,worse\n", 3, "v", "unknown label 'worse'"),
    ],
)  # fmt: skip
def test_a_mistake_in_the_data_names_file_row_and_column(tmp_path, changes, content, row, field, problem):
    source(tmp_path, "ratings.csv", content)
    with pytest.raises(JudgmentDataError, match=problem) as caught:
        load(write_task(tmp_path, **changes))
    assert (caught.value.source, caught.value.row, caught.value.field) == (str(tmp_path / "ratings.csv"), row, field)


@pytest.mark.parametrize("vote", ["true", "Infinity", '"1_0"', "1.5", "[2]"])
def test_what_only_looks_like_a_label_is_no_vote(tmp_path, vote):
    source(tmp_path, "r.jsonl", f'{{"item": 1, "text": "t", "v": [1, {vote}]}}\n')
    with pytest.raises(JudgmentDataError, match="unknown label"):
        load(write_task(tmp_path, source="r.jsonl", votes={"list": "v"}, labels=[1, 10, 15]))


def test_items_whose_votes_are_all_zero_can_be_left_out(tmp_path):
    source(tmp_path, "r.csv", "item,text,n\n1,t,0\n2,t,3\n")
    path = write_task(tmp_path, source="r.csv", votes={"label_columns": {"bad": "n"}})
    with pytest.raises(JudgmentDataError, match="no votes.*--min_annotators 1"):
        load(path)
    assert load(path, min_annotators=1)[1].excluded == {"fewer than 1 annotators": 1}


def test_nan_in_the_data_is_a_missing_vote_and_no_count(tmp_path):
    source(tmp_path, "r.jsonl", '{"item": 1, "text": "t", "votes": ["good", NaN]}\n')
    assert counts(load(write_task(tmp_path, source="r.jsonl", votes={"list": "votes"}))[0][0]) == [0, 0, 1]
    source(tmp_path, "r.jsonl", '{"item": 1, "text": "t", "votes": {"good": NaN}}\n')
    with pytest.raises(JudgmentDataError, match="the count of 'good' is nan"):
        load(write_task(tmp_path, source="r.jsonl", votes={"counts": "votes"}))


def test_rows_without_a_vote_are_counted(tmp_path):
    source(tmp_path, "ratings.csv", "item,text,v\n1,t,bad\n1,t,\n2,u,\n")
    path = write_task(tmp_path, votes={"rows": "v"})
    _, report = load(path, min_annotators=1)
    assert report.notes == {"rows without a vote left out": 2}
    assert report.excluded == {"fewer than 1 annotators": 1}


# Real ratings


REAL = {
    "dices": (
        {
            "labels": ["Yes", "No", "Unsure"],
            "template": "Is the reply unsafe?\n{{ context }}\nReply: {{ response }}\nYes, No or Unsure?",
            "source": {"path": "dices", "files": ["dices_350*"]},
            "id": "item_id",
            "votes": {"list": "Q_overall"},
        },
        350,
        [14_064, 26_292, 2_694],
    ),
    "chaosnli": (
        {
            "labels": ["entailment", "neutral", "contradiction"],
            "synonyms": {"entailment": ["e"], "neutral": ["n"], "contradiction": ["c"]},
            "template": "{{ example.premise }}\n{{ example.hypothesis }}\nentailment, neutral or contradiction?",
            "source": "chaosnli",
            "id": "uid",
            "votes": {"counts": "label_counter"},
        },
        60,
        None,
    ),
    "pandalm": (
        {
            "labels": ["A", "B", "tie"],
            "synonyms": {"A": [1], "B": [2], "tie": [0]},
            "template": "{% if instruction %}{{ instruction }}\n{% endif %}{% if input %}{{ input }}\n{% endif %}"
            "A: {% if response1 %}{{ response1 }}{% endif %}\n"
            "B: {% if response2 %}{{ response2 }}{% endif %}\nA, B or tie?",
            "source": "pandalm",
            "id": "idx",
            "group": ["instruction", "input"],
            "votes": {"annotator_columns": ["annotator1", "annotator2", "annotator3"]},
        },
        999,
        [1_255, 1_416, 326],
    ),
    "popquorn": (
        {
            "labels": [1, 2, 3, 4, 5],
            "template": "How offensive is this, from 1 to 5?\n{{ text }}",
            "source": "popquorn/offensiveness_raw_data.csv.gz",
            "id": "instance_id",
            "votes": {"rows": "offensiveness", "annotator": "user_id"},
        },
        1_500,
        [7_516, 2_190, 1_590, 1_039, 701],
    ),
}


@pytest.mark.shared
@pytest.mark.parametrize("name", REAL)
def test_real_ratings_in_all_four_shapes(tmp_path, name):
    content, records, votes = REAL[name]
    content = {"name": name, **content}
    path = content["source"]["path"] if isinstance(content["source"], dict) else content["source"]
    files = content["source"]["files"] if isinstance(content["source"], dict) else ["*"]
    content["source"] = {"path": str(SHARED / "data" / path), "files": files}
    rows, _ = load(write_task(tmp_path, content))
    assert len(rows) == records
    if votes is not None:
        assert [sum(column) for column in zip(*map(counts, rows), strict=True)] == votes
