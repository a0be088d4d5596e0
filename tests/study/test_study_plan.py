"""Plans: which runs follow from them, and what is wrong with them."""

import copy

import pytest
from small_study import CONTENT, write_plan

from distjudge_trl.errors import UserInputError
from distjudge_trl.study import Plan, read_plan


def changed(path, value):
    """The plan's content with another value at a path of keys."""
    content = copy.deepcopy(CONTENT)
    place = content
    *above, last = path.split(".")
    for key in above:
        place = place.setdefault(key, {})
    place[last] = value
    return content


@pytest.mark.parametrize(
    ("path", "value", "match"),
    [
        ("run", {}, "`run`: there is no such key. Did you mean runs?"),
        ("data", {}, "`data`: must not be empty"),
        ("data.first", {}, "`data.first.task`: is missing"),
        ("data.first.tsk", "snli", "`data.first.tsk`: there is no such key. Did you mean task?"),
        ("data.first.task", "snly", "`data.first`: There is no task 'snly'. Did you mean 'snli'"),
        ("data.first.transfer", {"chaosnly": None}, "`data.first`: There is no task 'chaosnly'"),
        ("data.a/b", {"task": "snli"}, "`data.a/b`: a name may have"),
        ("methods.raw", {"method": "raw"}, "`methods.raw`: is a method of the recipes"),
        ("methods.wide.method", "distributoin", "`methods.wide.method`: there is no 'distributoin'. Did you mean"),
        ("runs.main.data", ["third"], "`runs.main.data`: there is no 'third'. There are: first, second"),
        ("runs.main.methods", ["wise"], "`runs.main.methods`: there is no 'wise'. Did you mean 'wide'"),
        ("runs.main.methods", [], "`runs.main.methods`: must not be empty"),
        (
            "runs.main.vary",
            {"max_train_samples": ["100"]},
            "max_train_samples must be a whole number \\(without quotes\\)",
        ),
        ("options", {"max_eval_samples": "200"}, "`options`: max_eval_samples must be a whole number"),
        ("options", {"bf16": "false"}, "`options`: bf16 must not be a text: write false without quotes"),
        ("runs.main.vary", {"max_grad_norm": [float("inf")]}, "max_grad_norm must be finite, got inf"),
        (
            "runs.more",
            {"data": ["first"], "method": ["raw"]},
            "`runs.more.method`: there is no such key. Did you mean",
        ),
        (
            "data.second.transfer",
            {"a/mine.yaml": None, "b/mine.yaml": None},
            "`data.second.transfer`: the results of two tasks would have the folder mine-from-second",
        ),
        ("data.first.start_from", "second/raw", "`data.first.start_from`: 'raw' trains nothing"),
        ("data.first.transfer", {"no name!.yaml": None}, "`data.first.transfer`: the name of 'no name!.yaml'"),
        ("runs.main.seeds", [0, "1"], "`runs.main.seeds.1`: .*valid integer, got '1'"),
        ("runs.main.vary", {"alpha": 0.5}, "`runs.main.vary`: alpha needs a list of values"),
        (
            "runs.main.vary",
            {"seed": [0, 1]},
            "`runs.main.vary`: seed is no option of a plan: a part's `seeds` list it",
        ),
        ("runs.main.vary", {"alpha": [[1]]}, r"`runs.main.vary`: alpha must be a number.*got \[1\]"),
        ("options.method", "raw", "`options`: method is no option of a plan: a part's `methods` list it"),
        ("data.first.options", {"data-path": "x"}, "`data.first.options`: data_path is no option .* key `path`"),
        ("options", {"max-length": 1, "max_length": 2}, "`options`: max_length occurs twice"),
        ("options", ["alpha"], "`options`: must be a mapping of option names"),
        ("data.first", "snli", "`data.first`: must be a mapping of names to values, got 'snli'"),
        ("data.first.task", "", "`data.first.task`: must not be empty"),
        ("data.a\nb", {"task": "snli"}, "`data.a b`: a name may have"),
        ("data.report", {"task": "snli"}, "`data.report`: the report's folder has this name"),
        (
            "data.first.compare_with",
            ["secnd"],
            "`data.first.compare_with`: there is no 'secnd'. Did you mean 'second'",
        ),
        ("data.first.compare_with", ["second"], "`data.first.compare_with`: is for judges that start from another"),
        ("data.first.start_from", "secnd", "`data.first.start_from`: there is no 'secnd'. Did you mean 'second'"),
        ("data.first.start_from", "second/wise", "`data.first.start_from`: there is no 'wise'. Did you mean 'wide'"),
        (
            "data.first.start_from",
            "second/",
            "`data.first.start_from`: must be the name of a data set, or DATA/METHOD",
        ),
        ("data.first.start_from", "first", "`data.first.start_from`: 'first' starts from another judge itself"),
        ("runs.main.data", [1], "`runs.main.data.0`: must be a text; in quotes, .* got 1"),
        ("runs.main.seeds", [2**32], "`runs.main.seeds.0`: .*less than 4294967296"),
    ],
)
def test_mistakes_name_file_and_key(tmp_path, path, value, match):
    plan = write_plan(tmp_path, changed(path, value))
    with pytest.raises(UserInputError, match=match) as caught:
        read_plan(plan)
    assert str(caught.value).startswith(f"{plan}: ") and "\n" not in str(caught.value)


def test_a_task_file_is_no_plan(tmp_path):
    with pytest.raises(UserInputError, match="is a task, and not a plan"):
        read_plan(write_plan(tmp_path, {"labels": ["a", "b"], "template": "t"}))


def names(plan):
    return [run.full_name for run in plan.runs()]


def test_runs_are_made_seed_by_seed_and_an_untrained_model_once(tmp_path):
    plan = read_plan(write_plan(tmp_path))
    seeds = [["no-adversary-seed0", "wide-seed0"], ["no-adversary-seed1", "wide-seed1"]]
    assert names(plan) == [f"first/{name}" for name in ("raw-seed0", *seeds[0], *seeds[1])]
    wide = plan.runs()[2]
    assert wide.options == {"num_train_epochs": 2, "perturbation_radius": 0.5, "method": "distribution", "seed": 0}
    assert plan.method_title("wide") == "a wide ball" and plan.data_title("first") == "first"


def test_a_run_of_several_parts_is_made_once_and_null_means_unvaried(tmp_path):
    more = {"data": ["first"], "methods": ["raw", "wide"], "vary": {"max_train_samples": [100, None]}}
    plan = read_plan(write_plan(tmp_path, runs={**CONTENT["runs"], "size": more}))
    assert names(plan)[5:] == ["first/wide-maxtrainsamples100-seed0"]
    parts = {run.full_name: run.parts for run in plan.runs()}
    assert parts["first/wide-seed0"] == parts["first/raw-seed0"] == ("main", "size")
    assert parts["first/wide-seed1"] == ("main",)


def test_an_untrained_model_is_run_again_if_another_is_read(tmp_path):
    vary = {"model_name_or_path": ["org/small", "org/large"], "alpha": [0.0, 0.5]}
    plan = read_plan(write_plan(tmp_path, runs={"one": {"data": ["first"], "methods": ["raw"], "vary": vary}}))
    assert names(plan) == [f"first/raw-modelnameorpathorg-{size}-seed0" for size in ("small", "large")]


def test_what_comes_later_holds(tmp_path):
    """Options of the plan, its data set, its part, the command line, the method, and the varied ones."""
    options = dict.fromkeys(("a", "b", "c", "d", "e", "f"), "plan")
    content = {
        "options": options,
        "data": {"x": {"task": "snli", "options": dict.fromkeys(list(options)[1:], "data")}},
        "methods": {"own": {"method": "no-kl", "options": {"e": "method"}}},
        "runs": {
            "p": {"data": ["x"], "methods": ["own"], "options": dict.fromkeys("cdf", "part"), "vary": {"f": ["vary"]}}
        },
    }
    plan = read_plan(write_plan(tmp_path, content))
    (run,) = Plan(plan.content, plan.folder, {"d": "given", "a": None}).runs()
    found = {name: run.options.get(name) for name in options}
    assert found == {"a": None, "b": "data", "c": "part", "d": "given", "e": "method", "f": "vary"}
    assert "a" not in run.options
    for name, match in (("e", "the method 'own' sets it"), ("f", "the part 'p' varies it")):
        with pytest.raises(UserInputError, match=f"--{name} cannot be given: {match}"):
            given = Plan(plan.content, plan.folder, {name: 1})
            given.check_given(given.runs())


def test_an_option_that_other_runs_vary_may_be_given(tmp_path):
    runs = {**CONTENT["runs"], "sizes": {"data": ["first"], "methods": ["kl-only"], "vary": {"max_items": [50, None]}}}
    plan = read_plan(write_plan(tmp_path, runs=runs))
    plan = Plan(plan.content, plan.folder, {"max_items": 70})
    plan.check_given(run for run in plan.runs() if "main" in run.parts or not run.vary)
    with pytest.raises(UserInputError, match="the part 'sizes' varies it. Change the plan, or choose other runs"):
        plan.check_given(plan.runs())


def test_one_name_for_two_runs_is_refused(tmp_path):
    other = {"data": ["first"], "methods": ["no-adversary"], "options": {"num_train_epochs": 5}}
    plan = read_plan(write_plan(tmp_path, runs={**CONTENT["runs"], "other": other}))
    with pytest.raises(
        UserInputError, match="first/no-adversary-seed0 .*'other' than in 'main': num_train_epochs 2 and 5"
    ):
        plan.runs()


@pytest.mark.parametrize(
    ("vary", "match"),
    [
        ({"prompt_template": ["x" * 300]}, r"too long for a folder: first/wide-prompttemplatexxx[x]*\.\.\."),
        (
            {"lr_scheduler_type": ["a b", "a/b"]},
            "Two runs would have the name first/wide-.*: lr_scheduler_type a b and",
        ),
    ],
)
def test_varied_values_that_make_no_name_are_refused(tmp_path, vary, match):
    plan = read_plan(write_plan(tmp_path, runs={"p": {"data": ["first"], "methods": ["wide"], "vary": vary}}))
    with pytest.raises(UserInputError, match=match):
        plan.runs()


def test_a_judge_to_start_from_has_to_be_in_the_plan(tmp_path):
    for start, run in (("second", "second/no-adversary-seed0"), ("second/kl-only", "second/kl-only-seed0")):
        data = {**CONTENT["data"], "first": {"task": "snli", "start_from": start}}
        match = rf"plan.yaml: .* starts from the judge of {run} \(`data.first.start_from`\), which no part"
        with pytest.raises(UserInputError, match=match):
            read_plan(write_plan(tmp_path, data=data)).runs()


@pytest.mark.parametrize("where", ["data", "methods", "vary", "runs"])
def test_a_start_and_a_model_of_its_own_exclude_each_other(tmp_path, where):
    model = {"model_name_or_path": "other"}
    second = {"task": "vader", "start_from": "first/kl-only", "options": model if where == "data" else {}}
    wide = {"method": "distribution", "options": model if where == "methods" else {}}
    part = {
        "data": ["second"],
        "methods": ["wide"],
        "vary": {"model_name_or_path": ["other"]} if where == "vary" else {},
    }
    content = {
        "data": {"first": {"task": "snli"}, "second": second},
        "methods": {"wide": wide},
        "runs": {
            "start": {"data": ["first"], "methods": ["kl-only"]},
            "part": {**part, "options": model if where == "runs" else {}},
        },
    }
    with pytest.raises(UserInputError, match=r"a model_name_or_path of its own, and `data.second.start_from`"):
        read_plan(write_plan(tmp_path, content)).runs()


@pytest.mark.parametrize("more", [{"methods": ["no-adversary"], "seeds": [2]}, {"methods": ["distribution"]}])
def test_what_tables_compare_differs_in_nothing_else(tmp_path, more):
    """Neither seeds of one method nor two methods."""
    part = {"data": ["first"], **more}
    runs = {"main": CONTENT["runs"]["main"], "more": {**part, "options": {"num_train_epochs": 3}}}
    match = r"plan.yaml: .*\(part 'main'\) and .*\(part 'more'\) would be compared .* num_train_epochs 2 and 3"
    with pytest.raises(UserInputError, match=match):
        read_plan(write_plan(tmp_path, runs=runs)).runs()
    # What a method sets, and what is varied, may differ.
    long = {"method": more["methods"][0], "options": {"num_train_epochs": 3}}
    part["methods"] = ["long"]
    vary = {**part, "methods": ["kl-only"], "vary": {"num_train_epochs": [3]}}
    # So may what changes no result, and an untrained model is not trained for more epochs.
    quiet = {"data": ["first"], "methods": ["dirichlet"], "options": {"logging_steps": 5}}
    runs = {"main": CONTENT["runs"]["main"], "more": part, "vary": vary, "quiet": quiet}
    untrained = {"raw": {"data": ["first"], "methods": ["raw"]}, "more": {**part, "options": {"num_train_epochs": 3}}}
    assert read_plan(write_plan(tmp_path, methods={"long": long}, runs=untrained)).runs()
    assert read_plan(write_plan(tmp_path, methods={**CONTENT["methods"], "long": long}, runs=runs)).runs()


def test_one_value_is_written_in_one_way(tmp_path):
    part = {"data": ["first"], "methods": ["distribution"]}
    runs = {"a": {**part, "vary": {"alpha": [1]}}, "b": {**part, "vary": {"alpha": [1.0]}}}
    match = r"first/distribution-alpha1-seed0 .* and first/distribution-alpha1.0-seed0 .* written in two ways"
    with pytest.raises(UserInputError, match=match):
        read_plan(write_plan(tmp_path, runs=runs)).runs()


def test_an_untrained_model_is_tested_once(tmp_path):
    part = {"data": ["first"], "methods": ["raw", "no-adversary"]}
    runs = {"a": {**part, "seeds": [1]}, "b": {**part, "seeds": [2, 3]}}
    names = [run.name for run in read_plan(write_plan(tmp_path, runs=runs)).runs()]
    assert names == ["raw-seed0", *(f"no-adversary-seed{seed}" for seed in (1, 2, 3))]


TASK = """name: own
description: {about}
labels: ["no", "yes"]  # {about}
template: "{{{{ text }}}}? {words}"
source: x.jsonl
votes: {{list: votes}}
"""


def test_a_task_file_beside_the_plan_is_known_by_what_it_says(tmp_path):
    content = {"data": {"x": {"task": "own.yaml"}}, "runs": {"p": {"data": ["x"], "methods": ["raw"]}}}
    found = []
    for about, words in (("first", "yes or no"), ("second", "yes or no"), ("second", "yes, or no")):
        (tmp_path / "own.yaml").write_text(TASK.format(about=about, words=words), encoding="utf-8")
        plan = read_plan(write_plan(tmp_path, content))
        assert plan.task("x") == str(tmp_path / "own.yaml")
        found.append(plan.runs()[0].task)
    assert found[0] == found[1] != found[2] and found[0].startswith("own.yaml ")
