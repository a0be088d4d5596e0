"""Recipes: how defaults, methods, YAML and flags are laid over each other, and what is refused before anything is
loaded.
"""

import re
import runpy

import pytest
from conftest import ROOT

from distjudge_trl.errors import UserInputError
from distjudge_trl.methods import METHODS
from distjudge_trl.recipe import PAPER_GRID, Recipe
from distjudge_trl.runtime.precision import decide_precision
from distjudge_trl.tasks import get_task


RECIPE = runpy.run_path(str(ROOT / "recipes" / "vader.py"))["RECIPE"]


def parse(*argv):
    """Data and method, trainer's and model's options."""
    run = RECIPE.parse(list(argv))
    return run.recipe, run.training, run.model


def test_the_recipe_is_the_paper_s_setting_and_grid():
    recipe_args, training, model = parse()
    assert (training.alpha, training.perturbation_radius, training.adversary) == (0.8, 0.25, "pgd")
    assert (training.perturbation_step_size, training.perturbation_steps) == (0.05, 5)
    assert (training.learning_rate, training.num_train_epochs) == (5e-5, 2)
    assert recipe_args.method == "distribution" and model.model_name_or_path == "smollm2-135m"
    assert RECIPE.grid == PAPER_GRID and len(PAPER_GRID["alpha"]) * len(PAPER_GRID["perturbation_radius"]) == 36


@pytest.mark.parametrize("method", METHODS)
def test_methods_set_the_objective_and_the_folder(method):
    recipe_args, training, _ = parse("--method", method)
    assert recipe_args.method == method and training.output_dir == f"runs/vader-{method}"
    for name, value in METHODS[method].fixed.items():
        assert getattr(training, name) == value


def test_flags_win_over_yaml_and_yaml_over_the_recipe(tmp_path):
    config = tmp_path / "c.yaml"
    config.write_text("learning_rate: 1.0e-4\nnum_train_epochs: 3\nmethod: no-ce\nmax_train_samples: 7\n")
    recipe_args, training, _ = parse("--config", str(config), "--num_train_epochs", "4")
    assert (training.learning_rate, training.num_train_epochs, training.alpha) == (1e-4, 4, 1.0)
    assert (recipe_args.method, recipe_args.max_train_samples) == ("no-ce", 7)
    assert training.output_dir == "runs/vader-no-ce"
    recipe_args, _, _ = parse(f"--config={config}", "--method=single-point")
    assert recipe_args.method == "single-point"


def test_every_field_of_the_trainer_and_the_model_is_a_flag():
    _, training, model = parse("--alpha", "0.4", "--radius_scaling", "annotators", "--use_peft", "--lora_r", "4")
    assert (training.alpha, training.radius_scaling, model.use_peft, model.lora_r) == (0.4, "annotators", True, 4)


def test_an_output_folder_that_cannot_be_written_is_told_before_training(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserInputError, match="--output_dir"):
        RECIPE.run(["--output_dir", str(tmp_path / "file" / "x")])


@pytest.mark.parametrize(
    ("argv", "match"),
    [
        (("--meth", "raw"), "Unknown option --meth. Did you mean --method?"),
        (("--method", "no-kl", "--adversary", "none"), "no-kl means adversary=pgd, but adversary=none"),
        (("--per_device_eval_batch_size", "0"), "`per_device_eval_batch_size` must be at least 1"),
        (("--perturbation_radius", "inf"), "`perturbation_radius` must be a finite number"),
        (("--dataloader_drop_last",), "`dataloader_drop_last=True` does not apply"),
        (("--method", "single-point", "--alpha", "0.5"), "single-point means alpha=0.0, but alpha=0.5"),
        (("--share_prefixes", "maybe"), "share-prefixes: must be auto, true or false, got 'maybe'. See"),
        (("--alpha", "1.5"), "`alpha` must lie between 0 and 1"),
        (("--alhpa", "0.5"), "Unknown option --alhpa. Did you mean --alpha?"),
        (("--config", "missing.yaml"), "missing.yaml: cannot be read"),
        (("--config",), "needs the path"),
    ],
)
def test_bad_flags(argv, match):
    with pytest.raises(UserInputError, match=match):
        parse(*argv)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("alpha: [0.8", "is not valid YAML"),
        ("- alpha", "must be a mapping"),
        ("alhpa: 0.5\n", "Unknown option --alhpa. Did you mean --alpha?"),
        ("method: foo\n", "There is no method 'foo'"),
        ("method: [a]\n", "There is no method"),
        ("alpha: 7\n", "`alpha` must lie between 0 and 1"),
    ],
)
def test_bad_yaml(tmp_path, content, match):
    (tmp_path / "c.yaml").write_text(content)
    with pytest.raises(UserInputError, match=match):
        parse("--config", str(tmp_path / "c.yaml"))


@pytest.mark.parametrize("argv", [("--method", "magic"), ("--alpha", "much")])
def test_bad_values_are_one_line(argv):
    with pytest.raises(UserInputError) as error:
        parse(*argv)
    assert "\n" not in str(error.value) and argv[1] in str(error.value)


def test_main_prints_one_line_and_exits_with_2(capsys, tmp_path):
    for argv in (
        ["--data_path", str(tmp_path / "none.txt")],
        ["--resume_from_checkpoint", "true", "--output_dir", str(tmp_path)],
    ):
        with pytest.raises(SystemExit) as stop:
            RECIPE.main(argv)
        captured = capsys.readouterr()
        assert (
            stop.value.code == 2 and captured.err.startswith("error: ") and len(captured.err.strip().splitlines()) == 1
        )


@pytest.mark.parametrize("name", ["--max_train_samples", "--max_eval_samples"])
def test_sample_sizes_are_checked(tmp_path, name):
    with pytest.raises(UserInputError, match=f"`{name[2:]}` must be at least 1, got 0"):
        RECIPE.run([name, "0", "--output_dir", str(tmp_path)])


def test_raw_results_do_not_replace_a_trained_judge_s(tmp_path):
    (tmp_path / "judge.json").write_text("{}")
    with pytest.raises(UserInputError, match="holds a trained judge"):
        RECIPE.run(["--method", "raw", "--output_dir", str(tmp_path)])


def test_an_unknown_task_is_refused():
    with pytest.raises(UserInputError, match="There is no task 'nope'"):
        Recipe(task="nope", model="x").run([])


# The paper's recipes


RECIPES = sorted((ROOT / "recipes").glob("*.py"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_parses_and_has_the_paper_s_settings(path):
    recipe = runpy.run_path(str(path))["RECIPE"]
    argv = [] if recipe.task else ["--task", "snli"]
    run = recipe.parse(argv)
    assert run.task.name == (recipe.task or "snli") and type(run.options) is run.task.options
    assert (run.training.alpha, run.training.perturbation_radius) == (0.8, 0.25)
    assert (run.training.perturbation_step_size, run.training.perturbation_steps) == (0.05, 5)
    assert (run.training.learning_rate, run.training.num_train_epochs) == (5e-5, 2)
    assert str(run.training.optim).split(".")[-1].lower().startswith("adamw")
    assert recipe.grid == PAPER_GRID
    if path.stem != "vader":
        assert run.model.use_peft and run.model.lora_target_modules == "all-linear"
        assert run.model.dtype == decide_precision().dtype
        full = recipe.parse([*argv, "--use_peft", "False"])
        assert full.model.dtype == "float32"  # trained weights keep small updates


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_launch_line_of_a_docstring_parses(path):
    """Lines that begin with `python` or `accelerate launch`, with their continuations."""
    import ast
    import re
    import shlex

    docstring = ast.get_docstring(ast.parse(path.read_text())).replace("\\\n", " ")
    lines = re.findall(r"^ +((?:python|accelerate launch) .*)$", docstring, re.MULTILINE)
    assert len(lines) == 3
    recipe = runpy.run_path(str(path))["RECIPE"]
    for line in lines:
        words = shlex.split(line)
        argv = words[words.index(f"recipes/{path.name}") + 1 :]
        if "--config" in argv:  # a file of the reader's own
            del argv[argv.index("--config") : argv.index("--config") + 2]
        if "task.yaml" in argv:
            argv[argv.index("task.yaml")] = "snli"
        recipe.parse(argv)


def test_a_task_s_options_are_flags_and_yaml_keys(tmp_path):
    recipe = Recipe(task="mtbench", model="smollm2-135m")
    assert recipe.parse(["--swap", "none", "--max_annotators", "3"]).options.swap == "none"
    (tmp_path / "c.yaml").write_text("swap: random\nmin_annotators: 2\n")
    options = recipe.parse(["--config", str(tmp_path / "c.yaml"), "--min_annotators", "1"]).options
    assert (options.swap, options.min_annotators) == ("random", 1)
    with pytest.raises(UserInputError, match="Unknown option --annotators"):
        recipe.parse(["--annotators", "crowd"])
    with pytest.raises(UserInputError, match="--max_items must be at least 1"):
        recipe.parse(["--max_items", "0"])


def test_the_custom_recipe_needs_a_task(tmp_path):
    recipe = Recipe(task=None, model="smollm2-135m")
    with pytest.raises(UserInputError, match="--task"):
        recipe.parse([])
    with pytest.raises(UserInputError, match="no task 'snly'. Did you mean 'snli'"):
        recipe.parse(["--task", "snly"])
    (tmp_path / "c.yaml").write_text("task: chaosnli\nlabels: old\n")
    run = recipe.parse(["--config", str(tmp_path / "c.yaml")])
    assert (run.task.name, run.options.labels, run.training.output_dir) == (
        "chaosnli",
        "old",
        "runs/chaosnli-distribution",
    )


def test_ctrl_c_is_one_line(monkeypatch, capsys):
    def stop(self, argv):
        raise KeyboardInterrupt

    monkeypatch.setattr(Recipe, "run", stop)
    with pytest.raises(SystemExit) as stopped:
        Recipe(task="vader", model="smollm2-135m").main([])
    assert stopped.value.code == 130
    said = capsys.readouterr().err
    assert said.startswith("Stopped. --resume_from_checkpoint true") and said.count("\n") == 1


def test_help_begins_with_what_is_ours_and_leaves_nothing_out(capsys):
    recipe = Recipe("vader", "model")
    with pytest.raises(SystemExit) as ended:
        recipe.run(["--help"])
    assert ended.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    titles = [line for line in lines if line.endswith(":") and not line.startswith(" ")]
    assert titles[:3] == ["Data and method:", "Items of vader:", "Objective (docs/objective.md):"]
    shown = [line.split()[0].rstrip(",") for line in lines if line.startswith("  -")]
    assert len(shown) == len(set(shown))
    parser = recipe._parser(get_task("vader"))
    assert sorted(shown) == sorted(action.option_strings[0] for action in parser._actions)
    assert shown.index("--alpha") < 30
    said = " ".join(" ".join(lines).split())
    assert "--packing [PACKING] refused, see docs/training.md" in said
    assert re.search(r"--truncation-mode \S+ refused, see docs/training.md", said)
    assert "refused" not in said.split("--learning_rate ")[1].split(" --")[0]
