"""Splits that a user's own data names: a column, a file for each part, the splits of the hub."""

import json

import openpyxl
import pytest
import yaml
from click.testing import CliRunner

from distjudge_trl.cli import main
from distjudge_trl.errors import JudgmentDataError, UserInputError
from distjudge_trl.evaluation import read_predictions, read_results
from distjudge_trl.judge_folder.training_items import SeenItems
from distjudge_trl.recipe import PAPER_TRAINING, Recipe
from distjudge_trl.recipe.preflight import CheckedRecipe, run_preflight
from distjudge_trl.tasks import LoadReport, get_task


COLUMN = {"column": "split", "train": ["train"], "validation": ["dev"], "test": ["test"]}
FILES = {"train": "a.jsonl", "validation": "b.jsonl", "test": "c.jsonl"}


def write_task(folder, **changes):
    task = {
        "name": "clarity",
        "labels": ["1", "2", "3"],
        "template": "How clear is this? {{ text }}",
        "source": "r.jsonl",
        "votes": {"list": "votes"},
        **changes,
    }
    path = folder / "task.yaml"
    path.write_text(yaml.safe_dump(task, sort_keys=False, allow_unicode=True), encoding="utf-8")
    return str(path)


def write_rows(folder, rows, name="r.jsonl"):
    rows = [{"text": f"text {i} of {name}", "votes": ["1", "2"], **row} for i, row in enumerate(rows, start=1)]
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def load(path, data_path=None):
    task, report = get_task(path), LoadReport()
    assert task.official_split
    return [(row["id"], row["group"], row["split"]) for row in task.load(data_path, report=report)], report


def parts_of(path):
    return [part for _, _, part in load(path)[0]]


def test_a_column_says_the_part(tmp_path):
    write_rows(tmp_path, [{"split": "train"}, {"split": "dev"}, {"split": "test"}])
    assert load(write_task(tmp_path, split=COLUMN))[0] == [
        ("1", "1", "train"),
        ("2", "2", "validation"),
        ("3", "3", "test"),
    ]


@pytest.mark.parametrize(
    ("values", "split", "parts"),
    [
        (
            [" Train ", "TEST", "fold\u0065\u0301"],
            {"train": "train", "validation": ["fold\u00e9"], "test": ["test"]},
            ["train", "test", "validation"],
        ),
        ([1, "2.0", 0.0], {"train": [0, "01"], "test": 2}, ["train", "test", "train"]),
        ([True, False, "true"], {"train": ["true"], "test": ["false"]}, ["train", "test", "train"]),
    ],
)
def test_values_are_compared_as_labels_are(tmp_path, values, split, parts):
    write_rows(tmp_path, [{"my split": value} for value in values])
    assert parts_of(write_task(tmp_path, split={"column": "my split", **split})) == parts


def test_a_path_and_values_that_are_ignored(tmp_path):
    write_rows(tmp_path, [{"meta": {"set": name}} for name in ("a", "x", "b", "y", "x")])
    split = {"column": "meta.set", "train": ["a"], "test": ["b"], "ignore": ["x", "y"]}
    rows, report = load(write_task(tmp_path, split=split))
    assert [(name, part) for name, _, part in rows] == [("1", "train"), ("3", "test")]
    assert report.notes == {"rows left out by `split: ignore`": 3}
    assert report.num_read == 2


def test_rows_of_one_item_are_in_one_part(tmp_path):
    rows = [{"id": i, "text": f"t{i}", "vote": "1", "split": "train" if i < 2 else "test"} for i in (1, 2, 1, 2)]
    write_rows(tmp_path, rows)
    split = {"column": "split", "train": "train", "test": "test"}
    path = write_task(tmp_path, id="id", votes={"rows": "vote"}, split=split)
    assert load(path)[0] == [("1", "1", "train"), ("2", "2", "test")]
    write_rows(tmp_path, [*rows, {**rows[0], "split": "test"}])
    with pytest.raises(UserInputError, match=r"row 5, field `split`: differs from row 1 of the same item '1'"):
        load(path)


def test_a_file_for_each_part(tmp_path):
    """Numbers of rows begin anew in each file, and files of a part in its folder have their names, too."""
    for name in ("a.jsonl", "c.jsonl"):
        write_rows(tmp_path, [{}, {}], name)
    (tmp_path / "dev").mkdir()
    for name in ("x1.jsonl", "x2.jsonl"):
        write_rows(tmp_path / "dev", [{}], name)
    path = write_task(tmp_path, source={"train": "a.jsonl", "validation": {"path": "dev"}, "test": "c.jsonl"})
    assert [(name, part) for name, _, part in load(path)[0]] == [
        ("train:1", "train"),
        ("train:2", "train"),
        ("validation:1.jsonl:1", "validation"),
        ("validation:2.jsonl:1", "validation"),
        ("test:1", "test"),
        ("test:2", "test"),
    ]


def test_ids_that_several_parts_have_are_prefixed(tmp_path):
    write_rows(tmp_path, [{"id": "x", "who": "g"}, {"id": "y", "who": "h"}], "a.jsonl")
    write_rows(tmp_path, [{"id": "x", "who": "g"}], "b.jsonl")
    write_rows(tmp_path, [{"id": "z", "who": "h"}], "c.jsonl")
    rows, report = load(write_task(tmp_path, source=FILES, id="id"))
    assert [row[0] for row in rows] == [row[1] for row in rows] == ["train:x", "y", "validation:x", "z"]
    assert "ids that are in several parts of the split, prefixed with the part (train:ID): 1" in report.lines()
    # Groups that the file names are kept: what they share is a leak.
    rows, _ = load(write_task(tmp_path, source=FILES, id="id", group="who"))
    assert [row[:2] for row in rows] == [("train:x", "g"), ("y", "h"), ("validation:x", "g"), ("z", "h")]


def test_a_row_an_annotator_in_files_of_their_own(tmp_path):
    """An id that comes again in another part is another item."""
    for name in FILES.values():
        write_rows(tmp_path, [{"id": 1, "text": name, "vote": "1"}, {"id": 1, "text": name, "vote": "2"}], name)
    rows, _ = load(write_task(tmp_path, source=FILES, id="id", votes={"rows": "vote"}))
    assert [row[0] for row in rows] == ["train:1", "validation:1", "test:1"]
    assert [row["num_annotators"] for row in get_task(str(tmp_path / "task.yaml")).load()] == [2, 2, 2]


def test_parts_are_read_as_each_says(tmp_path):
    """Two sheets of one workbook, and a file in another encoding with its own delimiter."""
    book = openpyxl.Workbook()
    for name in ("A", "B"):
        sheet = book.create_sheet(name)
        for row in (["text", "votes"], [f"text {name}", "1;2"]):
            sheet.append(row)
    book.save(tmp_path / "r.xlsx")
    (tmp_path / "c.csv").write_bytes("text|votes\ncafé|1;3\n".encode("cp1252"))
    parts = {
        "train": {"path": "r.xlsx", "sheet": "A"},
        "validation": {"path": "r.xlsx", "sheet": "B"},
        "test": {"path": "c.csv", "encoding": "cp1252", "delimiter": "|"},
    }
    records = get_task(write_task(tmp_path, source=parts)).load()
    assert [row["prompt"][0]["content"][19:] for row in records] == ["text A", "text B", "café"]
    assert records["split"][:] == ["train", "validation", "test"]


def test_the_splits_of_the_hub(tmp_path):
    """A local folder in the hub's layout goes the same way as a repository; a copy of its files, too."""
    (tmp_path / "repo").mkdir()
    for name, count in (("train", 2), ("validation", 1), ("test", 1)):
        write_rows(tmp_path / "repo", [{}] * count, f"{name}.jsonl")
    hub = {"hub": str(tmp_path / "repo"), "splits": {"train": "train", "test": "validation"}}
    path = write_task(tmp_path, source=hub)
    expected = [("train:1", "train:1", "train"), ("train:2", "train:2", "train"), ("test:1", "test:1", "test")]
    rows, report = load(path)
    assert rows == expected
    assert report.files == [f"hub:{tmp_path / 'repo'} (train)", f"hub:{tmp_path / 'repo'} (validation)"]
    assert load(path, tmp_path / "repo")[0] == expected


def test_other_files_in_place_of_several(tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    for name in FILES.values():
        write_rows(other, [{}], name)
    path = write_task(tmp_path, source=FILES)
    assert [part for _, _, part in load(path, other)[0]] == ["train", "validation", "test"]
    with pytest.raises(UserInputError, match=r"is no folder.*give a folder that holds a.jsonl, b.jsonl and c.jsonl"):
        load(path, other / "a.jsonl")
    (other / "b.jsonl").unlink()
    with pytest.raises(UserInputError, match=r"b.jsonl: no such file or folder; `source` names one for .*validation"):
        load(path, other)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"split": "split"}, "`split`: must be a mapping such as {column: split, train: .*got 'split'"),
        ({"split": {"train": ["a"], "test": ["b"]}}, "`split.column`: is missing"),
        ({"split": {**COLUMN, "dev": ["x"]}}, "`split.dev`: is not a key.*known here are column, train, validation"),
        ({"split": {"column": "split", "train": ["a"]}},
         "`split`: `split` names two or three .*only `train` is named"),
        ({"split": {**COLUMN, "test": ["Dev"]}}, "the value 'Dev' stands under `validation` and under `test`"),
        ({"split": {**COLUMN, "ignore": "test"}}, "the value 'test' stands under `test` and under `ignore`"),
        ({"split": {**COLUMN, "test": []}}, "`split.test`: must not be empty"),
        ({"split": {**COLUMN, "test": [True]}}, "YAML reads an unquoted yes"),
        ({"split": COLUMN, "source": FILES}, "`source` and `split` both say which part a row belongs to"),
        ({"source": {"train": "a.jsonl"}}, "only `train` is named. For a single file write `source: a.jsonl`"),
        ({"source": {**FILES, "dev": "x"}}, "`source.dev`: is not a key.*known here are train, validation, test"),
        ({"source": {**FILES, "test": {"path": "c.jsonl", "sep": ";"}}}, "`source.test.sep`: is not a key.*delimiter"),
        ({"source": {**FILES, "test": "a.jsonl"}}, "a.jsonl: is the file of `train` and of `test`"),
        ({"source": {**FILES, "test": "./none.jsonl"}}, "none.jsonl: no such file"),
        ({"source": {**FILES, "test": "empty.jsonl"}}, "`source`: what it names for the part `test` holds no rows"),
        ({"source": {"hub": "o/n", "splits": "test"}}, "must map parts to splits.*write `split: test`"),
        ({"source": {"hub": "o/n", "splits": {"train": "train"}}}, "`splits` names two or three.*write `split: NAME`"),
        ({"source": {"hub": "o/n", "splits": {"train": "x", "test": "x"}}}, "`splits` uses 'x' for two parts"),
        ({"source": {"hub": "o/n", "split": "x", "splits": {"train": "a", "test": "b"}}}, "not both"),
        ({"source": {"hub": "o/n", "splits": {"train": "a", "dev": "b"}}}, "`source.splits.dev`: is not a key.*valid"),
        ({"split": {"column": "splt", "train": "train", "test": "dev"}},
         "field `splt`: is missing.*Did you mean 'split'"),
        ({"split": {"column": "votes", "train": "train", "test": "dev"}}, "field `votes`: must name one part"),
        ({"split": {"column": "m.n", "train": "train", "test": "dev"}}, "row 1, field `m.n`: is empty.*`skip`"),
        ({"split": {"column": "split", "train": "train", "test": "test"}},
         "r.jsonl, row 2, field `split`: 'dev' is in none of .*`validation: .\"dev\".`, or `ignore: .\"dev\".` to"),
        ({"split": {"column": "split", "train": ["train", "devel"], "test": "test", "ignore": "old"}},
         'write `validation: ."dev".`, or `ignore: ."old", "dev".`'),
        ({"split": {"column": "split", "train": "train", "validation": "dev", "test": "holdout"}},
         "`split`: no row has 'holdout' in .*the part `test` is empty; all rows are train and validation"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_in_one_line(tmp_path, changes, match):
    write_rows(tmp_path, [{"split": "train"}, {"split": "dev"}])
    for name in FILES.values():
        write_rows(tmp_path, [{}], name)
    (tmp_path / "empty.jsonl").write_text("")
    path = write_task(tmp_path, **changes)
    with pytest.raises(UserInputError, match=match) as caught:
        load(path)
    assert "\n" not in str(caught.value)


def test_an_unknown_value_that_may_be_any_part(tmp_path):
    write_rows(tmp_path, [{"split": "train"}, {"split": "fold 7"}])
    with pytest.raises(
        UserInputError, match=r"In `split` list it under train, validation or test, or write `ignore: "
    ):
        load(write_task(tmp_path, split=COLUMN))


# From the data to a judge


@pytest.fixture
def own(tmp_path):
    """40 training, 8 validation and 12 test items; one test text is also in training."""
    parts = ["train"] * 40 + ["dev"] * 8 + ["test"] * 12
    rows = [{"text": f"text {i}", "split": p, "votes": ["1", "2", str(i % 3 + 1)]} for i, p in enumerate(parts)]
    rows[-1]["text"] = "text 3"
    write_rows(tmp_path, rows)
    return write_task(tmp_path, split=COLUMN)


def test_the_doctor_shows_leaks_between_the_parts(own):
    shown = CliRunner().invoke(main, ["data", own, "--stats"])
    assert shown.exit_code == 0, shown.output
    assert "Split 'official': 40 train, 8 validation, 12 test" in shown.output
    assert "Test prompts that are in train, too: 1" in shown.output
    assert "Validation prompts that are in train, too: 0" in shown.output
    shown = CliRunner().invoke(main, ["data", own, "--stats", "--split", "group"])
    assert "Split 'group' (seed 0): 48 train, 12 test" in shown.output


def recipe(model, **training):
    defaults = {"max_steps": 2, "save_strategy": "no", "bf16": False, "use_cpu": True, "use_peft": False}
    return Recipe(task=None, model=model, training={**PAPER_TRAINING, **defaults, **training})


def test_a_run_its_evaluation_and_the_report_keep_to_the_parts(own, recipe_model, tmp_path, capsys):
    folder = tmp_path / "judge"
    recipe(recipe_model).run(["--task", own, "--output_dir", str(folder), "--calibrate", "False"])
    assert "clarity: 40 training items, 12 test items" in capsys.readouterr().out
    results = read_results(folder)
    assert results["settings"]["split"] == "official" and results["settings"]["num_train_items"] == 40
    tested = [str(i) for i in range(49, 61)]
    assert read_predictions(folder)["id"][:] == tested
    records = get_task(own).load()
    seen = SeenItems.read(folder)
    assert seen.unseen(records, "id")["id"][:] == [str(i) for i in range(41, 61)]

    words = ["evaluate", "--model", str(folder), "--task", own, "--device", "cpu"]
    done = CliRunner().invoke(main, [*words, "--out", str(tmp_path / "again")])
    assert done.exit_code == 0, done.output
    again = read_results(tmp_path / "again")
    assert again["test_fingerprint"] == results["test_fingerprint"]
    assert again["settings"]["split"] == "official"
    assert again["metrics"]["kl"]["value"] == pytest.approx(results["metrics"]["kl"]["value"], abs=1e-4)
    # Another split draws from all items; those of the training part are left out.
    done = CliRunner().invoke(main, [*words, "--split", "group", "--out", str(tmp_path / "group")])
    assert done.exit_code == 0, done.output
    assert set(read_predictions(tmp_path / "group")["id"][:]) < {str(i) for i in range(41, 61)}

    done = CliRunner().invoke(main, ["report", str(folder), "--out", str(tmp_path / "report")])
    assert done.exit_code == 0, done.output
    page = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    assert "<th>split</th>" in page and "<td>official</td>" in page


def test_a_sweep_chooses_on_the_validation_part(own, recipe_model, tmp_path):
    made = recipe(recipe_model)
    request = {"options": ["--task", own], "extra": ["--score_on", "validation"], "points": []}
    request |= {"parameters": {"alpha": [0.5]}, "save": str(tmp_path / "saved")}
    (tmp_path / "request.json").write_text(json.dumps(request))
    run_preflight(CheckedRecipe(made.name, made.parse, {}), str(tmp_path))
    answer = json.loads((tmp_path / "answer.json").read_text())
    assert (answer["num_train"], answer["num_scored"]) == (40, 8)


def test_training_without_a_part_to_test_on(tmp_path, recipe_model):
    for name in ("b.jsonl", "c.jsonl"):
        write_rows(tmp_path, [{}, {}], name)
    path = write_task(tmp_path, source={"validation": "b.jsonl", "test": "c.jsonl"})
    with pytest.raises(UserInputError, match="needs a training part.*0 train, 2 validation, 2 test records"):
        recipe(recipe_model).run(["--task", path, "--output_dir", str(tmp_path / "out")])


def test_one_item_in_two_part_files_is_refused(tmp_path):
    for name, rows in {
        "tr": "1,same text,a,yes\n1,same text,b,no\n",
        "te": "1,same text,c,yes\n2,other,a,no\n",
    }.items():
        (tmp_path / f"{name}.csv").write_text(f"id,text,who,v\n{rows}")
    (tmp_path / "task.yaml").write_text(
        "name: t\nlabels: ['yes', 'no']\ntemplate: 'Yes or no? {{ text }}'\nid: id\nvotes: {rows: v, annotator: who}\n"
        "source: {train: tr.csv, test: te.csv}\n"
    )
    with pytest.raises(JudgmentDataError, match="the item '1' of the part `test` is in `train`, too"):
        get_task(str(tmp_path / "task.yaml")).load()


def test_slices_of_one_hub_split_are_refused(tmp_path):
    (tmp_path / "task.yaml").write_text(
        "name: t\nlabels: ['yes', 'no']\ntemplate: '{{ text }}'\nvotes: {list: v}\n"
        "source: {hub: a/b, splits: {train: train, test: 'train[:10%]'}}\n"
    )
    with pytest.raises(UserInputError, match="`splits` uses 'train' for two parts"):
        get_task(str(tmp_path / "task.yaml"))
