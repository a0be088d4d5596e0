"""This trainer against TRL's SFTTrainer on the same rows: rows per second, peak memory, share of the peak FLOPs.

    python scripts/benchmarks/throughput.py --model Qwen/Qwen2.5-7B --seq-len 1024 --batch-size 8
    python scripts/benchmarks/throughput.py --model smollm2-135m --seq-len 128 --batch-size 4 --steps 6   (CPU)

Weights are random in the shape of the model (nothing is downloaded; the bundled model's tokenizer makes the rows),
bfloat16 under LoRA, and NF4 under QLoRA. Every trainer runs in a process of its own, ours and TRL's in turn; the best
of --repeats counts. FLOPs are the model's: two a parameter and token in the forward, two in the backward of frozen
weights; what gradient checkpointing computes again does not count.
"""

import argparse
import itertools
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path


# Dense bfloat16, by what the device's name holds.
PEAK_TFLOPS = {"H100": 989, "H200": 989, "A100": 312, "L40S": 362, "4090": 165}


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
    from distjudge_trl.models import resolve_model
    from distjudge_trl.trainer import DistributionSFTConfig, DistributionSFTTrainer

    tokenizer = AutoTokenizer.from_pretrained(resolve_model("smollm2-135m"))
    rows = Dataset.from_list(make_rows(tokenizer, args.batch_size * args.steps, args.seq_len))
    cuda = torch.cuda.is_available()
    quantization = None
    if args.kind == "QLoRA":
        quantization = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16,
        )
    model = AutoModelForCausalLM.from_pretrained(
        args.weights, dtype=torch.bfloat16, quantization_config=quantization, device_map="cuda" if cuda else None
    )
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
        "bf16": True,
        "use_cpu": not cuda,
        "gradient_checkpointing": True,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }
    peft = LoraConfig(r=16, target_modules="all-linear", task_type="CAUSAL_LM")
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
    # The first steps warm up.
    print(json.dumps({"step": min(b - a for a, b in itertools.pairwise(times[1:])), "peak": peak}))


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
    if args.trainer:
        work(args)
        return

    import torch
    from transformers import AutoModelForCausalLM

    from distjudge_trl.planning import load_config

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    peak = args.peak_tflops or next((v for k, v in PEAK_TFLOPS.items() if k in device), None)
    with tempfile.TemporaryDirectory() as folder:
        torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
        config = load_config(args.model)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
        parameters = sum(weight.numel() for weight in model.parameters())
        model.save_pretrained(Path(folder, "weights"))
        del model
        print(f"{device}; {args.model} in shape, {parameters / 1e9:.3g} billion parameters; {args.batch_size} rows of")
        print(f"{args.seq_len} tokens, gradient checkpointing.\n")
        print("| | trainer | rows per second | peak memory, GiB | share of peak FLOPs |\n|---|---|---|---|---|")
        for kind in args.kinds:
            found: dict[str, list[dict]] = {"TRL's SFTTrainer": [], "ours": []}
            for _, trainer in itertools.product(range(args.repeats), found):
                command = [sys.executable, *sys.argv, "--trainer", trainer, "--kind", kind]
                command += ["--weights", str(Path(folder, "weights"))]
                done = subprocess.run(command, check=False, capture_output=True, text=True)
                if done.returncode:
                    raise SystemExit(done.stderr[-4000:])
                found[trainer].append(json.loads(done.stdout.splitlines()[-1]))
            for trainer, runs in found.items():
                seconds = min(run["step"] for run in runs)
                flops = 4 * parameters * args.batch_size * args.seq_len / seconds
                share = f"{flops / peak / 1e12:.0%}" if peak else "-"
                memory = min(run["peak"] for run in runs) / 2**30
                print(f"| {kind} | {trainer} | {args.batch_size / seconds:.2f} | {memory:.1f} | {share} |", flush=True)


if __name__ == "__main__":
    main()
