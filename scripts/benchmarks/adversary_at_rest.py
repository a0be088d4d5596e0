"""Where training against an adversary comes to rest, if the judge can give every distribution.

    python scripts/benchmarks/adversary_at_rest.py vader
    python scripts/benchmarks/adversary_at_rest.py snli --data-path snli_1.0_test.jsonl --split group

Each different vote distribution of a task's training items gets free logits, which plain gradient descent moves from
zero, with the learning rate falling linearly to zero, as in a recipe. Against each adversary it prints how far from
the saddle point q* this ends, and how much more the worst case costs there than at q*.
"""

from __future__ import annotations

import argparse


import distjudge_trl  # noqa: F401  # isort: skip (before torch: it says how OpenMP's threads wait)
import numpy as np
import torch
from torch import Tensor
from training_votes import Votes, add_task, read_votes

from distjudge_trl.errors import UserInputError, run_script
from distjudge_trl.objective import PGDAdversary, WorstCaseAdversary, hybrid_loss, kl_divergence, minimax_target
from distjudge_trl.report.tables import markdown_table


Adversary = PGDAdversary | WorstCaseAdversary
LEARNING_RATE = 1.0


def descend(
    p: Tensor, adversary: Adversary | None, alpha: float, steps: int, learning_rate: float = LEARNING_RATE
) -> tuple[Tensor, Tensor]:
    """Log-probabilities `(B, K)` after gradient descent on the loss against the adversary's answer to each step, for
    distributions `(B, K)` whose first label is the reference, and the norms `(B,)` of the last gradients.
    """
    logits = torch.zeros_like(p)
    hard = torch.zeros_like(p)
    hard[:, 0] = 1.0
    gradient = torch.zeros_like(p)
    for step in range(steps):
        log_q = logits.log_softmax(-1)
        target = p if adversary is None else adversary(p, log_q)
        gradient = log_q.exp() - alpha * target - (1 - alpha) * hard
        logits = logits - learning_rate * (1 - step / steps) * gradient
    return logits.log_softmax(-1), gradient.norm(dim=-1)


def worst_loss(p: Tensor, log_q: Tensor, radius: float, alpha: float) -> Tensor:
    """The robust objective (eq. 7) of each row `(B,)`, in nats."""
    return hybrid_loss(log_q, WorstCaseAdversary(radius)(p, log_q), _reference(p), alpha)


def measure(votes: Votes, radius: float, alpha: float, steps: int) -> list[tuple[str, ...]]:
    """Rows of the table."""
    p = torch.from_numpy(votes.counts / votes.counts.sum(-1, keepdims=True))
    target = minimax_target(p, _reference(p), radius, alpha)
    least = worst_loss(p, target.log(), radius, alpha)
    adversaries = {"none": None, "pgd": PGDAdversary(radius), "worst_case": WorstCaseAdversary(radius)}
    ends = {name: descend(p, adversary, alpha, steps) for name, adversary in adversaries.items()}
    table = []
    for name, (log_q, gradient) in {**ends, "minimax": (target.log(), None)}.items():
        figures = {
            "KL(q || q*)": kl_divergence(log_q.exp(), target.log()),
            "KL(p || q)": kl_divergence(p, log_q),
            "loss above least": worst_loss(p, log_q, radius, alpha) - least,
            "share of labels without votes": (log_q.exp() * (p == 0)).sum(-1),
        }
        means = [f"{votes.mean(np.maximum(values.numpy(), 0)):.4f}" for values in figures.values()]
        table.append((f"{alpha:g}", name, *means, "-" if gradient is None else f"{gradient.max():.1e}"))
    return table


def _reference(p: Tensor) -> Tensor:
    return torch.zeros(len(p), dtype=torch.long)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_task(parser)
    parser.add_argument("--alpha", type=float, nargs="+", default=[0.8, 1.0], help="default: 0.8 1")
    parser.add_argument("--radius", type=float, default=0.25, help="default: 0.25")
    parser.add_argument("--steps", type=int, default=10_000, help="of gradient descent; default: 10000")
    args, rest = parser.parse_known_args()
    if not all(0 < alpha <= 1 for alpha in args.alpha) or not args.radius > 0 or not args.steps > 0:
        raise UserInputError("--alpha must be above 0 and at most 1, --radius and --steps above 0.")
    votes = read_votes(args, rest)
    print(f"{args.task}: {votes.items.sum():,} training items, {len(votes.items)} different distributions\n")
    header = (
        "alpha",
        "adversary",
        "KL(q, q*)",
        "KL(p, q)",
        "loss above q*'s",
        "labels without votes",
        "last gradient",
    )
    print(
        markdown_table(header, [row for alpha in args.alpha for row in measure(votes, args.radius, alpha, args.steps)])
    )


if __name__ == "__main__":
    run_script(main)
