"""The float32 head: widened as a whole, as autograd would, or as the trainer reads it.

    python scripts/benchmarks/head.py                       # the head of Qwen2.5-7B
    python scripts/benchmarks/head.py --vocabulary 49152 --width 576 --rows 16

A forward and a backward from B hidden states through a head in bfloat16 to a loss on five labels, and to the states
(frozen head, as under an adapter) or the weights, too. Ways are taken in turn in one process; the minimum of several
rounds counts, and the peak of memory beyond the head and the states. `vocab` is the loss normalised over the
vocabulary.
"""

import argparse
import time


import distjudge_trl  # noqa: F401  # isort: skip (before torch: it says how OpenMP's threads wait)

import torch
from peak_memory import PeakMemory

from distjudge_trl.batching import read_head_in_float32
from distjudge_trl.errors import run_script


class Labels:
    """Five labels, as a bound label space has them."""

    bindings = (True,)
    token_ids = ((15,), (16,), (17,), (18,), (19,))


class Model:
    def __init__(self, head: torch.nn.Linear) -> None:
        self.head = head

    def get_output_embeddings(self) -> torch.nn.Linear:
        return self.head


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vocabulary", type=int, default=152_064, help="default: 152064")
    parser.add_argument("--width", type=int, default=3584, help="default: 3584")
    parser.add_argument("--rows", type=int, default=16, help="of a batch; default: 16")
    parser.add_argument("--rounds", type=int, default=3, help="default: 3")
    args = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    head = torch.nn.Linear(args.width, args.vocabulary, bias=False, device=device, dtype=torch.bfloat16)
    states = torch.randn(args.rows, 1, args.width, device=device, dtype=torch.bfloat16)
    ids = [i for ids in Labels.token_ids for i in ids]

    def whole(hidden: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.linear(hidden.float(), head.weight.float())

    def ours(labels: Labels | None):
        read_head_in_float32(Model(head), labels)  # type: ignore[arg-type]
        return head.forward

    print(
        f"{device}, {torch.get_num_threads()} threads; head {args.vocabulary:,} x {args.width:,} in bfloat16"
        f" ({head.weight.nbytes / 2**30:.2f} GiB), {args.rows} rows\n"
    )
    print("| loss | head | way | time / whole | peak, GiB | largest difference of logits | of gradients |")
    print("|---|---|---|---|---|---|---|")
    for loss in ("labels", "vocab"):
        for frozen in (True, False):
            head.requires_grad_(not frozen)
            ways = {"whole": whole, "ours": ours(Labels() if loss == "labels" else None)}
            best = dict.fromkeys(ways, float("inf"))
            found, peaks = {}, {}
            for _ in range(args.rounds):
                for name, forward in ways.items():
                    head.weight.grad = None
                    hidden = states.clone().requires_grad_()
                    with PeakMemory() as peak:
                        start = time.perf_counter()
                        logits = forward(hidden)[:, -1]
                        scores = logits[:, ids] if loss == "vocab" else logits[:, ids].log_softmax(-1)
                        rest = logits.logsumexp(-1, keepdim=True) if loss == "vocab" else 0.0
                        (scores - rest).sum().backward()
                        if device == "cuda":
                            torch.cuda.synchronize()
                        best[name] = min(best[name], time.perf_counter() - start)
                    peaks[name] = peak.bytes / 2**30
                    found[name] = logits.detach(), hidden.grad
                    del logits, scores, rest
            (expected, gradient), (got, own) = found["whole"], found["ours"]
            differences = ((got - expected).abs().max().item(), (own - gradient).abs().max().item())
            for name in ways:
                ends = f"{differences[0]:.1e} | {differences[1]:.1e}" if name == "ours" else "- | -"
                print(
                    f"| {loss} | {'frozen' if frozen else 'trained'} | {name} | {best[name] / best['whole']:.2f} |"
                    f" {peaks[name]:.2f} | {ends} |",
                    flush=True,
                )


if __name__ == "__main__":
    run_script(main)
