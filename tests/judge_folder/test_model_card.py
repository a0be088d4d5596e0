"""The model card: results as the hub reads them, and how a judge came to be."""

import pytest
from huggingface_hub import ModelCard

from distjudge_trl.judge_folder.judge_file import JudgeFile
from distjudge_trl.judge_folder.model_card import write_model_card


def figure(value, width=0.1):
    return {"value": value, "low": value - width, "high": value + width}


RESULTS = {
    "task": "vader",
    "scored_on": "test",
    "metrics": {
        "kl": figure(0.51234567),
        "accuracy": {"value": 0.75, "low": None, "high": None},
        "wasserstein": figure(0.3),
        "mean_error": None,
        "brier": figure(0.2),
        "noise_floor": 0.0123,
        "num_items": 1501,
    },
}


def make_card(folder, **changes):
    training = {"alpha": 0.8, "adapter": changes.pop("adapter", None)}
    settings = {"label_space": {"labels": ["A", "B"]}, "task": "vader", "base_model": "org/base", "training": training}
    arguments = {"model_name": "vader-judge", "hub_model_id": "me/judge", "dataset_name": None, "metrics": {}}
    arguments |= {"judge_file": JudgeFile(**settings), "tags": ["distjudge-trl"], **changes}
    write_model_card(folder, **arguments)
    return ModelCard.load(folder / "README.md")


def test_results_are_in_the_metadata_and_in_the_text(tmp_path):
    card = make_card(tmp_path, results=RESULTS, metrics={"eval_kl": 0.7})
    found = {result.metric_type: result for result in card.data.eval_results}
    assert {name: result.metric_value for name, result in found.items()} == {
        "kl": 0.512346,
        "accuracy": 0.75,
        "wasserstein": 0.3,
    }
    assert card.data.model_name == "vader-judge"
    kl = found["kl"]
    assert (kl.dataset_name, kl.dataset_split, kl.metric_name) == ("vader", "test", "KL divergence")
    assert "\n| KL divergence | 0.5123 | 0.4123 to 0.6123 |\n" in card.text
    assert "\n| Accuracy | 0.7500 | - |\n" in card.text and "On 1501 test items of the task `vader`" in card.text
    assert "0.0123" in card.text and "eval_kl" not in card.text, "the results take the place of the last evaluation"


def test_without_results_the_last_evaluation_is_shown(tmp_path):
    card = make_card(tmp_path, metrics={"eval_kl": 0.7, "eval_runtime": 3.0})
    assert card.data.eval_results is None and "| eval_kl | 0.7000 |" in card.text and "eval_runtime" not in card.text


@pytest.mark.parametrize(
    ("changes", "relation"),
    [({"adapter": "LORA r=4"}, "adapter"), ({}, "finetune"), ({"adapter": "LORA", "merged_from": "x"}, "finetune")],
)
def test_the_hub_is_told_how_it_came_from_its_base_model(tmp_path, changes, relation):
    card = make_card(tmp_path, **changes)
    assert card.data.to_dict()["base_model_relation"] == relation and card.data.base_model == "org/base"
    assert ("The adapter `x` is merged" in card.text) == ("merged_from" in changes)
