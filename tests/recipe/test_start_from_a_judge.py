"""A judge that is trained further: what its start has seen is no test item, and its folder lists that, too."""

import json

import pytest
from conftest import make_tiny_model

from distjudge_trl.errors import UserInputError
from distjudge_trl.evaluation import read_predictions, read_results
from distjudge_trl.judge_folder.training_items import SeenItems
from distjudge_trl.recipe import Recipe


TASK = """
name: {name}
labels: ['no', 'yes']
template: "{{{{ text }}}} Answer no or yes."
source: {source}
id: name
votes: {{list: votes}}
"""


def write_task(folder, name, names):
    rows = [{"name": each, "text": f"text {each}", "votes": ["no", "yes", "yes"]} for each in names]
    (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = folder / f"{name}.yaml"
    path.write_text(TASK.format(name=name, source=f"{name}.jsonl"))
    return str(path)


def train(task, model, out, *options):
    recipe = Recipe(task=task, model=model, training={"max_steps": 1, "per_device_train_batch_size": 4})
    argv = ["--output_dir", str(out), "--bf16", "False", "--save_strategy", "no", "--use_peft", "False"]
    recipe.run([*argv, "--model_name_or_path", str(model), *options])
    tested = set(read_predictions(out)["id"])
    return SeenItems.read(out), tested, read_results(out)["provenance"]["data_report"]


@pytest.fixture(scope="module")
def world(tmp_path_factory, tokenizer):
    folder = tmp_path_factory.mktemp("world")
    make_tiny_model(len(tokenizer)).save_pretrained(folder / "tiny")
    tokenizer.save_pretrained(folder / "tiny")
    task = write_task(folder, "ratings", [f"word-{i}" for i in range(40)])
    return folder, task, *train(task, folder / "tiny", folder / "start")[:2]


def test_what_the_start_has_seen_is_not_tested_on(world, tmp_path):
    folder, task, start, first = world
    seen, tested, report = train(task, folder / "start", tmp_path / "further", "--split_seed", "5")
    assert tested and tested <= first  # what the start was not trained on
    (count,) = report["excluded"].values()
    assert "seen by the judge from which training starts" in report["excluded"] and count + len(tested) == 8
    assert start.ids < seen.ids and not seen.earlier_ids
    # With the start's own split nothing of it is left out.
    _, again, report = train(task, folder / "start", tmp_path / "same")
    assert again == first and not report["excluded"]


def test_a_start_of_another_task(world, tmp_path):
    folder, _, start, first = world
    known = sorted({f"word-{i}" for i in range(40)} - first)
    # Half of the names are the start's; numbers are not taken for names.
    task = write_task(tmp_path, "others", [*known[:15], *(f"new-{i}" for i in range(15)), *map(str, range(10))])
    seen, tested, report = train(task, folder / "start", tmp_path / "further")
    assert tested.isdisjoint(known) and sum(report["excluded"].values()) + len(tested) == 8
    assert seen.earlier_ids >= start.ids and not seen.ids >= start.ids


def test_nothing_is_left_to_test_on(world, tmp_path):
    folder, _, _, first = world
    task = write_task(tmp_path, "ratings", sorted({f"word-{i}" for i in range(40)} - first))
    with pytest.raises(UserInputError, match="has seen all .* items to be scored in its own training"):
        train(task, folder / "start", tmp_path / "further")
    assert not (tmp_path / "further").exists()
