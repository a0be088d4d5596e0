"""Linear judges on made-up texts, with the trainer's losses."""

import importlib
import json
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT
from datasets import Dataset
from scipy.special import rel_entr

from distjudge_trl.study.linear_judges import (
    HELD_OUT,
    LEARNING_RATE,
    MOMENTUM,
    LinearJudge,
    Point,
    draw_annotators,
    hold_out,
    make_features,
    measure,
    read_items,
    settings_of,
    summary,
    train,
)
from distjudge_trl.study.linear_tables import LinearStudy
from distjudge_trl.trainer.perturbation import make_adversary, row_losses


# What people think of a text with one of these words.
TRUTHS = {"lovely": [0.7, 0.2, 0.1], "dreadful": [0.1, 0.2, 0.7], "okay": [0.2, 0.6, 0.2]}
VOTES = 10
ALL = Point(240, 0, 0.8, 0.25)


def make_records(count, seed):
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(count):
        word = list(TRUTHS)[i % 3]
        counts = rng.multinomial(VOTES, TRUTHS[word])
        question = f"Answer with one letter. How kind is this? a {word} day, sir {i % 7}"
        rows.append(
            {
                "id": str(i),
                "group": str(i // 2),
                "prompt": [{"role": "user", "content": question}],
                "label_distribution": (counts / VOTES).tolist(),
                "num_annotators": VOTES,
            }
        )
    return Dataset.from_list(rows)


@pytest.fixture(scope="module")
def items():
    return read_items(make_records(240, seed=0), make_records(60, seed=1))


def test_features_are_of_training_texts_and_not_of_the_question():
    texts = ["How kind? lovely day", "How kind? dreadful day", "How kind? lovely sir", "How kind? okay"] * 2
    train_part, test_part = make_features(texts, ["lovely", "How kind?", "zzz xyz"])
    assert train_part.shape[0] == len(texts) and test_part.shape[1] == train_part.shape[1]
    assert test_part[0].nnz and not test_part[1].nnz and not test_part[2].multiply(train_part[0]).nnz


def test_a_seed_draws_annotators_without_drawing_one_twice():
    counts = np.array([[3.0, 0, 7], [1, 1, 0]])
    drawn = draw_annotators(counts, 5, np.random.default_rng(0))
    assert (drawn <= counts).all() and drawn.sum(-1).tolist() == [5, 2]
    many = np.mean([draw_annotators(counts, 5, np.random.default_rng(seed))[0] for seed in range(2000)], axis=0)
    np.testing.assert_allclose(many / 5, counts[0] / 10, atol=0.02)


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
        judge.weights, -LEARNING_RATE * (1 + MOMENTUM) * (pool.features.T @ (q - pool.shares)) / 9, atol=1e-6
    )


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
    outcomes = list(measure(*items, ["kl-only", "no-adversary", "distribution"], [point], [0, 1]))
    assert [(one.method, one.seed) for one in outcomes[:3]] == [
        ("kl-only", 0),
        ("no-adversary", 0),
        ("distribution", 0),
    ]
    for seed in (0, 1):
        first, *others = (one for one in outcomes if one.seed == seed)
        assert all(one[3:] == first[3:] for one in others)
    assert outcomes[0].kl != outcomes[3].kl
    (whole,) = measure(*items, ["kl-only"], [ALL], [0])
    assert 0 <= whole.scaled_kl < outcomes[0].scaled_kl and 0 < whole.entropy_correlation < 1


def test_what_stands_beside_them(items):
    found = summary(items[1], np.array([0.2, 0.3, 0.5]), 0.1)
    expected = rel_entr(items[1].shares, [0.2, 0.3, 0.5]).sum(-1).mean()
    assert found == {"test_items": 60, "noise_floor": 0.1, "prior_kl": pytest.approx(expected)}


def test_the_command_on_ratings_of_ones_own(tmp_path, monkeypatch, capsys):
    """Two seeds of two methods on VADER's words."""
    out = tmp_path / "words.json"
    command = ["linear_judges.py", "vader", "--items", "150", "--max-eval-samples", "60", "--seeds", "2"]
    command += ["--annotators", "3", "0", "--methods", "kl-only", "no-adversary", "--title", "Words"]
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "scripts/benchmarks")
        script = importlib.import_module("linear_judges")
    monkeypatch.setattr(sys, "argv", [*command, "--out", str(out)])
    script.main()
    said = capsys.readouterr().out
    assert said.startswith("## Words: linear judges") and "60 test items" in said
    assert sum(line.startswith("| 150 ") for line in said.splitlines()) == 4
    study = LinearStudy.read(out)
    assert study.points() == [Point(150, 3, 0.8, 0.25), Point(150, 0, 0.8, 0.25)] and len(study.outcomes) == 8
    assert str(tmp_path) not in out.read_text() and json.loads(out.read_text())["title"] == "Words"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--items", "1000000"], "--items 1000000: there are "),
        (["--seeds", "0"], "--seeds and --items: at least 1"),
        (["--annotators", "-1"], "--annotators: at least 0"),
        (["--data-path", "none"], "none"),
        (["--split", "all"], "--split all: judges would be tested on"),
        (["--items", "2"], "Too few training items"),
    ],
)
def test_what_is_wrong_is_one_line_and_exit_code_2(words, message):
    script = ROOT / "scripts/benchmarks/linear_judges.py"
    done = subprocess.run(
        [sys.executable, script, "vader", *words], check=False, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr
