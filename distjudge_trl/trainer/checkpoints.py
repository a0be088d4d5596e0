"""Checkpoints: which ones are complete, and whether they belong to this run."""

from __future__ import annotations

import hashlib
import json
import pickle
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from datasets import Dataset
from safetensors import SafetensorError

from distjudge_trl.errors import UserInputError, first_line
from distjudge_trl.files.atomic import write_json
from distjudge_trl.judge_folder.judge_file import JudgeFile
from distjudge_trl.modeling.loading import refused_pickle


# Written after every process has written its part, so a checkpoint with this file is complete.
CHECKPOINT_FILE = "checkpoint.json"
TRAINER_STATE_NAME = "trainer_state.json"  # transformers' own, which takes seconds to import
FORMAT_VERSION = 1

# What a run must share with the one that it continues, and the error message for each difference.
_SAME = {
    "task": "task",
    "labels": "labels",
    "model": "model",
    "architecture": "model architecture",
    "adapter": "adapter",
    "quantization": "quantisation",
    "train_fingerprint": "training items",
    "train_batch_size": "batch size over all processes and accumulation steps",
    "seed": "seed",
    "train_sampling_strategy": "way of drawing batches (train_sampling_strategy)",
    "group_size": "number of rows that are drawn together",
    "sharding": "way of sharding",
}
# Values for checkpoints of earlier versions, which did not store them.
_BEFORE = {"train_sampling_strategy": "random"}
# Files in which transformers, accelerate and DeepSpeed store the state of training.
_STATE = (
    *("optimizer.*", "optimizer_*", "scheduler.pt", "scaler.pt", "rng_state*.pth", "trainer_state.json"),
    *("pytorch_model_fsdp*", "global_step*", "latest", "zero_to_fp32.py"),
)


class Checkpoint(NamedTuple):
    """A complete checkpoint.

    Args:
        path (`str`): its folder.
        skipped (`list[str]`): incomplete checkpoints that were skipped: newer ones, or the one that was given.
    """

    path: str
    skipped: list[str]


def find_checkpoint(value: str | bool | None, output_dir: str | Path) -> Checkpoint | None:
    """The complete checkpoint that `--resume_from_checkpoint VALUE` means; `None` if the run does not resume.

    `true` means the complete checkpoint of `output_dir` that was saved last, whatever its step: the folder may hold
    checkpoints of an earlier run with more steps. A path means that checkpoint. If it is incomplete (the run died
    while saving, or a file has been truncated since), the latest complete one before it in the same folder is used.

    Raises:
        [`UserInputError`]: there is no complete checkpoint, or it has no optimizer state.
    """
    if value is None or str(value).lower() in ("false", "no", "none", ""):
        return None
    newest = str(value).lower() in ("true", "yes", "last", "latest")
    requested = Path(output_dir if newest else str(value))
    if not newest and not requested.is_dir():
        raise UserInputError(f"{requested}: no such folder to resume from.")
    if not newest and (requested / "judge.json").is_file() and _step(requested) is None:
        raise UserInputError(
            f"{requested}: is not a checkpoint but a finished judge, without optimizer state. Start from it with"
            " --model_name_or_path, or resume from one of its checkpoint-* folders."
        )
    folder = requested if newest else requested.parent
    limit = None if newest else _step(requested)
    if not newest and limit is None:
        if _is_whole(requested):
            return _resumable(Checkpoint(str(requested), []))
        raise UserInputError(
            f"{requested}: is not a complete checkpoint ({CHECKPOINT_FILE}, which is written last, is missing)."
        )
    steps = {step: path for path in folder.glob("checkpoint-*") if (step := _step(path)) is not None}
    skipped: list[str] = []
    order = {step: (_saved_at(path) if newest else 0.0, step) for step, path in steps.items()}
    for step in sorted(steps, key=order.__getitem__, reverse=True):
        if limit is not None and step > limit:
            continue
        if _is_whole(steps[step]):
            return _resumable(Checkpoint(str(steps[step]), skipped))
        skipped.append(str(steps[step]))
    if skipped:
        raise UserInputError(
            f"{skipped[0]}: is incomplete, and {folder} has no complete checkpoint before it. Start again without"
            " --resume_from_checkpoint."
        )
    raise UserInputError(
        f"{folder}: holds no checkpoint to resume from. Train with --save_strategy steps, or drop"
        " --resume_from_checkpoint."
    )


def unmark_checkpoint(folder: str | Path) -> None:
    """Mark a checkpoint, if it exists, as incomplete before it is written again. Its training state is removed, too:
    another number of processes or another sharding writes other files, and a run that resumes would read the old files
    beside the new ones.
    """
    folder = Path(folder)
    (folder / CHECKPOINT_FILE).unlink(missing_ok=True)
    for path in [path for pattern in _STATE for path in folder.glob(pattern)]:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def write_checkpoint_file(folder: str | Path, run: dict[str, Any]) -> None:
    """Mark a checkpoint as complete: write `checkpoint.json` with the sizes of its files and the `run` that it belongs
    to.
    """
    folder = Path(folder)
    sizes = {
        str(path.relative_to(folder)): path.stat().st_size
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != CHECKPOINT_FILE
    }
    write_json(
        folder / CHECKPOINT_FILE,
        {"format_version": FORMAT_VERSION, "saved_at": time.time(), "run": run, "files": sizes},
    )


def check_same_run(folder: str | Path, run: dict[str, Any]) -> list[str]:
    """Names of settings that differ between the checkpoint's run and `run`, for a warning.

    Raises:
        [`UserInputError`]: they are different runs: another model, task, data, batch size or seed, or shards for
            another number of processes.
    """
    saved = _read(Path(folder))["run"]
    for key, what in _SAME.items():
        then, now = saved.get(key, _BEFORE.get(key)), run.get(key)
        if then != now:
            differs = f"its {what} {_was(then)}, this run's {_was(now)}"
            if key == "train_fingerprint":  # a hash
                differs = f"its {what}, their votes or their order were others"
            raise UserInputError(
                f"{folder}: was saved by another run: {differs}. Resume with the same, or start a new run in another"
                " --output_dir."
            )
    processes = (saved.get("world_size"), run.get("world_size"))
    if processes[0] != processes[1] and str(run.get("sharding")).startswith("DeepSpeed"):
        raise UserInputError(
            f"{folder}: holds {run['sharding']} shards of {processes[0]} processes, and DeepSpeed cannot"
            f" redistribute them to {processes[1]}. Launch {processes[0]} processes."
        )
    then, now = saved.get("settings", {}), run.get("settings", {})
    return [f"{name} {then[name]} -> {now[name]}" for name in now if name in then and then[name] != now[name]]


def saved_sampling(folder: str | Path) -> dict[str, Any]:
    """How the run of a complete checkpoint draws its rows: `train_sampling_strategy` and `group_size`."""
    run = _read(Path(folder))["run"]
    return {name: run.get(name, _BEFORE.get(name)) for name in ("train_sampling_strategy", "group_size")}


def saved_date(folder: str | Path) -> str | None:
    """The date that a checkpoint's run printed in its prompts, if its chat template prints one."""
    try:
        return JudgeFile.read(folder).template_date
    except UserInputError:
        return None  # not a judge's checkpoint; comparing the runs says so


def rows_fingerprint(rows: Dataset) -> str:
    """SHA-256, in 16 hex digits, of the training rows in their order: token ids, label distribution, number of
    annotators and reference label.
    """
    digest = hashlib.sha256()
    read = ["input_ids", "label_distribution", "num_annotators", "reference"]
    for row in rows.select_columns(read).with_format(None):
        digest.update(json.dumps(row, sort_keys=True).encode())
    return digest.hexdigest()[:16]


@contextmanager
def explaining_damage(folder: str | None) -> Iterator[None]:
    """Raise an error of one line if a file of the checkpoint cannot be loaded in the block.

    Raises:
        [`UserInputError`]: a file of the checkpoint has the right size but is damaged, or it would run code.
    """
    try:
        yield
    except (SafetensorError, pickle.UnpicklingError, EOFError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "PytorchStreamReader" not in str(error):
            raise
        reason = refused_pickle(error)
        if reason is None or reason.startswith("is damaged"):
            detail = first_line(error) if reason is None else "it is no file of tensors"
            reason = f"is damaged, though it has the size that it was saved with ({detail})"
        raise UserInputError(
            f"{folder}: a file in it {reason}. Delete the folder; --resume_from_checkpoint true then takes the"
            " checkpoint before it."
        ) from error


def _saved_at(folder: Path) -> float:
    """When a checkpoint was completed, in seconds since 1970; if it is incomplete, when it was last written to."""
    try:
        return float(json.loads((folder / CHECKPOINT_FILE).read_text(encoding="utf-8"))["saved_at"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return folder.stat().st_mtime


def _step(path: Path) -> int | None:
    number = path.name.removeprefix("checkpoint-")
    return int(number) if path.name.startswith("checkpoint-") and number.isdigit() else None


def _read(folder: Path) -> dict[str, Any]:
    content = json.loads((folder / CHECKPOINT_FILE).read_text(encoding="utf-8"))
    if content.get("format_version") != FORMAT_VERSION:
        raise UserInputError(
            f"{folder / CHECKPOINT_FILE}: has format version {content.get('format_version')!r}, this distjudge-trl"
            f" reads {FORMAT_VERSION}. Resume with the version that wrote it."
        )
    return content


def _is_whole(folder: Path) -> bool:
    """Whether `checkpoint.json` exists and every file still has its size."""
    try:
        files = _read(folder)["files"]
        json.loads((folder / TRAINER_STATE_NAME).read_text(encoding="utf-8"))
        return all((folder / name).stat().st_size == size for name, size in files.items())
    except (OSError, json.JSONDecodeError, UnicodeDecodeError, KeyError, AttributeError):
        return False


def _resumable(checkpoint: Checkpoint) -> Checkpoint:
    if _read(Path(checkpoint.path))["run"].get("save_only_model"):
        raise UserInputError(
            f"{checkpoint.path}: was saved with --save_only_model and has no optimizer state to resume from."
        )
    return checkpoint


def _was(value: Any) -> str:
    if isinstance(value, dict):
        return "was " + ", ".join(f"{k} {v}" for k, v in value.items())
    if isinstance(value, list):
        return "were " + ", ".join(map(str, value))
    return f"was {'none' if value is None else value}"
