"""How much of what the adversary does in the end is smoothing, on the votes of a task's training items.

    python scripts/benchmarks/minimax_as_smoothing.py vader
    python scripts/benchmarks/minimax_as_smoothing.py md_agreement --data-path lewidi2023

For each alpha and radius: the saddle point q* of every item (`objective/minimax.py`), and the Dirichlet smoothing
(n p + lambda) / (n + K lambda) and label smoothing (1 - s) p + s / K that come closest to it, with the least mean of
KL(q* || smoothed). Then how well they predict a vote that is left out: the best lambda, and q* at each radius, with
the lambda that is closest to it. docs/adversary.md explains the columns.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple


import distjudge_trl  # noqa: F401  # isort: skip (before torch: it says how OpenMP's threads wait)
import numpy as np
import torch
from scipy.optimize import minimize_scalar
from scipy.special import rel_entr
from training_votes import Votes, add_task, read_votes

from distjudge_trl.data import choose_pseudo_count
from distjudge_trl.errors import UserInputError, run_script
from distjudge_trl.objective import minimax_target
from distjudge_trl.report.tables import markdown_table


RADII = (0.05, 0.1, 0.15, 0.2, 0.25)
# Left-out votes are also predicted with wider balls, because the best radius may be one of them.
WIDER = (0.35, 0.5, 0.7)
Smoothing = Callable[[float], np.ndarray]


class Fit(NamedTuple):
    """The smoothing of a family that is closest to q*: its strength, and the mean of KL(q* || smoothed) that is left
    in nats, on all items.
    """

    strength: float
    left: float
    smoothed: np.ndarray


def saddle_points(counts: np.ndarray, radius: float, alpha: float) -> np.ndarray:
    """q* `(N, K)` of votes `(N, K)` whose first label is the reference."""
    p = torch.from_numpy(counts / counts.sum(-1, keepdims=True))
    return minimax_target(p, torch.zeros(len(p), dtype=torch.long), radius, alpha).numpy()


def dirichlet(counts: np.ndarray) -> Smoothing:
    """Of votes `(N, K)`, for a lambda above 0."""
    n, num_labels = counts.sum(-1, keepdims=True), counts.shape[1]
    return lambda pseudo_count: (counts + pseudo_count) / (n + num_labels * pseudo_count)


def label_smoothing(counts: np.ndarray) -> Smoothing:
    """Of votes `(N, K)`, for an s in (0, 1)."""
    p = counts / counts.sum(-1, keepdims=True)
    return lambda s: (1 - s) * p + s / counts.shape[1]


def with_cross_entropy(smooth: Smoothing, alpha: float) -> Smoothing:
    """What a judge comes to that is trained on smoothed targets and the first label, as by `--method dirichlet`."""

    def mix(strength: float) -> np.ndarray:
        mixed = alpha * smooth(strength)
        mixed[:, 0] += 1 - alpha
        return mixed

    return mix


def kl(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """KL(p || q) `(N,)` in nats; SciPy's, so that 0 log 0 = 0."""
    return np.asarray(rel_entr(p, q).sum(-1))


def fit(smooth: Smoothing, votes: Votes, target: np.ndarray, largest: float) -> Fit:
    """The strength in [1e-5, largest] at which the mean of KL(target || smoothed) is least."""
    found = minimize_scalar(
        lambda x: votes.mean(kl(target, smooth(math.exp(x)))),
        bounds=(math.log(1e-5), math.log(largest)),
        method="bounded",
        options={"xatol": 1e-6},
    )
    strength = math.exp(found.x)
    return Fit(strength, float(found.fun), smooth(strength))


def explained(
    votes: Votes, target: np.ndarray, smoothed: np.ndarray, start: np.ndarray, rows: np.ndarray | None = None
) -> float:
    """Which share of the mean KL(start || q*) goes away if the start is smoothed: 1 if the smoothing is q*, 0 if it is
    of no use, negative if it leads away from q*.
    """
    effect = votes.mean(kl(start, target), rows)
    return 1 - votes.mean(kl(smoothed, target), rows) / effect if effect > 0 else float("nan")


def sharpened(votes: Votes, target: np.ndarray) -> float:
    """Share of the divided items whose q* has a lower entropy than p, which no smoothing can give."""
    p = votes.counts / votes.counts.sum(-1, keepdims=True)
    uniform = np.full_like(p, 1 / p.shape[1])
    return votes.mean((kl(target, uniform) > kl(p, uniform) + 1e-6).astype(float), ~votes.unanimous)


def closest_smoothing(votes: Votes, radii: list[float], alphas: list[float]) -> list[tuple[str, ...]]:
    """Rows of the first table."""
    p = votes.counts / votes.counts.sum(-1, keepdims=True)
    smooth = dirichlet(votes.counts)
    table = []
    for alpha in alphas:
        plain = with_cross_entropy(smooth, alpha)(0.0)
        for radius in radii:
            target = saddle_points(votes.counts, radius, alpha)
            prior = fit(smooth, votes, target, 1e3)
            labels = fit(label_smoothing(votes.counts), votes, target, 0.999)
            mixed = fit(with_cross_entropy(smooth, alpha), votes, target, 1e3)
            shares = (
                explained(votes, target, prior.smoothed, p),
                explained(votes, target, prior.smoothed, p, ~votes.unanimous),
                explained(votes, target, mixed.smoothed, plain),
                sharpened(votes, target),
            )
            all_items, divided, beyond, sharper = ("-" if math.isnan(x) else f"{100 * x:.0f} %" for x in shares)
            table.append(
                (
                    *(f"{alpha:g}", f"{radius:g}", f"{votes.mean(kl(p, target)):.4f}"),
                    *(f"{prior.strength:.3f}", f"{prior.left:.4f}", all_items, divided),
                    *(f"{labels.strength:.3f}", f"{labels.left:.4f}"),
                    *(f"{votes.mean(kl(plain, target)):.4f}", f"{mixed.strength:.3f}", f"{mixed.left:.4f}", beyond),
                    sharper,
                )
            )
    return table


class LeftOut(NamedTuple):
    """Every way to leave one vote out: the `rest` `(M, K)` of the counts, the left-out `label` `(M,)` and how many
    votes of the data set this is, `weight` `(M,)`.
    """

    rest: np.ndarray
    label: np.ndarray
    weight: np.ndarray

    def loss(self, predict: Callable[[np.ndarray], np.ndarray]) -> float:
        """Mean over votes of -log of the probability that `predict` gives to the left-out one, from the others."""
        # The same rest is met again and again; q* takes milliseconds.
        order = np.argsort(-self.rest, axis=-1, kind="stable")
        rows, inverse = np.unique(np.take_along_axis(self.rest, order, -1), axis=0, return_inverse=True)
        place = np.argsort(order, axis=-1)[np.arange(len(self.label)), self.label]
        chances = predict(rows)[inverse.reshape(-1), place]
        return float(-(np.log(np.maximum(chances, 1e-300)) @ self.weight) / self.weight.sum())


def leave_out(votes: Votes) -> LeftOut:
    """All left-out votes of items with two votes or more."""
    row, label = np.nonzero(votes.counts * (votes.counts.sum(-1, keepdims=True) > 1))
    rest = votes.counts[row].copy()
    rest[np.arange(len(row)), label] -= 1
    return LeftOut(rest, label, votes.counts[row, label] * votes.items[row])


def prediction(votes: Votes, radii: list[float]) -> list[tuple[str, ...]]:
    """Rows of the second table: how well a left-out vote is predicted, in nats."""
    pseudo_count = choose_pseudo_count(np.repeat(votes.counts, votes.items, axis=0).tolist())
    if pseudo_count is None:
        return []
    unseen = leave_out(votes)
    table = [("Dirichlet", f"{pseudo_count:.3f}", f"{unseen.loss(lambda rest: dirichlet(rest)(pseudo_count)):.4f}")]
    for radius in radii:
        predict = partial(saddle_points, radius=radius, alpha=1.0)
        closest = fit(dirichlet(votes.counts), votes, predict(votes.counts), 1e3)
        table.append((f"q* at radius {radius:g}", f"{closest.strength:.3f}", f"{unseen.loss(predict):.4f}"))
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_task(parser)
    parser.add_argument("--alpha", type=float, nargs="+", default=[0.8, 1.0], help="default: 0.8 1")
    parser.add_argument("--radius", type=float, nargs="+", default=list(RADII), help="default: 0.05 to 0.25")
    args, rest = parser.parse_known_args()
    if not all(0 < alpha <= 1 for alpha in args.alpha) or not all(radius > 0 for radius in args.radius):
        raise UserInputError("--alpha must be above 0 and at most 1, --radius above 0.")
    votes = read_votes(args, rest)
    n = np.repeat(votes.counts.sum(-1), votes.items)
    print(
        f"{args.task}: {len(n):,} training items, {votes.counts.shape[1]} labels, {n.min():.0f} to {n.max():.0f} votes"
        f" (median {np.median(n):.0f}), {100 * votes.mean(votes.unanimous.astype(float)):.0f} % unanimous\n"
    )
    header = (
        *("alpha", "radius", "KL(p, q*)", "lambda", "left", "explained", "explained, divided", "s", "left"),
        *("KL(plain, q*)", "lambda with CE", "left", "explained", "sharper"),
    )
    print(markdown_table(header, closest_smoothing(votes, args.radius, args.alpha)), flush=True)
    if table := prediction(votes, sorted({*args.radius, *WIDER})):
        print(f"\n{markdown_table(('a left-out vote, predicted by', 'lambda', 'loss'), table)}")


if __name__ == "__main__":
    run_script(main)
