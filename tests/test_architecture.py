"""The floors of docs/architecture.md: imports point downwards, and `objective` knows torch alone."""

import ast

import pytest
from conftest import ROOT


PACKAGE = ROOT / "distjudge_trl"
FLOOR = {
    **dict.fromkeys(
        (
            *("errors", "extras", "atomic", "models", "provenance", "environment", "shipped", "launch", "supervised"),
            *("yaml_file", "loading", "precision", "openmp", "logs"),
        ),
        0,
    ),
    **dict.fromkeys(("data", "batching", "labels", "objective", "judge_file", "judge_folder"), 1),
    **dict.fromkeys(("tasks", "planning"), 2),
    **dict.fromkeys(("trainer", "judges"), 3),
    "evaluation": 4,
    "report": 5,
    **dict.fromkeys(
        ("recipe", "recipe_options", "recipe_parsing", "recipe_data", "recipe_model", "recipe_run", "prepare"), 6
    ),
    "sweep": 7,
    "cli": 8,
    "__main__": 9,
}
# What the two sides of a floor may not know of each other.
STRANGERS = {"trainer": "judges", "judges": "trainer"}


def imports_of(path):
    """Full names of the modules that a file imports anywhere."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_downwards(path):
    here = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    for name in imports_of(path):
        if name.startswith("distjudge_trl."):
            there = name.split(".")[1]
            assert FLOOR[there] <= FLOOR[here], f"{here} (floor {FLOOR[here]}) imports {there} (floor {FLOOR[there]})"
            assert STRANGERS.get(here) != there


def test_objective_needs_torch_alone():
    allowed = {"torch", "cvxpy", "numpy", "distjudge_trl"}
    for path in (PACKAGE / "objective").glob("*.py"):
        for name in imports_of(path):
            top = name.split(".")[0]
            assert top in allowed or top in {"__future__", "functools", "math", "typing"}, (path.name, name)
            assert top != "distjudge_trl" or name.startswith("distjudge_trl.objective")
            assert top not in ("cvxpy", "numpy") or path.name == "_cvxpy.py"


def test_every_module_says_what_it_is():
    for path in [*MODULES, PACKAGE / "__init__.py", *(ROOT / "recipes").glob("*.py")]:
        assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), path
