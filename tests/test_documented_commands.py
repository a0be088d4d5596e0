"""Commands and snippets of README and docs: scripts are there, options are known, code compiles, and what it imports
exists. Those that train or need a GPU, a hub or a cluster are not run here.
"""

import ast
import importlib
import re
import runpy
import shlex

import click
import pytest
from conftest import ROOT

from distjudge_trl.cli import main
from distjudge_trl.recipe.parsing import make_option_parser
from distjudge_trl.tasks import get_task


PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "AGENTS.md")] + sorted((ROOT / "docs").glob("*.md"))
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
# The command that docs/extending.md adds as an example; tests/scripts/test_extending.py runs it.
EXAMPLE = "distjudge-trl disputed"


def blocks(language):
    for page in PAGES:
        for match in FENCE.finditer(page.read_text(encoding="utf-8")):
            if match[1] == language:
                yield pytest.param(match[2], id=f"{page.name}-{match[2].splitlines()[0][:40]}")


def lines():
    """Commands as they are written, with continued lines joined and what a shell does beside them taken off."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        code = [match[2] for match in FENCE.finditer(text) if match[1] in ("", "bash", "sh")]
        spans = re.findall(r"`((?:distjudge-trl|python scripts/|python recipes/) ?[^`]*)`", text)
        for line in "\n".join([*code, *spans]).replace("\\\n", " ").splitlines():
            line = line.split(" #")[0].strip()
            if not line.startswith(EXAMPLE) and re.match(
                r"(distjudge-trl|python (scripts|recipes)/|accelerate launch|torchrun) ?", line
            ):
                yield pytest.param(line, id=f"{page.name}-{line[:60]}")


def flags_of(parser):
    return {option for action in parser._actions for option in action.option_strings}


@pytest.fixture(scope="module")
def recipe_flags():
    """Options of recipes together: tasks add their own."""
    flags = set()
    for name in ("vader", "custom", "summeval", "mtbench"):
        recipe = runpy.run_path(str(ROOT / f"recipes/{name}.py"))["RECIPE"]
        flags |= flags_of(recipe._parser(get_task(recipe.task) if recipe.task else None))
    return {*flags, "--config", "--task"}


def command_flags(words):
    """Options of a command of `distjudge-trl`, and whether others go to a recipe or a task."""
    command = main.commands[words[0]]
    if isinstance(command, click.Group):
        name = words[1] if len(words) > 1 and words[1] in command.commands else "run"
        command = command.commands[name]
    flags = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    return {*flags, "--help"}, command.context_settings.get("ignore_unknown_options", False)


@pytest.mark.parametrize("line", list(lines()))
def test_scripts_are_there_and_options_are_known(line, recipe_flags):
    line = line.replace("...", "")
    words = shlex.split(line.split("|")[0].split("&&")[0].rstrip("& "))
    scripts = [word for word in words if re.match(r"(recipes|scripts|accelerate_configs)/[\w/.-]+\.(py|yaml)$", word)]
    for script in scripts:
        assert (ROOT / script).is_file(), script
    given = [word.split("=")[0] for word in words if re.match(r"--[a-z]", word)]
    if words[0] == "distjudge-trl":
        if len(words) == 1 or words[1].isupper() or words[1].startswith("-"):
            return
        assert words[1] in main.commands, words[1]
        known, passes_on = command_flags(words[1:])
        dashed = {flag.replace("_", "-") for flag in known}
        unknown = [flag for flag in given if flag.replace("_", "-") not in dashed]
        if passes_on:
            unknown = [flag for flag in unknown if flag not in recipe_flags and flag not in TASK_FLAGS]
        assert not unknown, unknown
    elif any(re.match(r"recipes/\w+\.py$", script) for script in scripts):
        place = max(i for i, word in enumerate(words) if word.startswith("recipes/"))
        own = [word.split("=")[0] for word in words[place:] if re.match(r"--[a-z]", word)]
        assert not [flag for flag in own if flag not in recipe_flags]


TASKS = [get_task(name) for name in ("snli", "summeval", "mtbench", "helpsteer2", "par")]
TASK_FLAGS = {flag for task in TASKS for flag in flags_of(make_option_parser(task))}


@pytest.mark.parametrize("code", list(blocks("python")))
def test_snippets_compile_and_import_what_exists(code):
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom):
            module = importlib.import_module(node.module)
            for alias in node.names:
                assert hasattr(module, alias.name), f"{node.module} has no {alias.name}"


def test_the_tutorial_shows_the_files_of_its_example():
    shown = {match[1]: match[2] for match in FENCE.finditer((ROOT / "docs/own-ratings.md").read_text("utf-8"))}
    csv, yaml = ((ROOT / f"docs/examples/replies.{ending}").read_text("utf-8") for ending in ("csv", "yaml"))
    first, last = shown["csv"].split("...\n")
    assert csv.startswith(first) and csv.endswith(last)
    assert yaml.endswith(shown["yaml"]) and yaml.removesuffix(shown["yaml"]).splitlines()[-1].startswith("# Look:")
