"""The floors of docs/architecture.md: imports point downwards, and `objective` knows torch alone."""

import ast
import sys
from graphlib import TopologicalSorter

import pytest
from conftest import ROOT


sys.path.append(str(ROOT / "scripts"))
import import_graph  # isort: skip


PACKAGE = ROOT / "distjudge_trl"
FLOOR = {
    **dict.fromkeys(("errors", "files", "runtime", "methods"), 0),
    **dict.fromkeys(("modeling", "data", "batching", "labels", "objective", "judge_folder", "calibration"), 1),
    **dict.fromkeys(("tasks", "planning"), 2),
    **dict.fromkeys(("trainer", "judges"), 3),
    "evaluation": 4,
    "report": 5,
    "recipe": 6,
    "sweep": 7,
    "study": 7,
    "cli": 8,
    "__main__": 9,
}
# What the two sides of a floor may not know of each other.
STRANGERS = {"trainer": "judges", "judges": "trainer", "sweep": "study", "study": "sweep"}


ALL = import_graph.find_modules()
MODULES = sorted(path for path in ALL.values() if path != PACKAGE / "__init__.py")


def imports_of(path):
    return import_graph.imports_of(path, ALL)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_downwards(path):
    here = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    for name in imports_of(path):
        if name.startswith("distjudge_trl."):
            there = name.split(".")[1]
            assert FLOOR[there] <= FLOOR[here], f"{here} (floor {FLOOR[here]}) imports {there} (floor {FLOOR[there]})"
            assert STRANGERS.get(here) != there


def test_no_modules_import_each_other_in_a_circle():
    """`TopologicalSorter` names one circle, if there is any."""
    TopologicalSorter(import_graph.make_graph(ALL)).prepare()


def test_objective_needs_torch_alone():
    """Except the paper's solver, and what is found on the CPU once for each kind of row."""
    allowed = {"torch", "cvxpy", "numpy", "scipy", "distjudge_trl"}
    for path in (PACKAGE / "objective").glob("*.py"):
        for name in imports_of(path):
            top = name.split(".")[0]
            assert top in allowed or top in {"__future__", "functools", "math", "typing"}, (path.name, name)
            assert top != "distjudge_trl" or name.startswith("distjudge_trl.objective")
            assert top not in ("cvxpy", "numpy", "scipy") or path.name in ("_cvxpy.py", "coverage.py", "minimax.py")


def test_every_module_says_what_it_is():
    for path in [*MODULES, PACKAGE / "__init__.py", *(ROOT / "recipes").glob("*.py")]:
        assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), path
