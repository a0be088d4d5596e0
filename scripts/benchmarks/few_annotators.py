"""What each loss leads to when few annotators rate an item and there are many items alike.

    python scripts/benchmarks/few_annotators.py dices.yaml --data-path dices_990.jsonl --votes 3 5 10
    python scripts/benchmarks/few_annotators.py hs_brexit --data-path lewidi2023 --truths fitted --votes 6

The judge sees, for an item's true distribution, all draws of m votes from it, each as often as it is likely. This
prints how far from the truth the judge is at which the trainer's expected gradient is zero. Nothing is trained on
texts. Truths are what an item's many annotators said (`observed`), or, where few rate an item, are drawn from the
mixture of Dirichlets that the noise floor fits to all items (`fitted`). docs/adversary.md explains the figures.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple


import distjudge_trl  # noqa: F401  # isort: skip (before torch: it says how OpenMP's threads wait)
import numpy as np
import torch
from scipy.stats import multinomial
from torch import Tensor
from training_votes import add_task, read_counts

from distjudge_trl.calibration.scaling import fit_temperature
from distjudge_trl.errors import UserInputError, run_script
from distjudge_trl.evaluation.distances import item_entropy, item_kl
from distjudge_trl.evaluation.noise_floor import fit_dirichlet_mixture
from distjudge_trl.objective import PGDAdversary, WorstCaseAdversary, coverage_radius, dirichlet_smoothing
from distjudge_trl.report.tables import markdown_table


ALPHA = 0.8
RADIUS = 0.25
PSEUDO_COUNT = 0.25
STEPS = 200
# More ways in which votes can fall than this are drawn, this many for each truth.
MOST_WAYS = 1_000
# As `distjudge-trl train` calls them; dirichlet with the lambda above, coverage is distribution with
# `--radius_scaling coverage`.
METHODS = (
    *("single-point", "label-smoothing", "kl-only", "no-adversary", "dirichlet"),
    *("distribution", "coverage", "no-ce", "worst-case"),
)
Adversary = PGDAdversary | WorstCaseAdversary


class Draws(NamedTuple):
    """What m annotators may say about items of N true distributions: `counts` `(N, C, K)` and how likely they are
    there, `weights` `(N, C)`. `truth` `(N, K)` is the mean of their shares. All in float64.
    """

    counts: Tensor
    weights: Tensor
    truth: Tensor

    def expected(self, values: Tensor) -> Tensor:
        """Mean over the draws of values `(N, C, K)`: `(N, K)`."""
        return (self.weights[..., None] * values).sum(1)


def ways(m: int, num_labels: int) -> np.ndarray:
    """All ways to give m votes to the labels `(C, K)`."""
    if num_labels == 1:
        return np.array([[m]])
    return np.concatenate(
        [
            np.column_stack([np.full(len(rest), first), rest])
            for first in range(m + 1)
            for rest in [ways(m - first, num_labels - 1)]
        ]
    )


def make_draws(truth: np.ndarray, m: int, seed: int = 0) -> Draws:
    """All ways in which m votes can fall if the true distributions are `(N, K)`, or many random ones if they are too
    many; the mean of the random ones is the truth then.
    """
    number, num_labels = truth.shape
    if math.comb(m + num_labels - 1, num_labels - 1) <= MOST_WAYS:
        counts = ways(m, num_labels)
        weights = multinomial.pmf(counts, m, truth[:, None])
        return Draws(*map(torch.from_numpy, (np.tile(counts.astype(float), (number, 1, 1)), weights, truth)))
    rng = np.random.default_rng(seed)
    counts = np.stack([rng.multinomial(m, row, MOST_WAYS) for row in truth]).astype(float)
    weights = np.full(counts.shape[:2], 1 / MOST_WAYS)
    return Draws(*map(torch.from_numpy, (counts, weights, counts.mean(1) / m)))


def hard_labels(counts: Tensor, ties: str) -> Tensor:
    """Reference labels as distributions `(N, C, K)`: the first of the most frequent ones, or each of them alike."""
    most = (counts == counts.max(-1, keepdim=True).values).double()
    if ties == "first":
        return torch.nn.functional.one_hot(most.argmax(-1), counts.shape[-1]).double()
    return most / most.sum(-1, keepdim=True)


def at_rest(draws: Draws, hard: Tensor, alpha: float, adversary: Adversary, steps: int = STEPS) -> Tensor:
    """The judges `(N, K)` at which the expected gradient is zero, against an adversary that answers them. `hard`
    `(N, C, K)` are the reference labels.

    The gradient at the logits is q - E[alpha p' + (1 - alpha) e_r]. So q is moved towards this mean, by less and less:
    where the adversary jumps between its worst points, the steps average them.
    """
    q = draws.truth
    p = draws.counts / draws.counts.sum(-1, keepdim=True)
    flat = p.reshape(-1, p.shape[-1])
    for step in range(steps):
        log_q = q.log()[:, None].expand(p.shape).reshape(flat.shape)
        target = draws.expected(alpha * adversary(flat, log_q).view(p.shape) + (1 - alpha) * hard)
        q = q + 2 / (step + 3) * (target - q)
    return q


def judges(draws: Draws, ties: str, methods: Collection[str] | None = None) -> Iterator[tuple[str, Tensor]]:
    """Each method, or these alone, and the judges `(N, K)` that it leads to."""
    hard = hard_labels(draws.counts, ties)
    m, num_labels = draws.counts.sum(-1), draws.counts.shape[-1]
    p = draws.counts / m[..., None]
    # A ball that holds the truth with 90 %: larger the fewer the votes.
    covering = coverage_radius(p.flatten(0, 1), m.flatten(), 0.9)
    targets = {
        "single-point": hard,
        "label-smoothing": 0.9 * hard + 0.1 / num_labels,
        "kl-only": p,
        "no-adversary": ALPHA * p + (1 - ALPHA) * hard,
        "dirichlet": ALPHA * dirichlet_smoothing(p, m, PSEUDO_COUNT) + (1 - ALPHA) * hard,
    }
    adversaries = {
        "distribution": (ALPHA, PGDAdversary(RADIUS)),
        "coverage": (ALPHA, PGDAdversary(covering)),
        "no-ce": (1.0, PGDAdversary(RADIUS)),
        "worst-case": (ALPHA, WorstCaseAdversary(RADIUS)),
    }
    for name in methods or METHODS:
        if name in targets:
            yield name, draws.expected(targets[name])
        else:
            yield name, at_rest(draws, hard, *adversaries[name])


def figures(truth: np.ndarray, q: np.ndarray) -> tuple[float, float, float]:
    """Of judges and truths `(N, K)`, means in nats: KL from the truth, the same after the temperature that is best for
    the truth, as many held-out items would find it, and the judges' entropy.
    """
    with np.errstate(divide="ignore"):  # a label that is never the majority
        log_q = np.log(q)
    scaled = fit_temperature(truth, log_q)(log_q)
    distances = (max(float(item_kl(truth, each).mean()), 0.0) for each in (log_q, scaled))
    return (*distances, float(item_entropy(log_q).mean()))


def measure(
    truth: np.ndarray, annotators: list[int], ties: str, methods: Collection[str] | None
) -> Mapping[str, list[list[str]]]:
    """Rows of the tables, by title."""
    tables: dict[str, dict[str, list[str]]] = {"KL from the truth": {}, "+ temperature": {}, "entropy": {}}
    for m in annotators:
        draws = make_draws(truth, m)
        for name, q in [("the truth", draws.truth), *judges(draws, ties, methods)]:
            for rows, value in zip(tables.values(), figures(draws.truth.numpy(), q.numpy()), strict=True):
                rows.setdefault(name, []).append(f"{value:.4f}")
    return {title: [[name, *cells] for name, cells in rows.items()] for title, rows in tables.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_task(parser)
    parser.add_argument(
        "--votes", type=int, nargs="+", default=[1, 2, 3, 5, 10], metavar="M", help="an item; default: 1 2 3 5 10"
    )
    parser.add_argument("--truths", choices=("observed", "fitted"), default="observed", help="default: observed")
    parser.add_argument("--max-truths", type=int, default=100, help="so many of them, at random; default: 100")
    parser.add_argument(
        "--ties", choices=("first", "random"), default="first", help="as --majority_ties; default: first"
    )
    parser.add_argument("--methods", nargs="+", choices=METHODS, help="default: all")
    args, rest = parser.parse_known_args()
    if min(*args.votes, args.max_truths) < 1:
        raise UserInputError("--votes and --max-truths: at least 1.")
    counts, rng = read_counts(args, rest), np.random.default_rng(0)
    if args.truths == "observed":
        chosen = rng.permutation(len(counts))[: args.max_truths]
        truth = counts[chosen] / counts[chosen].sum(-1, keepdims=True)
    else:
        weights, alphas = fit_dirichlet_mixture(counts)
        truth = np.stack([rng.dirichlet(alphas[rng.choice(len(weights), p=weights)]) for _ in range(args.max_truths)])
    print(
        f"{args.task}: {len(truth)} truths, {args.truths}, of {counts.shape[1]} labels; alpha {ALPHA}, epsilon"
        f" {RADIUS}, ties: {args.ties}\n"
    )
    for title, rows in measure(truth, args.votes, args.ties, args.methods).items():
        print(markdown_table((title, *(f"{m} votes" for m in args.votes)), rows) + "\n")


if __name__ == "__main__":
    run_script(main)
