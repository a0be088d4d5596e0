"""The paper's tables on your own model: every run of them, one after the other, and the report.

    python scripts/reproduce.py snli summeval --parts methods budget --seeds 0 1 2 3 4 --out runs/paper \
        -- --model_name_or_path Qwen/Qwen2.5-7B-Instruct --max_items 10000

Parts: `methods` trains every baseline and ablation (Tables 1, 2, 3 and 5; `ordinal` only where labels have an order),
`budget` spends one number of annotations on many items or on many annotators (Table 4), `transfer` tests the SNLI
judges of `methods` on ChaosNLI (Table 6), `grid` is alpha times epsilon (Figure 3). What stands behind `--` goes to
every recipe. A run that has finished is not repeated, so a stopped script goes on where it was; one that was made with
other options is an error. `--launcher` takes the place of `python`, such as
"accelerate launch --config_file accelerate_configs/zero2.yaml".
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from distjudge_trl.errors import UserInputError, run_script
from distjudge_trl.evaluation import read_results
from distjudge_trl.files.atomic import replacing
from distjudge_trl.files.shipped_files import find_shipped
from distjudge_trl.methods import METHODS
from distjudge_trl.recipe import PAPER_GRID
from distjudge_trl.recipe.loading import load_recipe
from distjudge_trl.recipe.parsing import find_option, read_config, split_config
from distjudge_trl.tasks import get_task


PARTS = ("methods", "budget", "transfer", "grid")
# The methods of the paper's Table 1. Without --methods the others are trained with the first seed alone.
MAIN_METHODS = ("single-point", "no-adversary", "distribution")
BUDGET_ANNOTATORS = (1, 3, 5)

Run = tuple[str, list[str]]


def main() -> None:
    own, rest = sys.argv[1:], []
    if "--" in own:
        own, rest = own[: own.index("--")], own[own.index("--") + 1 :]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("tasks", nargs="+", metavar="TASK", help="tasks with a recipe")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=["methods"], help="default: methods")
    parser.add_argument(
        "--methods", nargs="+", choices=list(METHODS), help="trained with every seed; raw needs one. Default: all"
    )
    parser.add_argument(
        "--seeds",
        nargs="+",
        type=int,
        default=[0],
        help="of the named methods; without --methods of those in Table 1. Default: 0",
    )
    parser.add_argument("--budget", type=int, default=8000, help="annotations in Table 4; default: 8000, the paper's")
    parser.add_argument(
        "--grid-alpha", nargs="+", type=float, default=PAPER_GRID["alpha"], help="default: the paper's"
    )
    parser.add_argument(
        "--grid-radius", nargs="+", type=float, default=PAPER_GRID["perturbation_radius"], help="default: the paper's"
    )
    parser.add_argument(
        "--data-path", nargs="+", default=[], metavar="TASK=PATH", help="official files that are here already"
    )
    parser.add_argument("--launcher", default=sys.executable, help="what starts a recipe; default: this Python")
    parser.add_argument("--out", type=Path, default=Path("runs/paper"), help="default: runs/paper")
    args = parser.parse_args(own)
    args.repeated = MAIN_METHODS if args.methods is None else [name for name in args.methods if name != "raw"]
    named = args.methods or []
    args.methods = named or list(METHODS)
    for path in args.data_path:
        if "=" not in path:
            parser.error(f"--data-path takes TASK=PATH, got {path!r}")
    data = dict(path.split("=", 1) for path in args.data_path)
    unknown = [task for task in data if task not in (*args.tasks, "chaosnli")]
    if unknown:
        parser.error(f"--data-path names {unknown[0]!r}, which is not among the tasks: {', '.join(args.tasks)}")

    if "transfer" in args.parts and "snli" not in args.tasks:
        parser.error("--parts transfer tests judges of snli: name it among the tasks")
    args.ordered = {task for task in args.tasks if has_order(task, rest)}
    for method in named:
        if METHODS[method].ordinal and not args.ordered:
            parser.error(f"--methods {method} needs labels with an order, which no task has: {', '.join(args.tasks)}")
    failed = []
    for task in args.tasks:
        recipe = [*shlex.split(args.launcher), str(find_shipped(task, "recipes", ".py", "recipe"))]
        where = ["--data_path", data[task]] if task in data else []
        for name, options in runs_of(args, task):
            folder = args.out / task / name
            failed += run([*recipe, *where, *rest, *options, "--output_dir", str(folder)], folder)
        if "transfer" in args.parts and task == "snli":
            failed += transfer(args, data.get("chaosnli"))
    if any(args.out.glob("*/*/results.json")):
        report = [sys.executable, "-m", "distjudge_trl", "report", str(args.out), "--out", str(args.out / "report")]
        print(f"\n$ {shlex.join(report)}", flush=True)
        failed += [args.out / "report"] if subprocess.run(report, check=False).returncode else []
    if failed:
        print(f"error: {len(failed)} of the runs failed: {', '.join(map(str, failed))}", file=sys.stderr)
        raise SystemExit(1)


def runs_of(args: argparse.Namespace, task: str) -> Iterator[Run]:
    """Name and recipe options of every run on a task."""
    # All runs hold out the same items, so that they train on the same ones.
    same = ["--seed", str(args.seeds[0]), "--calibrate", "True"]
    if "methods" in args.parts:
        # The Table 1 methods first, and seed by seed, so that a stopped script leaves whole comparisons.
        first = sorted(args.methods, key=lambda method: method not in ("raw", *MAIN_METHODS))
        fitting = [method for method in first if task in args.ordered or not METHODS[method].ordinal]
        for seed in args.seeds:
            for method in fitting:
                if seed != args.seeds[0] and method not in args.repeated:
                    continue
                yield f"{method}-seed{seed}", ["--method", method, "--seed", str(seed), "--calibrate", "True"]
    if "budget" in args.parts:
        for n in BUDGET_ANNOTATORS:
            options = ["--annotation_budget", str(args.budget), "--max_annotators", str(n), *same]
            yield f"budget-{n}-seed{args.seeds[0]}", options
    if "grid" in args.parts:
        for alpha in args.grid_alpha:
            for radius in args.grid_radius:
                options = ["--alpha", str(alpha), "--perturbation_radius", str(radius), *same]
                yield f"grid-{alpha}-{radius}", options


def has_order(recipe: str, rest: list[str]) -> bool:
    """Whether the labels of a recipe's task have an order; `rest` are the options that it gets."""
    path, words = split_config(rest)
    config = read_config(path)
    name = load_recipe(find_shipped(recipe, "recipes", ".py", "recipe")).task or find_option("task", words, config)
    # Without a name the recipe itself will say what is missing.
    return name is not None and get_task(str(name)).choose(find_option("question", words, config)).ordinal


def transfer(args: argparse.Namespace, data_path: str | None) -> list[Path]:
    """The judges of SNLI on ChaosNLI, and the untrained model on the items that they leave."""
    folders = [args.out / "snli" / f"{method}-seed{seed}" for method in args.methods for seed in args.seeds]
    judges = [folder for folder in folders if (folder / "judge.json").is_file()]
    if not judges:
        raise UserInputError(f"{args.out / 'snli'}: holds no judges to test on ChaosNLI. Add --parts methods.")
    found = [(judge.name, ["--model", str(judge)]) for judge in judges]
    raw = args.out / "snli" / f"raw-seed{args.seeds[0]}"
    if (raw / "results.json").is_file():
        # All of them were trained on the same items.
        untrained = ["--model", read_results(raw)["model"], "--split", "all", "--leave-out", str(judges[0])]
        found.append((raw.name, untrained))
    failed = []
    for name, options in found:
        folder = args.out / "chaosnli-from-snli" / name
        command = [sys.executable, "-m", "distjudge_trl", "evaluate", *options, "--task", "chaosnli"]
        command += ["--data_path", data_path] if data_path is not None else []
        failed += run([*command, "--out", str(folder)], folder)
    return failed


def run(command: list[str], folder: Path) -> list[Path]:
    """Run a command and say so, unless it has run before; the folder if it fails, so that the others go on.

    Raises:
        [`UserInputError`]: the folder holds the results of another command.
    """
    line, before = shlex.join(command), folder / "command.txt"
    if (folder / "results.json").is_file():
        other = before.read_text(encoding="utf-8") if before.is_file() else line
        if other != line:
            raise UserInputError(
                f"{folder}: holds the results of another command, {other!r}. Delete it, or choose another --out."
            )
        print(f"{folder}: done before", flush=True)
        return []
    print(f"\n$ {line}", flush=True)
    if subprocess.run(command, check=False).returncode:
        return [folder]
    with replacing(before) as temporary:
        temporary.write_text(line, encoding="utf-8")
    return []


if __name__ == "__main__":
    try:
        run_script(main)
    except KeyboardInterrupt:
        print("Stopped. The same command goes on where it was.", file=sys.stderr)
        raise SystemExit(130) from None
