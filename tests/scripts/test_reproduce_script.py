"""scripts/reproduce.py: which runs it makes of tasks and options, and how it stops. tests/e2e trains with it."""

import subprocess

import psutil
import pytest
from conftest import ROOT

from distjudge_trl.errors import UserInputError


@pytest.fixture(scope="module")
def reproduce(scripts):
    return scripts("reproduce")


def planned(reproduce, *words):
    """The runs of a command line."""
    own, rest = (words[: words.index("--")], words[words.index("--") + 1 :]) if "--" in words else (words, ())
    args = reproduce.make_parser().parse_args(list(own))
    return reproduce.paper_plan(args, reproduce.parse_options(list(rest))).runs()


def names(reproduce, *words):
    return [run.name for run in planned(reproduce, *words)]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--methods", "no-kl", "raw"), ["raw-seed0", "no-kl-seed0", "no-kl-seed1"]),
        (("--methods", "distribution"), ["distribution-seed0", "distribution-seed1"]),
    ],
)
def test_seeds_hold_for_all_methods_that_are_named(reproduce, options, expected):
    assert names(reproduce, "vader", *options, "--seeds", "0", "1") == expected


def test_without_names_the_methods_of_table_1_have_all_seeds(reproduce):
    found = names(reproduce, "vader", "--seeds", "3", "4")
    assert len(found) == len(set(found)) == len(reproduce.METHODS) + len(reproduce.MAIN_METHODS)
    assert "no-kl-seed3" in found and "no-kl-seed4" not in found and "distribution-seed4" in found
    assert found[:4] == ["raw-seed0", "single-point-seed3", "no-adversary-seed3", "distribution-seed3"]


def test_labels_without_an_order_have_no_runs_of_methods_for_ordered_labels(reproduce):
    def found(*options, tasks):
        runs = planned(reproduce, *tasks, *options)
        return [run.name for run in runs if run.data == tasks[0]]

    everything = found(tasks=["vader"])
    assert {*everything} - {*found(tasks=["snli"])} == {"ordinal-seed0"}
    named = ("--methods", "ordinal", "no-ce")
    assert found(*named, tasks=["snli", "vader"]) == ["no-ce-seed0"]
    assert found(*named, tasks=["vader", "snli"]) == ["ordinal-seed0", "no-ce-seed0"]
    # A recipe without a task of its own has that of its options.
    replies = ROOT / "docs" / "examples" / "replies.yaml"
    assert "ordinal-seed0" in found("--", "--task", str(replies), tasks=["custom"])
    for tasks, match in ((["snli"], "ordinal needs labels with an order, which no task"), (["custom"], "--task FILE")):
        with pytest.raises(UserInputError, match=match):
            found(*named, tasks=tasks)


def test_the_other_parts(reproduce):
    budget = planned(reproduce, "vader", "--parts", "budget", "--budget", "600", "--seeds", "7", "8")
    assert [run.name for run in budget] == [
        f"distribution-annotationbudget600-maxannotators{n}-seed7" for n in (1, 3, 5)
    ]
    assert {(run.options["annotation_budget"], run.options["calibrate"]) for run in budget} == {(600, True)}
    grid = planned(reproduce, "vader", "--parts", "grid", "--grid-alpha", "0", "0.5", "--", "--alpha", "0.9")
    assert len(grid) == 12 and {run.options["alpha"] for run in grid} == {0.0, 0.5}
    assert len(names(reproduce, "snli", "vader", "--parts", "methods", "budget", "grid", "--methods", "no-kl")) == 80


def test_transfer_tests_the_judges_of_methods_and_no_others(reproduce):
    words = ("snli", "vader", "--parts", "transfer", "budget", "--data-path", "chaosnli=chaos.zip")
    args = reproduce.make_parser().parse_args(list(words))
    plan = reproduce.paper_plan(args, {})
    tested = [run.full_name for run in plan.runs() if run.transfer]
    assert tested == [f"snli/{name}" for name in names(reproduce, "snli")]
    assert plan.content.data["snli"].transfer == {"chaosnli": "chaos.zip"}


def test_options_behind_the_dashes(reproduce, tmp_path):
    config = tmp_path / "more.yaml"
    config.write_text("max-items: 5\nlearning_rate: 0.1\nlr_scheduler_kwargs: {num_cycles: 2}\n")
    words = "--save_strategy no --learning-rate=1e-4 --bf16 False --lora_target_modules q_proj v_proj --use_peft"
    words += f" --no_calibrate --revision 010 --model_name_or_path null --config {config}"
    assert reproduce.parse_options(words.split()) == {
        "max_items": 5,
        "learning_rate": 1e-4,
        "lr_scheduler_kwargs": {"num_cycles": 2},
        "save_strategy": "no",
        "bf16": False,
        "lora_target_modules": ["q_proj", "v_proj"],
        "use_peft": True,
        "calibrate": False,
        "revision": 10,
        "model_name_or_path": None,
    }
    for words, match in (
        ("x --alpha 1", "there must be options of recipes, got 'x'"),
        ("--seed 3", "seed is no option of a plan: a part's `seeds` list it"),
        ("--alpha 1 --alpha 2", "--alpha is given twice"),
        ("--config a.yaml b.yaml", "--config takes one value, got a.yaml b.yaml"),
        ("--task", "--task takes one value, got none"),
    ):
        with pytest.raises(UserInputError, match=match):
            reproduce.parse_options(words.split())


def test_a_command_line_comes_before_a_plan(reproduce):
    words = ["recipes/studies/paper.yaml", "--model", "org/other"]
    args = reproduce.make_parser().parse_args([str(ROOT / words[0]), *words[1:]])
    plan = reproduce.own_plan(args, {"model_name_or_path": "org/other", "num_train_epochs": 7, "max_length": None})
    selected = [run for run in plan.runs() if {"main", "more-data"} & {*run.parts}]
    plan.check_given(selected)  # the command in the plan's head gives such options
    for run in selected:
        assert run.options["model_name_or_path"] == "org/other" and run.options["num_train_epochs"] == 7
        assert "max_length" not in run.options


def test_own_results_do_not_join_those_of_the_repository(reproduce, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert str(reproduce.default_results(None)) == "runs/paper"
    assert str(reproduce.default_results(ROOT / "recipes/studies/paper.yaml")) == "docs/results"
    for plan in ("mine.yaml", "recipes/studies/paper.yaml"):  # below another folder
        assert str(reproduce.default_results(tmp_path / plan)) == f"runs/results/{plan.split('/')[-1][:-5]}"


def test_durations(reproduce):
    assert [reproduce.seconds_of(text) for text in ("30s", "90min", "90m", "1.5h", "0h")] == [30, 5400, 5400, 5400, 0]


def test_tables_are_known_before_anything_is_made(reproduce, tmp_path, monkeypatch):
    words = ["vader", "--methods", "raw", "--out", str(tmp_path / "out"), "--work", str(tmp_path / "work"), "--list"]
    for name in (
        "data-vader",
        "gains-plain",
        "table2",
        "other_tasks",
        "metrics_vader",
        "curve-vader-max_annotators-plain",
    ):
        monkeypatch.setattr("sys.argv", ["reproduce.py", *words, "--tables", name])
        reproduce.main()
    for name in ("data-snli", "tabel2"):
        monkeypatch.setattr("sys.argv", ["reproduce.py", *words, "--tables", name])
        with pytest.raises(UserInputError, match=f"--tables: '{name}' is no table of this study. They are called"):
            reproduce.main()


def test_a_launcher_is_split_as_in_a_shell(reproduce):
    parse = reproduce.make_parser().parse_args
    assert parse(["vader", "--launcher", "a -b 'c d'"]).launcher == ["a", "-b", "c d"]
    with pytest.raises(UserInputError, match="--launcher: is no command .*quotation.*: 'a"):
        parse(["vader", "--launcher", "'a"])


def test_ctrl_c_is_one_line_and_leaves_no_process(warm_python, tmp_path):
    stops_it = f"sh -c 'echo $$ > {tmp_path}/child; kill -INT $PPID; sleep 60'"
    command = [warm_python, "scripts/reproduce.py", "vader", "--launcher", stops_it, "--out", tmp_path / "results"]
    done = subprocess.run(
        [*command, "--work", tmp_path / "work"],
        check=False,
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=300,
    )
    assert done.returncode == 130
    assert done.stderr.splitlines() == ["Stopped. The same command goes on where it was."]
    assert not psutil.pid_exists(int((tmp_path / "child").read_text()))
    assert not any((tmp_path / "results").rglob("results.json"))


@pytest.mark.parametrize("name", ["P.YAML", "plan.json", "folder/plan", "."])
def test_what_is_no_bare_name_is_a_plan(reproduce, monkeypatch, name):
    monkeypatch.setattr("sys.argv", ["reproduce.py", name, "--list"])
    with pytest.raises(UserInputError, match="cannot be read"):
        reproduce.main()
