"""`--method ordinal` from data to results on a tiny model, and tasks whose labels have no order."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from distjudge_trl.cli import main
from distjudge_trl.errors import UserInputError
from distjudge_trl.evaluation import read_predictions
from distjudge_trl.methods import METHODS
from distjudge_trl.recipe import Recipe
from distjudge_trl.report.runs import Row, Run


def task_file(folder, ordinal=True):
    """60 texts that everyone gives a 2. The untrained model gives them a 5."""
    rows = [json.dumps({"text": f"text {i}", "votes": ["2"] * 4}) for i in range(60)]
    (folder / "r.jsonl").write_text("\n".join(rows))
    path = folder / "task.yaml"
    path.write_text(
        "name: stars\nlabels: ['1', '2', '3', '4', '5']\ntemplate: 'rate {{ text }}'\nsource: r.jsonl\n"
        f"votes: {{list: votes}}\nordinal: {str(ordinal).lower()}\n"
    )
    return str(path)


def argv(folder, *options, **task):
    return ["--task", task_file(folder, **task), "--output_dir", str(folder / "out"), "--bf16", "False", *options]


def test_wrong_probability_moves_to_the_neighbours(recipe_model, tmp_path):
    """After the same few steps, more of what is not on the 2 is on the 1 and the 3, and the mean is nearer."""
    recipe = Recipe(
        task=None, model=recipe_model, training={"max_steps": 8, "learning_rate": 2e-3, "save_strategy": "no"}
    )
    near, results = {}, {}
    for name, options in (("plain", ("no-adversary",)), ("ordered", ("ordinal", "--ordinal_loss_weight", "50"))):
        (tmp_path / name).mkdir()
        results[name] = recipe.run(argv(tmp_path / name, "--method", *options))
        q = np.array(read_predictions(tmp_path / name / "out")["judge_distribution"][:])
        near[name] = (q[:, [0, 2]].sum(-1) / q[:, [0, 2, 3, 4]].sum(-1)).mean()
    assert near["ordered"] > near["plain"] + 0.2
    errors = {name: found["metrics"]["mean_error"]["value"] for name, found in results.items()}
    assert errors["ordered"] < 0.5 * errors["plain"]
    assert results["ordered"]["settings"]["ordinal_loss_weight"] == 50
    assert results["plain"]["settings"]["ordinal_loss_weight"] == 0
    # The report tells the two apart, and shows the method with another weight as the method.
    rows = {name: Row(Run(tmp_path / name / "out"), found, "tiny") for name, found in results.items()}
    assert rows["ordered"].configuration != rows["plain"].configuration and rows["ordered"].is_default


def test_the_method_has_a_weight_that_can_be_changed(recipe_model, tmp_path):
    run = Recipe(task=None, model=recipe_model).parse(argv(tmp_path, "--method", "ordinal"))
    weight = METHODS["ordinal"].defaults["ordinal_loss_weight"]
    assert (run.training.adversary, run.training.alpha, run.training.ordinal_loss_weight) == ("none", 0.8, weight)
    given = ("--method", "distribution", "--ordinal_loss_weight", "3")
    run = Recipe(task=None, model=recipe_model).parse(argv(tmp_path, *given))
    assert (run.training.adversary, run.training.ordinal_loss_weight) == ("pgd", 3.0)
    with pytest.raises(UserInputError, match=r"--method single-point means ordinal_loss_weight=0.0, but .*=3.0"):
        Recipe(task=None, model=recipe_model).parse(argv(tmp_path, "--method", "single-point", *given[2:]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ("--method", "ordinal"),
            "--method ordinal needs labels with an order, and those of stars have none (1, 2, 3",
        ),
        (("--ordinal_loss_weight", "2"), "`ordinal_loss_weight=2` needs labels with an order, and 1, 2, 3"),
    ],
)
def test_labels_without_an_order_are_one_line_and_exit_code_2(recipe_model, tmp_path, capsys, options, message):
    with pytest.raises(SystemExit) as caught:
        Recipe(task=None, model=recipe_model).main(argv(tmp_path, *options, ordinal=False))
    error = capsys.readouterr().err.strip()
    assert caught.value.code == 2 and error.startswith(f"error: {message}") and "\n" not in error
    assert "`ordinal: true`" in error and not (tmp_path / "out").exists()


def test_a_sweep_over_methods_refuses_it_for_labels_without_an_order(tmp_path):
    words = ["sweep", "snli", "--method", "no-adversary,ordinal", "--param", "alpha=0.5", "--out", str(tmp_path / "s")]
    done = CliRunner().invoke(main, [*words, "--dry-run"])
    assert done.exit_code == 2 and "--param method: ordinal is not accepted: --method ordinal needs" in done.output
