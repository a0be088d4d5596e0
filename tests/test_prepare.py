"""What a recipe answers to a sweep before any trial: values as it reads them, data, and what it refuses."""

import json
import runpy

import pytest
from conftest import ROOT, make_tiny_model

from distjudge_trl.data import fingerprint
from distjudge_trl.errors import UserInputError
from distjudge_trl.prepare import prepare
from distjudge_trl.recipe_data import find_model, find_template, load_parts
from distjudge_trl.supervised import PREPARED


RECIPE = runpy.run_path(str(ROOT / "recipes/vader.py"))["RECIPE"]


@pytest.fixture
def ask(tmp_path, tokenizer, lexicon):
    make_tiny_model(len(tokenizer), context=1024).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    common = ["--model_name_or_path", str(tmp_path / "model"), "--data_path", str(lexicon), "--score_on", "validation"]

    def ask(parameters, *options):
        request = {"options": [*common, *options], "parameters": parameters, "save": str(tmp_path / "data")}
        (tmp_path / "request.json").write_text(json.dumps(request))
        prepare(RECIPE, str(tmp_path))
        return json.loads((tmp_path / "answer.json").read_text())

    ask.options = common
    return ask


def test_values_come_back_as_the_recipe_reads_them(ask):
    answer = ask({"alpha": [0, 1], "optim": ["sgd"], "lora_r": [4]}, "--max_train_samples", "50")
    assert answer["parameters"] == {"alpha": [0.0, 1.0], "optim": ["sgd"], "lora_r": [4]}
    assert answer["options"]["max_train_samples"] == 50 and answer["options"]["score_on"] == "validation"
    assert answer["num_train"] == 50 and 20 < answer["num_scored"] < 60
    assert answer["task"] == "vader" and "data_path" in answer["options"]


@pytest.mark.parametrize(
    ("parameters", "options", "message"),
    [
        ({"alfa": [1]}, (), "--param alfa: the recipe vader has no such option. Did you mean alpha?"),
        ({"alpha": [0.5, 1.5]}, (), "--param alpha: 1.5 is not accepted: `alpha` must lie between 0 and 1"),
        ({"adversary": ["pgdd"]}, (), "--param adversary: pgdd is not accepted"),
        ({"seed": [1, 2]}, (), "give --seeds N"),
        ({"split_seed": [1, 2]}, (), "it decides which items choose"),
        ({"output_dir": ["a"]}, (), "the sweep sets it itself"),
        ({"alpha": [0.2]}, ("--method", "single-point"), "--method single-point means alpha=0.0"),
        ({"alpha": [1]}, ("--alfa", "1"), "Unknown option --alfa. Did you mean --alpha?"),
        ({"alpha": [1]}, ("--data_path", "/nowhere"), "/nowhere"),
    ],
)
def test_what_the_recipe_does_not_take_is_refused(ask, parameters, options, message):
    with pytest.raises(UserInputError) as error:
        ask(parameters, *options)
    assert message in str(error.value)


def test_runs_find_the_records_that_were_read(ask, tmp_path, monkeypatch):
    """The same records and report, from the saved copy; other settings read the files themselves."""
    ask({"alpha": [1]})
    saved = list((tmp_path / "data").iterdir())
    assert len(saved) == 1 and not list(saved[0].glob(".*"))

    def parts(*options):
        run = RECIPE.parse([*ask.options, *options])
        return load_parts(run, find_template(run), find_model(run)[1])

    read = parts()
    monkeypatch.setenv(PREPARED, str(tmp_path / "data"))
    found = parts("--alpha", "0.3")
    assert found.train.cache_files and not read.train.cache_files
    for name in ("train", "validation", "scored"):
        assert getattr(found, name).to_list() == getattr(read, name).to_list()
    assert found.report.lines() == read.report.lines()
    other = parts("--split_seed", "3")
    assert not other.train.cache_files and fingerprint(other.train) != fingerprint(read.train)
    assert len(parts("--max_train_samples", "7").train) == 7
