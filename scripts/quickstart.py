"""The quickstart: train judges on ten people's ratings of words, and look at how they disagree.

    make quickstart        # or: python scripts/quickstart.py

Runs `recipes/vader.py` three times on the same items: `raw` (no training), `single-point` (cross-entropy on the
majority label) and `distribution` (KL + cross-entropy + adversary). Then prints one table on words of families that no
training saw, and draws a picture of words that people disagree on. A part that the same code finished with the same
settings is not run again.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from distjudge_trl.data.splits import stable_key
from distjudge_trl.errors import run_script
from distjudge_trl.evaluation import item_kl, paired_difference, read_predictions, read_results
from distjudge_trl.provenance import git_revision, library_versions
from distjudge_trl.report import plot_distributions, results_table
from distjudge_trl.shipped import find_shipped


METHODS = ("raw", "single-point", "distribution")
NUM_PANELS = 12


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument(
        "--output-dir", type=Path, default=Path("quickstart"), help="folder for judges, results and picture"
    )
    parser.add_argument("--max-train-samples", type=int, default=2800, help="words to train on")
    parser.add_argument("--max-eval-samples", type=int, default=1504, help="unseen words to test on")
    parser.add_argument("--model", default="smollm2-135m", help="bundled model, hub id or path")
    args = parser.parse_args()

    start = time.monotonic()
    for number, method in enumerate(METHODS, start=1):
        run(args, method, f"[{number}/{len(METHODS)}]")
    folders = {method: args.output_dir / method for method in METHODS}
    runs = [read_results(folders[method]) for method in METHODS]
    print(f"\nJudges of {runs[0]['metrics']['num_items']} words and emoticons of families never seen in training:\n")
    table = results_table(runs)
    print(table)
    (args.output_dir / "table.md").write_text(table + "\n", encoding="utf-8")
    print(explain(folders))
    picture = args.output_dir / "disagreement.png"
    draw(folders, runs[0]["labels"], picture)
    print(
        f"""
Picture: {picture}: human ratings (bars) and both judges (lines) for words that people disagree on.
All of it took {(time.monotonic() - start) / 60:.1f} minutes.

What to try next (after `source {Path(sys.prefix) / "bin" / "activate"}`):
  judge your own words     printf '{{"text": "meh"}}\\n{{"text": "yolo"}}\\n' > words.jsonl
                           distjudge-trl judge --model {folders["distribution"]} --input words.jsonl --out judged.jsonl
  another objective        distjudge-trl train vader --alpha 1.0 --perturbation_radius 0.1 --max_train_samples 2800
  a stronger adversary     distjudge-trl train vader --method worst-case
  a larger model           distjudge-trl train vader --model_name_or_path Qwen/Qwen2.5-0.5B-Instruct --use_peft
  several processes        distjudge-trl train vader --accelerate-config zero2_cpu
  every option             distjudge-trl train vader --help"""
    )


def run(args: argparse.Namespace, method: str, progress: str) -> None:
    """One run of the recipe in a process of its own, unless its results are there already."""
    folder = args.output_dir / method
    if (folder / "results.json").is_file():
        done = read_results(folder)
        made = done["provenance"]
        samples = (made["recipe"]["max_train_samples"], made["recipe"]["max_eval_samples"])
        same = samples == (args.max_train_samples, args.max_eval_samples) and done["model"] == args.model
        if same and made["git_revision"] == git_revision() and made["versions"] == library_versions():
            print(f"{progress} {method}: done before ({folder}).")
            return
    command = [
        *(sys.executable, str(find_shipped("vader", "recipes", ".py", "recipe"))),
        *("--method", method, "--model_name_or_path", args.model, "--output_dir", str(folder)),
        *("--max_train_samples", str(args.max_train_samples), "--max_eval_samples", str(args.max_eval_samples)),
        *("--num_train_epochs", "1", "--save_strategy", "no", "--logging_steps", "20"),
    ]
    print(f"\n{progress} {' '.join(command)}\n", flush=True)
    code = subprocess.run(command, check=False).returncode
    if code:
        raise SystemExit(code)


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
