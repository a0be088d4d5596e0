"""What `make dist` makes: the sdist holds the repository and no more, and its wheel works outside a clone."""

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile

import pytest
from conftest import ROOT


pytest.importorskip("build")
pytest.importorskip("twine")

VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
# Tracked files that only a clone has a use for.
CLONE_ONLY = re.compile(r"\.ci/|\.github/|\.pre-commit-config\.yaml$|docs/(results|linear)/")


def run(*words, **options):
    done = subprocess.run(words, check=False, capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def dist(tmp_path_factory):
    """Folder with what the commands of `make dist` make, and check."""
    if not shutil.which("make"):
        pytest.skip("needs make")
    folder = tmp_path_factory.mktemp("dist")
    # These tests may be run by make themselves.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    printed = run("make", "-n", "dist", cwd=ROOT, env=environment)
    commands = re.findall(r"^\S*bin/python (-m (?:build|twine) .*)$", printed, re.MULTILINE)
    assert len(commands) == 2, printed
    for command in commands:
        assert command.count("dist") == 1, command
        run("/bin/sh", "-c", f"{sys.executable} {command.replace('dist', str(folder))}", cwd=ROOT)
    return folder


@pytest.fixture(scope="module")
def outside(dist, tmp_path_factory):
    """A function that runs `distjudge-trl` in a folder outside the clone, from the installed wheel."""
    folder = tmp_path_factory.mktemp("outside")
    (wheel,) = dist.glob("*.whl")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "install", "--no-deps"]
    run(*pip, "--target", str(folder / "site"), str(wheel))
    for name in ("replies.csv", "replies.yaml"):
        shutil.copy(ROOT / "docs/examples" / name, folder)
    environment = {**os.environ, "PYTHONPATH": str(folder / "site")}

    def call(*words):
        return run(sys.executable, "-m", "distjudge_trl", *words, cwd=folder, env=environment)

    call.folder = folder
    return call


def test_the_sdist_holds_what_git_tracks_and_nothing_that_it_ignores(dist):
    (path,) = dist.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"PKG-INFO", "LICENSE", "recipes/sweeps/summeval.yaml", "accelerate_configs/zero2.yaml"} < names
    assert not {part for name in names for part in name.split("/")} & {"__pycache__", "runs", "quickstart", "site"}
    assert path.stat().st_size < 2_500_000
    if not (ROOT / ".git").exists():
        return  # an unpacked sdist
    known = run("git", "ls-files", "--cached", "--others", "--exclude-standard", cwd=ROOT).splitlines()
    known = {name for name in known if (ROOT / name).is_file() and not CLONE_ONLY.match(name)}
    tracked = known & {*run("git", "ls-files", cwd=ROOT).splitlines()}
    assert tracked - names == set() and names - known == {"PKG-INFO"}


def test_the_wheel_has_the_package_and_what_it_launches(dist):
    (wheel,) = dist.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    shipped = {
        f"distjudge_trl/_shipped/{path.relative_to(ROOT)}"
        for folder in ("recipes", "accelerate_configs", "lm_eval_tasks")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in (".py", ".yaml")
    }
    assert len(shipped) > 20
    assert {name for name in names if "_shipped" in name} == shipped
    assert "distjudge_trl/py.typed" in names and "distjudge_trl/report/page.html.jinja" in names
    assert {name.split("/")[0] for name in names} == {"distjudge_trl", f"distjudge_trl-{VERSION}.dist-info"}


def test_the_wheel_launches_its_recipes_outside_a_clone(outside):
    assert VERSION in outside("--version")
    printed = outside("train", "vader", "--accelerate-config", "zero2", "--dry-run")
    for part in ("_shipped/accelerate_configs/zero2.yaml", "_shipped/recipes/vader.py"):
        assert str(outside.folder / "site/distjudge_trl" / part) in printed


def test_the_wheel_reads_ratings_and_evaluates_a_model_outside_a_clone(outside, recipe_model):
    model = ("--model", recipe_model, "--task", "replies.yaml", "--min_annotators", "1")
    outside("evaluate", *model, "--out", "results")
    results = json.loads((outside.folder / "results/results.json").read_text(encoding="utf-8"))
    assert results["metrics"]["num_items"] > 0 and results["provenance"]
