"""The documentation site: it is built without a complaint, and every page has a place in it."""

import re
import subprocess
import sys

import pytest
from conftest import ROOT


pytest.importorskip("zensical")
pytest.importorskip("mkdocstrings")


@pytest.mark.e2e
def test_the_site_is_built_with_every_link_checked(scripts, tmp_path):
    build_docs = scripts("build_docs")
    done = subprocess.run(
        [sys.executable, ROOT / "scripts/build_docs.py"], check=False, capture_output=True, text=True, timeout=300
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0 and "No issues found" in said, said
    assert "griffe:" not in said, "a docstring that the API's pages cannot read"
    api = (ROOT / "site/api/training/index.html").read_text(encoding="utf-8")
    assert "perturbation_radius" in api and "DistributionSFTTrainer" in api
    drawn = [page for page in (ROOT / "site").rglob("*.html") if 'class="mermaid"' in page.read_text(encoding="utf-8")]
    assert not drawn, "the theme would fetch the library that draws these from the network"
    nav = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    pages = {str(path.relative_to(build_docs.OUT)) for path in build_docs.OUT.rglob("*.md")}
    assert pages == set(re.findall(r": ([\w/-]+\.md)$", nav, re.MULTILINE))
