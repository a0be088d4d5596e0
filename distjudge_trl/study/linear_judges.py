"""Linear judges: softmaxes over linear functions of fixed features, trained with the trainer's losses.

They need seconds where training a language model needs half an hour, so that many seeds, numbers of items and of
annotators and settings of the loss can be tried.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from scipy.special import log_softmax
from torch import Tensor

from distjudge_trl.calibration.scaling import fit_temperature
from distjudge_trl.errors import UserInputError
from distjudge_trl.evaluation.association import entropy_correlation
from distjudge_trl.evaluation.baselines import question_priors, training_prior
from distjudge_trl.evaluation.distances import item_accuracy, item_kl
from distjudge_trl.evaluation.statistics import Estimate, paired_difference
from distjudge_trl.methods import METHODS
from distjudge_trl.study.groups import REFERENCE
from distjudge_trl.study.linear_features import Block, Items
from distjudge_trl.trainer import DistributionSFTConfig
from distjudge_trl.trainer.perturbation import make_adversary, row_losses


# Methods with settings of their own: a quarter of a vote for every label (recipes choose how much on validation
# items), and the radius from each item's votes.
_OWN = {
    "dirichlet": {**METHODS["dirichlet"].fixed, "target_smoothing": 0.25},
    "coverage": {**METHODS["distribution"].fixed, "radius_scaling": "coverage"},
}
CHOICES = tuple(name for name in (*METHODS, "coverage") if name != "raw")
# Part of the training items on which training stops and the temperature is fitted.
HELD_OUT = 0.2
# Fewer items choose neither a step nor a temperature.
FEWEST = 10
# Gradient steps at most, how often the held-out items are looked at, and how long without a lower KL there.
STEPS, EVERY, PATIENCE = 3_000, 5, 100
LEARNING_RATE, MOMENTUM = 1.0, 0.9


class Point(NamedTuple):
    """What a judge is trained with: so many items, so many annotators of each (0: all of them; "1,3,10": each item
    draws one of these numbers), alpha and epsilon.
    """

    items: int
    annotators: int | str
    alpha: float
    radius: float


class Outcome(NamedTuple):
    """What a judge scores on the test items: KL as trained and after temperature scaling, in nats; accuracy, entropy
    correlation and `steps` of gradient descent of the scaled one.
    """

    method: str
    point: Point
    seed: int
    kl: float
    scaled_kl: float
    accuracy: float
    entropy_correlation: float
    steps: int


def draw_annotators(counts: np.ndarray, annotators: int | str, rng: np.random.Generator) -> np.ndarray:
    """The votes of so many of each item's annotators `(N, K)` as [`Point`] says, or of all where there are fewer."""
    if not annotators:
        return counts
    whole = np.rint(counts).astype(int)
    if isinstance(annotators, str):
        numbers = rng.choice([int(number) for number in annotators.split(",")], size=len(whole))
    else:
        numbers = np.full(len(whole), annotators)
    drawn = [rng.multivariate_hypergeometric(row, min(m, row.sum())) for row, m in zip(whole, numbers, strict=True)]
    return np.stack(drawn).astype(float)


def hold_out(groups: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Which items `(N,)` are held out: whole groups, a fifth of all items or a little more."""
    names, sizes = np.unique(groups, return_counts=True)
    order = rng.permutation(len(names))
    before = np.cumsum(sizes[order]) - sizes[order]
    return np.isin(groups, names[order[before < HELD_OUT * len(groups)]])


def settings_of(method: str, alpha: float, radius: float) -> DistributionSFTConfig:
    """The trainer's settings of a method."""
    fixed = _OWN.get(method) or {**METHODS[method].defaults, **METHODS[method].fixed}
    own = {"alpha": alpha, "perturbation_radius": radius, **fixed}
    return DistributionSFTConfig(output_dir=tempfile.gettempdir(), report_to="none", use_cpu=True, **own)


class LinearJudge:
    """Weights `(D, K)` for every block of features and biases `(K,)` that begin at the training prior, and Nesterov's
    gradient descent. Stopped early it is regularised as by a weight decay, the less the longer it runs.
    """

    def __init__(self, items: Items) -> None:
        self.features = items.features
        # Products with the transpose are faster row by row; of an array it is a view.
        self.transposed = [block.T if isinstance(block, np.ndarray) else block.T.tocsr() for block in items.features]
        self.biases = np.log(items.counts.sum(0) + 0.5).astype(np.float32)
        self.weights = [np.zeros((block.shape[1], len(self.biases)), dtype=np.float32) for block in items.features]
        self.speed = [np.zeros_like(values) for values in (*self.weights, self.biases)]

    def _logits(self, features: Sequence[Block]) -> np.ndarray:
        return np.asarray(sum((b @ w for b, w in zip(features, self.weights, strict=True)), start=self.biases))

    def log_q(self, features: Sequence[Block]) -> np.ndarray:
        """Label log-probabilities `(N, K)`."""
        return np.asarray(log_softmax(self._logits(features), axis=-1))

    def step(self, loss: Callable[[Tensor], Tensor]) -> None:
        """One step down the mean of a loss `(N,)` of log-probabilities `(N, K)`."""
        logits = torch.from_numpy(self._logits(self.features)).requires_grad_()
        loss(torch.log_softmax(logits, dim=-1)).mean().backward()
        assert logits.grad is not None
        slopes = logits.grad.numpy()
        gradients = [*(block @ slopes for block in self.transposed), slopes.sum(0)]
        for values, speed, gradient in zip((*self.weights, self.biases), self.speed, gradients, strict=True):
            speed *= MOMENTUM
            speed += gradient
            values -= LEARNING_RATE * (gradient + MOMENTUM * speed)


class Answers(NamedTuple):
    """Log-probabilities for the test items `(N, K)`, and after how many steps."""

    log_q: np.ndarray
    steps: int


def train(items: Items, held_out: Items, tested: Items, args: DistributionSFTConfig) -> tuple[Answers, Answers]:
    """Train on all items at once. The answers are those of the step at which the held-out items have the lowest KL,
    and those after temperature scaling, of the step at which they have the lowest KL after it.
    """
    judge, adversary = LinearJudge(items), make_adversary(args)
    p, num_annotators = torch.from_numpy(items.shares).float(), torch.from_numpy(items.counts.sum(-1))
    reference = p.argmax(-1)
    lowest, best = [np.inf, np.inf], [Answers(np.empty(0), 0)] * 2
    for step in range(STEPS + 1):
        if step % EVERY == 0:
            answers = judge.log_q(held_out.features)
            scaling = fit_temperature(held_out.shares, answers)
            for reading, found in enumerate((answers, scaling(answers))):
                kl = item_kl(held_out.shares, found).mean()
                if kl < lowest[reading]:
                    there = judge.log_q(tested.features)
                    lowest[reading], best[reading] = kl, Answers(scaling(there) if reading else there, step)
            if step >= max(each.steps for each in best) + PATIENCE:
                break
        judge.step(lambda log_q: row_losses(args, adversary, log_q, p, reference, num_annotators).losses)
    return best[0], best[1]


class Measured(NamedTuple):
    """A judge's figures, its KL on every test item as trained and after temperature scaling, `(2, N)`, and what it
    answers after scaling: log-probabilities `(N, K)`.
    """

    outcome: Outcome
    item_kl: np.ndarray
    log_q: np.ndarray


class Comparison(NamedTuple):
    """The mean over test items and seeds of a method's KL minus that of KL + CE, as trained and after temperature
    scaling of both, with 95 % intervals over items.
    """

    method: str
    point: Point
    plain: Estimate
    scaled: Estimate


def draw(pool: Items, point: Point, seed: int) -> tuple[Items, Items]:
    """The items of a point to train on, and those that are held out.

    Raises:
        [`UserInputError`]: fewer than ten of either.
    """
    rng = np.random.default_rng(seed)
    drawn = pool.take(rng.permutation(len(pool.counts))[: point.items])
    drawn = drawn._replace(counts=draw_annotators(drawn.counts, point.annotators, rng))
    is_held_out = hold_out(drawn.groups, rng)
    trained, held_out = drawn.take(~is_held_out), drawn.take(is_held_out)
    if min(len(trained.counts), len(held_out.counts)) < FEWEST:
        raise UserInputError(
            f"Too few training items: {len(trained.counts)} to train on and {len(held_out.counts)} held out (whole"
            f" groups). At least {FEWEST} are needed of each."
        )
    return trained, held_out


def measure(
    pool: Items, tested: Items, methods: Sequence[str], points: Iterable[Point], seeds: Iterable[int]
) -> Iterable[Measured]:
    """A judge for every point, seed and method. A seed draws the items, their annotators and which are held out, and
    so it is the same for all methods of a point. Before the first judge all draws are tried.

    Raises:
        [`UserInputError`]: fewer than ten items to train on, or held out; all test items are of one group, so that
            differences have no interval.
    """
    points, seeds = list(points), list(seeds)
    if len(methods) > 1 and len(set(tested.groups.tolist())) == 1:
        raise UserInputError("All test items are of one group: differences have no interval. Choose another --split.")
    without_features = pool._replace(features=())
    for point, seed in itertools.product(points, seeds):
        draw(without_features, point, seed)
    balls = dict.fromkeys((point.alpha, point.radius) for point in points)
    settings = {(method, *ball): settings_of(method, *ball) for method, ball in itertools.product(methods, balls)}
    for point, seed in itertools.product(points, seeds):
        trained, held_out = draw(pool, point, seed)
        for method in methods:
            plain, scaled = train(trained, held_out, tested, settings[method, point.alpha, point.radius])
            both = np.stack([item_kl(tested.shares, found.log_q) for found in (plain, scaled)])
            outcome = Outcome(
                method,
                point,
                seed,
                float(both[0].mean()),
                float(both[1].mean()),
                float(item_accuracy(tested.shares, scaled.log_q).mean()),
                float(entropy_correlation(tested.shares, scaled.log_q) or 0.0),
                scaled.steps,
            )
            yield Measured(outcome, both, scaled.log_q)


def compare(measured: Sequence[Measured], groups: Sequence[str]) -> list[Comparison]:
    """Every method beside KL + CE, wherever both were trained. `groups` `(N,)` are those of the test items, of which
    [`measure`] wants two or more.
    """
    found: dict[tuple[Point, str], list[np.ndarray]] = {}
    for one in measured:
        found.setdefault((one.outcome.point, one.outcome.method), []).append(one.item_kl)
    means = {key: np.mean(values, axis=0) for key, values in found.items()}
    return [
        Comparison(
            method, point, *(paired_difference(own[i], means[point, REFERENCE][i], groups) for i in range(len(own)))
        )
        for (point, method), own in means.items()
        if method != REFERENCE and (point, REFERENCE) in means
    ]


def summary(pool: Items, tested: Items, floor: float, part_of: Callable[[str], str]) -> dict[str, float]:
    """What stands beside the judges: the number of test items, their noise floor, the training prior's KL, that of the
    prior of each question, if there are several (`part_of` an id), and the limit of steps.
    """
    constant = np.broadcast_to(training_prior(pool.shares), tested.counts.shape)
    kl = float(item_kl(tested.shares, constant).mean())
    found = {"test_items": len(tested.counts), "noise_floor": floor, "prior_kl": kl, "most_steps": STEPS}
    trained, asked = ([part_of(name) for name in items.ids.tolist()] for items in (pool, tested))
    if len(set(asked)) > 1:
        priors = question_priors(pool.shares, trained, asked)
        own = np.stack([priors[part] for part in asked])
        found["question_prior_kl"] = float(item_kl(tested.shares, own).mean())
    return found
