"""The paper's recipes fit on the cards that their docstrings name, at the longest prompts that they take."""

import ast
import runpy
from dataclasses import replace
from functools import cache

import pytest
from conftest import ROOT

from distjudge_trl.planning import Training, estimate, load_config, measure_footprint, read_sharding
from distjudge_trl.planning.memory import GIB


RECIPES = [path for path in sorted((ROOT / "recipes").glob("*.py")) if path.stem != "vader"]
# Of what a card says; the driver and others take some.
USABLE = 0.92


@cache
def footprint(training):
    return measure_footprint(load_config("Qwen/Qwen2.5-7B"), training)


def needed(training, config):
    sharding = read_sharding(ROOT / f"accelerate_configs/{config}.yaml", 1)
    training = replace(training, cast=sharding.casts)
    return estimate(footprint(training), training, sharding).peak / GIB


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_fits_on_the_cards_that_it_names(path):
    docstring = ast.get_docstring(ast.parse(path.read_text()))
    assert "QLoRA on a single GPU of 16 GB" in docstring and "LoRA on one GPU of 40 GB" in docstring
    recipe = runpy.run_path(str(path))["RECIPE"]
    assert recipe.model == "Qwen/Qwen2.5-7B-Instruct"
    settings = recipe.parse([] if recipe.task else ["--task", "snli"]).training
    training = Training(
        settings.max_length,
        settings.per_device_train_batch_size,
        lora_r=16,
        gradient_checkpointing=settings.gradient_checkpointing,
    )
    assert needed(replace(training, bits=4), "single_gpu") < 16 * USABLE
    assert needed(training, "zero2") < 40 * USABLE
