"""The noise floor: the KL that the *true* human distributions would score on items with few annotators each.

With n annotators an item's empirical distribution p̂ scatters around the true p, and E[KL(p̂ ‖ p)] > 0: no judge can
go below it on average. The floor depends on how spread out the true distributions are, which must be estimated from
the same few votes. Plugging p̂ in for p understates it badly (by a third at n = 10, K = 9). We fit the population of
true distributions instead: a mixture of Dirichlets, by EM on the vote counts, with the number of components chosen by
BIC. The mixture matters: ratings are concentrated around different labels for different items, which no single
Dirichlet describes. Given the fit, an item's true distribution has a known posterior, and the floor is

    mean over items of  E_{p ~ posterior} E_{x ~ Multinomial(n, p)} KL(x / n ‖ p),

estimated by simulation with a fixed seed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.special import digamma, gammaln, logsumexp, xlogy

from distjudge_trl.evaluation.association import entropy_correlation
from distjudge_trl.evaluation.distances import item_entropy


@dataclass(frozen=True)
class NoiseFloor:
    """`value`: the floor in nats; `per_item` `(N,)`: its values per item; `num_components`: number of Dirichlets in
    the fitted population.
    """

    value: float
    per_item: np.ndarray
    num_components: int


def noise_floor(
    counts: np.ndarray, *, num_draws: int = 200, max_components: int = 32, seed: int = 0
) -> NoiseFloor | None:
    """Estimate the noise floor of a data set.

    Args:
        counts (`np.ndarray` of shape `(N, K)`, whole numbers): votes per item and label; every item needs at least
            one.
        num_draws (`int`, defaults to 200): simulated (p, x) pairs per item.
        max_components (`int`, defaults to 32): largest mixture tried (1, 2, 4, ... up to it, while BIC improves).
        seed (`int`, defaults to 0): of the simulation and of EM's start.

    Returns:
        [`NoiseFloor`], in nats. It is 0 if the fit says that everybody always agrees, and `None` if no item has two
        votes, because agreement cannot be seen then.

    Raises:
        `ValueError`: wrong shape, negative or fractional counts, an item without votes.
    """
    counts = np.asarray(counts, dtype=float)
    if counts.ndim != 2 or counts.shape[1] < 2 or not len(counts):
        raise ValueError(f"`counts` must have shape (N, K) with N >= 1 and K >= 2, got {counts.shape}.")
    if (counts < 0).any() or (counts != np.round(counts)).any() or (counts.sum(-1) < 1).any():
        raise ValueError("`counts` must be whole numbers of at least 0, with at least one vote per item.")
    if counts.sum(-1).max() < 2:
        return None
    weights, alphas = fit_dirichlet_mixture(counts, max_components=max_components, seed=seed)
    total = np.zeros(len(counts))
    for p, x in _simulate(counts, weights, alphas, num_draws, seed):
        total += (xlogy(x, x) - xlogy(x, np.maximum(p, 1e-300))).sum(-1)
    per_item = total / num_draws
    return NoiseFloor(float(per_item.mean()), per_item, len(weights))


class TrueEntropy(NamedTuple):
    """How divided people are: `mean`, the mean entropy of the true distributions, in nats, and `correlation`, the
    [`entropy_correlation`] that they would score on the votes: below 1, because few votes say little about how much
    people disagree. It is `None` if all items have the same entropy.
    """

    mean: float
    correlation: float | None


def true_entropy(counts: np.ndarray, *, num_draws: int = 20, seed: int = 0) -> TrueEntropy:
    """Entropy of the true distributions behind votes, estimated as the noise floor is.

    Args:
        counts (`np.ndarray` of shape `(N, K)`, whole numbers): votes per item and label.
        num_draws (`int`, defaults to 20): simulated (p, x) pairs per item.
        seed (`int`, defaults to 0): of the simulation and of EM's start.
    """
    counts = np.asarray(counts, dtype=float)
    weights, alphas = fit_dirichlet_mixture(counts, seed=seed)
    means, correlations = [], []
    for p, x in _simulate(counts, weights, alphas, num_draws, seed):
        log_p = np.log(np.maximum(p, 1e-300))
        means.append(item_entropy(log_p).mean())
        correlations.append(entropy_correlation(x, log_p))
    known = [value for value in correlations if value is not None]
    return TrueEntropy(float(np.mean(means)), float(np.mean(known)) if known else None)


def _simulate(
    counts: np.ndarray, weights: np.ndarray, alphas: np.ndarray, num_draws: int, seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """True distributions from the posterior of items with votes `(N, K)`, and shares of as many votes from each, both
    `(N, K)`: `num_draws` times.
    """
    rng = np.random.default_rng(seed)
    responsibilities = np.exp(_log_joint(counts, weights, alphas))
    responsibilities /= responsibilities.sum(-1, keepdims=True)
    cumulative = responsibilities.cumsum(-1)
    n = counts.sum(-1).astype(int)
    for _ in range(num_draws):
        component = (cumulative < rng.random((len(counts), 1))).sum(-1).clip(max=len(weights) - 1)
        gamma = rng.standard_gamma(counts + alphas[component]) + 1e-300
        p = gamma / gamma.sum(-1, keepdims=True)
        yield p, rng.multinomial(n, p) / n[:, None]


def fit_dirichlet_mixture(
    counts: np.ndarray, *, max_components: int = 32, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Fit a mixture of Dirichlet-multinomials to vote counts `(N, K)` by EM; the size is doubled while BIC improves.

    Returns:
        `tuple`: weights `(C,)` and Dirichlet parameters `(C, K)`.
    """
    # Items with equal votes are one row with a multiplicity. With few annotators most items have equal votes.
    rows, multiplicity = np.unique(counts, axis=0, return_counts=True)
    best, best_bic = None, np.inf
    size = 1
    while size <= max_components and size <= max(1, len(rows) // 2):
        weights, alphas, log_likelihood = _expectation_maximization(rows, multiplicity, size, seed)
        bic = (size * (counts.shape[1] + 1) - 1) * np.log(len(counts)) - 2 * log_likelihood
        if bic >= best_bic:
            break
        best, best_bic = (weights, alphas), bic
        size *= 2
    assert best is not None  # a single component always has a finite BIC
    return best


def _log_joint(rows: np.ndarray, weights: np.ndarray, alphas: np.ndarray) -> np.ndarray:
    """log weight_c + log P(row | component c), `(N, C)`, without the multinomial coefficient, which is the same for
    all components.
    """
    n, strength = rows.sum(-1)[:, None], alphas.sum(-1)[None]
    ratio = gammaln(rows[:, None] + alphas[None]) - gammaln(alphas[None])
    return np.log(weights)[None] + gammaln(strength) - gammaln(n + strength) + ratio.sum(-1)


def _expectation_maximization(
    rows: np.ndarray, multiplicity: np.ndarray, size: int, seed: int, max_rounds: int = 300
) -> tuple[np.ndarray, np.ndarray, float]:
    """EM with Minka's fixed-point step for the Dirichlet parameters. It starts at rows of the data, chosen as in
    k-means++.
    """
    rng = np.random.default_rng(seed)
    n = rows.sum(-1)
    p = (rows + 0.5 * rows.mean(0) / rows.mean()) / (n + 0.5 * rows.shape[1])[:, None]
    centers = [np.average(p, axis=0, weights=multiplicity)]
    while len(centers) < size:
        distance = multiplicity * np.min([((p - c) ** 2).sum(-1) for c in centers], axis=0)
        # Rows with the same shares (for example all tied) are one point and have the same distance from the starts.
        share = distance if distance.any() else multiplicity
        centers.append(p[rng.choice(len(p), p=share / share.sum())])
    alphas = np.maximum(np.array(centers) * (5.0 if size > 1 else 1.0), 1e-3)
    weights = np.full(size, 1 / size)
    previous = -np.inf
    for _ in range(max_rounds):
        joint = _log_joint(rows, weights, alphas)
        evidence = logsumexp(joint, axis=1)
        log_likelihood = float(multiplicity @ evidence)
        if log_likelihood - previous < 1e-6 * abs(log_likelihood):
            break
        previous = log_likelihood
        share = np.exp(joint - evidence[:, None]) * multiplicity[:, None]
        weights = np.maximum(share.sum(0), 1e-12)
        weights /= weights.sum()
        for _ in range(3):
            strength = alphas.sum(-1)
            gain = np.einsum("nc,nck->ck", share, digamma(rows[:, None] + alphas[None]) - digamma(alphas[None]))
            cost = (share * (digamma(n[:, None] + strength[None]) - digamma(strength[None]))).sum(0)
            # The bounds keep a component of unanimous (or exactly multinomial) items from running off to 0 or
            # infinity.
            alphas = np.clip(alphas * gain / np.maximum(cost, 1e-300)[:, None], 1e-4, 1e4)
    return weights, alphas, previous
