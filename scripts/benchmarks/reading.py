"""Reading 500,000 SNLI rows: peak memory, and time against the bare `json.loads` of the same lines. Into records from
JSON lines, by the task that ships with the package and by a task file, and row by row from each other format.

    python scripts/benchmarks/reading.py [--rows 500000]

Each measurement is a process of its own; the peak is its largest resident set.
"""

import argparse
import csv
import gzip
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any


WORDS = [f"word{i}" for i in range(20)]


def make_rows(count: int) -> Iterator[dict[str, Any]]:
    """Rows of SNLI's form, five labels each, with its parse fields, which are most of a line."""
    rng = random.Random(0)
    for i in range(count):
        premise, hypothesis = (" ".join(rng.choices(WORDS, k=k)) for k in (14, 8))
        labels = rng.choices(["entailment", "neutral", "contradiction"], k=5)
        parse = f"(ROOT (S (NP {premise}) (VP {premise})))"
        yield {
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


def write_json_lines(path: Path, count: int) -> None:
    with gzip.open(path, "wt", compresslevel=1) as file:
        file.writelines(json.dumps(row) + "\n" for row in make_rows(count))


def write_list(path: Path, count: int) -> None:
    with path.open("w") as file:
        file.write("[")
        file.writelines((", " if i else "") + json.dumps(row) for i, row in enumerate(make_rows(count)))
        file.write("]")


def write_object(path: Path, count: int) -> None:
    with path.open("w") as file:
        file.write("{")
        file.writelines((", " if i else "") + f'"k{i}": {json.dumps(row)}' for i, row in enumerate(make_rows(count)))
        file.write("}")


def write_table(path: Path, count: int) -> None:
    """A table of which some cells are quoted. The csv module quotes those of the other delimiter, too."""
    with path.open("w", newline="", encoding="utf-16" if path.suffix == ".txt" else "utf-8") as file:
        writer = csv.writer(file, delimiter="," if path.suffix == ".csv" else "\t")
        for i, row in enumerate(make_rows(count)):
            if not i:
                writer.writerow(row)
            writer.writerow([f'{value}, "{i}"' if key == "sentence1" else value for key, value in row.items()])


def write_workbook(path: Path, count: int) -> None:
    """The columns that a person would have in a workbook."""
    import openpyxl

    workbook = openpyxl.Workbook(write_only=True)
    sheet = workbook.create_sheet()
    columns = ("pairID", "sentence1", "sentence2", "gold_label")
    sheet.append(columns)
    for row in make_rows(count):
        sheet.append([row[column] for column in columns])
    workbook.save(path)


TASK = """
name: own
labels: [entailment, neutral, contradiction]
template: |
  {{ sentence1 }}
  {{ sentence2 }}
  entailment, neutral or contradiction?
source: snli_1.0_train.jsonl.gz
id: pairID
group: captionID
votes: {list: annotator_labels}
"""

# What is read row by row.
FORMATS = {
    "list.json": write_list,
    "object.json": write_object,
    "table.csv": write_table,
    "table.txt": write_table,
    "book.xlsx": write_workbook,
}


def measure(mode: str, path: str) -> None:
    start = time.perf_counter()
    if mode == "json":
        with gzip.open(path, "rb") as file:
            count = sum(1 for line in file if json.loads(line))
    elif mode in FORMATS:
        from distjudge_trl.data.rows import read_rows
        from distjudge_trl.data.source_files import find_files

        count = sum(1 for file in find_files(path, ()) for _ in read_rows(file))
    else:
        from distjudge_trl.tasks import get_task

        task = Path(path).with_name("task.yaml") if mode == "task file" else "snli"
        count = len(get_task(str(task)).load(path))
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
        lines = Path(folder) / "snli_1.0_train.jsonl.gz"
        write_json_lines(lines, args.rows)
        lines.with_name("task.yaml").write_text(TASK)
        results = {}
        for mode in ("json", "records", "task file", *FORMATS):
            path = Path(folder) / mode if mode in FORMATS else lines
            if mode in FORMATS:
                FORMATS[mode](path, args.rows)
            command = [sys.executable, __file__, "--measure", mode, str(path)]
            runs = [
                json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout.splitlines()[-1])
                for _ in range(2)
            ]
            results[mode] = min(runs, key=lambda run: run["seconds"])
            if mode in FORMATS:
                path.unlink()
    print(f"| what | rows | peak memory | time against json.loads |\n|{'---|' * 4}")
    for mode, run in results.items():
        ratio = run["seconds"] / results["json"]["seconds"]
        print(f"| {mode} | {run['rows']:,} | {run['peak_gib']:.2f} GiB | {ratio:.1f} x |")


if __name__ == "__main__":
    main()
