"""How fast a judge reads label distributions, beside lm-evaluation-harness and `generate`.

    python scripts/benchmarks/evaluation.py snli --data-path snli_1.0_test.jsonl.gz --model smollm2-135m

One process, one model in memory, the same prompts: `LocalJudge.read` as `distjudge-trl evaluate` uses it
(one forward a prompt, common beginnings once where that pays), lm-evaluation-harness's
log-likelihood of each of the K answers (its own batching, `pip install lm_eval`), and greedy `generate` of the
answer's tokens. Minimum of several rounds, taken in turn; ratios, not times, are what carries over to another machine.
"""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Callable


import distjudge_trl  # noqa: F401  # isort: skip (before torch: it says how OpenMP's threads wait)
import torch

from distjudge_trl.batching import encode_prompts, render_prompt
from distjudge_trl.data import subsample
from distjudge_trl.errors import UserInputError, run_script
from distjudge_trl.judges.local import LocalJudge
from distjudge_trl.tasks import get_task


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", help="a task")
    parser.add_argument("--data-path", help="its official file")
    parser.add_argument("--model", default="smollm2-135m", help="default: smollm2-135m")
    parser.add_argument("--num-items", type=int, default=64, help="prompts; default: 64")
    parser.add_argument("--batch-size", type=int, default=16, help="default: 16")
    parser.add_argument("--rounds", type=int, default=3, help="default: 3")
    args = parser.parse_args()
    try:
        from lm_eval.api.instance import Instance
        from lm_eval.models.huggingface import HFLM
    except ImportError:
        raise UserInputError("The benchmark needs lm-evaluation-harness: run `pip install lm_eval`.") from None
    logging.getLogger("lm_eval").setLevel(logging.ERROR)

    task = get_task(args.task)
    records = subsample(task.load(args.data_path), args.num_items)
    judge = LocalJudge(args.model, label_space=task.label_space(), template=task.template)
    harness = HFLM(pretrained=judge.model, tokenizer=judge.tokenizer, batch_size=args.batch_size)
    texts = [render_prompt(judge.tokenizer, prompt) for prompt in records["prompt"]]
    lengths = [len(ids) for ids in encode_prompts(judge.tokenizer, records["prompt"][:])]
    longest = max(len(judge.tokenizer(label, add_special_tokens=False)["input_ids"]) for label in task.labels)
    found: dict[str, torch.Tensor] = {}

    def read() -> None:
        found["read"] = torch.from_numpy(judge.read(records, args.batch_size).log_probs)

    def log_likelihood() -> None:
        requests = [
            Instance("loglikelihood", {}, (text, label), i) for i, text in enumerate(texts) for label in task.labels
        ]
        scores = torch.tensor([score for score, _ in harness.loglikelihood(requests, disable_tqdm=True)])
        found["harness"] = scores.view(len(texts), -1).log_softmax(-1)

    def generate() -> None:
        # From messages to tokens is in everyone's time.
        ids = encode_prompts(judge.tokenizer, records["prompt"][:])
        pad = judge.tokenizer.pad_token_id or 0
        order = sorted(range(len(ids)), key=lambda i: -len(ids[i]))
        for start in range(0, len(order), args.batch_size):
            rows = [ids[i] for i in order[start : start + args.batch_size]]
            width = max(map(len, rows))
            batch = torch.tensor([[pad] * (width - len(row)) + row for row in rows])
            mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
            with torch.inference_mode():
                judge.model.generate(
                    batch, attention_mask=mask, max_new_tokens=longest, do_sample=False, pad_token_id=pad
                )

    ways: dict[str, Callable[[], None]] = {"read": read, "harness": log_likelihood, "generate": generate}
    best = dict.fromkeys(ways, float("inf"))
    for _ in range(args.rounds):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            best[name] = min(best[name], time.perf_counter() - start)
    names = {
        "read": "distjudge-trl, one forward a prompt",
        "harness": f"lm-evaluation-harness, log-likelihood of {len(task.labels)} answers",
        "generate": f"generate, {longest} tokens",
    }
    print(
        f"\n{args.task}: {len(texts)} prompts of {min(lengths)} to {max(lengths)} tokens, batch"
        f" {args.batch_size}, {args.model}, {judge.model.device}, minimum of {args.rounds} rounds\n"
    )
    print("| way | prompts/s | time / ours |\n|---|---|---|")
    for name, seconds in best.items():
        print(f"| {names[name]} | {len(texts) / seconds:.1f} | {seconds / best['read']:.2f} |")
    agree = (found["read"].argmax(-1) == found["harness"].argmax(-1)).double().mean().item()
    print(
        f"\nSame likeliest answer as the harness on {100 * agree:.0f} % of the prompts: it scores whole words of one"
        " spelling, we the first token of every spelling."
    )


if __name__ == "__main__":
    run_script(main)
