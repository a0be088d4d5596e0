"""Defaults that follow from other options: the same whatever the spelling, and weaker than what is given."""

import runpy

import pytest
from conftest import ROOT

from distjudge_trl.errors import UserInputError
from distjudge_trl.recipe import Recipe
from distjudge_trl.runtime.precision import Precision


SNLI, VADER = (runpy.run_path(str(ROOT / f"recipes/{name}.py"))["RECIPE"] for name in ("snli", "vader"))


@pytest.fixture(autouse=True)
def hardware(monkeypatch):
    """A machine with fast bfloat16, whatever this one has."""
    monkeypatch.setattr(
        "distjudge_trl.runtime.precision.decide_precision", lambda *_, **__: Precision("bfloat16", "a test")
    )


def spellings(tmp_path, **options):
    """Command lines that ask for the same."""
    pairs = [(name, str(value)) for name, value in options.items()]
    dashes = [(name.replace("_", "-"), value) for name, value in pairs]
    yield [word for name, value in pairs for word in (f"--{name}", value)]
    yield [word for name, value in dashes for word in (f"--{name}", value)]
    yield [f"--{name}={value}" for name, value in pairs]
    yield [f"--{name}={value}" for name, value in dashes]
    bare = [[f"--{name}"] if value == "True" else [f"--{name}", value] for name, value in dashes]
    yield [word for words in bare for word in words]
    for folder, lines in (("underscores", pairs), ("dashes", dashes)):
        path = tmp_path / f"{folder}.yaml"
        path.write_text("seed: 1\n" + "".join(f"{name}: {value}\n" for name, value in lines))
        yield ["--config", str(path)]
        yield [f"--config={path}"]
    # A file that says otherwise, and flags over it.
    path = tmp_path / "under.yaml"
    path.write_text(
        "seed: 1\n" + "".join(f"{name}: {not value}\n" for name, value in options.items() if value in (0, 1))
    )
    yield ["--config", str(path), *(word for name, value in dashes for word in (f"--{name}", value))]


ASKED = [
    (SNLI, {}, {"dtype": "bfloat16", "bf16": True, "fp16": False, "use_bnb_nested_quant": False}),
    (SNLI, {"use_peft": False}, {"dtype": "float32", "bf16": True}),
    (SNLI, {"use_peft": False, "dtype": "bfloat16"}, {"dtype": "bfloat16"}),
    (VADER, {"use_peft": True}, {"dtype": "bfloat16"}),
    (VADER, {"use_peft": True, "load_in_4bit": True}, {"dtype": "bfloat16", "use_bnb_nested_quant": True}),
    (VADER, {"use_peft": True, "load_in_4bit": False}, {"dtype": "bfloat16", "use_bnb_nested_quant": False}),
    (VADER, {"use_peft": True, "load_in_4bit": True, "dtype": "float16"}, {"dtype": "float16"}),
    (SNLI, {"fp16": True}, {"dtype": "float16", "bf16": False, "fp16": True}),
    (SNLI, {"bf16": False}, {"dtype": "float32", "bf16": False, "fp16": False}),
    (SNLI, {"load_in_4bit": True, "fp16": True}, {"dtype": "float16", "bf16": False, "use_bnb_nested_quant": True}),
    (SNLI, {"load_in_8bit": True}, {"dtype": "bfloat16", "use_bnb_nested_quant": False}),
    (VADER, {"share_prefixes": True}, {"share_prefixes": True}),
    (VADER, {"share_prefixes": False}, {"share_prefixes": False}),
    (VADER, {"share_prefixes": "auto"}, {"share_prefixes": "auto"}),
    (VADER, {"eval_strategy": "steps", "save_steps": 500}, {"save_strategy": "steps"}),
    (VADER, {"save_steps": 500}, {"save_strategy": "steps"}),
    (VADER, {"save_steps": 500, "save_strategy": "epoch"}, {"save_strategy": "epoch"}),
    (VADER, {"eval_strategy": "epoch", "save_steps": 500}, {"save_strategy": "epoch"}),
    (VADER, {"method": "no-kl"}, {"alpha": 0.0, "adversary": "pgd", "output_dir": "runs/vader-no-kl"}),
    (VADER, {"method": "label-smoothing"}, {"label_smoothing": 0.1, "alpha": 0.0}),
    (VADER, {"method": "label-smoothing", "label_smoothing": 0.2}, {"label_smoothing": 0.2}),
]


@pytest.mark.parametrize(
    ("recipe", "asked", "expected"), ASKED, ids=[f"{r.name} {' '.join(map(str, a.items()))}" for r, a, _ in ASKED]
)
def test_every_spelling_means_the_same(tmp_path, recipe, asked, expected):
    for words in spellings(tmp_path, **asked):
        run = recipe.parse(words)
        values = {**vars(run.training), **vars(run.model), **vars(run.recipe)}
        got = {name: getattr(values[name], "value", values[name]) for name in expected}
        assert got == expected, words


def test_a_task_is_found_in_every_spelling(tmp_path):
    recipe = Recipe(task=None, model="none")
    (tmp_path / "c.yaml").write_text("task: snli\n")
    for words in (["--task", "snli"], ["--task=snli"], [f"--config={tmp_path / 'c.yaml'}"]):
        run = recipe.parse([*words, "--max-train-samples", "3"])
        assert (run.task.name, run.recipe.max_train_samples) == ("snli", 3)


def test_a_recipe_may_name_a_method_and_its_own_types(tmp_path):
    own = Recipe(task="vader", model="none", training={"method": "kl-only"}).parse([])
    assert (own.recipe.method, own.training.alpha, own.training.output_dir) == ("kl-only", 1.0, "runs/vader-kl-only")
    given = Recipe(task="vader", model="none", training={"method": "kl-only"}).parse(["--method", "no-kl"])
    assert (given.recipe.method, given.training.alpha, given.training.adversary) == ("no-kl", 0.0, "pgd")
    with pytest.raises(UserInputError, match="--method kl-only means alpha=1.0, but alpha=0.5 is given"):
        Recipe(task="vader", model="none", training={"method": "kl-only", "alpha": 0.5}).parse([])
    with pytest.raises(UserInputError, match="There is no method 'foo'"):
        Recipe(task="vader", model="none", training={"method": "foo"}).parse([])
    training = {"use_peft": True, "dtype": "float16", "output_dir": "mine", "eval_strategy": "steps"}
    recipe = Recipe(task="vader", model="none", training=training)
    run = recipe.parse([])
    assert (run.model.dtype, run.training.output_dir, run.training.save_strategy) == ("float16", "mine", "steps")
    assert recipe.parse(["--use-peft=no"]).model.dtype == "float32"
    with pytest.raises(
        UserInputError, match="recipe vader has a default for --learning_rte, which is not one of its options"
    ):
        Recipe(task="vader", model="none", training={"learning_rte": 1.0}).parse([])


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("alpha: 0.5\nalpha: 0.6\n", "c.yaml: holds no valid YAML .*the key 'alpha' occurs twice"),
        ("use_peft: true\nuse-peft: false\n", "c.yaml: the key 'use_peft' occurs twice, with dashes"),
        ("use_peft:\n", "c.yaml: `use_peft` must be true or false, got None"),
        ("share_prefixes: maybe\n", "c.yaml: `share_prefixes` must be auto, true or false, got 'maybe'"),
        ("nonsense: 3\n", "c.yaml: Unknown option --nonsense"),
        ("use_peft: 2\n", "c.yaml: `use_peft` must be true or false, got 2"),
        ("truncate: start\n", "c.yaml: `truncate` must be one of middle, end, error, got 'start'"),
        ("env: [a]\n", "c.yaml: `env` must be a mapping"),
        ("no_gradient_checkpointing: true\n", "Unknown option --no_gradient_checkpointing"),
    ],
)
def test_a_config_file_is_checked_as_flags_are(tmp_path, content, match):
    (tmp_path / "c.yaml").write_text(content)
    with pytest.raises(UserInputError, match=match):
        VADER.parse(["--config", str(tmp_path / "c.yaml")])


def test_switches_of_a_config_file_may_be_numbers_and_words(tmp_path):
    (tmp_path / "c.yaml").write_text("use_peft: 0\nsave_strategy: no\nmax_length: null\nenv: {DISTJUDGE_A_TEST: 1}\n")
    run = SNLI.parse(["--config", str(tmp_path / "c.yaml")])
    assert run.model.use_peft is False and run.model.dtype == "float32"
    assert run.training.save_strategy == "no" and run.training.max_length is None


def test_two_config_files_are_refused(tmp_path):
    with pytest.raises(UserInputError, match="--config is given 2 times"):
        VADER.parse(["--config", "a.yaml", "--config=b.yaml"])


def test_help_shows_the_defaults_of_what_is_asked_for(capsys):
    def help_of(*words):
        with pytest.raises(SystemExit) as stop:
            VADER.parse([*words, "--help"])
        assert stop.value.code == 0
        return "".join(capsys.readouterr().out.split())

    assert "(default:runs/vader-distribution)" in help_of()
    assert "(default:runs/vader-no-kl)" in help_of("--method=no-kl")
