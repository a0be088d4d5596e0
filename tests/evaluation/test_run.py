"""`distjudge-trl evaluate` on a tiny model: which items are tested, what is calibrated on what, what is refused."""

import json
from dataclasses import asdict

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import make_tiny_model

from distjudge_trl.cli import main
from distjudge_trl.errors import RunFailedError, UserInputError
from distjudge_trl.evaluation import read_predictions, read_results
from distjudge_trl.evaluation.run import EvaluationOptions, evaluate_judge
from distjudge_trl.judge_folder.training_items import SeenItems
from distjudge_trl.judges.loading import find_judge
from distjudge_trl.recipe import Recipe
from distjudge_trl.tasks import get_task


SEEN = "seen in training or held out of it"
TASK = "name: {name}\nlabels: ['1', '2', '3']\ntemplate: 'rate the text: {{{{ text }}}}'\nvotes: {{list: votes}}\n"


def write_task(folder, name="ratings", rows=range(120), labels=("1", "2", "3")):
    """A task of texts with five votes each; its YAML path."""
    rng = np.random.default_rng(0)
    lines = []
    for i in range(200):
        p = rng.dirichlet(np.ones(3))
        votes = [str(vote) for vote in rng.choice(["1", "2", "3"], size=5, p=p)]
        if i in rows:
            lines.append(json.dumps({"id": f"row-{i}", "text": f"the text {i}", "votes": votes}))
    (folder / f"{name}.jsonl").write_text("\n".join(lines))
    path = folder / f"{name}.yaml"
    text = TASK.format(name=name) + f"id: id\nsource: {name}.jsonl\n"
    path.write_text(text.replace("['1', '2', '3']", str(list(labels))))
    return path


@pytest.fixture(scope="module")
def world(tmp_path_factory, tokenizer):
    """A tiny model, a task, a judge trained on all its training items and one that held some out."""
    folder = tmp_path_factory.mktemp("world")
    make_tiny_model(len(tokenizer)).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    task = write_task(folder)
    recipe = Recipe(task=None, model=str(folder / "model"), training={"max_steps": 2, "save_strategy": "no"})
    common = ["--task", str(task), "--bf16", "False", "--learning_rate", "1e-3"]
    recipe.run([*common, "--output_dir", str(folder / "judge")])
    recipe.run([*common, "--output_dir", str(folder / "calibrated"), "--calibrate", "True"])
    return folder


def evaluate(world, judge, task=None, **options):
    task = get_task(str(task or world / "ratings.yaml"))
    return evaluate_judge(find_judge(str(world / judge)), task, task.options(), EvaluationOptions(**options))


def test_a_judge_is_tested_on_the_items_of_its_own_run(world):
    done = evaluate(world, "judge")
    trained = read_results(world / "judge")
    assert done.results["test_fingerprint"] == trained["test_fingerprint"]
    assert done.results["metrics"]["kl"] == pytest.approx(trained["metrics"]["kl"], rel=1e-5)
    assert done.results["method"] == "distribution" and done.results["trained_on"] == "ratings"
    assert done.results["settings"]["alpha"] == 0.8 and done.results["settings"]["num_train_items"] == 96
    assert not done.report.excluded
    assert [row["method"] for row in done.results["variants"]] == ["uniform", "training-prior", "training-majority"]


@pytest.mark.parametrize("judge", ["judge", "calibrated"])
def test_the_constants_come_from_the_items_of_its_own_run(world, judge):
    """Whether or not a part of the training side was held out."""
    runs = [evaluate(world, judge).results, read_results(world / judge)]
    again, trained = (
        {row["method"]: row["metrics"]["kl"] for row in run["variants"] if row["method"].startswith("training-")}
        for run in runs
    )
    assert again == trained and len(trained) == 2


@pytest.mark.parametrize("options", [("--split_seed", "3"), ("--split_seed", "3", "--split", "paper"), ()])
def test_a_sample_of_its_test_items_is_the_one_of_its_own_run(world, tmp_path, options):
    """Whatever the seed: the split's seed draws the sample, too."""
    recipe = Recipe(task=None, model=str(world / "model"), training={"max_steps": 1, "save_strategy": "no"})
    common = ["--task", str(world / "ratings.yaml"), "--bf16", "False", "--max_eval_samples", "10"]
    trained = recipe.run([*common, *options, "--output_dir", str(tmp_path / "judge")])
    command = ["--model", str(tmp_path / "judge"), "--task", world / "ratings.yaml", "--max-eval-samples", 10]
    done = invoke(*command, "--out", tmp_path / "again")
    assert done.exit_code == 0, done.output
    again = read_results(tmp_path / "again")
    assert again["test_fingerprint"] == trained["test_fingerprint"] and again["metrics"]["num_items"] == 10
    assert again["metrics"]["kl"]["value"] == pytest.approx(trained["metrics"]["kl"]["value"], rel=1e-5)


def test_training_items_are_left_out_whatever_the_split(world):
    done = evaluate(world, "judge", split="all")
    assert done.report.excluded[SEEN] == 96 and len(done.records) == 24
    other = evaluate(world, "judge", split_seed=5)
    assert other.report.excluded[SEEN] > 0
    assert not {*other.records["id"]} & ({*get_task(str(world / "ratings.yaml")).load()["id"]} - {*done.records["id"]})
    with pytest.raises(UserInputError, match="has seen all 8 test items"):
        few = write_task(world, "few", rows=[int(name.split("-")[1]) for name in seen_ids(world)[:8]])
        evaluate(world, "judge", few, split="all")


def seen_ids(world):
    records = get_task(str(world / "ratings.yaml")).load()
    new = {*SeenItems.read(world / "judge").unseen(records)["id"]}
    return [name for name in records["id"] if name not in new]


def test_calibration_needs_items_that_training_held_out(world):
    with pytest.raises(UserInputError, match="--calibrate True"):
        evaluate(world, "judge", calibrated=True)
    done = evaluate(world, "calibrated", calibrated=True)
    trained = read_results(world / "calibrated")
    scalings = [
        [row["scaling"] for row in results["variants"] if "scaling" in row] for results in (done.results, trained)
    ]
    assert [s["kind"] for s in scalings[0]] == ["temperature", "vector"] and scalings[0][0]["num_items"] == 10
    for ours, theirs in zip(*scalings, strict=True):
        np.testing.assert_allclose(ours["weight"], theirs["weight"], rtol=1e-3)
    assert trained["settings"]["num_train_items"] == 86


@pytest.mark.parametrize("options", [{"split": "all"}, {"split_seed": 1}, {"split": "paper", "split_seed": 1}])
def test_what_a_scaling_was_fitted_on_is_never_tested(world, options):
    """Whatever the split: the scaling of training knows its held-out items."""
    seen = SeenItems.read(world / "calibrated")
    assert len(seen.held_out_ids) == 10
    done = evaluate(world, "calibrated", calibrated="all" in options.values(), **options)
    trained_on = seen.unseen(get_task(str(world / "ratings.yaml")).load(), "id")["id"]
    assert {*done.records["id"]} <= {*trained_on}
    if options == {"split": "all"}:
        assert len(done.records) == 24 and done.results["variants"][0]["method"] == "distribution + temperature"


def test_several_judges_are_tested_on_the_same_items(world):
    done = evaluate(world, "model", split="all", leave_out=(str(world / "judge"),))
    assert done.results["test_fingerprint"] == evaluate(world, "judge", split="all").results["test_fingerprint"]
    assert done.report.excluded[f"known to {world / 'judge'}"] == 96
    with pytest.raises(UserInputError, match="keeps no list of training items"):
        evaluate(world, "judge", leave_out=(str(world / "model"),))


def test_another_task_is_tested_whole_with_the_scaling_of_training(world):
    other = write_task(world, "other", rows=range(130, 160))
    done = evaluate(world, "calibrated", other, calibrated=True)
    assert len(done.records) == 30 and done.results["trained_on"] == "ratings"
    taken = [row["scaling"] for row in done.results["variants"] if "scaling" in row]
    assert taken == [row["scaling"] for row in read_results(world / "calibrated")["variants"] if "scaling" in row]
    # Without training items of this task there is no prior.
    assert [row["method"] for row in done.results["variants"]][2:] == ["uniform"]
    with pytest.raises(UserInputError, match="was not calibrated in training"):
        evaluate(world, "judge", other, calibrated=True)


def test_overlap_with_another_task_is_left_out(world):
    overlapping = write_task(world, "overlapping", rows=range(100, 140))
    done = evaluate(world, "judge", overlapping)
    assert done.report.excluded[SEEN] + len(done.records) == 40
    assert done.report.excluded[SEEN] == len([i for i in seen_ids(world) if int(i[4:]) >= 100])


def test_an_untrained_model_comes_with_all_free_baselines(world):
    done = evaluate(world, "model")
    methods = [done.results["method"], *(row["method"] for row in done.results["variants"])]
    constants = ["uniform", "training-prior", "training-majority"]
    assert methods == ["raw", "raw + temperature", "raw + vector", *constants]
    assert done.results["trained_on"] is None and done.results["seed"] is None
    kl = {row["method"]: row["metrics"]["kl"]["value"] for row in done.results["variants"]}
    assert kl["raw + temperature"] < done.results["metrics"]["kl"]["value"]
    assert [row["method"] for row in evaluate(world, "model", split="all").results["variants"]] == ["uniform"]


def test_five_tokens_state_their_floor(world):
    done = evaluate(world, "model", extraction="top5")
    assert done.results["extraction"] == {"kind": "top5", "floor": 1e-6}
    assert done.results["metrics"]["floor_items"] > 0
    assert evaluate(world, "model").results["extraction"] == {"kind": "full", "floor": None}


def test_other_labels_are_refused(world):
    task = write_task(world, "letters", labels=("3", "2", "1"))
    with pytest.raises(UserInputError, match="answers with 1, 2, 3, the task 'letters' with 3, 2, 1"):
        evaluate(world, "judge", task)


def test_a_judge_without_its_list_of_items_says_so(world, tmp_path):
    import shutil

    shutil.copytree(world / "judge", tmp_path / "judge")
    (tmp_path / "judge" / "training_items.json").unlink()
    done = evaluate(tmp_path, "judge", world / "ratings.yaml")
    (warning,) = done.warnings
    assert warning.startswith("this judge has no list of its training items: all 24 items are scored")
    assert done.report.notes["scored, though the judge may have been trained on them"] == 24
    assert not evaluate(world, "judge").warnings and not evaluate(world, "model").warnings
    told = invoke("--model", tmp_path / "judge", "--task", world / "ratings.yaml")
    assert f"warning: {warning}" in told.output.splitlines()
    (tmp_path / "judge" / "training_items.json").write_text("{}")
    with pytest.raises(UserInputError, match=r"training_items.json: is damaged"):
        evaluate(tmp_path, "judge", world / "ratings.yaml")


# The command


def invoke(*args):
    return CliRunner().invoke(main, ["evaluate", *map(str, args)])


def test_the_command_writes_results_that_a_report_reads(world, tmp_path):
    out = tmp_path / "results" / "mine.json"
    done = invoke(
        "--model", world / "model", "--task", world / "ratings.yaml", "--out", out, "--robustness", "--batch-size", 7
    )
    assert done.exit_code == 0, done.output
    assert "| raw + vector" in done.output and "| 0.25 " in done.output
    results = read_results(out)
    assert len(read_predictions(out)) == results["metrics"]["num_items"] == 24
    assert results["provenance"]["evaluation"]["batch_size"] == 7
    assert asdict(EvaluationOptions()).keys() == results["provenance"]["evaluation"].keys()
    made = CliRunner().invoke(main, ["report", str(out), "--out", str(tmp_path / "report")])
    assert made.exit_code == 0 and (tmp_path / "report" / "index.html").is_file()


def test_the_type_of_the_weights_is_chosen_and_told(world):
    plain, half = (evaluate(world, "model", dtype=dtype) for dtype in (None, "bfloat16"))
    told = [done.results["provenance"]["reading"] for done in (plain, half)]
    assert told[0] == {"device": "cpu", "dtype": "float32", "autocast": "none", "attn_implementation": "sdpa"}
    assert told[1] == {**told[0], "dtype": "bfloat16"}
    assert not np.array_equal(plain.log_q, half.log_q)
    np.testing.assert_allclose(np.exp(plain.log_q), np.exp(half.log_q), atol=0.05)


def test_batches_do_not_change_the_result(world):
    one, many = (evaluate(world, "model", batch_size=size).log_q for size in (1, 16))
    np.testing.assert_allclose(one, many, atol=1e-5)


def test_the_judge_s_task_options_are_the_defaults(world):
    done = invoke("--model", world / "judge", "--task", world / "ratings.yaml", "--max_items", 0)
    assert done.exit_code == 2 and "--max_items must be at least 1" in done.output
    assert "Options of" in invoke("--task", world / "ratings.yaml", "--help").output


@pytest.mark.parametrize(
    ("args", "match"),
    [
        (("--model", "MODEL"), "Give --model and --task"),
        (("--model", "MODEL", "--task", "snly"), "There is no task 'snly'. Did you mean 'snli'"),
        (("--model", "MODEL", "--task", "TASK", "--outt", "x"), "Unknown option --outt"),
        (("--model", "MODEL", "--task", "TASK", "--data_path", "none.jsonl"), "none.jsonl"),
        (("--model", "nothing-here", "--task", "TASK"), "nothing-here"),
        (("--model", "JUDGE", "--task", "TASK", "--out", "JUDGE"), "holds the judge"),
        (("--model", "MODEL", "--task", "TASK", "--out", "/proc/x"), "cannot be written"),
        (("--model", "JUDGE", "--task", "TASK", "--split", "maybe"), "'maybe' is not one of"),
    ],
)
def test_mistakes_are_one_line(world, args, match):
    names = {"MODEL": world / "model", "JUDGE": world / "judge", "TASK": world / "ratings.yaml"}
    done = invoke(*(names.get(arg, arg) for arg in args))
    assert done.exit_code == 2 and match in done.output, done.output
    assert "Traceback" not in done.output


def test_a_refused_evaluation_leaves_no_folder(world, tmp_path):
    """Only those that it has made, and only while they are empty."""
    words = ("--model", world / "judge", "--task", world / "ratings.yaml", "--data_path", "none.jsonl", "--out")
    (tmp_path / "there").mkdir()
    for out in ("new", "new/deep/results.json", "there/new"):
        assert invoke(*words, tmp_path / out).exit_code == 2
        assert [path.name for path in tmp_path.rglob("*")] == ["there"]


def test_a_full_disk_is_one_line_when_results_are_written(world, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("distjudge_trl.evaluation.results.pq.write_table", full)
    task = world / "ratings.yaml"
    done = invoke("--model", world / "judge", "--task", task, "--out", tmp_path / "out")
    line = "results.json: cannot be written (No space left on device). Make room and try again.\n"
    assert done.exit_code == 1 and done.output.endswith(line) and not (tmp_path / "out").exists()
    recipe = Recipe(task=None, model=str(world / "model"), training={"max_steps": 1, "save_strategy": "no"})
    with pytest.raises(RunFailedError, match=r"cannot be written .No space left on device.. The judge is saved: make"):
        recipe.run(["--task", str(task), "--bf16", "False", "--output_dir", str(tmp_path / "judge")])
    assert (tmp_path / "judge" / "judge.json").is_file()


def pair_rows(folder, count=24):
    """Votes on pairs as MT-Bench has them."""
    rows = []
    for i in range(count):
        turns = [
            [{"role": "user", "content": f"q {i}"}, {"role": "assistant", "content": f"no {j} {i}"}] for j in "xy"
        ]
        names = {"question_id": i, "model_a": "x", "model_b": "y", "winner": ("model_a", "tie")[i % 2], "turn": 1}
        rows.append({**names, "conversation_a": turns[0], "conversation_b": turns[1]})
    path = folder / "human.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_pairs_are_scored_by_the_mean_of_both_orders(recipe_model, tmp_path):
    task, path = get_task("mtbench"), pair_rows(tmp_path)
    options = {"data_path": path, "split": "all"}
    plain = evaluate_judge(find_judge(recipe_model), task, task.options(), EvaluationOptions(**options))
    averaged = evaluate_judge(
        find_judge(recipe_model), task, task.options(), EvaluationOptions(**options, average_orders=True)
    )
    row_of = {name: row for row, name in enumerate(averaged.records["id"])}
    q, own = np.exp(averaged.log_q), np.exp(plain.log_q)
    for name, row in row_of.items():
        other = row_of[name.removesuffix("/swapped") if name.endswith("/swapped") else f"{name}/swapped"]
        np.testing.assert_allclose(q[row], (own[row] + own[other][[1, 0, 2]]) / 2, atol=1e-6)
    before = plain.results["variants"][0]["metrics"]["positions"]
    after = averaged.results["variants"][0]["metrics"]["positions"]
    assert after["swap_consistency"] == 1 and after["position_bias"] == pytest.approx(0, abs=1e-9)
    assert averaged.report.notes["pairs in both orders, averaged"] == 24
    same = averaged.report.notes["pairs with the same answer in both orders before (all of them after)"]
    assert same == round(24 * before["swap_consistency"])
    # A sample is one of pairs: a record without its other order would be scored as it was.
    options["max_eval_samples"] = 7
    few = evaluate_judge(
        find_judge(recipe_model), task, task.options(), EvaluationOptions(**options, average_orders=True)
    )
    assert len(few.records) == 6 and few.report.notes["pairs in both orders, averaged"] == 3
    with pytest.raises(UserInputError, match="--average-orders: no test item is there in both orders"):
        one = task.options(swap="none")
        evaluate_judge(find_judge(recipe_model), task, one, EvaluationOptions(**options, average_orders=True))
