"""Reading 500,000 SNLI rows into records: peak memory, and time against the bare `json.loads` of the same lines.

    python scripts/benchmarks/reading.py [--rows 500000]

Each measurement is a process of its own; the peak is its largest resident set.
"""

import argparse
import gzip
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path


WORDS = [f"word{i}" for i in range(20)]


def write_rows(path: Path, count: int) -> None:
    """Rows of SNLI's form, five labels each, with its parse fields, which are most of a line."""
    rng = random.Random(0)
    with gzip.open(path, "wt", compresslevel=1) as file:
        for i in range(count):
            premise, hypothesis = (" ".join(rng.choices(WORDS, k=k)) for k in (14, 8))
            labels = rng.choices(["entailment", "neutral", "contradiction"], k=5)
            parse = f"(ROOT (S (NP {premise}) (VP {premise})))"
            row = {
                "annotator_labels": labels,
                "captionID": f"{i // 3}.jpg#0",
                "gold_label": labels[0],
                "pairID": f"{i}.jpg#0r1n",
                "sentence1": premise,
                "sentence1_binary_parse": parse,
                "sentence1_parse": parse,
                "sentence2": hypothesis,
                "sentence2_binary_parse": parse,
                "sentence2_parse": parse,
            }
            file.write(json.dumps(row) + "\n")


def measure(mode: str, path: str) -> None:
    start = time.perf_counter()
    if mode == "json":
        with gzip.open(path, "rb") as file:
            count = sum(1 for line in file if json.loads(line))
    else:
        from distjudge_trl.tasks import get_task

        count = len(get_task("snli").load(path))
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps({"mode": mode, "rows": count, "seconds": seconds, "peak_gib": peak}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=500_000)
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        measure(*args.measure)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "snli_1.0_train.jsonl.gz"
        write_rows(path, args.rows)
        results = {}
        for mode in ("json", "records"):
            command = [sys.executable, __file__, "--measure", mode, str(path)]
            runs = [
                json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout.splitlines()[-1])
                for _ in range(2)
            ]
            results[mode] = min(runs, key=lambda run: run["seconds"])
    print(f"| what | rows | peak memory | time against json.loads |\n|{'---|' * 4}")
    for mode, run in results.items():
        ratio = run["seconds"] / results["json"]["seconds"]
        print(f"| {mode} | {run['rows']:,} | {run['peak_gib']:.2f} GiB | {ratio:.1f} x |")


if __name__ == "__main__":
    main()
