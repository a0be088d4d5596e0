"""What must fail well: one line, and an exit code that says whose fault it is."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from gpu_checks.check import Check, Findings
from gpu_checks.commands import Done, cli, run, vader


def expect_one_line(find: Findings, name: str, done: Done, code: int) -> None:
    """One line that begins with "error:", no traceback, and the exit code."""
    find.figure(name, f"exit code {done.code}: {(done.errors or ['no line with error:'])[-1]}")
    find.expect(done.code == code, f"{name}: exit code {done.code} in place of {code}")
    find.expect(len(done.errors) == 1, f"{name}: {len(done.errors)} lines begin with error:")
    find.expect("Traceback" not in done.err, f"{name}: a traceback")


def mistakes(find: Findings) -> None:
    """User's mistakes, by the commands that they are made with."""
    machine, out = find.machine, find.folder / "out"
    nothing = str(find.folder / "nothing")
    run_ = vader(machine.small, out, {})
    too_many = ("--accelerate-config", "multi_gpu", "--num-processes", str(machine.gpus + 2))
    lines = {
        "alpha out of range": cli("train", "vader", *run_, "--alpha", "2"),
        "no such model": cli("train", "vader", *vader(nothing, out, {})),
        "all weights of a 4-bit model": cli("train", "vader", *run_, "--use_peft", "False", "--load_in_4bit", "True"),
        "more processes than GPUs": cli("train", "vader", *too_many, *run_),
        "no such judge": cli("evaluate", "--model", nothing, "--task", "vader"),
        "nothing to merge": cli("merge", "--model", machine.small, "--out", str(find.folder / "merged")),
    }
    with ThreadPoolExecutor(2) as pool:
        for name, done in zip(lines, pool.map(lambda line: run(line, code=None), lines.values()), strict=True):
            expect_one_line(find, name, done, 2)
    find.expect(not Path(out, "results.json").exists(), "results were written all the same")


def out_of_memory(find: Findings) -> None:
    """A batch that no GPU holds beside this process, which takes all memory but four GiB."""
    import torch

    free, _ = torch.cuda.mem_get_info()
    taken = torch.empty(max(0, free - 4 * 2**30), dtype=torch.uint8, device="cuda")
    find.figure("taken beforehand, GiB", taken.numel() / 2**30)
    options = {
        "max_train_samples": 6000,
        "per_device_train_batch_size": 6000,
        "use_peft": False,
        "share_prefixes": False,
        "gradient_checkpointing": False,
    }
    done = run(cli("train", "vader", *vader(find.machine.small, find.folder / "out", options)), code=None)
    expect_one_line(find, "out of memory", done, 1)
    find.figure("seconds", done.seconds)


CHECKS = [
    Check(
        "mistakes",
        "a user's mistake is one line and exit code 2, six times",
        mistakes,
        after=("weights",),
    ),
    Check(
        "out-of-memory",
        "a batch that does not fit is one line and exit code 1",
        out_of_memory,
        needs=("gpu",),
        after=("weights",),
    ),
]
