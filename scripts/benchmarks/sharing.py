"""Where packing a batch pays: time and memory of packs beside padded rows, over batches of many shapes.

    python scripts/benchmarks/sharing.py
    python scripts/benchmarks/sharing.py --layers 30 --shape 16 55 40 --shape 8 600 90 --precisions bf16

A forward and a backward of the first layers of the bundled model on batches of `rows` prompts that share a beginning
and end on their own: padded, as a pack with a dense mask, as a pack with the mask that the model takes, and as
`share_prefixes="auto"` decides. In one process, the ways in turn, the minimum of several rounds. `auto` should never
be much above 1, and below wherever packs are clearly faster.
"""

import argparse
import time


import distjudge_trl  # noqa: F401  # isort: skip (before torch: it says how OpenMP's threads wait)

import torch
from peak_memory import PeakMemory
from transformers import AutoModelForCausalLM

from distjudge_trl.batching import JudgmentCollator, PrefixSharing, find_sharing, judgment_logits, read_head_in_float32
from distjudge_trl.batching.prefixes import packed_work, padded_work
from distjudge_trl.errors import run_script
from distjudge_trl.modeling.bundled import resolve_model
from distjudge_trl.runtime.precision import cpu_has_bfloat16


# Rows, tokens in common, tokens of their own.
SHAPES = [
    *((16, common, 40) for common in (0, 10, 25, 50, 100, 200)),
    *((2, common, 100) for common in (25, 50, 100, 400)),
    *((4, common, 300) for common in (50, 100, 200, 500)),
    *((8, common, 200) for common in (100, 200, 400)),
    *((32, common, 40) for common in (50, 100, 200)),
    *((64, common, 20) for common in (50, 100)),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m", help="default: smollm2-135m")
    parser.add_argument("--layers", type=int, default=4, help="default: 4")
    parser.add_argument(
        "--shape",
        type=int,
        nargs=3,
        action="append",
        metavar=("ROWS", "COMMON", "OWN"),
        help="rows, tokens in common, tokens of their own; may be given several times; default: a list of many",
    )
    parser.add_argument("--rounds", type=int, default=3, help="default: 3")
    parser.add_argument(
        "--precisions", nargs="+", choices=["float32", "bf16"], help="default: both where bf16 is fast"
    )
    parser.add_argument("--cpu-time", action="store_true", help="of all threads, for a machine that has other work")
    args = parser.parse_args()
    clock = time.process_time if args.cpu_time else time.perf_counter
    device = "cuda" if torch.cuda.is_available() else "cpu"
    path = resolve_model(args.model)
    model = AutoModelForCausalLM.from_pretrained(path, num_hidden_layers=args.layers, dtype=torch.float32).to(device)
    read_head_in_float32(model)
    model.train()
    width = model.config.hidden_size
    ways = {
        "padded": None,
        "dense": PrefixSharing(width, always=True),
        "pack": find_sharing(model, True),
        "auto": find_sharing(model, "auto"),
    }
    mask = ways["pack"].mask
    threads = "" if device == "cuda" else f", {torch.get_num_threads()} threads"
    print(f"\n{args.model}, {args.layers} layers, {device}{threads}, minimum of {args.rounds} rounds\n")
    print(
        f"| precision | rows | common | own | work in {mask} | auto packs | dense: time | memory |"
        f" {mask}: time | memory | auto: time | memory |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|---|")
    fast = device == "cuda" or cpu_has_bfloat16()
    for precision in args.precisions or ["float32", *(["bf16"] if fast else [])]:
        for count, common, own in args.shape or SHAPES:
            generator = torch.Generator().manual_seed(0)
            tokens = torch.randint(10, 40_000, (common + count * own,), generator=generator).tolist()
            beginning, ends = tokens[:common], tokens[common:]
            # Of different lengths, as prompts are: up to a fifth shorter.
            rows = [beginning + ends[i * own : (i + 1) * own - i * own // (5 * count)] for i in range(count)]
            seconds = dict.fromkeys(ways, float("inf"))
            peaks, packed = dict.fromkeys(ways, float("inf")), {}
            for _ in range(args.rounds):
                for way, sharing in ways.items():
                    batch = JudgmentCollator(0, sharing=sharing)([{"input_ids": row} for row in rows])
                    batch = {name: tensor.to(device) for name, tensor in batch.items()}
                    packed[way] = "judgment_positions" in batch
                    model.zero_grad()
                    with PeakMemory() as peak:
                        start = clock()
                        with torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"):
                            logits = judgment_logits(model, batch, sharing)
                        logits.log_softmax(-1)[:, 0].sum().backward()
                        if device == "cuda":
                            torch.cuda.synchronize()
                        seconds[way] = min(seconds[way], clock() - start)
                    peaks[way] = min(peaks[way], peak.bytes)
            ratios = [f"{of[way] / of['padded']:.2f}" for way in ("dense", "pack", "auto") for of in (seconds, peaks)]
            work = packed_work(rows, width, mask) / padded_work(rows, width)
            print(
                f"| {precision} | {count} | {common} | {own} | {work:.2f} | {'yes' if packed['auto'] else 'no'} |"
                f" {' | '.join(ratios)} |",
                flush=True,
            )


if __name__ == "__main__":
    run_script(main)
