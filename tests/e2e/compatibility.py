"""Run what goes together and write it into docs/scaling.md: {full, LoRA, QLoRA} x {one process, accumulation, DDP,
ZeRO, offload, FSDP2, two hosts} x {train, evaluate, resume, reload}, every cell a real run of a tiny model on the CPU.

python tests/e2e/compatibility.py [--only NAME ...]      (about a quarter of an hour; `make compat`)
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path


sys.path.insert(0, str(Path(__file__).parents[1]))

import conftest
import numpy as np
import tiny_runs
from tiny_runs import (
    EIGHT,
    FOUR,
    HALF,
    LORA,
    ONE_BY_FOUR,
    QLORA,
    SAVING,
    RunError,
    accelerate,
    cpu_twin,
    on_host,
    trajectory,
    two_hosts,
)

from distjudge_trl.errors import run_script
from distjudge_trl.runtime.provenance import library_versions


PAGE = conftest.ROOT / "docs/scaling.md"
START, END = "<!-- compatibility: written by `make compat` -->", "<!-- end of compatibility -->"
# Name -> accelerate config (None: no launcher), options, hosts.
WAYS = {
    "one process": (None, EIGHT, 1),
    "accumulation": (None, FOUR, 1),
    "DDP": ("multi_gpu", HALF, 1),
    "ZeRO-1": ("zero1", HALF, 1),
    "ZeRO-2": ("zero2", HALF, 1),
    "ZeRO-2, accumulation": ("zero2", ONE_BY_FOUR, 1),
    "ZeRO-3": ("zero3", HALF, 1),
    "ZeRO-2, offload": ("zero2_offload", HALF, 1),
    "ZeRO-3, offload": ("zero3_offload", HALF, 1),
    "FSDP2": ("fsdp2", HALF, 1),
    "two hosts, DDP": ("multi_gpu", HALF, 2),
    "two hosts, ZeRO-3": ("multi_node_zero3", HALF, 2),
}
KINDS = {"full": (), "LoRA": LORA, "QLoRA": QLORA}


def launch(runs, name, way, *options):
    """One run to its end."""
    config, batch, hosts = WAYS[way]
    options = (*batch, *SAVING, *options)
    if config is None:
        return runs.run(name, [sys.executable], *options)
    if config.startswith("fsdp"):
        # accelerate starts it on accelerators alone.
        command = accelerate(conftest.ROOT / f"accelerate_configs/{config}.yaml", "--num_processes", "2")
        script = str(conftest.ROOT / "scripts/gpu_checks/fsdp_on_cpu.py")
        return runs.run(name, [*command, script], *options, "--use_cpu", "False")
    path = cpu_twin(config, runs.folder)
    if hosts == 1:
        return runs.run(name, accelerate(path), *options)
    with two_hosts():
        return runs.finish(name, *(runs.start(name, on_host(r, path), *options, log=f"log{r}") for r in (0, 1)))


def largest(values, wanted):
    """Largest relative difference."""
    values, wanted = np.asarray(values, dtype=float), np.asarray(wanted, dtype=float)
    return float(np.max(np.abs(values - wanted) / np.maximum(np.abs(wanted), 1e-9)))


def try_out(runs, kind, way):
    """Differences of train, evaluate, resume and reload; the error in place of what failed and what needs it."""
    from distjudge_trl import Judge

    common, name = KINDS[kind], f"{kind} {way}"
    expected, _ = runs.reference(common)
    cells = ["-"] * 4
    done = 0
    try:
        result, folder = launch(runs, name, way, *common)
        cells[0] = f"{largest(trajectory(result)[:, :2], trajectory(expected)[:, :2]):.0e}"
        done = 1
        cells[1] = f"{largest(result['metrics']['eval_kl'], expected['metrics']['eval_kl']):.0e}"
        done = 2
        checkpoint = ("--resume_from_checkpoint", str(folder / "checkpoint-4"))
        resumed, _ = launch(runs, f"{name} resumed", way, *common, *checkpoint)
        cells[2] = f"{largest(trajectory(resumed)[:, :2], trajectory(result)[:, :2]):.0e}"
        done = 3
        records = conftest.make_records(11, seed=1)
        kl = tiny_runs.mean_kl(Judge.from_pretrained(str(folder)).judge(records), records)
        cells[3] = f"{largest(kl, result['metrics']['eval_kl']):.0e}"
    except (RunError, OSError, ValueError, RuntimeError) as error:
        lines = [line for line in str(error).splitlines() if "Error" in line or "error:" in line or "exitcode" in line]
        # What the launcher says of a process that failed comes last.
        lines = [line for line in lines if "ChildFailedError" not in line]
        cells[done] = "fails: " + (lines or [repr(error)])[-1].strip().replace("|", "/")[:200]
    return cells


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only", nargs="+", choices=list(WAYS), default=list(WAYS), help="These ways alone; the others' rows stay."
    )
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    head = ["| | | train | evaluate | resume | reload |", "|---|---|---|---|---|---|"]
    print("\n".join(head), flush=True)
    versions = ", ".join(f"{name} {version}" for name, version in library_versions().items())
    before, old, after = read_page()
    rows = rows_of(old)
    if f"Versions: {versions}." not in old and args.only != list(WAYS):
        print("The page is of other versions: these rows are not written into it. Run all ways.", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        runs = tiny_runs.TinyRuns(Path(folder), conftest.make_tokenizer())
        for kind in KINDS:
            for way in args.only:
                rows[kind, way] = f"| {kind} | {way} | {' | '.join(try_out(runs, kind, way))} |"
                print(rows[kind, way], flush=True)
    if f"Versions: {versions}." in old or args.only == list(WAYS):
        ordered = [rows[kind, way] for kind in KINDS for way in WAYS if (kind, way) in rows]
        text = "\n".join([START, "", *head, *ordered, "", f"Versions: {versions}.", "", END])
        PAGE.write_text(before + text + after, encoding="utf-8")
        print(f"Written into {PAGE}")


def read_page():
    """The page before, in and after what is written here."""
    before, rest = PAGE.read_text(encoding="utf-8").split(START)
    return before, *rest.split(END)


def rows_of(text):
    """The rows that a page holds, by kind and way."""
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    return {key: row for row in rows if (key := tuple(row.strip("| ").split(" | ")[:2]))[0] in KINDS}


if __name__ == "__main__":
    run_script(main)
