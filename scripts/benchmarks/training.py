"""Training steps per second beside TRL's SFTTrainer, with and without shared prefixes, on real rows.

    python scripts/benchmarks/training.py vader
    python scripts/benchmarks/training.py snli --data-path snli_1.0_test.jsonl
    python scripts/benchmarks/training.py summeval --data-path model_annotations.aligned.paired.jsonl
    python scripts/benchmarks/training.py mtbench --data-path human.jsonl

One process; each way trains the same rows for an epoch (forward, backward, optimizer's step; all weights, learning
rate 0, so that every epoch is the same), the ways in turn. Of several rounds the fastest epoch counts, and the peak of
memory beyond the model. Rows are whole groups (all summaries of an article), as long as they are. `limit` is the
ratio of tokens that are computed; TRL also computes the head at every position. The mean loss of both our ways shows
that they compute the same.
"""

import argparse
import gc
import tempfile
import time


import distjudge_trl  # noqa: F401  # isort: skip (before torch: it says how OpenMP's threads wait)

import torch
from datasets import Dataset
from peak_memory import PeakMemory
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import SFTConfig, SFTTrainer

from distjudge_trl.data.splits import stable_key
from distjudge_trl.errors import run_script
from distjudge_trl.modeling.bundled import resolve_model
from distjudge_trl.runtime.precision import cpu_has_bfloat16
from distjudge_trl.tasks import get_task
from distjudge_trl.trainer import DistributionSFTConfig, DistributionSFTTrainer


BATCH_SIZES = {"vader": 16, "snli": 16, "summeval": 8, "mtbench": 4}
WAYS = {"TRL": "TRL's SFTTrainer", "padded": "ours, share_prefixes=False", "shared": "ours (share_prefixes=auto)"}


class Clock(TrainerCallback):
    """Seconds from the first step's beginning to the last one's end."""

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == 0:
            self.start = time.perf_counter()

    def on_step_end(self, args, state, control, **kwargs):
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.seconds = time.perf_counter() - self.start


def draw_groups(records: Dataset, count: int) -> Dataset:
    """Whole groups, in an order by hash, until there are `count` rows."""
    members: dict[str, list[int]] = {}
    for i, group in enumerate(records["group"]):
        members.setdefault(group, []).append(i)
    rows: list[int] = []
    for group in sorted(members, key=lambda group: stable_key(0, group)):
        rows += members[group]
    return records.select(rows[:count])


def train(way: str, args: argparse.Namespace, records: Dataset, bf16: bool) -> dict[str, float]:
    """An epoch in one way: seconds, peak memory in bytes, computed tokens and the mean loss."""
    path = resolve_model(args.model)
    tokenizer = AutoTokenizer.from_pretrained(path)
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tokens = []
    with tempfile.TemporaryDirectory() as folder:
        common = {
            "output_dir": folder,
            "per_device_train_batch_size": args.batch_size,
            "num_train_epochs": 1,
            "learning_rate": 0.0,
            "max_length": None,
            "bf16": bf16,
            "use_cpu": device == "cpu",
            "gradient_checkpointing": args.gradient_checkpointing,
            "save_strategy": "no",
            "report_to": "none",
            "disable_tqdm": True,
            "logging_strategy": "no",
        }
        if way == "TRL":
            rows = records.select_columns(["prompt", "completion"])
            trainer = SFTTrainer(model, SFTConfig(**common), train_dataset=rows, processing_class=tokenizer)
        else:
            share = "auto" if way == "shared" else False
            trainer = DistributionSFTTrainer(
                model,
                DistributionSFTConfig(**common, share_prefixes=share),
                train_dataset=records,
                processing_class=tokenizer,
                label_space=get_task(args.task).label_space(),
            )
        collate = trainer.data_collator

        def counted(features):
            batch = collate(features)
            tokens.append(batch["input_ids"].numel())
            return batch

        trainer.data_collator = counted
        clock = Clock()
        trainer.add_callback(clock)
        with PeakMemory() as peak:
            loss = trainer.train().training_loss
    del trainer, model
    gc.collect()
    return {"seconds": clock.seconds, "peak": peak.bytes, "tokens": sum(tokens), "loss": loss}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=list(BATCH_SIZES), help="whose rows")
    parser.add_argument("--data-path", help="its official file")
    parser.add_argument("--model", default="smollm2-135m", help="default: smollm2-135m")
    parser.add_argument("--num-rows", type=int, default=64, help="default: 64")
    parser.add_argument("--batch-size", type=int, help=f"default: {BATCH_SIZES}")
    parser.add_argument("--rounds", type=int, default=2, help="default: 2")
    parser.add_argument("--gradient-checkpointing", action="store_true")
    parser.add_argument(
        "--precisions", nargs="+", choices=["float32", "bf16"], help="default: both where bf16 is fast"
    )
    args = parser.parse_args()
    args.batch_size = args.batch_size or BATCH_SIZES[args.task]
    fast = torch.cuda.is_available() or cpu_has_bfloat16()
    records = draw_groups(get_task(args.task).load(args.data_path), args.num_rows)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads"
    print(
        f"\n{args.task}: {len(records)} rows, {args.batch_size} a batch, {args.model}, all weights, {device}, minimum"
        f" of {args.rounds} rounds\n"
    )
    print("| precision | way | rows/s | speed / TRL | limit | peak memory / TRL | mean loss |")
    print("|---|---|---|---|---|---|---|")
    for precision in args.precisions or ["float32", *(["bf16"] if fast else [])]:
        runs: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
        for _ in range(args.rounds):
            for way, found in runs.items():
                found.append(train(way, args, records, precision == "bf16"))
        least = {way: {key: min(run[key] for run in found) for key in found[0]} for way, found in runs.items()}
        for way, run in least.items():
            ratios = {key: least["TRL"][key] / run[key] for key in ("seconds", "tokens")}
            print(
                f"| {precision} | {WAYS[way]} | {len(records) / run['seconds']:.2f} | {ratios['seconds']:.2f} |"
                f" {ratios['tokens']:.2f} | {run['peak'] / least['TRL']['peak']:.2f} |"
                f" {'-' if way == 'TRL' else format(run['loss'], '.5f')} |",
                flush=True,
            )


if __name__ == "__main__":
    run_script(main)
