"""Columns of judged items, by hand; and pairs in both orders."""

import numpy as np
import pytest

from distjudge_trl.calibration.conformal import LabelSets
from distjudge_trl.calibration.scaling import Scaling
from distjudge_trl.calibration.stored import Calibration
from distjudge_trl.data.template import PromptTemplate
from distjudge_trl.errors import UserInputError
from distjudge_trl.judges.base import Judgments
from distjudge_trl.judges.readouts import label_values, readouts
from distjudge_trl.judges.swapping import Swap, compare_orders
from distjudge_trl.labels import LabelSpace


RATINGS = LabelSpace(["1", "2", "3", "4"], ordinal=True)


def read(probabilities, space=RATINGS, columns=None, mass=0.5, **options):
    q = np.array([probabilities])
    with np.errstate(divide="ignore"):
        return readouts(np.log(q), np.array([mass]), space, columns, **options)[0]


def test_readouts_of_a_distribution():
    row = read([0.1, 0.4, 0.3, 0.2])
    assert row["label_distribution"] == pytest.approx({"1": 0.1, "2": 0.4, "3": 0.3, "4": 0.2})
    assert row["label"] == "2" and row["mean"] == pytest.approx(2.6) and row["median"] == 2.0
    assert row["entropy"] == pytest.approx(-sum(p * np.log(p) for p in (0.1, 0.4, 0.3, 0.2)))
    assert row["label_mass"] == 0.5
    # The lowest quarter: all of the 1s, and 0.15 of the 2s.
    assert row["risk_averse"] == pytest.approx((0.1 * 1 + 0.15 * 2) / 0.25)
    assert read([0.1, 0.4, 0.3, 0.2], risk=1.0)["risk_averse"] == pytest.approx(2.6)
    assert read([0.1, 0.4, 0.3, 0.2], risk=0.1)["risk_averse"] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("probabilities", "median"), [([0.5, 0, 0, 0.5], 1), ([0.4, 0, 0.2, 0.4], 3), ([0, 0, 0, 1], 4), ([1, 0, 0, 0], 1)]
)
def test_the_median_is_where_half_is_reached(probabilities, median):
    row = read(probabilities)
    assert row["median"] == median and row["entropy"] >= 0


def test_values_of_labels():
    assert label_values(LabelSpace(["-1", "0,5", "2"])).tolist() == [-1, 0.5, 2]
    assert label_values(LabelSpace(["bad", "ok", "1"])).tolist() == [0, 1, 2]
    assert label_values(LabelSpace(["nan", "1"])).tolist() == [0, 1]
    # Labels from high to low: the worst value is the smallest.
    down = LabelSpace(["3", "2", "1"], ordinal=True)
    row = read([0.5, 0.3, 0.2], down)
    assert row["median"] == 2
    assert row["risk_averse"] == pytest.approx((0.2 * 1 + 0.05 * 2) / 0.25)


def test_an_unknown_mass_is_none():
    assert read([0.25] * 4, mass=np.nan)["label_mass"] is None


def test_bad_choices():
    with pytest.raises(UserInputError, match="--risk must be above 0"):
        read([0.25] * 4, risk=0.0)
    with pytest.raises(UserInputError, match="needs labels with an order"):
        read([0.5, 0.5], LabelSpace(["A", "B"]), ["median"])


def test_no_items():
    assert readouts(np.zeros((0, 4)), np.zeros(0), RATINGS) == []


# Pairs in both orders


def template(text):
    return PromptTemplate([{"role": "user", "content": text}])


@pytest.mark.parametrize(
    ("fields", "labels", "pairs", "mirror"),
    [
        (["answer_a", "answer_b"], ["A", "B", "tie"], [("answer_a", "answer_b")], (1, 0, 2)),
        (["response_1", "response_2"], ["1", "2"], [("response_1", "response_2")], (1, 0)),
        (["left", "right", "task"], ["Left", "Right"], [("left", "right")], (1, 0)),
        (
            ["question_1", "answer_a_1", "answer_b_1", "answer_a_2", "answer_b_2", "question_2"],
            ["A", "B", "tie"],
            [("answer_a_1", "answer_b_1"), ("answer_a_2", "answer_b_2")],
            (1, 0, 2),
        ),
    ],
)
def test_the_sides_of_a_pair_are_seen_by_their_names(fields, labels, pairs, mirror):
    swap = Swap.find(template(" ".join(f"{{{{ {name} }}}}" for name in fields)), LabelSpace(labels))
    assert sorted(swap.fields) == pairs and swap.labels == mirror


def test_ordinal_labels_are_exchanged_from_both_ends():
    space = LabelSpace(["-2", "-1", "0", "1", "2"], ordinal=True)
    assert Swap.find(template("{{ a }} {{ b }}"), space).labels == (4, 3, 2, 1, 0)


def test_sides_may_be_named():
    swap = Swap.find(template("{{ one }} {{ two }}"), LabelSpace(["x", "y", "z"]), "one:two", "x:z")
    assert swap.fields == (("one", "two"),) and swap.labels == (2, 1, 0)
    assert swap.other_order({"one": 1, "other": 3}, row=1) == {"two": 1, "other": 3}
    for fields, labels, message in (
        (None, "x:z", "Name them with --swap-fields ONE:OTHER"),
        ("one:two", None, "Name them with --swap-labels ONE:OTHER"),
        ("one:two,two:one", "x:z", "a name occurs twice"),
        ("one", "x:z", "write pairs of names"),
        ("one:two", "x:w", "there is no 'w'. Known: x, y, z"),
    ):
        with pytest.raises(UserInputError, match=message):
            Swap.find(template("{{ one }} {{ two }}"), LabelSpace(["x", "y", "z"]), fields, labels)


def judgments(rows):
    q = np.array(rows, dtype=float)
    return Judgments(np.log(q), np.full(len(q), 0.5), np.zeros(q.shape, bool))


def test_the_average_does_not_depend_on_the_order():
    swap = Swap.find(template("{{ a }} {{ b }}"), LabelSpace(["A", "B", "tie"]))
    first, second = judgments([[0.6, 0.3, 0.1], [0.2, 0.7, 0.1]]), judgments([[0.5, 0.4, 0.1], [0.6, 0.1, 0.3]])
    averaged = swap.average(first, second).probabilities
    np.testing.assert_allclose(averaged, [[0.5, 0.4, 0.1], [0.15, 0.65, 0.2]])
    np.testing.assert_allclose(swap.average(second, first).probabilities[:, [1, 0, 2]], averaged)
    counts = swap.orders(first, second)
    # The first pair is judged for whoever stands first; of the second, B wins in both orders.
    assert (counts.pairs, counts.consistent) == (2, 1)
    assert counts.gains == pytest.approx(((0.6 - 0.4) + (0.5 - 0.3)) / 2 + ((0.2 - 0.1) + (0.6 - 0.7)) / 2)


def test_equally_likely_labels_may_mean_either():
    counts = compare_orders(np.array([[0.5, 0.5, 0.0]]), np.array([[0.3, 0.7, 0.0]]), (1, 0, 2))
    assert counts.consistent == 1


def test_label_sets_of_a_calibrated_judge():
    scaling = Scaling(np.ones(4), np.zeros(4))
    sets = Calibration(scaling, "temperature", 50, LabelSets(0.9, "sets", 0.7, 50, 50))
    intervals = Calibration(scaling, "temperature", 50, LabelSets(0.9, "intervals", 0.7, 50, 50))
    row = read([0.1, 0.5, 0.05, 0.35], calibration=sets)
    assert row["label_set"] == ["2", "4"] and "interval" not in row
    row = read([0.1, 0.5, 0.3, 0.1], calibration=intervals)
    assert row["interval"] == ["2", "3"] and "label_set" not in row
    with pytest.raises(UserInputError, match="--columns interval: needs a calibration.*distjudge-trl calibrate"):
        read([0.25] * 4, columns=["interval"])
    with pytest.raises(UserInputError, match="--columns label_set: this judge has the column interval instead"):
        read([0.25] * 4, columns=["label_set"], calibration=intervals)
