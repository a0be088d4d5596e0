"""What a study must keep from start to start, and a sweep's YAML file."""

from dataclasses import replace

import pytest
import yaml
from conftest import ROOT

from distjudge_trl.errors import UserInputError
from distjudge_trl.files.shipped_files import list_shipped
from distjudge_trl.recipe.parsing import option_tokens
from distjudge_trl.sweep.definition import (
    Definition,
    find_metric,
    find_parameters,
)
from distjudge_trl.sweep.settings import read_config
from distjudge_trl.sweep.space import Parameter, parse_parameter


DEFINITION = Definition(
    recipe="vader",
    task="vader",
    parameters=(Parameter("alpha", (0.0, 0.8)), parse_parameter("learning_rate=log:1e-5:1e-3")),
    options={"max_train_samples": 40, "lora_target_modules": ["q_proj"]},
    sampler="random",
    sampler_seed=0,
    pruner="none",
    metric="kl",
    seeds=(42, 43),
    train_fingerprint="aa",
    scored_fingerprint="bb",
    defaults="d",
    precision="float32",
    processes=1,
    sharding="NO",
    heartbeat=60,
    data_path="here.txt",
)


def test_a_definition_survives_json():
    import json

    content = json.loads(json.dumps(DEFINITION.to_dict()))
    assert Definition.from_dict(content, "mine") == DEFINITION
    for damaged in (None, {**content, "newer": 1}, {"recipe": "vader"}):
        with pytest.raises(UserInputError, match="'mine' was made by another version"):
            Definition.from_dict(damaged, "mine")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"parameters": (Parameter("alpha", (0.0, 0.5)),)},
         ["grid", "alpha=0,0.8 learning_rate", "alpha=0,0.5"]),
        ({"train_fingerprint": "cc"}, ["training data (fingerprint): aa there, cc here"]),
        ({"scored_fingerprint": "cc"}, ["validation data"]),
        ({"options": {"max_train_samples": 50, "lora_target_modules": ["q_proj"]}},
         ["max_train_samples=40 there, max_train_samples=50 here"]),
        ({"seeds": (42,)}, ["seeds: 42,43 there, 42 here"]),
        ({"metric": "accuracy"}, ["metric"]),
        ({"processes": 4}, ["number of processes a trial: 1 there, 4 here"]),
        ({"precision": "bf16"}, ["precision: float32 there, bf16 here"]),
        ({"defaults": "e"}, ["recipe's defaults"]),
        ({"heartbeat": 30}, ["heartbeat"]),
    ],
)  # fmt: skip
def test_another_sweep_is_refused_with_the_difference(changes, words):
    with pytest.raises(UserInputError) as error:
        DEFINITION.check_same(replace(DEFINITION, **changes), "mine")
    assert all(word in str(error.value) for word in [*words, "'mine'", "--study"])


def test_another_machine_may_have_files_elsewhere_and_log_otherwise():
    DEFINITION.check_same(replace(DEFINITION, data_path="there.txt"), "mine")
    models = [{**DEFINITION.options, "model_name_or_path": f"/{disk}/model", "logging_steps": 5} for disk in "ab"]
    first, second = (replace(DEFINITION, options=options) for options in models)
    first.check_same(second, "mine")
    with pytest.raises(UserInputError, match="model_name_or_path=other here"):
        first.check_same(replace(DEFINITION, options={**models[0], "model_name_or_path": "/a/other"}), "mine")


def test_metrics_are_found_by_either_name():
    assert find_metric("eval_kl") == find_metric("kl") == "kl"
    assert find_metric("accuracy") == "accuracy" and not DEFINITION.maximize
    assert replace(DEFINITION, metric="accuracy").maximize
    with pytest.raises(UserInputError, match="Did you mean 'excess_kl'"):
        find_metric("excess-kl")


def test_flags_win_over_a_file():
    file = {"alpha": [0, 0.5], "learning-rate": "log:1e-5:1e-3"}
    found = find_parameters(["alpha=1"], file)
    assert [parameter.describe() for parameter in found] == ["alpha=1", "learning_rate=log:1e-05:0.001"]
    assert len(find_parameters(["learning_rate=1"], file)) == 2
    with pytest.raises(UserInputError, match="given twice"):
        find_parameters(["alpha=1", "alpha=2"], {})


def test_options_become_words_of_a_recipe_s_command_line():
    options = {"use_peft": False, "lora_target_modules": ["q_proj", "v_proj"], "data_path": None}
    options["model_init_kwargs"] = {"use_cache": False}
    assert option_tokens(options) == [
        *("--use_peft", "False", "--lora_target_modules", "q_proj", "v_proj"),
        *("--model_init_kwargs", '{"use_cache": false}'),
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("recipes: vader", "the key `recipes` is not known. Did you mean `recipe`?"),
        ("alpha: [0, 1]", "Options of the recipe stand below `options:`"),
        ("parameters: [alpha]", "field `parameters`: must be a mapping"),
        ("options: 3", "field `options`: must be a mapping"),
        ("dry_run: true", "Give it on the command line"),
        ("- a", "must be a mapping"),
        ("jobs: [1]", "field `jobs`: must be a whole number, got [1]"),
        ("out: [a, b]", "field `out`: must be a text, got ['a', 'b']"),
        ("storage: 7", "field `storage`: must be a text, got 7"),
        ("keep: true", "field `keep`: must be a whole number, got True"),
        ("a: [", "not valid YAML"),
        (None, "cannot be read"),
    ],
)
def test_a_file_that_is_no_sweep_is_refused(tmp_path, text, words):
    path = tmp_path / "sweep.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserInputError) as error:
        read_config(str(path))
    assert words in str(error.value) and str(path) in str(error.value)


@pytest.mark.parametrize("path", sorted((ROOT / "recipes/sweeps").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_sweep_is_whole(path):
    content = read_config(str(path))
    assert content["recipe"] in list_shipped("recipes", ".py")
    found = find_parameters([], content["parameters"])
    assert all(parameter.choices or content["sampler"] != "grid" for parameter in found)
    assert yaml.safe_load(path.read_text()) == content
