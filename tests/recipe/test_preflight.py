"""What a recipe answers to a sweep before any trial: values as it reads them, data, and what it refuses."""

import json
import runpy
from pathlib import Path

import pytest
from conftest import ROOT, make_tiny_model

from distjudge_trl.data import fingerprint
from distjudge_trl.errors import UserInputError
from distjudge_trl.recipe.data import find_model, find_template, load_parts
from distjudge_trl.recipe.preflight import CheckedRecipe, run_preflight
from distjudge_trl.recipe.trial import PREPARED
from distjudge_trl.sweep.space import parse_parameter


RECIPE = runpy.run_path(str(ROOT / "recipes/vader.py"))["RECIPE"]


@pytest.fixture
def ask(tmp_path, tokenizer, lexicon):
    make_tiny_model(len(tokenizer), context=1024).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    common = ["--model_name_or_path", str(tmp_path / "model"), "--data_path", str(lexicon)]

    def ask(parameters, *options, points=(), recipe=RECIPE):
        request = {"options": [*common, *options], "extra": ["--score_on", "validation"], "points": points}
        request |= {"parameters": parameters, "save": str(tmp_path / "data")}
        (tmp_path / "request.json").write_text(json.dumps(request))
        run_preflight(CheckedRecipe(recipe.name, recipe.parse, {}), str(tmp_path))
        return json.loads((tmp_path / "answer.json").read_text())

    ask.options = [*common, "--score_on", "validation"]
    return ask


def test_values_come_back_as_the_recipe_reads_them(ask):
    answer = ask({"alpha": [0, 1], "optim": ["sgd"], "lora_r": [4]}, "--max_train_samples", "50")
    assert answer["parameters"] == {"alpha": [0.0, 1.0], "optim": ["sgd"], "lora_r": [4]}
    assert answer["options"]["max_train_samples"] == 50 and "score_on" not in answer["options"]
    assert answer["num_train"] == 50 and 20 < answer["num_scored"] < 60
    assert answer["task"] == "vader" and "data_path" in answer["options"]


@pytest.mark.parametrize("words", [("--report_to", "none"), ("--report-to=none",)])
def test_what_becomes_an_empty_list_is_passed_on_as_it_was_given(ask, words):
    assert ask({"alpha": [1]}, *words)["options"]["report_to"] == "none"


@pytest.mark.parametrize(
    ("parameters", "options", "message"),
    [
        ({"alfa": [1]}, (), "--param alfa: the recipe vader has no such option. Did you mean alpha?"),
        ({"alpha": [0.5, 1.5]}, (), "--param alpha: 1.5 is not accepted: `alpha` must lie between 0 and 1"),
        ({"adversary": ["pgdd"]}, (), "--param adversary: pgdd is not accepted"),
        ({"seed": [1, 2]}, (), "give --seeds N"),
        ({"split_seed": [1, 2]}, (), "it decides which items choose"),
        ({"output_dir": ["a"]}, (), "the sweep sets it itself"),
        ({"draw_seed": [1, 2]}, (), "it decides which items choose"),
        ({"method": ["no-kl", "raw"]}, (), "raw trains nothing"),
        ({"alpha": [1]}, ("--output_dir", "x"), "--output_dir is set by the sweep itself"),
        ({"alpha": [1]}, ("--push_to_hub", "True"), "--push_to_hub is set by the sweep itself"),
        ({"alpha": [1]}, ("--load_in_4bit",), "Quantised weights cannot be trained, only adapters on them"),
        ({"load_in_4bit": [True]}, ("--use_peft", "False"), None),
        ({"alpha": [0.2]}, ("--method", "single-point"), "--method single-point means alpha=0.0"),
        ({"ordinal_loss_weight": [0, -1]}, (), "--param ordinal_loss_weight: -1 is not accepted"),
        ({"alpha": [1]}, ("--alfa", "1"), "Unknown option --alfa. Did you mean --alpha?"),
        ({"alpha": [1]}, ("--data_path", "/nowhere"), "/nowhere"),
    ],
)
def test_what_the_recipe_does_not_take_is_refused(ask, parameters, options, message):
    points = [{name: values[0]} for name, values in parameters.items()] if message is None else []
    with pytest.raises(UserInputError) as error:
        ask(parameters, *options, points=points)
    assert (message or "Quantised weights cannot be trained") in str(error.value)


def test_runs_find_the_records_that_were_read(ask, tmp_path, monkeypatch):
    """The same records and report, from the saved copy; other settings read the files themselves."""
    ask({"alpha": [1]})
    (saved,) = (tmp_path / "data").iterdir()
    assert not list(saved.glob(".*"))

    def parts(*options):
        run = RECIPE.parse([*ask.options, *options])
        return load_parts(run, find_template(run), find_model(run).fitter)

    read = parts()
    monkeypatch.setenv(PREPARED, str(saved))
    found = parts("--alpha", "0.3")
    assert found.train.cache_files and not read.train.cache_files
    for name in ("train", "validation", "scored"):
        assert getattr(found, name).to_list() == getattr(read, name).to_list()
    assert found.report.lines() == read.report.lines()
    other = parts("--split_seed", "3")
    assert not other.train.cache_files and fingerprint(other.train) != fingerprint(read.train)
    assert len(parts("--max_train_samples", "7").train) == 7


def test_a_range_of_whole_numbers_stays_whole(ask):
    rank = parse_parameter("lora_r=int:4:64")
    assert ask({"lora_r": list(rank.ends)})["parameters"] == {"lora_r": [4, 64]}


def test_records_that_changed_since_are_read_again(ask, tmp_path, lexicon):
    """A dry run, a mended file, the run: no trial may read what was there before."""
    path = tmp_path / "mended.txt"
    lines = lexicon.read_text().splitlines(True)
    path.write_text("".join(lines))
    first = ask({"alpha": [1]}, "--data_path", str(path))
    path.write_text("".join(lines[:-40]))
    second = ask({"alpha": [1]}, "--data_path", str(path))
    assert first["data"] != second["data"] and first["train_fingerprint"] != second["train_fingerprint"]


def test_a_user_s_own_task_is_passed_on_as_it_was_given(ask, tmp_path):
    task = ROOT / "docs/examples/replies.yaml"
    recipe = runpy.run_path(str(ROOT / "recipes/custom.py"))["RECIPE"]
    data = str(ROOT / "docs/examples/replies.csv")
    words = ("--data_path", data, "--task", str(task), "--min_annotators", "1", "--max_length", "600")
    answer = ask({"alpha": [0.5]}, *words, "--no_remove_unused_columns", recipe=recipe)
    assert answer["options"]["task"] == str(task) and answer["options"]["min_annotators"] == 1
    assert answer["options"]["remove_unused_columns"] is False
    assert answer["num_train"] > 5
    saved = json.loads((Path(answer["data"]) / "report.json").read_text())
    assert saved["report"]["num_read"] > answer["num_train"] and isinstance(saved["report"]["notes"], dict)
