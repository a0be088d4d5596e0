"""`distjudge-trl submit`: submissions in the organisers' formats, read back."""

import json
import zipfile

import pytest
from click.testing import CliRunner
from conftest import make_tiny_model
from lewidi_examples import pair, relation, tweet, without_labels, write_items

from distjudge_trl.cli import main
from distjudge_trl.errors import UserInputError
from distjudge_trl.evaluation.submission import check_submission
from distjudge_trl.recipe import Recipe


@pytest.fixture(scope="module")
def model(tmp_path_factory, tokenizer):
    folder = tmp_path_factory.mktemp("submission") / "model"
    make_tiny_model(len(tokenizer), context=512).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def submit(model, task, data, out, *more):
    command = ["submit", "--model", str(model), "--task", task, "--data-path", str(data), "--out", str(out), *more]
    return CliRunner().invoke(main, command)


def lines(path):
    return [line.split("\t") for line in path.read_text().splitlines()]


def test_2023_in_the_order_of_the_file_from_a_trained_judge(model, tmp_path):
    """Also for items without labels; the folder's test file is judged, not its training file."""
    tweets = {str(i): tweet(f"tweet number {i}", [i % 2, 1, 0], i % 2, "train") for i in range(20)}
    write_items(tmp_path / "MD-Agreement_train.json", tweets)
    write_items(tmp_path / "MD-Agreement_dev.json", tweets | {"0": tweet("another", [1], 1, "dev")})
    recipe = Recipe(task="md_agreement", model=str(model), training={"max_steps": 1, "save_strategy": "no"})
    judge = tmp_path / "judge"
    recipe.run(["--data_path", str(tmp_path), "--output_dir", str(judge), "--bf16", "False"])
    order = ["7", "3", "12"]
    tests = {key: without_labels(tweet(f"test {key}", [0], 0, "test")) for key in order}
    write_items(tmp_path / "MD-Agreement_test.json", tests)
    done = submit(judge, "md_agreement", tmp_path, tmp_path / "out")
    assert done.exit_code == 0, done.output
    rows = lines(tmp_path / "out" / "MD-Agreement_results.tsv")
    assert len(rows) == 3 and all(float(no) + float(yes) == pytest.approx(1) for _, no, yes in rows)
    assert [hard for hard, _, _ in rows] == [str(int(float(yes) > float(no))) for _, no, yes in rows]
    # Line by line those of the items, asked alone.
    for key, row in zip(order, rows, strict=True):
        alone = write_items(tmp_path / "one.json", {key: tests[key]})
        assert submit(judge, "md_agreement", alone, tmp_path / "single").exit_code == 0
        (single,) = lines(tmp_path / "single" / "MD-Agreement_results.tsv")
        assert float(single[1]) == pytest.approx(float(row[1]), abs=1e-5)
    assert len({row[1] for row in rows}) == 3
    with zipfile.ZipFile(tmp_path / "out" / "res.zip") as archive:
        assert archive.namelist() == ["MD-Agreement_results.tsv"]


def test_2025_has_ids_and_lists_and_one_archive_for_several_tasks(model, tmp_path):
    labels = ["neutral", "entailment"]
    pairs = {key: without_labels(relation(f"statement {key}", labels, "test")) for key in ("90", "4")}
    questions = {key: without_labels(pair(f"question {key}?", ["1"])) for key in ("33", "2", "18")}
    ven = write_items(tmp_path / "VariErrNLI_test_clear.json.gz", pairs)
    par = write_items(tmp_path / "Paraphrase_test.json", questions)
    out = tmp_path / "out"
    for task, path in (("ven", ven), ("par", par)):
        done = submit(model, task, path, out)
        assert done.exit_code == 0, done.output
    soft = {key: json.loads(text) for key, text in lines(out / "VariErrNLI_test_soft.tsv")}
    assert list(soft) == ["90", "4"] and all(len(rows) == 3 for rows in soft.values())
    assert all(sum(row) == pytest.approx(1) for rows in soft.values() for row in rows)
    assert len({row[0] for row in soft["4"]}) == 3  # three different questions
    soft = {key: json.loads(text) for key, text in lines(out / "Paraphrase_test_soft.tsv")}
    assert list(soft) == ["33", "2", "18"] and {len(row) for row in soft.values()} == {11}
    with zipfile.ZipFile(out / "res.zip") as archive:
        assert sorted(archive.namelist()) == ["Paraphrase_test_soft.tsv", "VariErrNLI_test_soft.tsv"]


def test_a_folder_without_a_test_file_and_tasks_of_others_are_refused(model, tmp_path):
    for part in ("train", "dev"):
        write_items(tmp_path / f"MD-Agreement_{part}.json", {"1": tweet("a", [1], 1, part)})
    done = submit(model, "md_agreement", tmp_path, tmp_path / "out")
    assert done.exit_code == 2 and "holds no test files among" in done.output
    done = submit(model, "vader", tmp_path, tmp_path / "out")
    assert done.exit_code == 2 and "'vader' is not a task of LeWiDi" in done.output
    assert not (tmp_path / "out").exists()  # nothing is half-written
    done = CliRunner().invoke(main, ["submit", "--model", "x"])
    assert done.exit_code == 2 and "needs --model, --task, --data-path and --out" in done.output


@pytest.mark.parametrize(
    ("task", "text", "problem"),
    [
        ("md_agreement", "0\t0.6\t0.4\n", "has 1 lines for 2 items"),
        ("md_agreement", "0\t0.6\t0.4\n0\t0.6\n", "line 2: has 2 columns"),
        ("md_agreement", "0\t0.6\t0.4\n0\t0.4\t0.6\n", "line 2: the hard label 0 is not the likeliest"),
        ("md_agreement", "0\t0.6\t0.4\n1\t0.4\t0.7\n", "line 2: has probabilities that do not sum to 1"),
        ("mp", "a\t[0.5, 0.5]\nc\t[0.5, 0.5]\n", "line 2: has the id 'c', where 'b' is expected"),
        ("mp", "a\t[0.5, 0.5]\nb\t[1.0]\n", "line 2: has no 2 probabilities"),
        ("ven", "a\t[[0.5, 0.5], [0, 1], [1, 0]]\nb\t[[1, 0]]\n", "line 2: has no 2 probabilities"),
    ],
)
def test_a_file_that_is_not_in_the_format_is_named_by_its_line(task, text, problem, tmp_path):
    path = tmp_path / "file.tsv"
    path.write_text(text)
    with pytest.raises(UserInputError, match=problem):
        check_submission(task, path, ["a", "b"])
