"""`distjudge-trl export-openai` writes the training side alone, with the prompts of local training."""

import json

import pytest
from click.testing import CliRunner
from conftest import small_files
from examples import SNLI, write

from distjudge_trl.cli import main
from distjudge_trl.data import SplitPlan
from distjudge_trl.tasks import get_task


VOTES = ("entailment", "neutral", "contradiction")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("snli")
    rows = [
        {
            **SNLI[0],
            "pairID": f"{i}",
            "sentence1": f"A woman mends {i} bicycles.",
            "sentence2": f"She has {i % 7} wheels in hand.",
            "annotator_labels": [VOTES[(i * j) % 3] for j in range(5)],
        }
        for i in range(60)
    ]
    write(folder / "snli_1.0_train.jsonl", rows)
    return str(folder)


def export(*args):
    return CliRunner().invoke(main, ["export-openai", *map(str, args)])


def read(path):
    return [json.loads(line)["messages"] for line in path.read_text("utf-8").splitlines()]


def parts(data, **plan):
    task = get_task("snli")
    return SplitPlan(**plan).partition(task.load(data, task.options()), hold_out=True)


def test_the_training_side_alone_is_written_as_local_training_shows_it(data, tmp_path):
    done = export("snli", "--data-path", data, "--mode", "soft", "--out", tmp_path / "train.jsonl", "--split-seed", 3)
    assert done.exit_code == 0, done.output
    assert f"{tmp_path / 'train.jsonl'}: 240 rows of 48 items" in done.output
    expected = parts(data, seed=3)
    votes = {}
    for messages in read(tmp_path / "train.jsonl"):
        votes.setdefault(json.dumps(messages[:-1]), []).append(messages[-1]["content"])
    training = [*expected.train, *expected.validation]
    assert set(votes) == {json.dumps(record["prompt"]) for record in training}
    for record in training:
        given = votes[json.dumps(record["prompt"])]
        assert [given.count(label) / 5 for label in VOTES] == record["label_distribution"]
    assert not set(votes) & {json.dumps(record["prompt"]) for record in expected.test}


def test_validation_rows_are_held_out_of_the_training_rows(data, tmp_path):
    files = ["--out", tmp_path / "train.jsonl", "--validation-out", tmp_path / "valid.jsonl"]
    done = export("snli", "--data_path", data, "--mode", "single-point", *files)
    assert done.exit_code == 0, done.output
    expected = parts(data)
    for name, part in (("train", expected.train), ("valid", expected.validation)):
        written = {json.dumps(messages) for messages in read(tmp_path / f"{name}.jsonl")}
        assert written == {json.dumps([*record["prompt"], *record["completion"]]) for record in part}


def test_prompts_on_both_sides_are_said(data, tmp_path):
    (tmp_path / "p.jinja").write_text("Does it follow? {{ hypothesis }}")
    words = ["--mode", "single-point", "--prompt-template", tmp_path / "p.jinja", "--out", tmp_path / "t.jsonl"]
    done = export("snli", "--data-path", data, *words)
    assert done.exit_code == 2 and "prompts repeat another one" in done.output, done.output
    done = export("snli", "--data-path", data, "--mode", "single-point", "--out", tmp_path / "t.jsonl")
    assert "Test prompts that are in train" not in done.output
    (tmp_path / "p.jinja").write_text("Does it follow? {{ premise[:15] }} {{ hypothesis }}")
    done = export("snli", "--data-path", data, *words)
    assert done.exit_code == 0 and "snli: Test prompts that are in train, too: " in done.output, done.output


def test_options_of_the_task_count_for_training_items(data, tmp_path):
    out = tmp_path / "t.jsonl"
    more = ["--max_annotators", 2, "--rows-per-item", 4, "--max-rows", 40]
    done = export("snli", "--data-path", data, "--mode", "soft", "--out", out, *more)
    assert done.exit_code == 0, done.output
    votes = {}
    for messages in read(out):
        votes.setdefault(messages[-2]["content"], []).append(messages[-1]["content"])
    assert len(votes) == 10 and {len(given) for given in votes.values()} == {4}
    # Of two votes come 4 and 0, or 2 and 2.
    assert {given.count(answer) for given in votes.values() for answer in given} <= {2, 4}


def test_a_template_of_ones_own(data, tmp_path):
    (tmp_path / "p.jinja").write_text("{{ premise }} | {{ hypothesis }}\n{{ legend }}")
    words = ["--mode", "single-point", "--prompt-template", tmp_path / "p.jinja", "--out", tmp_path / "t.jsonl"]
    assert export("snli", "--data-path", data, *words).exit_code == 0
    (user, _), *_ = read(tmp_path / "t.jsonl")
    assert user["content"].startswith("A woman mends") and user["content"].endswith("\nneutral\ncontradiction")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["snli"], "Give --mode and --out"),
        (["snli", "--mode", "soft", "--out", "t.json"], "name a file that ends in .jsonl"),
        (["snli", "--mode", "soft", "--out", "."], "name a file that ends in .jsonl"),
        (["snli", "--mode", "soft", "--out", "t.jsonl", "--validation-out", "./t.jsonl"], "name two files"),
        (["snli", "--mode", "soft", "--out", "DATA/snli_1.0_train.jsonl"], "is the input"),
        (["snli", "--mode", "soft", "--out", "kept.jsonl/t.jsonl"], "cannot be written"),
        (["snli", "--mode", "single-point", "--rows-per-item", "3", "--out", "t.jsonl"], "goes with --mode soft"),
        (["snli", "--mode", "soft", "--out", "t.jsonl", "--max-anotators", "3"], "Did you mean --max-annotators?"),
        (["snli", "--mode", "soft", "--out", "kept.jsonl", "--max-rows", "9"], "kept.jsonl: holds 5 examples"),
        (["snli", "--mode", "soft", "--out", "kept.jsonl", "--max-example-bytes", "80"], "kept.jsonl, row 1: has "),
        (["snli", "--mode", "soft", "--out", "kept.jsonl", "--split", "official"], "names no parts"),
        (["snly", "--mode", "soft", "--out", "t.jsonl"], "Did you mean 'snli'?"),
        (["--min_annotators", "3", "snli", "--mode", "soft", "--out", "t.jsonl"], "The task comes first"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(data, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "kept.jsonl").write_text("kept\n")
    words = [word.replace("DATA", data) for word in words]
    done = export(*words, "--data-path", data)
    assert done.exit_code == 2 and message in done.output, done.output
    assert sum(line.startswith("error: ") for line in done.output.splitlines()) == 1 or "Usage" in done.output
    assert [path.name for path in tmp_path.iterdir()] == ["kept.jsonl"]
    assert (tmp_path / "kept.jsonl").read_text() == "kept\n"


def test_a_full_disk_leaves_the_old_files(data, tmp_path):
    for name in ("t.jsonl", "v.jsonl"):
        (tmp_path / name).write_text("kept\n")
    files = ["--out", tmp_path / "t.jsonl", "--validation-out", tmp_path / "v.jsonl"]
    with small_files(30_000):
        done = export("snli", "--data-path", data, "--mode", "soft", *files)
    assert done.exit_code == 1 and "cannot be written" in done.output, done.output
    assert {path.read_text() for path in tmp_path.iterdir()} == {"kept\n"}
    assert len([*tmp_path.iterdir()]) == 2


def test_the_help_has_the_options_of_the_task():
    done = export("snli", "--help")
    assert done.exit_code == 0 and "--rows-per-item" in done.output and "--min_annotators" in done.output
