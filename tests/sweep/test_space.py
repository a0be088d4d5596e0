"""Parameters as people write them, and the configurations that they come to."""

import math

import pytest

from distjudge_trl.errors import UserInputError
from distjudge_trl.sweep.space import Parameter, draw, grid, make_parameter, parse_parameter, show


def test_lists_and_ranges_are_read():
    assert parse_parameter("alpha=0,0.4,0.8").choices == (0, 0.4, 0.8)
    assert parse_parameter("optim=adamw_torch,sgd").choices == ("adamw_torch", "sgd")
    assert parse_parameter("share-prefixes=true,false").choices == (True, False)
    rate = parse_parameter("--learning_rate=log:1e-5:2e-4")
    assert (rate.low, rate.high, rate.log, rate.integer, rate.is_range) == (1e-5, 2e-4, True, False, True)
    rank = parse_parameter("lora_r=int:4:64")
    assert rank.integer and rank.distribution().high == 64
    assert parse_parameter("x=float:0:1").distribution().log is False
    assert parse_parameter("task=int8:a,float:x").choices == ("int8:a", "float:x"), "texts may have colons"
    # YAML reads 5e-5 as a text.
    assert make_parameter("learning_rate", ["5e-5", 1e-4]).choices == (5e-5, 1e-4)
    assert make_parameter("alpha", "log:0.1:1").log


def test_a_parameter_is_described_as_it_is_written():
    for text in ("alpha=0,0.4", "learning_rate=log:1e-05:0.0002", "lora_r=int:4:64", "x=float:0:1"):
        assert parse_parameter(text).describe() == text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("alpha", "write NAME=A,B,C"),
        ("=1", "write NAME=A,B,C"),
        ("alpha=", "alpha has no values"),
        ("alpha=0,,1", "alpha has an empty value"),
        ("alpha=0.2,nan", "alpha: nan is no finite number"),
        ("alpha=inf", "alpha: inf is no finite number"),
        ("alpha=0,log:0.1:1", "the range log:0.1:1 stands alone"),
        ("alpha=lgo:0.1:1", "is no range. Did you mean log:LOW:HIGH"),
        ("alpha=float:1:0", "two numbers, the lower one first"),
        ("alpha=0,0.0", "has the value 0 twice"),
        ("x=log:0:1", "log:0:1 is no range. Write log:LOW:HIGH, two positive numbers"),
        ("x=log:2:1", "is no range"),
        ("x=float:1", "is no range"),
        ("x=float:1:inf", "is no range"),
        ("x=int:1:2.5", "two whole numbers"),
        ("x=float:a:b", "is no range"),
    ],
)
def test_what_is_no_parameter_is_refused(text, words):
    with pytest.raises(UserInputError) as error:
        parse_parameter(text)
    assert words in str(error.value)
    with pytest.raises(UserInputError, match="neither a number nor a text"):
        make_parameter("alpha", [[0, 1]])


def test_a_grid_has_every_combination_once():
    points = grid([Parameter("a", (1, 2, 3)), Parameter("b", ("x", "y"))])
    assert points[:3] == [{"a": 1, "b": "x"}, {"a": 1, "b": "y"}, {"a": 2, "b": "x"}]
    assert len(points) == len({tuple(point.items()) for point in points}) == 6
    with pytest.raises(UserInputError, match="x=float:0:1 is a range"):
        grid([parse_parameter("x=float:0:1")])
    with pytest.raises(UserInputError, match="nothing to sweep"):
        grid([])


def test_random_draws_repeat_nothing_and_go_on_where_they_ended():
    lists = [Parameter("a", tuple(range(10))), Parameter("b", (1, 2))]
    few, many = draw(lists, 5, seed=1), draw(lists, 100, seed=1)
    assert many[:5] == few and len(many) == 20 == len({tuple(p.items()) for p in many})
    assert draw(lists, 5, seed=2) != few
    ranges = [parse_parameter("rate=log:1e-5:1e-3"), parse_parameter("r=int:1:3"), Parameter("a", (0, 1))]
    few, many = draw(ranges, 5, seed=1), draw(ranges, 50, seed=1)
    assert many[:5] == few and len(many) == 50
    assert all(1e-5 <= p["rate"] <= 1e-3 and p["r"] in (1, 2, 3) and p["a"] in (0, 1) for p in many)
    # Half of them below the geometric mean of the ends.
    assert 10 < sum(math.log10(p["rate"]) < -4 for p in many) < 40
    # No more than there are.
    assert len(draw([parse_parameter("r=int:1:3")], 10, seed=0)) == 3


def test_values_are_shown_as_a_command_line_takes_them():
    assert [show(value) for value in (0.8, 0.0, 5e-05, 1 / 3, 3, "x", True)] == [
        "0.8", "0", "5e-05", str(1 / 3), "3", "x", "True"
    ]  # fmt: skip
