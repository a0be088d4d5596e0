"""scripts/reproduce.py: which runs it makes, and how it stops. tests/e2e/test_reproduce.py trains with it."""

import re
import subprocess
import sys

import pytest
from conftest import ROOT


def runs(reproduce, monkeypatch, capfd, tmp_path, *options, tasks=("vader",)):
    """Names of the runs that the script starts; `true` stands for training. Of several tasks those of the first."""
    monkeypatch.setattr(sys, "argv", ["reproduce.py", *tasks, "--launcher", "true", "--out", str(tmp_path), *options])
    reproduce.main()
    return re.findall(rf"/{tasks[0]}/([\w-]+)$", capfd.readouterr().out, re.MULTILINE)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--methods", "no-kl", "raw"), ["raw-seed0", "no-kl-seed0", "no-kl-seed1"]),
        (("--methods", "distribution"), ["distribution-seed0", "distribution-seed1"]),
    ],
)
def test_seeds_hold_for_all_methods_that_are_named(scripts, monkeypatch, capfd, tmp_path, options, expected):
    assert runs(scripts("reproduce"), monkeypatch, capfd, tmp_path, *options, "--seeds", "0", "1") == expected


def test_without_names_the_methods_of_table_1_have_all_seeds(scripts, monkeypatch, capfd, tmp_path):
    reproduce = scripts("reproduce")
    found = runs(reproduce, monkeypatch, capfd, tmp_path, "--seeds", "3", "4")
    assert len(found) == len(set(found)) == len(reproduce.METHODS) + len(reproduce.MAIN_METHODS)
    assert "no-kl-seed3" in found and "no-kl-seed4" not in found and "distribution-seed4" in found


def test_labels_without_an_order_have_no_runs_of_methods_for_ordered_labels(scripts, monkeypatch, capfd, tmp_path):
    reproduce = scripts("reproduce")

    def found(*options, tasks):
        return runs(reproduce, monkeypatch, capfd, tmp_path, *options, tasks=tasks)

    everything = found(tasks=["vader"])
    assert {*everything} - {*found(tasks=["snli"])} == {"ordinal-seed0"}
    named = ("--methods", "ordinal", "no-ce")
    assert found(*named, tasks=["snli", "vader"]) == ["no-ce-seed0"]
    assert found(*named, tasks=["vader", "snli"]) == ["ordinal-seed0", "no-ce-seed0"]
    # A recipe without a task of its own has that of its options.
    replies = ROOT / "docs" / "examples" / "replies.yaml"
    assert "ordinal-seed0" in found("--", "--task", str(replies), tasks=["custom"])
    with pytest.raises(SystemExit) as caught:
        found(*named, tasks=["snli"])
    assert caught.value.code == 2 and "ordinal needs labels with an order, which no task" in capfd.readouterr().err


def test_ctrl_c_is_one_line(warm_python, tmp_path):
    stops_it = "sh -c 'kill -INT $PPID; sleep 5'"
    done = subprocess.run(
        [warm_python, "scripts/reproduce.py", "vader", "--launcher", stops_it, "--out", tmp_path],
        check=False,
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=120,
    )
    assert done.returncode == 130
    assert done.stderr.splitlines() == ["Stopped. The same command goes on where it was."]
