"""The table of methods beside what repeats a part of it for its own ends."""

from dataclasses import fields

from distjudge_trl.methods import METHODS
from distjudge_trl.report import paper, plots
from distjudge_trl.report.runs import METHOD_ORDER, OBJECTIVE
from distjudge_trl.trainer import DistributionSFTConfig


def test_reports_know_every_method_and_the_trainer_s_defaults():
    assert [name for name in METHOD_ORDER if name in METHODS] == list(METHODS)
    assert {*paper.ABLATION_NAMES} < {*METHODS}
    assert {name.split(" + ")[0] for name in plots.PLOTTED} < {*METHODS}
    defaults = {field.name: field.default for field in fields(DistributionSFTConfig)}
    ours = {name: value for name, value in OBJECTIVE.items() if name != "max_annotators"}  # a task's option
    assert ours == {name: defaults[name] for name in ours}
    own_settings = {field.name for field in fields(DistributionSFTConfig)} - {
        f.name for f in fields(DistributionSFTConfig.__base__)
    }
    assert own_settings - {*OBJECTIVE} == {"projection_solver", "share_prefixes"}, "they change no result"


def test_what_methods_set_are_settings_of_the_objective():
    for name, method in METHODS.items():
        assert method.own_settings <= {*OBJECTIVE}, name
    made = [(dict(way.fixed), dict(way.defaults), way.chosen) for way in METHODS.values()]
    assert all(made.count(way) == 1 for way in made), "no two are the same by another name"
