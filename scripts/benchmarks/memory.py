"""What `distjudge-trl plan` estimates against the peak memory of real training processes on the CPU.

python scripts/benchmarks/memory.py [CASE ...]

Every case trains the bundled model for two steps on rows of a fixed length, in one process or in two, and prints the
largest process's peak (anonymous and shared memory, read every five milliseconds) beside the estimate.
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any


import distjudge_trl  # noqa: F401  # isort: skip (before torch: it says how OpenMP's threads wait)


ROOT = Path(__file__).resolve().parents[2]
MODEL = "smollm2-135m"
# The optimizer's state is there from the second on.
STEPS = 2
# What is freed goes back at once: glibc otherwise keeps holes between tensors (up to twice the memory with gradient
# checkpointing), as no GPU allocator does. On the CPU, also where there is a GPU: the host's memory is measured.
EXACT = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "CUDA_VISIBLE_DEVICES": ""}
# name: accelerate config (None: a plain process), options of the run.
CASES = {
    "full": (None, {"dtype": "float32", "batch_size": 8, "seq_len": 256, "gradient_checkpointing": False}),
    "full, checkpointing": (None, {"dtype": "float32", "batch_size": 8, "seq_len": 1024}),
    "full, accumulation": (
        None,
        {"dtype": "float32", "batch_size": 4, "seq_len": 256, "gradient_accumulation_steps": 2},
    ),
    "full, float32": (
        None,
        {"dtype": "float32", "bf16": False, "batch_size": 4, "seq_len": 256, "gradient_checkpointing": False},
    ),
    "LoRA": (None, {"lora_r": 16, "batch_size": 8, "seq_len": 256, "gradient_checkpointing": False}),
    "QLoRA": (None, {"lora_r": 16, "bits": 4, "batch_size": 8, "seq_len": 256, "gradient_checkpointing": False}),
    "full, DDP": ("multi_gpu", {"dtype": "float32", "batch_size": 4, "seq_len": 256}),
    "full, ZeRO-1": ("zero1_cpu", {"batch_size": 4, "seq_len": 256}),
    "full, ZeRO-2": ("zero2_cpu", {"batch_size": 4, "seq_len": 256}),
    "full, ZeRO-3": ("zero3_cpu", {"batch_size": 4, "seq_len": 256}),
    "LoRA, ZeRO-2": (
        "zero2_cpu",
        {"lora_r": 16, "batch_size": 8, "seq_len": 256, "gradient_checkpointing": False},
    ),
}


def resident() -> int:
    """Bytes of anonymous and shared memory of this process: mapped libraries are no part of a plan."""
    status = Path("/proc/self/status").read_text()
    values = dict(line.split(":", 1) for line in status.splitlines() if line.startswith("Rss"))
    return sum(int(values[name].split()[0]) * 1024 for name in ("RssAnon", "RssShmem"))


def mapped_weights(model: Any) -> int:
    """Bytes of weights that stay mapped from the checkpoint's file (frozen, in its type): on a GPU they are copied."""
    maps = [line.split() for line in Path("/proc/self/maps").read_text().splitlines() if ".safetensors" in line]
    spans = [tuple(int(end, 16) for end in words[0].split("-")) for words in maps]
    places = {weight.data_ptr(): weight.nbytes for weight in model.parameters()}
    return sum(size for place, size in places.items() if any(low <= place < high for low, high in spans))


def work(out: Path, options: dict) -> None:
    """Train in this process and write its peak."""
    from datasets import Dataset
    from transformers import AutoTokenizer, BitsAndBytesConfig

    from distjudge_trl.labels import LabelSpace
    from distjudge_trl.modeling.bundled import resolve_model
    from distjudge_trl.trainer import DistributionSFTConfig, DistributionSFTTrainer

    folder = resolve_model(MODEL)
    tokenizer = AutoTokenizer.from_pretrained(folder)

    def row(words: int) -> dict:
        return {
            "id": "a",
            "group": "a",
            "prompt": [{"role": "user", "content": "a " * words}],
            "completion": [{"role": "assistant", "content": "1"}],
            "label_distribution": [0.5, 0.3, 0.2],
            "num_annotators": 10,
        }

    def length(words: int) -> int:
        ids = tokenizer.apply_chat_template(row(words)["prompt"], add_generation_prompt=True)
        return len(ids["input_ids"])

    words = options["seq_len"] - length(0) - 1
    while length(words) < options["seq_len"]:
        words += 1
    rows = options["batch_size"] * options.get("gradient_accumulation_steps", 1) * STEPS
    peft = quantization = None
    if options.get("lora_r"):
        from peft import LoraConfig

        peft = LoraConfig(r=options["lora_r"], target_modules="all-linear", task_type="CAUSAL_LM")
    if options.get("bits", 16) == 4:
        quantization = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype="bfloat16",
        )
    world = int(os.environ.get("WORLD_SIZE", "1"))
    peak = start = resident()
    running = True

    def watch() -> None:
        nonlocal peak
        while running:
            peak = max(peak, resident())
            time.sleep(0.005)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    trainer = DistributionSFTTrainer(
        model=folder,
        args=DistributionSFTConfig(
            output_dir=str(out.parent),
            per_device_train_batch_size=options["batch_size"],
            gradient_accumulation_steps=options.get("gradient_accumulation_steps", 1),
            gradient_checkpointing=options.get("gradient_checkpointing", True),
            bf16=options.get("bf16", True),
            max_length=options["seq_len"],
            # The rows are all alike; a plan counts on nothing that they share.
            share_prefixes=False,
            use_cpu=True,
            max_steps=STEPS,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            model_init_kwargs={"dtype": options.get("dtype", "bfloat16")},
        ),
        train_dataset=Dataset.from_list([{**row(words), "id": str(i), "group": str(i)} for i in range(rows * world)]),
        processing_class=tokenizer,
        label_space=LabelSpace(["1", "2", "3"]),
        peft_config=peft,
        quantization_config=quantization,
    )
    trainer.train()
    running = False
    watcher.join()
    assert trainer.args.world_size == world
    result = {"start": start, "peak": peak + mapped_weights(trainer.model), "world": world}
    out.with_suffix(f".{trainer.args.process_index}").write_text(json.dumps(result))


def measure(config: str | None, options: dict) -> dict:
    """Peak bytes of the largest process, and bytes before the model is loaded."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "out.json")
        command = [sys.executable]
        if config is not None:
            launcher = f"accelerate.commands.launch --config_file {ROOT}/accelerate_configs/{config}.yaml"
            # accelerate starts one process on a CPU without DeepSpeed.
            ddp = "torch.distributed.run --standalone --nproc_per_node 2"
            command += ["-m", *(ddp if config == "multi_gpu" else f"{launcher} --num_processes 2").split()]
        command += [__file__, "--work", str(out), json.dumps(options)]
        path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
        done = subprocess.run(
            command, capture_output=True, text=True, env={**os.environ, **EXACT, "PATH": path}, check=False
        )
        results = [json.loads(file.read_text()) for file in Path(folder).glob("out.*")]
        if done.returncode or not results:
            raise SystemExit(f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
        assert len(results) == results[0]["world"] == (2 if config else 1)
        return max(results, key=lambda result: result["peak"])


def plan(config: str | None, options: dict):
    """The estimate for the same settings."""
    from dataclasses import replace

    from distjudge_trl.planning import Training, estimate, load_config, measure_footprint, read_sharding

    sharding = read_sharding(ROOT / f"accelerate_configs/{config or 'cpu'}.yaml", 2 if config else 1)
    training = Training(**options, cast=sharding.casts)
    footprint = measure_footprint(load_config(MODEL), training)
    return estimate(footprint, training, replace(sharding, device="cpu"))


def main() -> None:
    wanted = sys.argv[1:] or list(CASES)
    print(f"{'':22}{'before':>9}{'measured':>10}{'planned':>10}{'ratio':>7}  peak when")
    for name in wanted:
        measured, planned = measure(*CASES[name]), plan(*CASES[name])
        before, peak = measured["start"] / 2**30, measured["peak"] / 2**30
        print(
            f"{name:22}{before:9.2f}{peak:10.2f}{planned.peak / 2**30:10.2f}{planned.peak / measured['peak']:7.2f}"
            f"  {planned.peak_moment}",
            flush=True,
        )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--work"]:
        work(Path(sys.argv[2]), json.loads(sys.argv[3]))
    else:
        main()
