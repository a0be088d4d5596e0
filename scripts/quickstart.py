"""The quickstart: train judges on ten people's ratings of words, and look at how they disagree.

    make quickstart        # or: python scripts/quickstart.py

Runs `recipes/vader.py` three times on the same items: `raw` (no training), `single-point` (cross-entropy on the
majority label) and `distribution` (KL + cross-entropy + adversary). Then prints one table on words of families that no
training saw, sets it beside the README's, and draws a picture of words that people disagree on.

It takes as many words as about ten minutes allow on this machine, but 160 at least: a few timed steps decide, and the
choice is kept in the folder. Stopped or killed and started again it goes on where it was: a part that the same code
finished with the same settings is not run again, and another goes on from its last checkpoint.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import sys
import time
from pathlib import Path

import numpy as np
from quickstart_reference import METHODS, PICTURE, compare, precision_of, read_reference, summarize, write_reference
from quickstart_runs import SEED, SIZES, Part, Size, choose_size, run_parts

from distjudge_trl.data.splits import stable_key
from distjudge_trl.errors import UserInputError, run_script
from distjudge_trl.evaluation import item_kl, paired_difference, read_predictions, read_results
from distjudge_trl.files.atomic import check_folder
from distjudge_trl.report import plot_distributions, results_table


NUM_PANELS = 12


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--output-dir",
        type=Path,
        default=Path("quickstart"),
        help="folder for judges, results and picture; default: quickstart",
    )
    parser.add_argument(
        "--minutes", type=float, default=10.0, help="it may take for one seed, which decides on the size; default: 10"
    )
    parser.add_argument("--max-train-samples", type=int, help="words to train on, however long that takes")
    parser.add_argument("--max-eval-samples", type=int, help="unseen words to test on, likewise")
    parser.add_argument(
        "--seeds", type=int, default=1, help="train with as many seeds, and show how they differ; default: 1"
    )
    parser.add_argument("--model", default="smollm2-135m", help="bundled model, hub id or path; default: smollm2-135m")
    parser.add_argument("--float32", action="store_true", help="compute in float32 where bfloat16 is the default")
    parser.add_argument(
        "--write-reference",
        action="store_true",
        help="take the full size, and write docs/quickstart.json and from it tables and picture of README and docs",
    )
    args = parser.parse_args()
    if (args.max_train_samples is None) != (args.max_eval_samples is None):
        raise UserInputError("--max-train-samples and --max-eval-samples go together.")
    if args.write_reference and args.max_train_samples is not None:
        raise UserInputError("--write-reference takes all words: drop --max-train-samples and --max-eval-samples.")
    for name in ("max_train_samples", "max_eval_samples", "seeds", "minutes"):
        value = getattr(args, name)
        if value is not None and not value > 0:
            raise UserInputError(f"--{name.replace('_', '-')} must be more than 0, got {value:g}.")
    check_folder(args.output_dir, "--output-dir")
    try:
        quickstart(args)
    except KeyboardInterrupt:
        command = shlex.join([sys.executable, *sys.argv])
        print(f"\nStopped. The same command goes on where it was: {command}", file=sys.stderr)
        raise SystemExit(130) from None


def quickstart(args: argparse.Namespace) -> None:
    start = time.monotonic()
    size, speed = choose_size(args)
    parts = [
        Part(method, seed, args.output_dir / (method if seed == SEED else f"seed-{seed}/{method}"))
        for seed in range(SEED, SEED + args.seeds)
        for method in METHODS
        # Nothing is drawn where nothing is trained.
        if seed == SEED or method != "raw"
    ]
    run_parts(args, parts, size, speed)

    folders = {part.method: part.folder for part in parts if part.seed == SEED}
    results = [read_results(folders[method]) for method in METHODS]
    runs = [summarize(read_results(part.folder)) for part in parts]
    settings = {"model": args.model, "max_train_samples": size.train, "max_eval_samples": size.test}
    count = results[0]["metrics"]["num_items"]
    print(f"\nJudges of {count} words and emoticons of families never seen in training:\n")
    table = results_table(results) + f"\n\n{describe(args, size, precision_of(results[0]))}"
    print(table)
    (args.output_dir / "table.md").write_text(table + "\n", encoding="utf-8")
    print(explain(folders))
    print(f"\nKL and (label mass) beside the README's:\n\n{compare(runs, settings)}")
    picture = args.output_dir / "disagreement.png"
    draw(folders, results[0]["labels"], picture)
    if args.write_reference:
        if write_reference(runs, settings):
            shutil.copyfile(picture, PICTURE)
        print("Written: docs/quickstart.json, README.md and docs/paper.md.")
    print(
        f"""
Picture: {picture}: human ratings (bars) and both judges (lines) for words that people disagree on.
This call took {(time.monotonic() - start) / 60:.1f} minutes.

{next_steps(folders["distribution"])}"""
    )


def next_steps(judge: Path) -> str:
    """Commands that work as they stand, in every shell and in no environment that is activated."""
    there = shutil.which("distjudge-trl", path=Path(sys.executable).parent)
    command = shlex.quote(there) if there else f"{shlex.quote(sys.executable)} -m distjudge_trl"
    return f"""What to try next:
  judge your own words     printf '{{"text": "meh"}}\\n{{"text": "yolo"}}\\n' > words.jsonl
                           {command} judge --model {shlex.quote(str(judge))} --input words.jsonl --out judged.jsonl
  another objective        {command} train vader --alpha 1.0 --perturbation_radius 0.1 --max_train_samples 2800
  a stronger adversary     {command} train vader --method worst-case
  a larger model           {command} train vader --model_name_or_path Qwen/Qwen2.5-0.5B-Instruct --use_peft
  several processes        {command} train vader --accelerate-config zero2_cpu
  every option             {command} train vader --help"""


def describe(args: argparse.Namespace, size: Size, precision: str) -> str:
    """How large the quickstart was and why, for the table; and beside the README's, if that is of the same model."""
    reference = read_reference()
    there = Size(reference["max_train_samples"], reference["max_eval_samples"])
    why = ""
    if args.max_train_samples is not None:
        why = ", as asked for"
    elif size != SIZES[0]:
        why = f", chosen for {args.minutes:g} minutes on this machine"
    text = f"{size.train:,} words to train on and {size.test:,} to test on{why}; seed {SEED}, {precision}."
    if args.model != reference["model"]:
        return text
    if size.train != there.train:
        other, kl = ("more", "higher") if size.train < there.train else ("fewer", "lower")
        text += f" The README's judges saw {other} words, {there.train:,}: expect a {kl} KL here."
    if size.test != there.test:
        other, here = ("more", "wider") if size.test < there.test else ("fewer", "narrower")
        text += f" The README's test had {other} words, {there.test:,}: intervals are {here} here."
    return text


def explain(folders: dict[str, Path]) -> str:
    """The difference between the two trained judges, item by item."""
    single, distribution = (read_predictions(folders[name]) for name in ("single-point", "distribution"))
    assert single["id"][:] == distribution["id"][:]
    p = np.array(single["label_distribution"][:])
    kls = [item_kl(p, np.log(np.array(rows["judge_distribution"][:]).clip(1e-300))) for rows in (single, distribution)]
    difference = paired_difference(kls[0], kls[1], single["group"][:])
    if difference.low > 0:
        verdict = "so aligning the distribution helps here beyond chance"
    elif difference.high < 0:
        verdict = "so aligning the distribution does harm here"
    else:
        verdict = "so this run does not tell the two apart"
    return (
        "\nKL in nats, lower is better; the noise floor is what the true distributions would score with so few "
        "annotators.\n"
        f"Single-point minus distribution, word by word: {difference.value:+.3f} "
        f"[{difference.low:+.3f}, {difference.high:+.3f}], {verdict}."
    )


def draw(folders: dict[str, Path], labels: list[str], picture: Path) -> None:
    """Twelve test words, one a family, drawn by hash from the tenth whose human ratings have the largest entropy."""
    rows = {name: read_predictions(folders[name]) for name in ("single-point", "distribution")}
    words, families = rows["single-point"]["id"][:], rows["single-point"]["group"][:]
    p = np.array(rows["single-point"]["label_distribution"][:])
    entropy = -(p * np.log(p.clip(1e-12))).sum(-1)
    disputed = np.argsort(-entropy, kind="stable")[: max(NUM_PANELS, len(words) // 10)]
    chosen: dict[str, int] = {}
    for index in sorted(disputed.tolist(), key=lambda i: stable_key(0, words[i])):
        chosen.setdefault(families[index], index)
        if len(chosen) == NUM_PANELS:
            break
    indices = list(chosen.values())
    plot_distributions(
        picture,
        [words[i] for i in indices],
        p[indices],
        {name: np.array(dataset["judge_distribution"][:])[indices] for name, dataset in rows.items()},
        labels,
        "Ten people's ratings (1 extremely negative ... 9 extremely positive) of unseen words they disagree on",
    )


if __name__ == "__main__":
    run_script(main)
