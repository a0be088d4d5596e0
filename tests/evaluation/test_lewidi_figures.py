"""The official figures of LeWiDi: formulas by hand, the organisers' constants, and a result file that has them."""

from math import log
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import SHARED, make_tiny_model
from lewidi_examples import irony, relation, tweet, write_items

from distjudge_trl.cli import main
from distjudge_trl.errors import UserInputError
from distjudge_trl.evaluation import read_results
from distjudge_trl.evaluation.lewidi import item_cross_entropy, item_manhattan, micro_f1, official_figures
from distjudge_trl.tasks import get_task


def test_cross_entropy_has_the_organisers_constants():
    p = [[0.8, 0.2], [1.0, 0.0], [0.5, 0.5]]
    assert item_cross_entropy(p, [[0.5, 0.5]] * 3) == pytest.approx([log(2)] * 3, abs=1e-8)  # "uniform": 0.693
    assert item_cross_entropy(p, [[0.75, 0.25]] * 3) == pytest.approx(
        [-0.8 * log(0.75) - 0.2 * log(0.25), -log(0.75), -0.5 * log(0.75) - 0.5 * log(0.25)], abs=1e-8
    )
    # A certain judge: ln(1e-12 + 1e-9) for what it excludes, and nearly nothing for what it says.
    certain = item_cross_entropy(p, [[1.0, 0.0]] * 3)
    assert certain == pytest.approx([0.2 * 20.72227, 0.0, 0.5 * 20.72227], abs=1e-5)
    # The floor: a target's own entropy.
    assert item_cross_entropy(p, p) == pytest.approx([0.500402, 0.0, log(2)], abs=1e-6)


def test_micro_f1_is_the_accuracy_against_the_organisers_label():
    q = [[0.6, 0.4], [0.4, 0.6], [0.5, 0.5], [0.1, 0.9]]
    assert micro_f1([0, 0, 0, 1], q) == 0.75  # the first of equally likely labels counts


def test_manhattan_is_the_sum_of_both_classes():
    assert item_manhattan([[1, 0], [0.5, 0.5]], [[0, 1], [0.75, 0.25]]) == pytest.approx([2, 0.5])


def records_of(name, file, items):
    return get_task(name).load(write_items(file, items))


def test_hard_labels_of_ties_are_the_organisers(tmp_path):
    items = {"1": tweet("a", [0, 1], 1, "dev"), "2": tweet("b", [0, 1], 0, "dev"), "3": tweet("c", [0, 0], 0, "dev")}
    records = records_of("hs_brexit", tmp_path / "HS-Brexit_dev.json", items)
    figures = official_figures("hs_brexit", records, np.log([[0.1, 0.9], [0.1, 0.9], [0.9, 0.1]]))
    assert figures["micro_f1"] == pytest.approx(2 / 3) and figures["num_items"] == 3
    expected = -(log(0.1) + log(0.9)) - log(0.9)  # two ties cost half of each, the third ln 0.9
    assert figures["cross_entropy"] == pytest.approx(expected / 3, abs=1e-8)


def test_wasserstein_is_in_steps_of_the_scale(tmp_path):
    from lewidi_examples import pair, sarcasm

    records = records_of("csc", tmp_path / "CSC_dev.json", {"1": sarcasm("c", "r", ["1", "1", "5", "5"])})
    to_six = np.log(np.eye(7)[[6]] + 1e-300)
    assert official_figures("csc", records, to_six)["wasserstein"] == pytest.approx(3)  # half 5 steps, half 1
    records = records_of("par", tmp_path / "Paraphrase_dev.json", {"1": pair("q", ["-5", "-5", "5", "5"])})
    assert official_figures("par", records, np.log(np.full((1, 11), 1 / 11)))["wasserstein"] == pytest.approx(
        sum(abs(0.5 - i / 11) for i in range(1, 11))
    )


def test_ven_puts_its_three_questions_together(tmp_path):
    items = {
        "1": relation("a", ["neutral", "neutral"], "dev"),
        "2": relation("b", ["contradiction", "neutral,entailment"], "dev"),
    }
    records = records_of("ven", tmp_path / "VariErrNLI_dev.json", items)
    never = np.log(np.tile([1.0 - 1e-12, 1e-12], (6, 1)))
    # Item 1: 0, 0 and 2; item 2: 1, 1 and 1.
    figures = official_figures("ven", records, never)
    assert figures == {"manhattan": pytest.approx((2 / 3 + 1) / 2), "num_items": 2, "num_incomplete": 0}
    # A pair of which a question is missing is not scored, and that is said; the order of rows does not matter.
    some = [5, 0, 3, 4]
    figures = official_figures("ven", records.select(some), never[some])
    assert figures == {"manhattan": pytest.approx(1), "num_items": 1, "num_incomplete": 1}
    with pytest.raises(UserInputError, match="Leave out --max-eval-samples"):
        official_figures("ven", records.select([0, 1, 3]), never[:3])


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "expected"), [("hs_brexit", 0.388), ("armis", 0.672), ("convabuse", 0.445), ("md_agreement", 0.665)]
)
def test_the_mean_of_train_scores_what_is_known_of_dev(name, expected):
    records = get_task(name).load(SHARED / "data" / "lewidi2023")
    parts = np.array(records["split"])
    mean = np.array(records.select(np.flatnonzero(parts == "train"))["label_distribution"]).mean(0)
    dev = records.select(np.flatnonzero(parts == "validation"))
    figures = official_figures(name, dev, np.tile(np.log(mean), (len(dev), 1)))
    assert round(figures["cross_entropy"], 3) == expected


@pytest.fixture(scope="module")
def world(tmp_path_factory, tokenizer):
    """A tiny model, and MP's parts."""
    folder = tmp_path_factory.mktemp("lewidi")
    make_tiny_model(len(tokenizer), context=512).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    for part, first in (("train", 0), ("dev", 100)):
        labels = [["1", "0"], ["0", "0", "0"], ["1", "1", "0"]]
        items = {str(first + i): irony(f"reply {first + i}", labels[i % 3], part) for i in range(30)}
        write_items(folder / f"MP_{part}.json", items)
    return folder


def evaluate(world: Path, *args):
    command = ["evaluate", "--model", str(world / "model"), "--data-path", str(world), *map(str, args)]
    return CliRunner().invoke(main, command)


def test_evaluate_prints_and_stores_the_official_figures(world, tmp_path):
    done = evaluate(world, "--task", "mp", "--metrics", "lewidi", "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert "MP, official figures of 2025:" in done.output and "Manhattan" in done.output
    figures = read_results(tmp_path / "out")["lewidi"]
    rows = {row["method"]: row for row in figures["rows"]}
    assert figures["edition"] == 2025 and set(rows) == {"raw", "uniform", "training-prior", "training-majority"}
    assert all(row["num_items"] == 30 for row in rows.values())  # the dev part
    # 1:1 is right; 1:0 is off by 1; 2:1 by a third.
    assert rows["uniform"]["manhattan"] == pytest.approx((0 + 1 + 1 / 3) / 3)
    assert f"{rows['raw']['manhattan']:.3f}" in done.output


def test_other_tasks_have_no_official_figures(world):
    done = evaluate(world, "--task", "vader", "--metrics", "lewidi")
    assert done.exit_code == 2
    assert "'vader' is not a task of LeWiDi" in done.output and len(done.output.strip().splitlines()) == 1
