"""Training, evaluating, resuming and merging by the commands that a user types, on one device."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from gpu_checks.check import Check, Findings
from gpu_checks.commands import Done, cli, logged_steps, read_kl, read_results, run, run_until_killed, vader


WAYS: dict[str, dict[str, Any]] = {
    "full": {"use_peft": False, "learning_rate": 2e-5, "share_prefixes": True},
    "lora": {"use_peft": True, "learning_rate": 2e-4, "share_prefixes": True},
    "qlora": {"use_peft": True, "load_in_4bit": True, "learning_rate": 2e-4, "share_prefixes": False},
}
SAVING = {"save_strategy": "steps", "save_steps": 4}
# Relative, of the KL of the same judge in batches of another make-up (bfloat16 has eight significant bits); of a judge
# whose adapter was merged; of losses of a resumed run on a GPU, whose kernels may sum in another order every time.
SAME, MERGED, RESUMED = 5e-3, 1e-2, 2e-2


def train_command(find: Findings, way: str, out: Path, **more: Any) -> list[str]:
    return cli("train", "vader", *vader(find.machine.small, out, {**WAYS[way], **SAVING, **more}))


def train(find: Findings, way: str) -> None:
    """A run of 12 steps; then the judge is read again from its folder."""
    out = find.folder / "run"
    done = run(train_command(find, way, out))
    steps = logged_steps(out)
    find.expect(len(steps) == 12, f"{len(steps)} steps were logged in place of 12")
    find.expect(all(step["grad_norm"] > 0 for step in steps), "a step had no gradient")
    find.figure("loss", f"{steps[0]['loss']:.4f} to {steps[-1]['loss']:.4f}")
    find.figure("seconds", done.seconds)
    evaluate(find, out, find.folder / "again", out, rel=SAME)


def evaluate(find: Findings, judge: Path, out: Path, trained: Path, *, rel: float, items: int = 64) -> Done:
    """`distjudge-trl evaluate` of a judge on the items, and with the KL, that training left in its `results.json`."""
    words = ("--task", "vader", "--max-eval-samples", str(items), "--out", str(out))
    done = run(cli("evaluate", "--model", str(judge), *words))
    found, expected = read_results(out), read_results(trained)
    find.expect(found["test_fingerprint"] == expected["test_fingerprint"], "other items were scored")
    values = [results["metrics"]["kl"]["value"] for results in (found, expected)]
    find.figure("KL", f"{values[0]:.5f}, of training {values[1]:.5f}")
    find.close("KL of `evaluate`", *values, rel=rel)
    return done


def resume(find: Findings) -> None:
    """The run of `lora`, killed after its first checkpoint and gone on with."""
    out, whole = find.folder / "run", find.machine.folder("lora") / "run"
    run_until_killed(train_command(find, "lora", out), out / "checkpoint-4" / "checkpoint.json")
    find.expect(not (out / "results.json").exists(), "the run was done before it could be killed")
    run(train_command(find, "lora", out, resume_from_checkpoint=out / "checkpoint-4"))
    steps, expected = logged_steps(out), logged_steps(whole)
    find.expect(len(steps) == len(expected), f"{len(steps)} steps in place of {len(expected)}")
    rel = 1e-5 if find.machine.device == "cpu" else RESUMED
    worst = 0.0
    for step, other in zip(steps, expected, strict=False):
        worst = max(worst, abs(step["loss"] / other["loss"] - 1))
    find.figure("largest relative difference of a step's loss", worst)
    find.expect(worst <= rel, f"losses differ by {worst:.1e}, more than {rel:.0e}")
    find.close("KL", read_kl(out), read_kl(whole), rel=rel)


def merge(find: Findings) -> None:
    """The adapter of `qlora` folded into its dequantised base."""
    import torch

    from distjudge_trl.judges.merge import merge as merge_judge

    run_folder, merged = find.machine.folder("qlora") / "run", find.folder / "merged"
    merge_judge(str(run_folder), merged, dtype="float32")
    if torch.cuda.is_available():
        find.figure("peak on the GPU, GiB", torch.cuda.max_memory_allocated() / 2**30)
        torch.cuda.empty_cache()
    evaluate(find, merged, find.folder / "again", run_folder, rel=MERGED)


def large(find: Findings) -> None:
    """QLoRA on the large model from training to the merged judge."""
    import torch

    from distjudge_trl.judges.merge import merge as merge_judge

    out = find.folder / "run"
    options = {**WAYS["qlora"], "max_train_samples": 64, "per_device_train_batch_size": 8, "max_eval_samples": 32}
    done = run(cli("train", "vader", *vader(find.machine.large, out, {**options, "gradient_checkpointing": True})))
    find.figure("seconds to train", done.seconds)
    done = evaluate(find, out, find.folder / "again", out, rel=SAME, items=32)
    find.figure("seconds to evaluate", done.seconds)
    merged = find.folder / "merged"
    try:
        merge_judge(str(out), merged)
        size = sum(path.stat().st_size for path in merged.glob("*.safetensors"))
        find.figure("merged weights, GiB", size / 2**30)
    finally:
        shutil.rmtree(merged, ignore_errors=True)
    if torch.cuda.is_available():
        find.figure("peak of merging on the GPU, GiB", torch.cuda.max_memory_allocated() / 2**30)


_SAME = f"results.json of training and of `distjudge-trl evaluate` have the same KL (within {SAME:.1%})"

CHECKS = [
    Check("lora", f"12 steps of recipe vader with LoRA; {_SAME}", train, ("lora",), after=("weights",)),
    Check(
        "qlora",
        f"the same on 4-bit weights; {_SAME}",
        train,
        ("qlora",),
        needs=("bitsandbytes",),
        after=("weights",),
    ),
    Check("full", f"all weights; {_SAME}", train, ("full",), after=("weights",)),
    Check(
        "resume",
        "killed (-9) after checkpoint-4 and resumed, the run follows the one that was not: losses and KL"
        f" within {RESUMED:.0%} (1e-5 on a CPU)",
        resume,
        after=("weights", "lora"),
    ),
    Check(
        "merge",
        f"the merged QLoRA judge has the KL of its run within {MERGED:.0%}; peak memory is reported",
        merge,
        needs=("bitsandbytes",),
        after=("weights", "qlora"),
    ),
]
LAST = [
    Check(
        "large",
        f"QLoRA on the 7B shape is trained, evaluated (same KL within {SAME:.1%}) and merged; seconds and peak",
        large,
        needs=("bitsandbytes",),
        after=("weights",),
        limit=600,
    ),
]
CHECKS += LAST
