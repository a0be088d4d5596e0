"""docs/extending.md, done: its blocks are applied to a copy of the repository, and its commands are run there."""

import importlib.util
import re
import shlex
import shutil
import subprocess
import sys
from functools import partial

import pytest
from conftest import ROOT


PAGE = (ROOT / "docs/extending.md").read_text(encoding="utf-8")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
EXAMPLES = ("A task", "A method", "A metric", "A command")
# What cannot be run in a moment: it needs a judge. `READ_METRIC` is in its place.
NEEDS_A_JUDGE = ("distjudge-trl evaluate", "distjudge-trl report")
READ_METRIC = """
import sys
sys.path.append("tests/report")
from made_runs import make_items, make_judge, make_run
from distjudge_trl.report.judge_tables import metrics_table
from distjudge_trl.report.test_sets import load_test_sets
from distjudge_trl.sweep.definition import METRICS, find_metric
items = make_items()
make_run("made", items, make_judge(items, 2.0))
print(metrics_table(load_test_sets(["made"])[0]).markdown())
print(find_metric("support"), METRICS["support"])
"""


def section(title):
    return PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]


def edits(title):
    """File and content of every block that is a new file, or a change of one, in the order of the page."""
    for language, content in FENCE.findall(section(title)):
        if match := re.match(r"# ([\w/.]+\.py)\n", content):
            yield language, match[1], content[match.end() :]


def commands(title):
    for language, content in FENCE.findall(section(title)):
        if not language:
            yield from content.splitlines()


def change(text, diff):
    """`text` with every part of a `diff` block applied: lines without a sign say where, and stand there once."""
    for part in re.split(r"^@@\n", diff, flags=re.MULTILINE):
        lines = part.splitlines(keepends=True)
        old = "".join(line[1:] for line in lines if line[0] != "+")
        new = "".join(line[1:] for line in lines if line[0] != "-")
        assert text.count(old) == 1, f"is there {text.count(old)} times: {old}"
        text = text.replace(old, new)
    return text


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A copy of the repository with all examples of the page."""
    folder = tmp_path_factory.mktemp("extended")
    for name in ("distjudge_trl", "recipes", "accelerate_configs", "scripts", "tests"):
        shutil.copytree(ROOT / name, folder / name)
    shutil.copy(ROOT / "pyproject.toml", folder)
    for title in EXAMPLES:
        for language, name, content in edits(title):
            path = folder / name
            if language == "diff":
                path.write_text(change(path.read_text(encoding="utf-8"), content), encoding="utf-8")
            else:
                assert not path.exists(), path
                path.write_text(content, encoding="utf-8")
    (rows,) = (content for language, content in FENCE.findall(section("A task")) if language == "json")
    (folder / "replies.jsonl").write_text(rows, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def python(copy):
    """A function that runs Python in the copy, whose own `warm_python` it is, and returns what is printed."""
    spec = importlib.util.spec_from_file_location("warm_copy", copy / "tests/warm.py")
    warm = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(warm)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(copy))
        patch.setenv("REWRITE_GOLDEN", "1")
        with warm.warm_python() as program:
            yield partial(run, program, folder=copy)


def run(*words, folder):
    done = subprocess.run(words, check=False, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def said(python):
    """What every command of the examples prints, by its line."""
    lines = [line for title in EXAMPLES for line in commands(title) if not line.startswith(NEEDS_A_JUDGE)]
    return {line: python("-m", *shlex.split(line.replace("distjudge-trl", "distjudge_trl"))) for line in lines}


@pytest.mark.parametrize("title", EXAMPLES)
def test_an_example_is_short_and_has_a_command_and_a_test(title):
    names = [name for _, name, _ in edits(title)]
    assert any(name.startswith("tests/") for name in names) and list(commands(title))
    lines = []
    for language, name, content in edits(title):
        if not name.startswith("tests/"):
            code = re.sub(r'""".*?"""', "", content, flags=re.DOTALL).splitlines()
            lines += [line for line in code if line.strip() and (language != "diff" or line[0] == "+")]
    assert 0 < len(lines) < 40


def test_the_task_is_read_and_has_a_recipe(said, copy):
    shown = said["distjudge-trl data politeness --data_path replies.jsonl --show 1"]
    assert "3 items read, 3 records" in shown and "Refunds are handled by another team." in shown
    launched = said["distjudge-trl train politeness --data_path replies.jsonl --dry-run"]
    assert str(copy / "recipes/politeness.py") in launched


def test_the_method_is_in_the_help_with_its_values(said):
    # The help is broken into lines anywhere.
    shown = "".join(said["distjudge-trl train vader --method kl-worst-case --help"].split())
    assert "'kl-worst-case':KLalone,withthestrongeradversary" in shown
    for value in ("1.0", "worst_case", "runs/vader-kl-worst-case"):
        assert f"(default:{value})" in shown


def test_the_metric_is_in_the_result_the_report_and_the_choice_of_sweeps(python):
    printed = python("-c", READ_METRIC)
    header, _, *rows = ([cell.strip() for cell in line.split("|")] for line in printed.splitlines() if line[:1] == "|")
    assert rows and all(0 < float(row[header.index("support")]) < 1 for row in rows)
    assert "support True" in printed


def test_the_command_prints_the_words_that_people_disagree_on(said):
    assert len(said["distjudge-trl disputed vader --top 3"].splitlines()) == 3


def test_the_tests_of_the_page_pass_and_those_that_run_over_all_tasks_recipes_and_methods(python, copy):
    own = [name for title in EXAMPLES for _, name, _ in edits(title) if name.startswith("tests/")]
    expected = {
        **dict.fromkeys(own, 1),
        "tests/tasks/test_prompts.py": 4,
        "tests/recipe/test_recipe.py": 3,
        "tests/planning/test_recipes_fit.py": 1,
        "tests/test_architecture.py": 2,
    }
    options = ["-v", "-p", "no:xdist", "-p", "no:cacheprovider"]
    options += ["-k", "politeness or kl-worst-case or kl_worst_case or support or disputed or test_methods.py"]
    printed = python("-m", "pytest", *options, *expected, "tests/test_methods.py")
    passed = re.findall(r"^(\S+)::.* PASSED", printed, re.MULTILINE)
    assert {name: passed.count(name) for name in passed} == {**expected, "tests/test_methods.py": 2}
    assert "Reply: Sure!" in (copy / "tests/tasks/golden/politeness.txt").read_text(encoding="utf-8")


def test_the_examples_are_written_as_the_rest(copy):
    for words in (("check",), ("format", "--check")):
        run(sys.executable, "-m", "ruff", *words, "--no-cache", ".", folder=copy)


def test_a_recipe_outside_the_clone_is_found(tmp_path, python):
    (code,) = (code for _, code in FENCE.findall(PAGE) if code.startswith("# my_recipe.py\n"))
    (tmp_path / "my_recipe.py").write_text(code, encoding="utf-8")
    shown = python("-m", "distjudge_trl", "train", "my_recipe.py", "--help", folder=tmp_path)
    assert "Qwen/Qwen2.5-0.5B-Instruct" in shown
