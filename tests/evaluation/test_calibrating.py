"""`distjudge-trl calibrate` on a tiny judge: its records, where it is kept, who applies it, what is refused."""

import json
import os
import shutil
from contextlib import contextmanager

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import make_tiny_model
from evaluation.test_run import write_task
from tasks import test_questions as questions
from trainer.tiny_trainers import make_trainer

from distjudge_trl import Judge
from distjudge_trl.cli import main
from distjudge_trl.errors import UserInputError
from distjudge_trl.evaluation import read_predictions, read_results
from distjudge_trl.evaluation.calibrating import calibrate_judge
from distjudge_trl.evaluation.run import EvaluationOptions, evaluate_judge
from distjudge_trl.judge_folder.judge_file import JudgeFile
from distjudge_trl.judge_folder.training_items import SeenItems
from distjudge_trl.judges.loading import find_judge
from distjudge_trl.recipe import Recipe
from distjudge_trl.report.test_sets import load_test_sets
from distjudge_trl.tasks import get_task


@pytest.fixture(scope="module")
def world(tmp_path_factory, tokenizer):
    """A tiny model, a task, a judge trained on 40 of its records and a calibrated copy of it."""
    folder = tmp_path_factory.mktemp("world")
    make_tiny_model(len(tokenizer)).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    task = write_task(folder, rows=range(200))
    recipe = Recipe(task=None, model=str(folder / "model"), training={"max_steps": 2, "save_strategy": "no"})
    common = ["--task", str(task), "--bf16", "False", "--learning_rate", "1e-3"]
    recipe.run([*common, "--max_train_samples", "40", "--output_dir", str(folder / "judge")])
    recipe.run([*common, "--output_dir", str(folder / "all")])
    held_out = ("--calibrate", "True", "--validation_fraction", "0.3", "--max_train_samples", "40")
    recipe.run([*common, *held_out, "--output_dir", str(folder / "held-out")])
    done = invoke("--model", folder / "judge", "--task", task, "--out", folder / "calibrated")
    assert done.exit_code == 0 and "warning" not in done.output, done.output
    (folder / "output").write_text(done.stdout)
    return folder


def invoke(*args, command="calibrate"):
    return CliRunner().invoke(main, [command, *map(str, args)])


def records_of(world):
    return get_task(str(world / "ratings.yaml")).load()


def evaluate(world, judge, **options):
    task = get_task(str(world / "ratings.yaml"))
    return evaluate_judge(find_judge(str(world / judge)), task, task.options(), EvaluationOptions(**options))


# What it is fitted on


def test_a_copy_is_calibrated_and_the_judge_is_as_before(world):
    assert "calibration" not in json.loads((world / "judge" / "judge.json").read_text())
    before, after = (JudgeFile.read(world / name) for name in ("judge", "calibrated"))
    assert before.calibration is None and after.make_calibration().label_sets.level == 0.9
    after.calibration = None
    assert after == before
    assert not (world / "calibrated" / "results.json").exists()


def test_neither_training_nor_test_records_are_used_and_all_others_are(world):
    before, after = (SeenItems.read(world / name) for name in ("judge", "calibrated"))
    assert (after.ids, after.groups) == (before.ids, before.groups) and not before.held_out_ids
    tested = evaluate(world, "judge").records
    assert len(tested) == 40 and len(after.held_out_ids) == 200 - 40 - 40
    assert len(after.unseen(tested, "id")) == len(tested)
    fitted_on = JudgeFile.read(world / "calibrated").calibration["fitted_on"]
    assert fitted_on["task"] == "ratings" and fitted_on["num_records"] == 120


def test_what_training_held_out_is_used_alone(world, tmp_path):
    done = invoke("--model", world / "held-out", "--task", world / "ratings.yaml", "--out", tmp_path / "judge")
    assert done.exit_code == 0, done.output
    assert SeenItems.read(tmp_path / "judge") == SeenItems.read(world / "held-out")
    assert JudgeFile.read(tmp_path / "judge").calibration["fitted_on"]["num_records"] == 48


def test_groups_that_training_has_touched_are_left_out_and_told(world, tmp_path):
    task = write_task(tmp_path, rows=range(200))
    task.write_text(task.read_text() + "group: topic\n")
    rows = [json.loads(line) for line in (tmp_path / "ratings.jsonl").read_text().splitlines()]
    rows = [{**row, "topic": f"topic-{i // 4 if i < 80 else i}"} for i, row in enumerate(rows)]
    (tmp_path / "ratings.jsonl").write_text("\n".join(map(json.dumps, rows)))
    recipe = Recipe(task=None, model=str(world / "model"), training={"max_steps": 1, "save_strategy": "no"})
    common = ["--task", str(task), "--bf16", "False", "--max_train_samples", "40"]
    recipe.run([*common, "--output_dir", str(tmp_path / "judge")])
    done = invoke("--model", tmp_path / "judge", "--task", task)
    assert done.exit_code == 0, done.output
    assert "warning: training held no groups out and touched many" in done.output
    assert len(SeenItems.read(tmp_path / "judge").held_out_ids) < 120


def test_scaling_and_label_sets_are_fitted_on_different_records(world):
    calibration = JudgeFile.read(world / "calibrated").make_calibration()
    assert calibration.num_items == 60 and calibration.label_sets.num_items == 60


@pytest.mark.parametrize("options", [{}, {"split": "all"}, {"split_seed": 1}, {"split": "paper", "split_seed": 2}])
def test_no_evaluation_tests_on_what_was_used(world, options):
    seen = SeenItems.read(world / "calibrated")
    done = evaluate(world, "calibrated", **options)
    assert {*done.records["id"]} <= {*seen.unseen(records_of(world), "id")["id"]}
    if options.get("split") == "all":
        assert len(done.records) == 40


def test_on_another_task_a_part_remains_to_be_tested_on(world, tmp_path):
    other = write_task(tmp_path, "other", rows=range(200))
    rows = (tmp_path / "other.jsonl").read_text().replace("row-", "new-").replace("the text", "another text")
    (tmp_path / "other.jsonl").write_text(rows)
    done = invoke("--model", world / "judge", "--task", other, "--out", tmp_path / "judge")
    assert done.exit_code == 0, done.output
    assert len(SeenItems.read(tmp_path / "judge").held_out_ids) == 160
    task = get_task(str(other))
    tested = evaluate_judge(find_judge(str(tmp_path / "judge")), task, task.options())
    assert len(tested.records) == 40 and tested.results["method"] == "distribution + calibration"
    assert (
        invoke("--model", world / "judge", "--task", other, "--split", "all", "--out", tmp_path / "b").exit_code == 0
    )
    assert len(SeenItems.read(tmp_path / "b").held_out_ids) == 200


def test_the_number_of_records_is_limited(world, tmp_path):
    common = ("--task", world / "ratings.yaml", "--max-samples", 50, "--level", "0.8", "--kind", "vector")
    done = invoke("--model", world / "judge", *common, "--out", tmp_path / "judge")
    assert done.exit_code == 0, done.output
    assert len(SeenItems.read(tmp_path / "judge").held_out_ids) == 50
    calibration = JudgeFile.read(tmp_path / "judge").make_calibration()
    assert calibration.kind == "vector" and calibration.label_sets.level == 0.8
    assert "scaling: vector scaling, fitted on 25 records" in done.output


def test_what_was_fitted_is_said(world):
    output = (world / "output").read_text()
    assert "fitted on 60 records (KL in cross-validation: temperature " in output
    assert "label sets: level 0.9, fitted on 60 items in 60 groups; " in output
    before, after = (float(word) for word in output.split("KL on the others: ")[1].split()[0:3:2])
    assert after < before and output.endswith(f"Calibrated: {world / 'calibrated'}\n")


# Who applies it


def test_judges_apply_it_and_can_be_told_not_to(world):
    records = evaluate(world, "judge").records
    raw, calibrated, off = (
        Judge.from_pretrained(str(world / name), calibrated=on).read(records)
        for name, on in (("judge", True), ("calibrated", True), ("calibrated", False))
    )
    calibration = JudgeFile.read(world / "calibrated").make_calibration()
    np.testing.assert_array_equal(off.log_probs, raw.log_probs)
    np.testing.assert_array_equal(calibrated.log_probs, calibration.scaling(raw.log_probs))
    assert np.abs(calibrated.probabilities - raw.probabilities).max() > 0.01
    np.testing.assert_array_equal(calibrated.mass, raw.mass)
    # It was fitted on all label tokens.
    five, plain = (Judge.from_pretrained(str(world / name), top_k=5).read(records) for name in ("calibrated", "judge"))
    np.testing.assert_array_equal(five.log_probs, plain.log_probs)


def test_the_columns_of_judged_rows(world):
    judge = Judge.from_pretrained(str(world / "calibrated"))
    q = judge.judge(evaluate(world, "judge").records)
    columns = judge.calibration.columns(q, judge.label_space.labels)
    sets = judge.calibration.label_sets(q)
    assert [len(column["label_set"]) for column in columns] == sets.sum(-1).tolist()
    assert all(
        judge.label_space.labels[k] in column["label_set"] for k, column in zip(q.argmax(-1), columns, strict=True)
    )


@pytest.mark.parametrize("switch", [(), ("--no-calibration",)])
def test_the_command_judge(world, tmp_path, switch):
    (tmp_path / "items.jsonl").write_text('{"text": "the text 3"}\n')
    done = invoke(
        "--model",
        world / "calibrated",
        "--input",
        tmp_path / "items.jsonl",
        "--out",
        tmp_path / "out.jsonl",
        *switch,
        command="judge",
    )
    assert done.exit_code == 0, done.output
    written = json.loads((tmp_path / "out.jsonl").read_text())["label_distribution"]
    judge = Judge.from_pretrained(str(world / ("judge" if switch else "calibrated")))
    np.testing.assert_allclose(list(written.values()), judge.judge([{"text": "the text 3"}])[0], atol=1e-6)


def test_evaluate_scores_the_calibrated_judge_and_its_label_sets(world, tmp_path):
    out = tmp_path / "results"
    common = ("--model", world / "calibrated", "--task", world / "ratings.yaml")
    done = invoke(*common, "--out", out, "--calibrated", command="evaluate")
    assert done.exit_code == 0, done.output
    results, raw = read_results(out), evaluate(world, "judge").results
    assert results["method"] == "distribution + calibration" and raw["method"] == "distribution"
    assert results["calibration"] == JudgeFile.read(world / "calibrated").calibration
    calibration = JudgeFile.read(world / "calibrated").make_calibration()
    rows = read_predictions(out)
    p, q, before = (
        np.array(rows[name][:]) for name in ("label_distribution", "judge_distribution", "raw_distribution")
    )
    np.testing.assert_allclose(np.log(q), calibration(np.log(before)), atol=1e-6)
    sets = calibration.label_sets(q)
    assert results["metrics"]["coverage"]["value"] == pytest.approx((p * sets).sum(-1).mean())
    assert results["metrics"]["set_size"]["value"] == pytest.approx(sets.sum(-1).mean())
    assert "| level of label sets | coverage (95 %)" in done.output
    assert "coverage" not in raw["metrics"] and "calibration" not in raw
    off = evaluate(world, "calibrated", calibration=False).results
    assert off["method"] == "distribution" and off["metrics"] == raw["metrics"]
    report = CliRunner().invoke(main, ["report", str(out), "--out", str(tmp_path / "report")])
    assert report.exit_code == 0, report.output
    assert "label sets: coverage %" in (tmp_path / "report" / "report.md").read_text()
    # The report draws every row from the answers that it is about.
    by_method = {row.method: row for row in load_test_sets([out])[0].rows}
    for name, row in by_method.items():
        kl = (p * (np.log(np.maximum(p, 1e-300)) - row.log_q[np.argsort(np.argsort(rows["id"][:]))])).sum(-1).mean()
        assert kl == pytest.approx(row.metrics["kl"]["value"], abs=1e-6), name
    assert {"distribution + temperature", "distribution + vector", "distribution + calibration"} <= set(by_method)


def test_variants_are_those_of_the_uncalibrated_judge(world):
    """Their held-out records are the validation side, whatever the judge was calibrated on."""
    scalings = [
        [row["scaling"] for row in evaluate(world, name, calibrated=True).results["variants"] if "scaling" in row]
        for name in ("judge", "calibrated")
    ]
    assert scalings[0] == scalings[1] and len(scalings[0]) == 2


def test_five_tokens_are_not_calibrated(world):
    done = evaluate(world, "calibrated", extraction="top5")
    assert done.results["method"] == "distribution" and done.raw_log_q is None
    assert done.warnings == ("the judge's calibration was fitted on all label tokens: it is not applied to five.",)


# Where it is kept


def test_a_second_calibration_starts_from_raw_and_says_so(world, tmp_path):
    shutil.copytree(world / "judge", tmp_path / "judge")
    command = ("--model", tmp_path / "judge", "--task", world / "ratings.yaml")
    first, before = invoke(*command), (tmp_path / "judge" / "judge.json").read_bytes()
    assert first.exit_code == 0 and "warning" not in first.output, first.output
    card = (tmp_path / "judge" / "README.md").read_bytes()
    second = invoke(*command)
    assert "warning: the judge was calibrated before; this calibration replaces it" in second.output
    assert (tmp_path / "judge" / "judge.json").read_bytes() == before
    assert (tmp_path / "judge" / "README.md").read_bytes() == card
    assert not list((tmp_path / "judge").glob(".*")), "nothing is left over"


def test_the_card_shows_it(world, tmp_path):
    plain, card = ((world / name / "README.md").read_text() for name in ("judge", "calibrated"))
    assert "## Calibration" not in plain and card.count("## Calibration") == 1
    assert card.index("## Calibration") < card.index("## Method") and "| promised coverage | 0.9 |" in card
    start, end = card.index("<!-- calibration -->"), card.index("## Method")
    assert card[:start] + card[end:] == plain
    shutil.copytree(world / "judge", tmp_path / "judge")
    (tmp_path / "judge" / "README.md").write_bytes(b"Mine.\r\nNot \xff UTF-8.")
    assert invoke("--model", tmp_path / "judge", "--task", world / "ratings.yaml").exit_code == 0
    mine = (tmp_path / "judge" / "README.md").read_bytes()
    assert mine.startswith(b"Mine.\r\nNot \xff UTF-8.\n\n<!-- calibration -->\n## Calibration\n")
    (tmp_path / "judge" / "README.md").unlink()
    assert invoke("--model", tmp_path / "judge", "--task", world / "ratings.yaml").exit_code == 0
    assert not (tmp_path / "judge" / "README.md").exists()


def test_training_that_goes_on_drops_it(world, tmp_path):
    recipe = Recipe(task=None, model=str(world / "calibrated"), training={"max_steps": 1, "save_strategy": "no"})
    recipe.run(["--task", str(world / "ratings.yaml"), "--bf16", "False", "--output_dir", str(tmp_path / "on")])
    assert "calibration" not in json.loads((tmp_path / "on" / "judge.json").read_text())
    assert "## Calibration" not in (tmp_path / "on" / "README.md").read_text()


def test_a_script_that_passes_the_judge_file_on_drops_it_too(world, tokenizer, tmp_path):
    file = JudgeFile.read(world / "calibrated")
    make_trainer(tokenizer, tmp_path, trainer_kwargs={"judge_file": file}).save_model()
    assert JudgeFile.read(tmp_path).task == "ratings" and JudgeFile.read(tmp_path).calibration is None


def test_a_full_disk_leaves_the_judge_as_it_was(world, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    before = snapshot(world / "judge")
    monkeypatch.setattr("distjudge_trl.evaluation.calibrating.update_card", full)
    done = invoke("--model", world / "judge", "--task", world / "ratings.yaml")
    line = f"error: {world / 'judge'}: cannot be written (No space left on device). Make room and try again."
    assert done.exit_code == 1 and done.output.splitlines()[-1] == line, done.output
    assert snapshot(world / "judge") == before


# Several questions on a scale


def test_intervals_of_several_questions(world, tmp_path):
    """One calibration for all of them; what it does on each is told."""
    questions.write_rows(tmp_path, 120, help=tuple([i % 3 + 1, (i * 7) % 3 + 1] for i in range(120)))
    task = questions.write_task(tmp_path)
    recipe = Recipe(task=None, model=str(world / "model"), training={"max_steps": 1, "save_strategy": "no"})
    held_out = ("--calibrate", "True", "--validation_fraction", "0.5", "--output_dir", str(tmp_path / "judge"))
    recipe.run(["--task", task, "--bf16", "False", *held_out])
    done = invoke("--model", tmp_path / "judge", "--task", task, "--level", "0.8")
    assert done.exit_code == 0, done.output
    assert "intervals: level 0.8, fitted on 48 items in 24 groups" in done.output
    assert "  help: coverage " in done.output and "  tone: coverage " in done.output
    calibration = JudgeFile.read(tmp_path / "judge").make_calibration()
    (column,) = calibration.columns([[0.05, 0.6, 0.35]], ["1", "2", "3"])
    assert column["interval"][0] in ("1", "2") and column["interval"][1] in ("2", "3")
    out = tmp_path / "results"
    done = invoke("--model", tmp_path / "judge", "--task", task, "--out", out, command="evaluate")
    assert done.exit_code == 0 and "| question | level of intervals |" in done.output, done.output
    results = read_results(out)
    parts = [part["coverage"]["value"] for part in results["parts"].values()]
    assert results["metrics"]["coverage"]["value"] == pytest.approx(np.mean(parts))


# What is refused


def test_a_judge_on_the_hub_needs_a_place_for_its_copy(world):
    """Its folder is the hub's cache."""
    found = find_judge(str(world / "judge"))._replace(name="org/judge")
    task = get_task(str(world / "ratings.yaml"))
    with pytest.raises(UserInputError, match="org/judge: is on the hub. Give --out, a new folder"):
        calibrate_judge(found, task, task.options())


def test_too_few_records(world, tmp_path):
    before = snapshot(world / "judge")
    for options, message in (
        (
            ("--level", "0.99"),
            "needs 10 records for the scaling and 99 items for the label sets, and there are 120",
        ),
        (
            ("--max-samples", "15"),
            "there are 15 held-out records in 15 groups for both. Use more data, a lower --level",
        ),
        (("--level", "1"), "--level 1: must lie between 0 and 1"),
        (("--level", "0"), "--level 0: must lie between 0 and 1"),
        (("--level", "nan"), "--level nan: must lie between 0 and 1"),
    ):
        done = invoke("--model", world / "judge", "--task", world / "ratings.yaml", *options)
        assert (done.exit_code, done.output.count("\n")) == (2, 1) and message in done.output, done.output
    assert snapshot(world / "judge") == before


def snapshot(folder):
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


def test_what_cannot_be_calibrated_is_one_line(world, tmp_path):
    shutil.copytree(world / "judge", tmp_path / "unlisted")
    (tmp_path / "unlisted" / "training_items.json").unlink()
    letters = write_task(tmp_path, "letters", labels=("3", "2", "1"))
    task = world / "ratings.yaml"
    for args, message in (
        (("--model", world / "model", "--task", task), "is not a trained judge (it has no judge.json)"),
        (("--model", tmp_path / "unlisted", "--task", task), "keeps no list of its training items"),
        (("--model", world / "all", "--task", task), "none are left to calibrate on. Train it with --calibrate True"),
        (("--model", world / "judge", "--task", letters), "answers with 1, 2, 3, the task 'letters' with 3, 2, 1"),
        (("--model", world / "judge", "--task", task, "--out", world / "model"), "exists. Choose another --out."),
        (("--model", world / "judge", "--task", task, "--out", world / "judge/new"), "is in the judge's own folder"),
        (("--model", world / "judge", "--task", task, "--out", "/proc/x/y"), "cannot be written"),
        (("--model", world / "judge", "--task", task, "--data_path", "none.jsonl"), "none.jsonl"),
        (("--model", world / "judge"), "Give --model and --task"),
        (("--model", world / "judge", "--task", task, "--lavel", "1"), "Unknown option --lavel"),
    ):
        done = invoke(*args)
        assert (done.exit_code, done.output.count("\n")) == (2, 1) and message in done.output, done.output
    assert not (world / "judge" / "new").exists()
    assert not list((tmp_path / "unlisted").glob(".*"))


@contextmanager
def as_nobody():
    """Without root's right to write everywhere."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_folder_that_cannot_be_written_is_one_line(world):
    judge = world / "judge"
    before, mode = snapshot(judge), judge.stat().st_mode
    parents = [path for path in judge.parents if path.owner() == judge.owner() and len(path.parts) > 2]
    modes = {path: path.stat().st_mode for path in parents}
    try:
        for path in parents:
            path.chmod(0o755)
        judge.chmod(0o555)
        with as_nobody():
            done = invoke("--model", judge, "--task", world / "ratings.yaml")
    finally:
        judge.chmod(mode)
        for path, old in modes.items():
            path.chmod(old)
    assert (done.exit_code, done.output.count("\n")) == (2, 1) and "cannot be written" in done.output, done.output
    assert "--out, a new folder for the calibrated judge" in done.output
    assert snapshot(judge) == before


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content.pop("fitted_on"),
        lambda content: content["scaling"]["weight"].pop(),
        lambda content: content["scaling"].update(kind="spline"),
        lambda content: content["scaling"].update(bias=[0, None, 0]),
        lambda content: content["conformal"].update(level=1.5),
        lambda content: content["conformal"].update(kind="balls"),
        lambda content: content["conformal"].update(threshold="high"),
        lambda content: content["conformal"].update(more=1),
    ],
)
def test_a_damaged_calibration_is_named(world, tmp_path, change):
    content = json.loads((world / "calibrated" / "judge.json").read_text())
    change(content["calibration"])
    (tmp_path / "judge.json").write_text(json.dumps(content))
    with pytest.raises(UserInputError, match=r"judge.json: is damaged \(`calibration`"):
        JudgeFile.read(tmp_path)
