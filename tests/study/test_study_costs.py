"""Estimates of how long runs take."""

import pytest
from small_study import HERE

from distjudge_trl.study.costs import Costs
from distjudge_trl.study.planned_run import PlannedRun
from distjudge_trl.study.store import StudyResult


def result(seconds, trained, read=300, *, machine=HERE, **options):
    options = {"method": "distribution", "num_train_epochs": 1, **options}
    about = {"data": "x", "options": options, "seconds": seconds, "machine": machine}
    settings = {"num_train_items": trained} if trained else {}
    return StudyResult(None, {"settings": settings, "metrics": {"num_items": read}}, about)


def run(data="x", *, transfer=(), **options):
    options = {"method": "distribution", "num_train_epochs": 1, **options}
    return PlannedRun(data, "snli", options["method"], 0, {}, ("p",), options, transfer=dict.fromkeys(transfer, ""))


def test_time_grows_with_epochs_and_items():
    # 900 items trained on, and 300 read for a third of the work each: 1,000.
    costs = Costs(HERE, [result(100, 900)])
    assert costs.seconds(run()) == pytest.approx(100)
    assert costs.seconds(run(num_train_epochs=3)) == pytest.approx(280)
    assert costs.seconds(run(max_train_samples=400)) == pytest.approx(50)
    assert costs.seconds(run(max_train_samples=5000)) == pytest.approx(100)
    assert costs.seconds(run(max_train_samples=400, max_eval_samples=30)) == pytest.approx(41)


def test_a_machine_of_twice_the_speed_takes_half_the_time():
    fast = {**HERE, "name": "another", "gflops": 200.0}
    costs = Costs(fast, [result(100, 900)])
    assert costs.seconds(run()) == pytest.approx(50)
    # Runs on the machine itself count alone, whatever its speed was beside other work.
    costs.learn(result(80, 900, machine={**fast, "gflops": 70.0}))
    assert costs.seconds(run()) == pytest.approx(80)
    assert Costs({**HERE, "jobs": 2, "gflops": 50.0}, [result(100, 900)]).seconds(run()) == pytest.approx(200)


@pytest.mark.parametrize(
    ("finished", "asked"),
    [
        ([], {}),
        ([result(10, 0, method="raw")], {}),
        ([result(100, 900)], {"method": "raw"}),
        ([result(100, 900)], {"data": "y"}),
        ([result(100, 900)], {"model_name_or_path": "org/large"}),
        ([result(100, 900)], {"use_peft": True}),
        # Values that the recipe will refuse.
        ([result(100, 900)], {"num_train_epochs": "many"}),
        ([result(100, 900)], {"max_eval_samples": "many"}),
        # That there are more items than 400 is known, but not how many.
        ([result(100, 400, max_train_samples=400)], {}),
        ([result(100, 250, annotation_budget=500)], {}),
        ([result(None, 900)], {}),
    ],
)
def test_without_a_similar_run_there_is_no_estimate(finished, asked):
    costs = Costs(HERE, finished)
    assert costs.seconds(run(**asked)) is None
    assert costs.total([run(**asked)], 1) == "duration not known yet"


def test_a_limit_is_enough_to_know_the_size():
    costs = Costs(HERE, [result(100, 400, max_train_samples=400)])
    assert costs.seconds(run(max_train_samples=900)) == pytest.approx(200)


def test_a_number_of_steps_takes_as_long_with_few_items_as_with_many():
    steps = {"max_steps": 50, "per_device_train_batch_size": 6, "gradient_accumulation_steps": 3}
    costs = Costs(HERE, [result(100, 900, max_train_samples=900, **steps)])
    assert costs.seconds(run(max_train_samples=200, **steps)) == pytest.approx(100)
    assert costs.seconds(run(max_train_samples=200, **{**steps, "max_steps": 100})) == pytest.approx(190)
    assert costs.seconds(run(**steps)) == pytest.approx(100), "how many items there are does not matter"


def test_a_budget_of_annotations_limits_the_items():
    costs = Costs(HERE, [result(100, 900)])
    assert costs.seconds(run(annotation_budget=800, max_annotators=2)) == pytest.approx(50)


def test_tests_on_other_tasks_take_time_too():
    test = result(30, 0)
    test.about["transfer"] = "chaosnli"
    slow = {**HERE, "name": "another", "gflops": 50.0}
    for costs in (Costs(HERE, [result(100, 900), test]), Costs(slow, [result(100, 900), test])):
        assert costs.seconds(run(transfer=["chaosnli", "unknown"])) == pytest.approx(1.3 * costs.seconds(run()))


def test_the_time_of_several_runs_is_shared_by_jobs():
    costs = Costs(HERE, [result(600, 900)])
    assert costs.total([run()] * 12, 1) == "about 2.0 h"
    assert costs.total([run()] * 12, 2) == "about 60 min"
    assert costs.total([run()], 2) == "about 10 min"
    assert costs.total([run(), run("y")], 2) == "about 10 min and 1 of unknown duration"
