"""What only some features need: where it is listed, and that the hints are true."""

import importlib.metadata
import re
import subprocess
import sys
import tomllib

import pytest
from conftest import ROOT

from distjudge_trl.runtime.extras import EXTRAS, install_hint


PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]


@pytest.mark.parametrize("module", EXTRAS)
def test_an_extra_holds_what_it_is_named_for(module):
    """And its command installs it: the extra of pyproject.toml lists the module's package."""
    named = re.search(r"distjudge-trl\[(\w+)\]", install_hint(module))
    packages = importlib.metadata.packages_distributions()[module]
    if named is None:
        assert packages[0] in install_hint(module)
    else:
        listed = {re.split(r"[<>=\[]", entry)[0].lower() for entry in PROJECT[named[1]]}
        assert listed & {name.lower() for name in packages}


def test_every_hint_reads_the_table():
    """No second opinion on which extra a module is in."""
    texts = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "distjudge_trl").rglob("*.py")}
    told = {name for name, text in texts.items() if "pip install" in text} - {"extras.py"}
    # The mathematics knows torch alone, and says the same.
    assert told == {"projection.py", "_cvxpy.py"}
    assert all(f"`{EXTRAS['cvxpy'].install}`" in texts[name] for name in told)


# Drawing by each way, in one process that has none of the libraries.
WITHOUT = """
import sys
for module in ("matplotlib.figure", "plotly.subplots", "plotly.offline"):
    sys.modules[module] = None
from distjudge_trl.report import figures, page, plots_page, plots_png
for call in (
    lambda: plots_png.save_png(None, "x.png"),
    lambda: figures.plot_distributions("x.png", [], [], {}, [], ""),
    lambda: plots_page.to_plotly(None),
    lambda: page.write_page("x", title="", summary="", tables=[], plots=[], test_sets=[], runs=None, max_items=0),
):
    try:
        call()
    except Exception as error:
        print(f"{type(error).__name__}: {error}")
"""


@pytest.mark.e2e
def test_a_figure_without_its_library_says_what_env_says():
    done = subprocess.run([sys.executable, "-c", WITHOUT], check=True, capture_output=True, text=True)
    lines = done.stdout.splitlines()
    assert len(lines) == 4
    for line, library in zip(lines, ("matplotlib", "matplotlib", "plotly", "plotly"), strict=True):
        assert line.startswith("UserInputError: ") and line.endswith(f"{install_hint(library)}."), line
