"""Linear judges on made-up texts, with the trainer's losses."""

import importlib
import json
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT, make_tiny_model, make_tokenizer
from made_up_ratings import TRUTHS, make_records
from scipy.special import rel_entr

from distjudge_trl.errors import UserInputError
from distjudge_trl.evaluation.statistics import paired_difference
from distjudge_trl.study.linear_answers import read_answers
from distjudge_trl.study.linear_features import Items, read_items
from distjudge_trl.study.linear_judges import (
    HELD_OUT,
    LEARNING_RATE,
    MOMENTUM,
    STEPS,
    LinearJudge,
    Point,
    compare,
    draw_annotators,
    hold_out,
    measure,
    settings_of,
    summary,
    train,
)
from distjudge_trl.study.linear_study import LinearStudy
from distjudge_trl.trainer.perturbation import make_adversary, row_losses


ALL = Point(240, 0, 0.8, 0.25)
METHODS = ("single-point", "no-adversary")


@pytest.fixture(scope="module")
def items():
    return read_items(make_records(240, seed=0), make_records(60, seed=1))


def test_a_seed_draws_annotators_without_drawing_one_twice():
    counts = np.array([[3.0, 0, 7], [1, 1, 0]])
    drawn = draw_annotators(counts, 5, np.random.default_rng(0))
    assert (drawn <= counts).all() and drawn.sum(-1).tolist() == [5, 2]
    many = np.mean([draw_annotators(counts, 5, np.random.default_rng(seed))[0] for seed in range(2000)], axis=0)
    np.testing.assert_allclose(many / 5, counts[0] / 10, atol=0.02)
    assert (draw_annotators(counts, 0, np.random.default_rng(0)) == counts).all()


def test_each_item_draws_one_of_several_numbers_of_annotators():
    counts = np.tile([12.0, 8, 5], (3000, 1))
    drawn = draw_annotators(counts, "1,3,30", np.random.default_rng(0))
    numbers, items = np.unique(drawn.sum(-1), return_counts=True)
    assert numbers.tolist() == [1, 3, 25] and (drawn <= counts).all(), "25 is all there are"
    np.testing.assert_allclose(items / 3000, 1 / 3, atol=0.04)


def test_whole_groups_are_held_out():
    groups = np.repeat(np.arange(20), np.arange(1, 21))
    found = hold_out(groups, np.random.default_rng(0))
    assert HELD_OUT * len(groups) <= found.sum() <= HELD_OUT * len(groups) + 20
    assert not set(groups[found]) & set(groups[~found])
    assert (hold_out(groups, np.random.default_rng(1)) != found).any()


def test_a_step_is_one_down_the_gradient_at_the_logits(items):
    pool = items[0].take(np.arange(9))
    judge, args = LinearJudge(pool), settings_of("kl-only", 0.8, 0.25)
    q, before = np.exp(judge.log_q(pool.features)), judge.biases.copy()
    judge.step(lambda log_q: row_losses(args, None, log_q, *tensors(pool)).losses)
    # Of KL to p at the logits: q - p.
    expected = -LEARNING_RATE * (1 + MOMENTUM) * (q - pool.shares).mean(0)
    np.testing.assert_allclose(judge.biases - before, expected, atol=1e-6)
    np.testing.assert_allclose(
        judge.weights[0], -LEARNING_RATE * (1 + MOMENTUM) * (pool.features[0].T @ (q - pool.shares)) / 9, atol=1e-6
    )


def test_blocks_of_features_are_as_one(items):
    """Words in two blocks, one of them dense, give the judge that they give in one."""
    words = items[0].features[0]
    halves = words[:, :50].toarray(), words[:, 50:]
    args = settings_of("no-adversary", 0.8, 0.25)
    judges = [LinearJudge(items[0]._replace(features=blocks)) for blocks in ((words,), halves)]
    for judge in judges:
        for _ in range(3):
            judge.step(lambda log_q: row_losses(args, None, log_q, *tensors(items[0])).losses)
    np.testing.assert_allclose(judges[0].log_q((words,)), judges[1].log_q(halves), atol=1e-5)
    part = items[0]._replace(features=halves).take(np.arange(3))
    assert isinstance(part, Items) and [block.shape[0] for block in part.features] == [3, 3]


def tensors(pool):
    import torch

    p = torch.from_numpy(pool.shares).float()
    return p, p.argmax(-1), torch.from_numpy(pool.counts.sum(-1))


@pytest.mark.parametrize(("method", "far"), [("kl-only", 0.02), ("distribution", 0.05), ("single-point", None)])
def test_it_learns_what_people_think_of_a_word(items, method, far):
    pool, tested = items
    held_out = np.arange(240) < 60
    args = settings_of(method, 0.8, 0.25)
    assert (make_adversary(args) is not None) == (method == "distribution")
    plain, scaled = train(pool.take(~held_out), pool.take(held_out), tested, args)
    truth = np.array([list(TRUTHS.values())[i % 3] for i in range(60)])
    kl, scaled_kl = (rel_entr(truth, np.exp(each.log_q)).sum(-1).mean() for each in (plain, scaled))
    assert plain.log_q.shape == (60, 3) and scaled.steps > 0
    if far is not None:
        assert kl < far and scaled_kl < far
    else:  # the majority of ten is surer than people are, and a temperature makes up for that
        assert kl > 0.05 and scaled_kl < 0.03


def test_judges_of_one_point_are_compared_on_the_same_draws(items):
    # KL + cross-entropy with alpha 1 is KL alone, and PGD with epsilon 0 is KL + cross-entropy.
    point = Point(100, 3, 1.0, 0.0)
    judges = list(measure(*items, ["kl-only", "no-adversary", "distribution"], [point], [0, 1]))
    outcomes = [judge.outcome for judge in judges]
    assert all(judge.item_kl.mean(-1).tolist() == [judge.outcome.kl, judge.outcome.scaled_kl] for judge in judges)
    answered = rel_entr(items[1].shares, np.exp(judges[0].log_q)).sum(-1)
    np.testing.assert_allclose(answered, judges[0].item_kl[1], atol=1e-6)
    assert [(one.method, one.seed) for one in outcomes[:3]] == [
        ("kl-only", 0),
        ("no-adversary", 0),
        ("distribution", 0),
    ]
    for seed in (0, 1):
        first, *others = (one for one in outcomes if one.seed == seed)
        assert all(one[3:] == first[3:] for one in others)
    assert outcomes[0].kl != outcomes[3].kl
    (whole,) = (judge.outcome for judge in measure(*items, ["kl-only"], [ALL], [0]))
    assert 0 <= whole.scaled_kl < outcomes[0].scaled_kl and 0 < whole.entropy_correlation < 1


def test_methods_are_compared_over_test_items(items):
    """The mean over seeds of each item, and an interval over groups of items."""
    pool, tested = items
    judges = list(measure(pool, tested, ["single-point", "no-adversary"], [Point(100, 3, 0.8, 0.25)], [0, 1]))
    groups = tested.groups.tolist()
    (found,) = compare(judges, groups)
    own, there = (np.mean([j.item_kl for j in judges if j.outcome.method == m], axis=0) for m in METHODS)
    assert found[:2] == ("single-point", Point(100, 3, 0.8, 0.25))
    assert found.plain == paired_difference(own[0], there[0], groups)
    assert found.scaled == paired_difference(own[1], there[1], groups) != found.plain
    assert not compare(judges[:1], groups), "nothing to compare with"


def test_what_stands_beside_them(items):
    found = summary(items[0], items[1], 0.1, lambda name: "")
    expected = rel_entr(items[1].shares, items[0].shares.mean(0)).sum(-1).mean()
    assert found == {"test_items": 60, "noise_floor": 0.1, "prior_kl": pytest.approx(expected), "most_steps": STEPS}
    ids = [item._replace(ids=np.array([f"{'ab'[i % 2]}{i}" for i in range(len(item.counts))])) for item in items[:2]]
    of_questions = summary(*ids, 0.1, lambda name: name[0])["question_prior_kl"]
    priors = [items[0].shares[i::2].mean(0) for i in (0, 1)]
    own = np.concatenate([rel_entr(items[1].shares[i::2], priors[i]).sum(-1) for i in (0, 1)]).mean()
    assert of_questions == pytest.approx(own)


@pytest.fixture
def command(monkeypatch, capsys, tmp_path):
    """Calls the script on VADER's words; returns what it printed and the file that it wrote."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "scripts/benchmarks")
        script = importlib.import_module("linear_judges")

    def call(*words):
        out = tmp_path / "out.json"
        fixed = ["linear_judges.py", "vader", "--max-eval-samples", "60", "--seeds", "2", "--out", str(out)]
        monkeypatch.setattr(sys, "argv", [*fixed, *words])
        script.main()
        return capsys.readouterr().out, LinearStudy.read(out)

    return call


def test_the_command_counts_words(command, tmp_path):
    """Two seeds of two methods, of which one was given twice."""
    old = tmp_path / "out.parquet"
    old.write_text("answers of other judges")
    said, study = command(
        *("--items", "150", "--max-annotators", "1,5", "0", "--methods", "kl-only", "no-adversary", "kl-only"),
        *("--title", "Words"),
    )
    assert said.startswith("## Words: linear judges") and "60 test items" in said
    assert sum(line.startswith("| 150 ") for line in said.splitlines()) == 4
    assert study.points() == [Point(150, "1,5", 0.8, 0.25), Point(150, 0, 0.8, 0.25)] and len(study.outcomes) == 8
    assert [c.method for c in study.comparisons] == ["kl-only"] * 2
    text = (tmp_path / "out.json").read_text()
    assert str(tmp_path) not in text and json.loads(text)["title"] == "Words"
    assert (study.features, study.model) == ("words", None)
    assert not old.exists(), "two points: their judges differ in more than the seed, and the file was of others"


def test_the_command_reads_a_model(command, tmp_path):
    folder, cache = tmp_path / "model", tmp_path / "states"
    tokenizer = make_tokenizer()
    make_tiny_model(len(tokenizer), context=2048).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    words = ("--max-train-samples", "600", "--methods", "no-adversary", "--model", str(folder), "--cache", str(cache))
    found = {features: command("--features", features, *words)[1] for features in ("model", "both")}
    assert len(list(cache.iterdir())) == 2, "the states of training and test items, read once"
    assert found["both"].model == f"2 layers of {folder}" and found["both"].points()[0].items == 600
    assert found["both"].outcomes != found["model"].outcomes
    answers = read_answers(tmp_path / "out.parquet")  # of both kinds of features alone
    assert list(answers) == [0, 1] and answers[0].keys() == answers[1].keys()
    first, second = (np.array(list(rows.values())) for rows in answers.values())
    assert first.shape == (60, 9) and (first != second).any()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--items", "1000000"], "--items 1000000: there are "),
        (["--seeds", "0"], "--seeds and --items: at least 1"),
        (["--max-annotators", "-1"], "--max-annotators -1: give a number"),
        (["--max_annotators", "3", "0,3"], "--max-annotators 0,3: give a number"),
        (["--out", "figures.parquet"], "--out figures.parquet: give the name of a file that ends in .json"),
        (["--out", "/proc/none/out.json"], "/proc/none/out.json: cannot be written"),
        (["--max-annotators", "three"], "--max-annotators three: give a number"),
        (["--data-path", "none"], "none"),
        (["--split", "all"], "--split all: judges would be tested on"),
        (["--items", "2"], "Too few training items"),
        (["--features", "model", "--model", "none/none"], "none/none"),
        (["--layers", "0"], "--model, --layers and --cache: are for --features model or both"),
    ],
)
def test_what_is_wrong_is_a_clear_error(command, words, message):
    with pytest.raises(UserInputError, match=message):
        command(*words)


def test_an_error_is_one_line_and_exit_code_2():
    command = [sys.executable, ROOT / "scripts/benchmarks/linear_judges.py", "vader", "--seeds", "0"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and "--seeds and --items: at least 1" in done.stderr
    assert "Traceback" not in done.stderr
