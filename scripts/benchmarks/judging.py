"""How fast `distjudge-trl judge` goes through a file, beside a loop over `generate` and lm-evaluation-harness; and how
much memory it takes for many rows.

    python scripts/benchmarks/judging.py vader --model smollm2-135m
    python scripts/benchmarks/judging.py --memory 10000 100000 1000000

Judges behind a server: `judging_api.py`.

Speed: one process, one model in memory, the same items, ways in turn, the minimum of several rounds. `judge` is timed
from the input file to the output file. The loop calls `generate(max_new_tokens=1)` a row and reads the scores of the
answer. lm-evaluation-harness scores each of the K answers, batched in its own way.

Memory: each number of short rows is judged by the command in a process of its own, with a tiny random model, from JSON
lines to Parquet; the peak is its largest resident set.
"""

from __future__ import annotations

import argparse
import json
import logging
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path


import distjudge_trl  # noqa: F401  # isort: skip (before torch: it says how OpenMP's threads wait)
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from distjudge_trl.batching import render_prompt
from distjudge_trl.errors import run_script
from distjudge_trl.judge_folder.judge_file import JudgeFile
from distjudge_trl.judges.files import judge_file
from distjudge_trl.judges.local import LocalJudge
from distjudge_trl.judges.work import JudgingOptions, KnownJudge
from distjudge_trl.labels import LabelSpace
from distjudge_trl.tasks import LoadReport, get_task


def speed(args: argparse.Namespace) -> None:
    """Print a table of rows per second."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    task = get_task(args.task)
    options = task.options(max_items=args.num_items)
    items = [dict(item.fields) for item in task.items(args.data_path, options, report=LoadReport())]
    judge = LocalJudge(args.model, label_space=task.label_space(), template=task.template)
    harness = HFLM(pretrained=judge.model, tokenizer=judge.tokenizer, batch_size=args.batch_size)
    found: dict[str, torch.Tensor] = {}

    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "in.jsonl"), Path(folder, "out.jsonl")
        source.write_text("".join(json.dumps(item) + "\n" for item in items))

        def judge_rows() -> None:
            known = KnownJudge(judge.label_space, judge.template)
            judge_file(lambda _: judge, source, target, JudgingOptions(args.batch_size), find_judge=lambda: known)
            rows = map(json.loads, target.read_text().splitlines())
            found["judge"] = torch.tensor([list(row["label_distribution"].values()) for row in rows])

        def loop() -> None:
            rows = []
            for item in items:
                text = render_prompt(judge.tokenizer, task.template.of(item).render(item))
                inputs = judge.tokenizer(text, add_special_tokens=False, return_tensors="pt").to(judge.model.device)
                with torch.inference_mode():
                    out = judge.model.generate(
                        **inputs,
                        max_new_tokens=1,
                        do_sample=False,
                        output_logits=True,
                        return_dict_in_generate=True,
                        pad_token_id=judge.tokenizer.pad_token_id or 0,
                    )
                rows.append(judge.label_space.log_probs(out.logits[0]).exp())
            found["loop"] = torch.cat(rows).cpu()

        def log_likelihood() -> None:
            texts = [render_prompt(judge.tokenizer, task.template.of(item).render(item)) for item in items]
            requests = [
                Instance("loglikelihood", {}, (text, label), i)
                for i, text in enumerate(texts)
                for label in task.labels
            ]
            scores = torch.tensor([score for score, _ in harness.loglikelihood(requests, disable_tqdm=True)])
            found["harness"] = scores.view(len(items), -1).softmax(-1)

        ways: dict[str, tuple[str, Callable[[], None]]] = {
            "judge": ("distjudge-trl judge, file to file", judge_rows),
            "harness": (f"lm-evaluation-harness, {len(task.labels)} answers", log_likelihood),
            "loop": ("a loop over generate, one token", loop),
        }
        best = dict.fromkeys(ways, float("inf"))
        for _ in range(args.rounds):
            for name, (_, way) in ways.items():
                start = time.perf_counter()
                way()
                best[name] = min(best[name], time.perf_counter() - start)
    print(
        f"\n{args.task}: {len(items)} rows, batch {args.batch_size}, {args.model}, {judge.model.device},"
        f" {torch.get_num_threads()} threads, minimum of {args.rounds} rounds\n"
    )
    print("| way | rows/s | time / ours | largest difference of a probability |\n|---|---|---|---|")
    for name, seconds in best.items():
        apart = (found[name] - found["judge"]).abs().max().item()
        print(f"| {ways[name][0]} | {len(items) / seconds:.2f} | {seconds / best['judge']:.1f} | {apart:.1e} |")


def make_tiny_judge(folder: Path) -> None:
    """A judge with one random layer and a vocabulary of bytes: its own work should not hide that of the command."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    bpe = Tokenizer(models.BPE({token: i for i, token in enumerate(["<|end|>", *alphabet])}, []))
    bpe.pre_tokenizer, bpe.decoder = pre_tokenizers.ByteLevel(False), decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<|end|>", pad_token="<|end|>")
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=256,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    template = [{"role": "user", "content": "rate {{ text }}"}]
    JudgeFile(LabelSpace(["1", "2", "3"], ordinal=True).to_dict(), template).write(folder)


def memory(counts: list[int], batch_size: int) -> None:
    """Print a table of peak memory by number of rows."""
    print("| rows | seconds | peak memory, MiB |\n|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_tiny_judge(folder / "judge")
        for count in counts:
            with (folder / "in.jsonl").open("w") as file:
                file.writelines(f'{{"id": {i}, "text": "row {i % 977}"}}\n' for i in range(count))
            words = ["judge", "--model", folder / "judge", "--input", folder / "in.jsonl"]
            words += ["--out", folder / "out.parquet", "--batch-size", batch_size]
            measured = (
                "import resource, sys; from distjudge_trl.cli import main; main(standalone_mode=False);"
                "sys.stderr.write(f'\\npeak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}')"
            )
            start = time.perf_counter()
            done = subprocess.run(
                [sys.executable, "-c", measured, *map(str, words)], check=True, stderr=subprocess.PIPE, text=True
            )
            peak = int(done.stderr.rpartition("peak ")[2]) / 1024
            print(f"| {count:,} | {time.perf_counter() - start:.0f} | {peak:,.0f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", nargs="?", default="vader", help="a task; default: vader")
    parser.add_argument("--data-path", help="its official file")
    parser.add_argument("--model", default="smollm2-135m", help="default: smollm2-135m")
    parser.add_argument("--num-items", type=int, default=64, help="rows; default: 64")
    parser.add_argument("--batch-size", type=int, default=32, help="default: 32")
    parser.add_argument("--rounds", type=int, default=3, help="default: 3")
    parser.add_argument(
        "--memory", type=int, nargs="+", metavar="ROWS", help="measure memory for so many rows instead"
    )
    args = parser.parse_args()
    if args.memory:
        memory(args.memory, args.batch_size)
    else:
        speed(args)


if __name__ == "__main__":
    run_script(main)
