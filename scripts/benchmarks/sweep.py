"""What a sweep's trials spend beside training: start of processes, model, data, evaluation, saving, between trials.

python scripts/benchmarks/sweep.py [--samples 2400] [--trials 2]

Runs a real sweep of the bundled model on VADER and compares the wall time of its workers with the training time that
the trials log. The shares are for trials of the length that is printed; longer ones spend less.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=2400, help="training items of a trial; default: 2400")
    parser.add_argument("--trials", type=int, default=2, help="default: 2")
    args = parser.parse_args()
    alphas = ",".join(f"{0.8 - 0.1 * i:g}" for i in range(args.trials))
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "distjudge_trl", "sweep", "vader", "--param", f"alpha={alphas}"]
        command += ["--max_train_samples", str(args.samples), "--max_eval_samples", "300", "--num_train_epochs", "1"]
        begin = time.monotonic()
        done = subprocess.run([*command, "--out", folder], check=False, capture_output=True, text=True)
        wall = time.monotonic() - begin
        if done.returncode:
            raise SystemExit(done.stdout + done.stderr)
        trials = json.loads(Path(folder, "trials.json").read_text())["trials"]
    print("| trial | seconds | in training | beside it |\n|---|---|---|---|")
    for trial in trials:
        share = 1 - trial["training_seconds"] / trial["seconds"]
        print(f"| {trial['number']} | {trial['seconds']:.0f} | {trial['training_seconds']:.0f} | {share:.1%} |")
    beside = wall - sum(trial["seconds"] for trial in trials)
    print(f"\nOnce a sweep, besides: {beside:.0f} s (checks, data, test items for the best).")


if __name__ == "__main__":
    main()
