"""The runs of the quickstart: how many words they take on this machine, and what is done of them already."""

from __future__ import annotations

import argparse
import json
import math
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from quickstart_reference import METHODS

from distjudge_trl.errors import UserInputError
from distjudge_trl.files.atomic import read_json, write_json
from distjudge_trl.files.shipped_files import find_shipped
from distjudge_trl.recipe.trial import WORKER, this_process
from distjudge_trl.runtime.devices import device_count, seeing, visible_devices
from distjudge_trl.runtime.logs import quieten
from distjudge_trl.runtime.provenance import git_revision, library_versions


SEED = 42  # the recipe's own
BATCH, EVAL_BATCH, HELD_OUT = 16, 64, 600  # of recipes/vader.py; items that the untrained model is calibrated on


class Size(NamedTuple):
    """Words to train on, and unseen words to test on."""

    train: int
    test: int


# A few sizes rather than any: machines that are about as fast run the same.
SIZES = (Size(2800, 1504), Size(1920, 1000), Size(1280, 750), Size(800, 500), Size(480, 400), Size(320, 250))
SMALLEST = Size(160, 200)


class Speed(NamedTuple):
    """Seconds of a training step, of a batch that is evaluated, and of a run beside them."""

    step: float
    batch: float
    beside: float

    def part(self, method: str, size: Size) -> float:
        """Seconds of a run."""
        rows = size.test + (HELD_OUT if method == "raw" else 0)
        steps = 0 if method == "raw" else math.ceil(size.train / BATCH)
        return self.beside + steps * self.step + math.ceil(rows / EVAL_BATCH) * self.batch

    def whole(self, size: Size) -> float:
        """Seconds of the runs of one seed."""
        return sum(self.part(method, size) for method in METHODS)


class Part(NamedTuple):
    """A run of the recipe."""

    method: str
    seed: int
    folder: Path


def choose_size(args: argparse.Namespace) -> tuple[Size, Speed | None]:
    """The size that is asked for, or was chosen in this folder before, or with which all runs of a seed end in time;
    and what has been measured for it.
    """
    if args.write_reference:
        return SIZES[0], None
    if args.max_train_samples is not None:
        return Size(args.max_train_samples, args.max_eval_samples), None
    path = args.output_dir / "size.json"
    asked = {"model": args.model, "float32": args.float32, "minutes": args.minutes}
    kept = read_json(path)
    if kept.get("asked") == asked:
        size, speed = Size(*kept["size"]), Speed(*kept["speed"])
        print(
            f"{size.train:,} of {SIZES[0].train:,} words to train on, {size.test:,} of {SIZES[0].test:,} to test on:"
            f" size as chosen before (delete {path} to time again)."
        )
        return size, speed
    print("Timing a few steps on this machine, to choose how many words to take ...", flush=True)
    began = time.monotonic()
    speed = measure(args)
    left = 60 * args.minutes - (time.monotonic() - began)
    size = next((size for size in SIZES if speed.whole(size) <= left), SMALLEST)
    print(
        f"A step of {BATCH} words takes {speed.step:.2f} s here: {size.train:,} of {SIZES[0].train:,} words to train"
        f" on, {size.test:,} of {SIZES[0].test:,} to test on, {minutes(speed.whole(size))} in all"
        + (f" (no less than that; --minutes {args.minutes:g} is too short)." if speed.whole(size) > left else ".")
    )
    write_json(path, {"asked": asked, "size": size, "speed": speed})
    return size, speed


def measure(args: argparse.Namespace) -> Speed:
    """Time a few steps of the recipe on the same model and words."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "speed.json")
        probe = Path(__file__).with_name("quickstart_probe.py")
        part = Part("distribution", SEED, Path(folder, "run"))
        options = recipe_options(args, part, Size(8 * BATCH, 3 * EVAL_BATCH))
        options += ["--max_steps", "6", "--save_strategy", "no", "--disable_tqdm", "True"]
        command = [sys.executable, str(probe), str(out), *options]
        with Path(folder, "log").open("w+") as log:
            code = run_child(command, stdout=log, stderr=log)
            if code:
                log.seek(0)
                lines = log.read().splitlines()
                said = [line for line in lines if line.startswith("error: ")]
                print("\n".join(said or lines[-20:]), file=sys.stderr)
                raise SystemExit(code)
        return Speed(**json.loads(out.read_text(encoding="utf-8")))


def run_parts(args: argparse.Namespace, parts: list[Part], size: Size, speed: Speed | None) -> None:
    """Run what is not there yet, and say how long it will take."""
    waiting = [part for part in parts if not is_done(args, part, size)]
    expected = {part: speed.part(part.method, size) if speed is not None else 0.0 for part in waiting}
    took = planned = 0.0
    for number, part in enumerate(parts, start=1):
        progress = f"[{number}/{len(parts)}]"
        if part not in waiting:
            print(f"{progress} {part.method}: done before ({part.folder}).")
            continue
        if speed is not None:
            # As fast as the parts that are done turned out.
            left = sum(expected[other] for other in waiting[waiting.index(part) :]) * (took / planned if took else 1)
            progress += f" {minutes(left)} left in all:"
        began = time.monotonic()
        run(args, part, size, speed, progress)
        took, planned = took + time.monotonic() - began, planned + expected[part]


def recipe_options(args: argparse.Namespace, part: Part, size: Size) -> list[str]:
    """The recipe and the options that decide on what a part comes to."""
    return [
        str(find_shipped("vader", "recipes", ".py", "recipe")),
        *("--method", part.method, "--model_name_or_path", args.model, "--output_dir", str(part.folder)),
        *("--max_train_samples", str(size.train), "--max_eval_samples", str(size.test)),
        *("--num_train_epochs", "1", "--seed", str(part.seed), "--logging_steps", "20"),
        *(("--bf16", "False") if args.float32 else ()),
    ]


def made_by(args: argparse.Namespace, part: Part, size: Size) -> dict[str, Any]:
    """What two attempts at a part must share for the second to take up the first's work."""
    return {
        "options": recipe_options(args, part, size),
        "git_revision": git_revision(),
        "versions": library_versions(),
    }


def is_done(args: argparse.Namespace, part: Part, size: Size) -> bool:
    """Whether a part has been finished with the same settings and the same code."""
    there = (part.folder / "results.json").is_file()
    return there and read_json(part.folder / "part.json") == made_by(args, part, size)


def run(args: argparse.Namespace, part: Part, size: Size, speed: Speed | None, progress: str) -> None:
    """One run of the recipe in a process of its own, from its last checkpoint if there is one."""
    made = made_by(args, part, size)
    checkpoints = list(part.folder.glob("checkpoint-*"))
    if read_json(part.folder / "part.json") != made:
        for path in [*checkpoints, part.folder / "results.json"]:
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        write_json(part.folder / "part.json", made)
    command = [sys.executable, *made["options"], *saving(part, size, speed)]
    goes_on = bool(checkpoints) and has_whole_checkpoint(part.folder)
    command += ["--resume_from_checkpoint", "true"] if goes_on else []
    print(f"\n{progress} {shlex.join(command)}\n", flush=True)
    if code := run_child(command):
        raise SystemExit(code)
    for path in part.folder.glob("checkpoint-*"):
        shutil.rmtree(path)


def has_whole_checkpoint(folder: Path) -> bool:
    """Whether there is a checkpoint to go on from; none, if a run was killed while it saved its first."""
    quieten()
    # Late: it brings all that training needs.
    from distjudge_trl.trainer.checkpoints import find_checkpoint

    try:
        return find_checkpoint("true", folder) is not None
    except UserInputError:
        return False


def saving(part: Part, size: Size, speed: Speed | None) -> list[str]:
    """Options for a checkpoint every two minutes or so, of which the last stays: 1.6 GB each."""
    steps = math.ceil(size.train / BATCH)
    # Without a speed: thirds of a run, but for one of a few steps, which writing would cost more than repeating.
    every = max(1, round(120 / speed.step)) if speed is not None else max(5, steps // 3)
    if part.method == "raw" or every >= steps:
        return ["--save_strategy", "no"]
    return ["--save_strategy", "steps", "--save_steps", str(every), "--save_total_limit", "1"]


def run_child(command: list[str], **files: Any) -> int:
    """Run a command on one GPU, if there are any; its exit code. It ends with this process, however that ends, but
    Ctrl-C is for this process alone to answer.
    """
    there = device_count()
    environment = seeing(visible_devices(there)[:1]) if there > 1 else dict(os.environ)
    child = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        env={**environment, WORKER: this_process()},
        start_new_session=True,
        **files,
    )
    try:
        return child.wait()
    finally:
        child.kill()
        child.wait()


def minutes(seconds: float) -> str:
    """A duration, as well as it is known."""
    if seconds < 90:
        return "about a minute" if seconds >= 45 else "less than a minute"
    return f"about {seconds / 60:.0f} minutes"
