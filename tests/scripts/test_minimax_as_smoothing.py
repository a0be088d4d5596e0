"""The table that says how much of the adversary's effect smoothing explains."""

import importlib
import math

import numpy as np
import pytest
from conftest import ROOT

from distjudge_trl.errors import UserInputError


@pytest.fixture(scope="module")
def script():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "scripts/benchmarks")
        yield importlib.import_module("minimax_as_smoothing")


@pytest.fixture
def votes(script):
    counts = np.array([[5.0, 0, 0], [4, 1, 0], [3, 1, 1], [10, 0, 0], [6, 3, 1]])
    return script.Votes(counts, np.array([7, 4, 2, 3, 1]))


def test_a_smoothing_is_found_again_and_explains_all(script, votes):
    target = script.dirichlet(votes.counts)(0.3)
    found = script.fit(script.dirichlet(votes.counts), votes, target, 1e3)
    assert found.strength == pytest.approx(0.3, rel=1e-3) and found.left < 1e-8
    p = votes.counts / votes.counts.sum(-1, keepdims=True)
    assert script.explained(votes, target, found.smoothed, p) == pytest.approx(1, abs=1e-5)
    # With five votes and with ten the same lambda is not the same s.
    other = script.fit(script.label_smoothing(votes.counts), votes, target, 0.999)
    assert other.left > 1e-3 and 0 < script.explained(votes, target, other.smoothed, p) < 1
    assert script.explained(votes, target, np.full((5, 3), 1 / 3), p) < 0


def test_the_cross_entropy_is_added_to_smoothed_targets(script, votes):
    mixed = script.with_cross_entropy(script.label_smoothing(votes.counts), 0.8)(0.3)
    np.testing.assert_allclose(mixed[0], [0.84, 0.08, 0.08])


def test_items_are_weighted_and_sharpened_ones_are_counted_among_the_divided(script, votes):
    assert votes.mean(votes.unanimous.astype(float)) == 10 / 17
    p = votes.counts / votes.counts.sum(-1, keepdims=True)
    sharper = p**2 / (p**2).sum(-1, keepdims=True)
    target = np.where(np.array([0, 0, 1, 0, 0])[:, None], sharper, p)
    assert script.sharpened(votes, target) == pytest.approx(2 / 7)


def test_every_vote_is_left_out_once(script, votes):
    unseen = script.leave_out(votes)
    assert unseen.weight.sum() == votes.items @ votes.counts.sum(-1)

    def predict(rest):
        return (rest + np.array([0.5])) / (rest.sum(-1, keepdims=True) + 1.5)

    total = count = 0
    for row, items in zip(votes.counts, votes.items, strict=True):
        for label, number in enumerate(row):
            rest = row - np.eye(3)[label]
            total -= items * number * math.log((rest[label] + 0.5) / (rest.sum() + 1.5)) if number else 0
            count += items * number
    assert unseen.loss(predict) == pytest.approx(total / count)


def test_the_tables_of_a_task(script, monkeypatch, capsys):
    command = ["minimax_as_smoothing.py", "vader", "--max_items", "10", "--alpha", "1", "--radius", "0.1", "0.25"]
    monkeypatch.setattr("sys.argv", command)
    script.main()
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("vader: 8 training items, 9 labels, 10 to 10 votes (median 10), ")
    first, second = ([cell.strip() for cell in line.split("|")[1:-1]] for line in printed if line.startswith("| 1 "))
    assert (first[1], second[1]) == ("0.1", "0.25")
    # A wider ball moves further and asks for more smoothing, which explains most of it but not all.
    for row in (first, second):
        effect, prior, left = map(float, row[2:5])
        assert 0 < left < effect and prior > 0.05 and 50 < float(row[5].rstrip(" %")) < 100
        assert row[2:6] == [row[9], *row[10:13]], "with alpha 1 there is no cross-entropy"
    assert float(first[2]) < float(second[2]) and float(first[3]) < float(second[3])
    # With the same number of votes everywhere the two smoothings are the same.
    n, pseudo_count = 10, float(second[3])
    assert float(second[7]) == pytest.approx(9 * pseudo_count / (n + 9 * pseudo_count), abs=1e-3)
    # Left-out votes: by the lambda that predicts them best, and by q* at these radii and wider ones.
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in printed if "Dirichlet" in line or "at ra" in line
    ]
    assert [row[0].split()[-1] for row in rows] == ["Dirichlet", "0.1", "0.25", "0.35", "0.5", "0.7"]
    assert rows[1][1] == first[3] and rows[2][1] == second[3]
    assert all(0.5 < float(row[2]) < 3 for row in rows)


@pytest.mark.parametrize("option", [["--alpha", "0"], ["--radius", "-1"]])
def test_options_out_of_range(script, monkeypatch, option):
    monkeypatch.setattr("sys.argv", ["minimax_as_smoothing.py", "vader", *option])
    with pytest.raises(UserInputError, match=option[0]):
        script.main()
