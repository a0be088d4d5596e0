"""What each loss leads to when few annotators rate an item and there are many items alike.

    python scripts/benchmarks/few_annotators.py dices.yaml --data-path dices_990.jsonl
    python scripts/benchmarks/few_annotators.py chaosnli --data-path chaosNLI_snli.jsonl --annotators 3 5 10

An item's true distribution is what its many annotators said. A judge sees, in place of it, items alike with m votes
each, so many that it meets every draw of m votes as often as it is likely. This prints how far from the truth the
judge comes to rest that has the least expected loss: nothing here is trained on texts, and nothing is left to chance.
docs/adversary.md explains the figures.
"""

from __future__ import annotations

import argparse
import math


import distjudge_trl  # noqa: F401  # isort: skip (before torch: it says how OpenMP's threads wait)
import numpy as np
import torch
from scipy.optimize import minimize_scalar
from scipy.special import gammaln, xlogy
from torch import Tensor
from training_votes import Votes, add_task, read_votes

from distjudge_trl.errors import UserInputError, run_script
from distjudge_trl.objective import PGDAdversary, WorstCaseAdversary, coverage_radius, kl_divergence
from distjudge_trl.report.tables import markdown_table


ALPHA = 0.8
RADIUS = 0.25
PSEUDO_COUNT = 0.25
STEPS = 100
MOST_DRAWS = 2_000
Adversary = PGDAdversary | WorstCaseAdversary


def draws(m: int, num_labels: int) -> np.ndarray:
    """All ways to give m votes to the labels `(C, K)`."""
    if num_labels == 1:
        return np.array([[m]])
    return np.concatenate(
        [
            np.column_stack([np.full(len(rest), first), rest])
            for first in range(m + 1)
            for rest in [draws(m - first, num_labels - 1)]
        ]
    )


def likelihood(counts: np.ndarray, truth: np.ndarray) -> Tensor:
    """How likely each draw `(C, K)` is where the true distributions are `(N, K)`: `(N, C)`, rows sum to 1."""
    ways = gammaln(counts.sum(-1) + 1) - gammaln(counts + 1).sum(-1)
    return torch.from_numpy(np.exp(ways + xlogy(counts[None], truth[:, None]).sum(-1)))


def at_rest(
    weights: Tensor, p: Tensor, hard: Tensor, alpha: float, adversary: Adversary, steps: int = STEPS
) -> Tensor:
    """The judges `(N, K)` at which the expected gradient is zero, against an adversary that answers them. `weights`
    `(N, C)` are the draws' probabilities, `p` and `hard` `(C, K)` their shares and reference labels.

    The gradient at the logits is q - E[alpha p' + (1 - alpha) e_r]. So q is moved towards this mean, by less and less:
    where the adversary jumps between its worst points, the steps average them.
    """
    q = weights @ p
    rows = weights.shape[0]
    for step in range(steps):
        log_q = q.log()[:, None].expand(-1, len(p), -1).reshape(-1, p.shape[-1])
        moved = adversary(p.repeat(rows, 1), log_q).view(rows, *p.shape)
        target = (weights[:, :, None] * (alpha * moved + (1 - alpha) * hard)).sum(1)
        q = q + 2 / (step + 3) * (target - q)
    return q


def judges(counts: np.ndarray, truth: np.ndarray) -> dict[str, Tensor]:
    """The judge `(N, K)` that each method leads to, when the votes of an item are one of the draws `(C, K)`."""
    weights = likelihood(counts, truth)
    p = torch.from_numpy(counts / counts.sum(-1, keepdims=True))
    most = torch.from_numpy((counts == counts.max(-1, keepdims=True)).astype(float))
    hard = most / most.sum(-1, keepdim=True)  # a tie is broken at random
    num_labels = p.shape[-1]
    smooth = (torch.from_numpy(counts) + PSEUDO_COUNT) / (counts[0].sum() + PSEUDO_COUNT * num_labels)
    mixed = {
        "single-point": hard,
        "label-smoothing": 0.9 * hard + 0.1 / num_labels,
        "kl-only": p,
        "no-adversary": ALPHA * p + (1 - ALPHA) * hard,
        f"dirichlet (lambda {PSEUDO_COUNT})": ALPHA * smooth + (1 - ALPHA) * hard,
    }
    found = {name: weights @ target for name, target in mixed.items()}
    found["distribution"] = at_rest(weights, p, hard, ALPHA, PGDAdversary(RADIUS))
    # A ball that holds the truth with 90 %: larger the fewer the votes.
    covering = coverage_radius(p, torch.from_numpy(counts.sum(-1)), 0.9).repeat(len(truth))
    found["distribution, radius from the votes"] = at_rest(weights, p, hard, ALPHA, PGDAdversary(covering))
    found["no-ce"] = at_rest(weights, p, hard, 1.0, PGDAdversary(RADIUS))
    found["worst-case"] = at_rest(weights, p, hard, ALPHA, WorstCaseAdversary(RADIUS))
    return found


def scaled(q: Tensor, truth: Tensor, votes: Votes) -> Tensor:
    """The judges with the one temperature for all that is best for the truth, as many held-out items would find it."""

    def loss(log_temperature: float) -> float:
        return distance(votes, truth, (q.log() / math.exp(log_temperature)).softmax(-1))

    best = minimize_scalar(loss, bounds=(-3, 3), method="bounded").x
    return (q.log() / math.exp(best)).softmax(-1)


def distance(votes: Votes, truth: Tensor, q: Tensor) -> float:
    """Mean KL in nats of judges from the truth, both `(N, K)`."""
    return max(votes.mean(kl_divergence(truth, q.log()).numpy()), 0.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_task(parser)
    parser.add_argument(
        "--annotators",
        type=int,
        nargs="+",
        default=[1, 2, 3, 5, 10],
        metavar="M",
        help="votes an item; default: 1 2 3 5 10",
    )
    args, rest = parser.parse_known_args()
    votes = read_votes(args, rest)
    num_labels = votes.counts.shape[1]
    if min(args.annotators) < 1:
        raise UserInputError("--annotators: at least 1.")
    if (number := math.comb(max(args.annotators) + num_labels - 1, num_labels - 1)) > MOST_DRAWS:
        raise UserInputError(
            f"--annotators {max(args.annotators)}: their votes can fall on {num_labels} labels in {number:,} ways; at"
            f" most {MOST_DRAWS:,} are computed. Take fewer annotators, or a task with fewer labels."
        )
    people = votes.counts.sum(-1).astype(int)
    truth = votes.counts / people[:, None]
    print(
        f"{args.task}: {votes.items.sum():,} items of {people.min()} to {people.max()} annotators,"
        f" {num_labels} labels, alpha {ALPHA}, epsilon {RADIUS}\n"
    )
    target = torch.from_numpy(truth)
    found = {m: judges(draws(m, num_labels), truth) for m in args.annotators}
    for title, make in [
        ("KL from the truth", lambda q: q),
        ("After temperature scaling", lambda q: scaled(q, target, votes)),
    ]:
        rows = [
            (name, *(f"{distance(votes, target, make(found[m][name])):.4f}" for m in found))
            for name in found[args.annotators[0]]
        ]
        print(markdown_table((title, *(f"{m} votes" for m in found)), rows) + "\n")
    rows = [
        (name, *(f"{votes.mean(-xlogy(q, q).sum(-1)):.3f}" for q in (found[m][name].numpy() for m in found)))
        for name in found[args.annotators[0]]
    ]
    entropy = votes.mean(-xlogy(truth, truth).sum(-1))
    print(markdown_table((f"Entropy (the truth's: {entropy:.3f})", *(f"{m} votes" for m in found)), rows))


if __name__ == "__main__":
    run_script(main)
