"""Plans and results for tests of studies. The results are made up, and scored by the real code (made_runs)."""

import sys

import yaml
from conftest import ROOT

from distjudge_trl.study import read_plan, read_study
from distjudge_trl.study.store import keep


sys.path.append(str(ROOT / "tests/report"))
from made_runs import make_items, make_judge, make_run  # isort: skip


HERE = {"name": "a processor", "cores": 2, "jobs": 1, "dtype": "float32", "gflops": 100.0}
ABOUT = {"seconds": 60.0, "machine": HERE, "date": "2026-01-31"}
CONTENT = {
    "options": {"num_train_epochs": 2},
    "data": {"first": {"task": "snli"}, "second": {"task": "vader", "options": {"max_train_samples": 400}}},
    "methods": {"wide": {"method": "distribution", "title": "a wide ball", "options": {"perturbation_radius": 0.5}}},
    "runs": {"main": {"data": ["first"], "methods": ["raw", "no-adversary", "wide"], "seeds": [0, 1]}},
}


def write_plan(folder, content=None, **changes):
    """Write a plan file; `changes` take the place of its keys."""
    path = folder / "plan.yaml"
    path.write_text(yaml.safe_dump({**(content or CONTENT), **changes}, sort_keys=False), encoding="utf-8")
    return path


def make_result(folder, *, method="distribution", seed=0, count=40, calibrate=True, skill=None, **changes):
    """What a recipe leaves in its folder. `skill` is the judge's: 1.5 is close to people, 0 knows nothing."""
    records = make_items(count, text="a premise that nobody may copy", group="its text")
    skill = {"raw": 0.2, "no-adversary": 1.0}.get(method, 1.5) if skill is None else skill
    judge = make_judge(records, skill, seed)
    return make_run(folder, records, judge, method=method, seed=seed, calibrate=calibrate, **changes)


def make_study(folder, content=None, changes_of=lambda run: {}):
    """A plan and its results, made up and kept. `changes_of` gives arguments of `make_result` for a run; `None` leaves
    it out.
    """
    plan = read_plan(write_plan(folder, content))
    for run in plan.runs():
        changes = changes_of(run)
        if changes is not None:
            made = folder / "made" / run.full_name
            make_result(made, **{"method": run.options["method"], "seed": run.seed, **changes})
            keep(folder / "kept", run, made, ABOUT)
    return plan, read_study(folder / "kept", plan=plan)


# Stands for a recipe: says in $LOG what it was asked for, and leaves the results of $MADE.
LAUNCHER = """#!/bin/sh
echo "$*" >> "$LOG"
while [ "$#" -gt 1 ]; do [ "$1" = --output_dir ] && out=$2; shift; done
case "$out" in *$FAILS*) echo "it went wrong" >&2; exit 3;; esac
mkdir -p "$out" && cp -R "$MADE"/. "$out"
"""
