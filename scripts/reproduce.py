"""A study: every run of a plan, one after the other, over days and machines, and the report.

    python scripts/reproduce.py recipes/studies/paper.yaml --data-root data --time-budget 2h --jobs 2
    python scripts/reproduce.py recipes/studies/paper.yaml --list
    python scripts/reproduce.py snli summeval --parts methods budget --seeds 0 1 2 3 4 --out runs/paper \
        -- --model_name_or_path Qwen/Qwen2.5-7B-Instruct --max_items 10000

The first argument is a plan (docs/studies.md says what it holds), or the names of tasks, of which the paper's tables
are made. Parts of the latter: `methods` trains every baseline and ablation (Tables 1, 2, 3 and 5; `ordinal` only where
labels have an order), `budget` spends one number of annotations on many items or on many annotators (Table 4),
`transfer` is `methods`, with the SNLI judges tested on ChaosNLI, too (Table 6), `grid` is alpha times epsilon
(Figure 3). What stands behind `--` goes to every recipe; it comes before the options of a plan, and `null` leaves an
option to the recipe.

A run that has finished is not repeated, so a stopped script goes on where it was, on this machine or on another one
that has the folder of results; one that was made with other options is an error. Several terminals may work on one
study. Judges are deleted when their results are kept, unless --keep-judges is given. The exit code is 0 also if
--time-budget leaves something, 1 if runs failed, 2 if something is wrong with what was asked for, 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import re
import shlex
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from distjudge_trl.errors import RunFailedError, UserInputError, counted, listing, run_script
from distjudge_trl.methods import METHODS
from distjudge_trl.recipe import PAPER_GRID
from distjudge_trl.recipe.parsing import parser_error, read_config
from distjudge_trl.study import Plan, Study, read_plan, read_study
from distjudge_trl.study.costs import duration
from distjudge_trl.study.plan_file import PlanFile, check_options, finding
from distjudge_trl.study.plan_reading import check_plan
from distjudge_trl.study.store import size_text
from distjudge_trl.study.tables import OF_THE_STUDY, all_tables, could_be_table


OWN_STUDY = Path(__file__).resolve().parent.parent / "recipes/studies/paper.yaml"
PARTS = ("methods", "budget", "transfer", "grid")
# The methods of the paper's Table 1. Without --methods the others are trained with the first seed alone.
MAIN_METHODS = ("single-point", "no-adversary", "distribution")
BUDGET_ANNOTATORS = (1, 3, 5)
# Options of tasks, with their defaults.
OF_TASKS: dict[str, Any] = {
    "parts": ["methods"],
    "methods": None,
    "seeds": [0],
    "budget": 8000,
    "grid_alpha": PAPER_GRID["alpha"],
    "grid_radius": PAPER_GRID["perturbation_radius"],
    "data_path": [],
}
HOW_TABLES_ARE_CALLED = (
    "They are called data-DATA, likeness-DATA, grid-DATA, curve-DATA-OPTION-plain or -temperature, gains-plain,"
    f" gains-temperature, gains-vector, budgets, {', '.join(OF_THE_STUDY)}, or as in the report: table1 to table6,"
    " other_tasks, comparisons, halves, metrics_TASK."
)
_SECONDS = {"s": 1, "m": 60, "min": 60, "h": 3600}
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")


def main() -> None:
    # Whoever ends this process means its trainings, too. (If its terminal is closed, it dies, and they follow.)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    own, rest = sys.argv[1:], []
    if "--" in own:
        own, rest = own[: own.index("--")], own[own.index("--") + 1 :]
    args = make_parser().parse_args(own)
    options = parse_options(rest)
    if args.model is not None and options.setdefault("model_name_or_path", args.model) != args.model:
        raise UserInputError("--model and --model_name_or_path name different models: drop one of them.")
    # A task is a bare name.
    is_plan = Path(args.plan[0]).name != args.plan[0] or "." in args.plan[0]
    plan = own_plan(args, options) if is_plan else paper_plan(args, options)
    for name in args.tables:
        if not could_be_table(plan, name):
            raise UserInputError(f"--tables: {name!r} is no table of this study. {HOW_TABLES_ARE_CALLED}")
    results = args.out or default_results(Path(args.plan[0]) if is_plan else None)
    work = args.work or Path("runs/study") / results.resolve().name
    study = Study(
        plan,
        results,
        work,
        data_root=args.data_root,
        launcher=args.launcher,
        keep_judges=args.keep_judges,
        jobs=args.jobs,
        say=lambda line: print(line, flush=True),
    )
    runs = study.select(args.only)
    if args.list:
        print_list(study, runs)
        return
    failed = [run.full_name for run in study.work_through(runs, seconds=args.time_budget)]
    if any(results.glob("*/*/results.json")):
        print(size_text(results))
        if not args.no_report:
            write_report(results, work / "report" if is_plan else results / "report")
    print_tables(plan, results, args.tables)
    if failed:
        raise RunFailedError(f"{counted(len(failed), 'run')} failed: {listing(failed)}.")


def default_results(plan: Path | None) -> Path:
    """Where results go without --out. Those of the repository's own study are committed, and others may not join."""
    if plan is None:
        return Path("runs/paper")
    return Path("docs/results") if plan.resolve() == OWN_STUDY else Path("runs/results") / plan.stem


def print_list(study: Study, runs: Any) -> None:
    """What is done and what is left, and how long that takes."""
    left = study.left(runs)
    costs = study.costs()
    for run in runs:
        seconds = costs.seconds(run) if run in left else None
        time = f"  {duration(seconds)}" if seconds is not None else ""
        print(f"{'left' if run in left else 'done'}  {run.full_name}{time}")
    about = f": {costs.total(left, study.jobs)} on this machine" if left else ""
    print(f"{counted(len(runs), 'run')}, {len(left)} left{about}")


def print_tables(plan: Plan, results: Path, names: list[str]) -> None:
    """Tables of the study by name. One that does not follow from the results (yet) is no mistake."""
    if not names:
        return
    study = read_study(results, plan=plan) if results.is_dir() else []
    tables = all_tables(plan, study, names) if study else {}
    for name in names:
        if name in tables:
            print(f"\n{tables[name].markdown()}", flush=True)
        else:
            there = ", ".join(all_tables(plan, study)) if study else "none, because no run of the plan is done"
            print(f"\nNo table {name} follows from these results. There are: {there}.")


def write_report(results: Path, out: Path) -> None:
    """Write the report of all results."""
    from distjudge_trl.report.build import build_report

    try:
        for line in build_report([results], out):
            print(line, flush=True)
    except UserInputError as error:
        raise RunFailedError(f"The runs are done, but there is no report. {error}") from None


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.error = parser_error  # type: ignore[method-assign]
    parser.add_argument("plan", nargs="+", metavar="PLAN.yaml | TASK", help="a plan, or tasks with a recipe")
    study = parser.add_argument_group("every study")
    study.add_argument(
        "--out",
        type=Path,
        help="the results; default: runs/results/PLAN, docs/results (paper.yaml), runs/paper (tasks)",
    )
    study.add_argument(
        "--work",
        type=Path,
        help="trainings, logs, judges and a plan's report; default: runs/study/NAME, as the folder of --out is called",
    )
    study.add_argument(
        "--launcher", type=command_of, default=[sys.executable], help="what starts a recipe; default: this Python"
    )
    study.add_argument(
        "--jobs", type=int, default=1, help="runs side by side; they share the cores, and the GPUs. Default: 1"
    )
    study.add_argument("--keep-judges", action="store_true", help="keep the weights of the judges in --work")
    study.add_argument(
        "--only", nargs="+", default=[], metavar="PATTERN", help="runs (DATA/NAME, with * and ?), data sets or parts"
    )
    study.add_argument(
        "--time-budget", type=seconds_of, metavar="2h", help="start nothing that would probably end later; 90min, 30s"
    )
    study.add_argument("--list", action="store_true", help="say what is done, what is left, and how long it takes")
    study.add_argument(
        "--tables", nargs="+", default=[], metavar="NAME", help=f"tables to print at the end. {HOW_TABLES_ARE_CALLED}"
    )
    study.add_argument("--no-report", action="store_true", help="do not write the report at the end")
    study.add_argument("--data-root", type=Path, help="folder of the plan's data files; default: here")
    study.add_argument("--model", help="another model than the plan's")
    paper = parser.add_argument_group("the paper's tables of tasks")
    paper.add_argument("--parts", nargs="+", choices=PARTS, help="default: methods")
    paper.add_argument(
        "--methods", nargs="+", choices=list(METHODS), help="trained with every seed; raw needs one. Default: all"
    )
    paper.add_argument(
        "--seeds",
        nargs="+",
        type=int,
        help="of the named methods; without --methods of those in Table 1. Default: 0",
    )
    paper.add_argument("--budget", type=int, help="annotations in Table 4; default: 8000, the paper's")
    paper.add_argument("--grid-alpha", nargs="+", type=float, help="default: the paper's")
    paper.add_argument("--grid-radius", nargs="+", type=float, help="default: the paper's")
    paper.add_argument(
        "--data-path", nargs="+", metavar="TASK=PATH", help="official files that are here already, chaosnli's too"
    )
    return parser


def command_of(text: str) -> list[str]:
    """The words of a command, as a shell splits them."""
    try:
        return shlex.split(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"is no command ({error}): {text}") from None


def seconds_of(text: str) -> float:
    """Seconds of a duration such as `90min`, `2h` or `30s`."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(s|m|min|h)", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"must be a duration like 90min or 2h, got {text!r}")
    return float(found[1]) * _SECONDS[found[2]]


def parse_options(words: list[str]) -> dict[str, Any]:
    """The options behind `--`, with those of `--config`: numbers, true, false, null, texts, or lists of them."""
    found: dict[str, list[str]] = {}
    name = None
    for word in words:
        if word.startswith("--"):
            name, is_set, value = word.removeprefix("--").partition("=")
            name = name.replace("-", "_")
            if name in found:
                raise UserInputError(f"--{name} is given twice behind --.")
            found[name] = [value] if is_set else []
        elif name is None:
            raise UserInputError(f"Behind -- there must be options of recipes, got {word!r}.")
        else:
            found[name].append(word)
    config, task = found.pop("config", None), found.pop("task", None)
    for name, values in (("config", config), ("task", task)):
        if values is not None and len(values) != 1:
            raise UserInputError(f"Behind --: --{name} takes one value, got {' '.join(values) or 'none'}.")
    options = read_config(config[0]) if config else {}
    for name, values in found.items():
        if values:
            options[name] = value_of(values[0]) if len(values) == 1 else [value_of(value) for value in values]
        elif name.startswith("no_"):
            options[name.removeprefix("no_")] = False
        else:
            options[name] = True
    try:
        options = check_options(options)
    except ValueError as error:
        raise UserInputError(f"Behind --: {error}.") from None
    return {**options, "task": task[0]} if task else options


def value_of(word: str) -> Any:
    """The value of a word. YAML would read `no`, which is the name of a strategy, as false, and 1e-4 as a text."""
    known = {"true": True, "false": False, "null": None}
    if word.lower() in known:
        return known[word.lower()]
    if _NUMBER.fullmatch(word):
        return int(word) if re.fullmatch(r"[-+]?\d+", word) else float(word)
    return word


def own_plan(args: argparse.Namespace, options: dict[str, Any]) -> Plan:
    """The plan of a file, with the options of the command line."""
    if len(args.plan) > 1:
        raise UserInputError(f"A plan stands alone: drop {' '.join(args.plan[1:])}.")
    for name in OF_TASKS:
        if getattr(args, name) is not None:
            raise UserInputError(
                f"--{name.replace('_', '-')} is for the tables of tasks. A plan says that in its file."
            )
    if "task" in options:
        raise UserInputError("Behind --: a plan lists tasks in its file.")
    plan = read_plan(args.plan[0])
    return replace(plan, given=options)


def paper_plan(args: argparse.Namespace, options: dict[str, Any]) -> Plan:
    """The plan that makes the paper's tables of some tasks."""
    tasks = args.plan
    parts, named, seeds, budget, alphas, radii, data_path = (
        default if (given := getattr(args, name)) is None else given for name, default in OF_TASKS.items()
    )
    for path in data_path:
        if "=" not in path:
            raise UserInputError(f"--data-path takes TASK=PATH, got {path!r}.")
    paths = dict(path.split("=", 1) for path in data_path)
    unknown = [task for task in paths if task not in (*tasks, "chaosnli")]
    if unknown:
        raise UserInputError(f"--data-path names {unknown[0]!r}, which is not among the tasks: {', '.join(tasks)}.")
    if "transfer" in parts and "snli" not in tasks:
        raise UserInputError("--parts transfer tests judges of snli: name it among the tasks.")
    transfer = {"chaosnli": paths.get("chaosnli")} if "transfer" in parts else {}
    # A recipe without a task of its own has that of its options.
    own = options.pop("task", None)
    if ("custom" in tasks) != (own is not None):
        raise UserInputError("The task custom needs the YAML file of your own behind --: -- --task FILE.yaml.")
    data = {
        task: {
            "task": own if task == "custom" else task,
            "path": paths.get(task),
            "transfer": transfer if task == "snli" else {},
        }
        for task in tasks
    }
    methods = named or list(METHODS)
    repeated = MAIN_METHODS if named is None else methods
    # The Table 1 methods first, so that a stopped script leaves whole comparisons.
    ordered = sorted(methods, key=lambda method: method not in ("raw", *MAIN_METHODS))
    once = {"data": tasks, "seeds": seeds[:1]}
    runs: dict[str, Any] = {}
    if {"methods", "transfer"} & {*parts}:
        main = [name for name in ordered if name == "raw" or name in repeated]
        runs["methods"] = {"data": tasks, "methods": main, "seeds": seeds}
        if others := [name for name in ordered if name not in main]:
            runs["other-methods"] = {**once, "methods": others}
    if "budget" in parts:
        vary = {"annotation_budget": [budget], "max_annotators": list(BUDGET_ANNOTATORS)}
        runs["budget"] = {**once, "methods": ["distribution"], "vary": vary}
    if "grid" in parts:
        vary = {"alpha": alphas, "perturbation_radius": radii}
        runs["grid"] = {**once, "methods": ["distribution"], "vary": vary}
    content = {"options": {"calibrate": True, **options}, "data": data, "runs": runs}
    try:
        plan = Plan(PlanFile.model_validate(content))
    except ValidationError as error:
        raise UserInputError(finding(error)) from None
    check_plan(plan)
    made = {run.method for run in plan.runs()}
    for name in named or ():
        if METHODS[name].ordinal and name not in made:
            raise UserInputError(
                f"--methods {name} needs labels with an order, which no task of {', '.join(tasks)} has."
            )
    return plan


if __name__ == "__main__":
    run_script(main, "Stopped. The same command goes on where it was.")
