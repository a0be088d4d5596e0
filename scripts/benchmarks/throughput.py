"""This trainer against TRL's SFTTrainer on the same rows: rows per second, peak memory, share of the peak FLOPs.

    python scripts/benchmarks/throughput.py --model Qwen/Qwen2.5-7B --seq-len 1024 --batch-size 8
    python scripts/benchmarks/throughput.py --model smollm2-135m --seq-len 128 --batch-size 4 --steps 6   (CPU)

Weights are random in the shape of the model (nothing is downloaded; the bundled model's tokenizer makes the rows), in
the type that this hardware computes in under LoRA, and NF4 under QLoRA. Every trainer runs in a process of its own on
one GPU, ours and TRL's in turn; of each run the median step counts, of --repeats the best. (On GPUs that have float16
alone TRL's own trainer cannot train QLoRA.)

FLOPs are those that a trainer has to do: two a token and parameter of the linear layers in the forward, two in the
backward of frozen weights, causal attention, and the head where it is computed: by ours at one position a row, by
TRL's at the completion's tokens (on CPUs at all). What gradient checkpointing computes again does not count, nor does
the embedding, which is looked up.
"""

import argparse
import itertools
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path


import distjudge_trl  # noqa: F401  # isort: skip (before torch: it says how OpenMP's threads wait)


# Of the vendors' data sheets: dense bfloat16 with float32 sums, in TFLOPS. Words that a device's name must hold; of
# several entries that fit the one with the most words counts (an H100 says SXM nowhere, its other forms are named).
PEAK_TFLOPS = {
    "A10": 125,
    "A10G": 70,
    "A30": 165,
    "A40": 150,
    "A100": 312,
    "A800": 312,
    "L4": 121,
    "L40": 181,
    "L40S": 362,
    "RTX A6000": 155,
    "RTX 4090": 165,
    "RTX 4090 D": 147,
    "H100": 989,
    "H100 PCIe": 756,
    "H100 NVL": 835,
    "H200": 989,
    "H200 NVL": 835,
    "H800": 989,
    "GH200": 989,
    "B200": 2250,
    "GB200": 2500,
}


def find_peak(device: str) -> float | None:
    """Peak TFLOPS of a device by its name; `None` for one that is not known."""
    words = set(device.replace("-", " ").split())
    if "Laptop" in words:
        return None  # slower than their namesakes, by what the maker of the machine allows
    fitting = [name for name in PEAK_TFLOPS if set(name.split()) <= words]
    return PEAK_TFLOPS[max(fitting, key=lambda name: len(name.split()))] if fitting else None


def make_rows(tokenizer, count: int, length: int) -> list[dict]:
    """Judgment records whose prompts are as long as they may be."""
    text = tokenizer.decode(tokenizer("a rating of the text " * length)["input_ids"][: length - 48])
    return [
        {
            "id": str(i),
            "group": str(i),
            "prompt": [{"role": "user", "content": f"{i} {text}"}],
            "completion": [{"role": "assistant", "content": "1"}],
            "label_distribution": [0.5, 0.3, 0.2],
            "num_annotators": 10,
        }
        for i in range(count)
    ]


def work(args: argparse.Namespace) -> None:
    """Train in this process and print what was measured."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    from distjudge_trl.labels import LabelSpace
    from distjudge_trl.modeling.bundled import resolve_model
    from distjudge_trl.runtime.precision import decide_precision
    from distjudge_trl.trainer import DistributionSFTConfig, DistributionSFTTrainer

    tokenizer = AutoTokenizer.from_pretrained(resolve_model("smollm2-135m"))
    rows = Dataset.from_list(make_rows(tokenizer, args.batch_size * args.steps, args.seq_len))
    cuda = torch.cuda.is_available()
    precision = decide_precision(use_cpu=not cuda)
    dtype = getattr(torch, precision.dtype)
    quantization = None
    if args.kind == "QLoRA":
        quantization = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        )
    model = AutoModelForCausalLM.from_pretrained(
        args.weights, dtype=dtype, quantization_config=quantization, device_map="cuda" if cuda else None
    )
    if args.kind == "full":
        model.float()
    times = []

    class Clock(TrainerCallback):
        def on_step_end(self, *_, **__):
            if cuda:
                torch.cuda.synchronize()
            times.append(time.perf_counter())

    common = {
        "output_dir": str(Path(args.weights).parent / "out"),
        "per_device_train_batch_size": args.batch_size,
        "max_length": args.seq_len,
        "max_steps": args.steps,
        "bf16": precision.bf16,
        "fp16": precision.fp16,
        "use_cpu": not cuda,
        "gradient_checkpointing": True,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }
    peft = LoraConfig(r=16, target_modules="all-linear", task_type="CAUSAL_LM") if args.kind != "full" else None
    if args.trainer == "ours":
        trainer = DistributionSFTTrainer(
            model=model,
            args=DistributionSFTConfig(**common),
            train_dataset=rows,
            processing_class=tokenizer,
            label_space=LabelSpace(["1", "2", "3"]),
            peft_config=peft,
        )
    else:
        trainer = SFTTrainer(
            model=model,
            args=SFTConfig(**common),
            train_dataset=rows.select_columns(["prompt", "completion"]),
            processing_class=tokenizer,
            peft_config=peft,
        )
    trainer.add_callback(Clock())
    trainer.train()
    peak = torch.cuda.max_memory_allocated() if cuda else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    # What the head is computed for: TRL's fused one on GPUs reads the completion's tokens alone.
    batch = trainer.data_collator([trainer.train_dataset[0]])
    read = 1 if args.trainer == "ours" else int((batch["labels"] != -100).sum()) if cuda else args.seq_len
    print(
        json.dumps(
            {"read": read, "step": statistics.median(b - a for a, b in itertools.pairwise(times[1:])), "peak": peak}
        )
    )


def make_weights(args: argparse.Namespace) -> None:
    """Save random weights in the shape of the model, and print how large it is."""
    import torch
    from transformers import AutoModelForCausalLM

    from distjudge_trl.planning import load_config

    if torch.cuda.is_available():
        torch.set_default_device("cuda")
    config = load_config(args.model)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(args.weights)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    print(json.dumps({**count_sizes(model), "device": device}))


def count_sizes(model) -> dict[str, int]:
    """What [`count_flops`] needs to know of a model: numbers of `parameters`, those of `linear` layers and of the
    `head`; `attention`: layers x heads x width.
    """
    import torch

    config, head = model.config, model.get_output_embeddings()
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return {
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "linear": sum(m.weight.numel() for m in model.modules() if isinstance(m, torch.nn.Linear) and m is not head),
        "head": head.weight.numel(),
        "attention": config.num_hidden_layers * config.num_attention_heads * width,
    }


def count_flops(sizes: dict, rows: int, length: int, read: int) -> int:
    """FLOPs of a step's forward and of the backward to the activations: frozen weights have no gradients.

    Args:
        sizes (`dict`): of [`count_sizes`].
        rows, length (`int`): of the batch.
        read (`int`): positions a row at which the head is computed.
    """
    matrices = 4 * rows * (sizes["linear"] * length + sizes["head"] * read)
    # Scores and their product with the values, in a triangle: 2 length^2 forward, twice that backward.
    return matrices + 6 * rows * length**2 * sizes["attention"]


def run_child(args: list[str]) -> dict:
    """What a process of its own prints last: it gives all memory back. One GPU: more would start no trainer."""
    devices = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": devices}
    command = [sys.executable, *sys.argv, *args]
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise SystemExit(done.stderr[-4000:])
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="Qwen/Qwen2.5-7B", help="whose shape; see `distjudge-trl plan --help`")
    parser.add_argument("--seq-len", type=int, default=1024)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--kinds", nargs="+", choices=["LoRA", "QLoRA"], default=["LoRA", "QLoRA"])
    parser.add_argument("--peak-tflops", type=float, help="of the device in bfloat16; default: by its name")
    for name in ("trainer", "kind", "weights"):
        parser.add_argument(f"--{name}", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.trainer or args.weights:
        work(args) if args.trainer else make_weights(args)
        return

    with tempfile.TemporaryDirectory() as folder:
        weights = ["--weights", str(Path(folder, "weights"))]
        sizes = run_child(weights)
        device = sizes["device"]
        peak = args.peak_tflops or find_peak(device)
        print(f"{device}; {args.model} in shape, {sizes['parameters'] / 1e9:.3g} billion parameters;")
        print(f"{args.batch_size} rows of {args.seq_len} tokens, gradient checkpointing.\n")
        print("| | trainer | rows per second | peak memory, GiB | share of peak FLOPs |\n|---|---|---|---|---|")
        for kind in args.kinds:
            found: dict[str, list[dict]] = {"TRL's SFTTrainer": [], "ours": []}
            for _, trainer in itertools.product(range(args.repeats), found):
                found[trainer].append(run_child(["--trainer", trainer, "--kind", kind, *weights]))
            for trainer, runs in found.items():
                seconds = min(run["step"] for run in runs)
                flops = count_flops(sizes, args.batch_size, args.seq_len, runs[0]["read"])
                share = f"{flops / seconds / peak / 1e12:.0%}" if peak else "-"
                memory = min(run["peak"] for run in runs) / 2**30
                print(f"| {kind} | {trainer} | {args.batch_size / seconds:.2f} | {memory:.1f} | {share} |", flush=True)


if __name__ == "__main__":
    main()
