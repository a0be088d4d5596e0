"""A study: every run of a plan, one after the other, over days and machines, and the report.

    python scripts/reproduce.py recipes/studies/paper.yaml --data-root data --time-budget 2h --jobs 2
    python scripts/reproduce.py recipes/studies/paper.yaml --list
    python scripts/reproduce.py snli summeval --parts methods budget --seeds 0 1 2 3 4 --out runs/paper \
        -- --model_name_or_path Qwen/Qwen2.5-7B-Instruct --max_items 10000

The first argument is a plan (docs/reproduce.md says what it holds), or the names of tasks, of which the paper's tables
are made. Parts of the latter: `methods` trains every baseline and ablation (Tables 1, 2, 3 and 5; `ordinal` only where
labels have an order), `budget` spends one number of annotations on many items or on many annotators (Table 4),
`transfer` tests the SNLI judges of `methods` on ChaosNLI (Table 6), `grid` is alpha times epsilon (Figure 3). What
stands behind `--` goes to every recipe.

A run that has finished is not repeated, so a stopped script goes on where it was, on this machine or on another one
that has the folder of results; one that was made with other options is an error.
"""

from __future__ import annotations

import argparse
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from distjudge_trl.errors import UserInputError, run_script
from distjudge_trl.methods import METHODS
from distjudge_trl.recipe import PAPER_GRID
from distjudge_trl.study import Plan, Study, read_plan
from distjudge_trl.study.plan import PlanFile


PARTS = ("methods", "budget", "transfer", "grid")
# The methods of the paper's Table 1. Without --methods the others are trained with the first seed alone.
MAIN_METHODS = ("single-point", "no-adversary", "distribution")
BUDGET_ANNOTATORS = (1, 3, 5)
_SECONDS = {"s": 1, "m": 60, "min": 60, "h": 3600}


def main() -> None:
    own, rest = sys.argv[1:], []
    if "--" in own:
        own, rest = own[: own.index("--")], own[own.index("--") + 1 :]
    args = make_parser().parse_args(own)
    options = parse_options(rest)
    if args.plan[0].endswith((".yaml", ".yml")):
        if len(args.plan) > 1:
            raise UserInputError(f"One plan at a time; got {' '.join(args.plan)}.")
        plan = with_options(read_plan(args.plan[0]), args.model, options)
    else:
        plan = paper_plan(args, options)
    results = args.out or Path("docs/results" if args.plan[0].endswith((".yaml", ".yml")) else "runs/paper")
    study = Study(
        plan,
        results,
        args.work or Path("runs/study"),
        data_root=args.data_root,
        launcher=shlex.split(args.launcher),
        keep_judges=args.keep_judges,
        jobs=args.jobs,
        say=lambda line: print(line, flush=True),
    )
    runs = study.select(args.only)
    if args.list:
        left, costs = study.left(runs), study.costs()
        for run in runs:
            print(f"{'left' if run in left else 'done'}  {run.full_name}  {study.time([run], costs)}")
        print(f"{len(runs)} runs, {len(left)} left: {study.time(left, costs)} on this machine")
        return
    failed = [run.full_name for run in study.work_through(runs, seconds=args.time_budget)]
    if not args.no_report and any(results.glob("*/*/results.json")):
        report = [sys.executable, "-m", "distjudge_trl", "report", str(results), "--out", str(study.work / "report")]
        print(f"\n$ {shlex.join(report)}", flush=True)
        failed += ["report"] if subprocess.run(report, check=False).returncode else []
    if failed:
        print(f"error: {len(failed)} of the runs failed: {', '.join(failed)}", file=sys.stderr)
        raise SystemExit(1)


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("plan", nargs="+", metavar="PLAN.yaml | TASK", help="a plan, or tasks with a recipe")
    study = parser.add_argument_group("every study")
    study.add_argument("--out", type=Path, help="the results; default: docs/results (plan), runs/paper (tasks)")
    study.add_argument("--work", type=Path, help="trainings, logs and the report; default: runs/study")
    study.add_argument("--launcher", default=sys.executable, help="what starts a recipe; default: this Python")
    study.add_argument("--jobs", type=int, default=1, help="runs side by side; on a CPU as many as cores. Default: 1")
    study.add_argument("--keep-judges", action="store_true", help="keep the weights of the judges in --work")
    study.add_argument("--only", nargs="+", default=[], metavar="PATTERN", help="runs (DATA/NAME), data sets or parts")
    study.add_argument("--time-budget", type=seconds_of, metavar="2h", help="start nothing that would end later")
    study.add_argument("--list", action="store_true", help="say what is done, what is left, and how long it takes")
    study.add_argument("--no-report", action="store_true", help="do not write the report at the end")
    study.add_argument("--data-root", type=Path, help="folder of the plan's data files; default: here")
    study.add_argument("--model", help="another model than the plan's")
    paper = parser.add_argument_group("the paper's tables of tasks")
    paper.add_argument("--parts", nargs="+", choices=PARTS, default=["methods"], help="default: methods")
    paper.add_argument(
        "--methods", nargs="+", choices=list(METHODS), help="trained with every seed; raw needs one. Default: all"
    )
    paper.add_argument(
        "--seeds",
        nargs="+",
        type=int,
        default=[0],
        help="of the named methods; without --methods of those in Table 1. Default: 0",
    )
    paper.add_argument("--budget", type=int, default=8000, help="annotations in Table 4; default: 8000, the paper's")
    paper.add_argument("--grid-alpha", nargs="+", type=float, default=PAPER_GRID["alpha"], help="default: the paper's")
    paper.add_argument(
        "--grid-radius", nargs="+", type=float, default=PAPER_GRID["perturbation_radius"], help="default: the paper's"
    )
    paper.add_argument(
        "--data-path", nargs="+", default=[], metavar="TASK=PATH", help="official files that are here already"
    )
    return parser


def seconds_of(text: str) -> float:
    """Seconds of a duration such as `90min`, `2h` or `30s`."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(s|m|min|h)", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"must be a duration like 90min or 2h, got {text!r}")
    return float(found[1]) * _SECONDS[found[2]]


def parse_options(words: list[str]) -> dict[str, Any]:
    """The options behind `--`, with the values that YAML would read."""
    options: dict[str, Any] = {}
    name = None
    for word in words:
        if word.startswith("--"):
            name, _, value = word.removeprefix("--").partition("=")
            name = name.replace("-", "_")
            options[name] = [value] if value else []
        elif name is None:
            raise UserInputError(f"Behind -- there must be options of recipes, got {word!r}.")
        else:
            options[name].append(word)
    read = {name: [yaml.safe_load(value) for value in values] for name, values in options.items()}
    return {name: True if not values else values[0] if len(values) == 1 else values for name, values in read.items()}


def with_options(plan: Plan, model: str | None, options: dict[str, Any]) -> Plan:
    """The plan with another model and further options, which come before its own."""
    content = plan.content
    model = options.pop("model_name_or_path", model)
    changes = {"model": model or content.model, "options": {**content.options, **options}}
    return Plan(PlanFile.model_validate({**content.model_dump(), **changes}), plan.folder)


def paper_plan(args: argparse.Namespace, options: dict[str, Any]) -> Plan:
    """The plan that makes the paper's tables of some tasks."""
    for path in args.data_path:
        if "=" not in path:
            raise UserInputError(f"--data-path takes TASK=PATH, got {path!r}.")
    paths = dict(path.split("=", 1) for path in args.data_path)
    unknown = [task for task in paths if task not in (*args.plan, "chaosnli")]
    if unknown:
        raise UserInputError(
            f"--data-path names {unknown[0]!r}, which is not among the tasks: {', '.join(args.plan)}."
        )
    if "transfer" in args.parts and "snli" not in args.plan:
        raise UserInputError("--parts transfer tests judges of snli: name it among the tasks.")
    model = options.pop("model_name_or_path", args.model)
    transfer = {"chaosnli": paths.get("chaosnli")} if "transfer" in args.parts else {}
    data = {
        task: {"task": task, "path": paths.get(task), "transfer": transfer if task == "snli" else {}}
        for task in args.plan
    }
    methods = args.methods or list(METHODS)
    repeated = MAIN_METHODS if args.methods is None else methods
    # The Table 1 methods first, so that a stopped script leaves whole comparisons.
    ordered = sorted(methods, key=lambda method: method not in ("raw", *MAIN_METHODS))
    once = {"data": args.plan, "seeds": args.seeds[:1]}
    parts: dict[str, Any] = {}
    if {"methods", "transfer"} & {*args.parts}:
        main = [name for name in ordered if name == "raw" or name in repeated]
        parts["methods"] = {"data": args.plan, "methods": main, "seeds": args.seeds}
        if others := [name for name in ordered if name not in main]:
            parts["other-methods"] = {**once, "methods": others}
    if "budget" in args.parts:
        vary = {"annotation_budget": [args.budget], "max_annotators": list(BUDGET_ANNOTATORS)}
        parts["budget"] = {**once, "methods": ["distribution"], "vary": vary}
    if "grid" in args.parts:
        vary = {"alpha": args.grid_alpha, "perturbation_radius": args.grid_radius}
        parts["grid"] = {**once, "methods": ["distribution"], "vary": vary}
    content = {"model": model, "options": {"calibrate": True, **options}, "data": data, "runs": parts}
    return Plan(PlanFile.model_validate(content))


if __name__ == "__main__":
    try:
        run_script(main)
    except KeyboardInterrupt:
        print("Stopped. The same command goes on where it was.", file=sys.stderr)
        raise SystemExit(130) from None
