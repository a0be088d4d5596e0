"""The losses of the paper (eqs. 4-6), on label distributions, and a term for labels that have an order.

Shape suffixes: K = labels; leading dimensions are free. All values are in nats, except those of the term for ordered
labels, which have no unit.
"""

from __future__ import annotations

import torch
from torch import Tensor


def kl_divergence(p: Tensor, log_q: Tensor) -> Tensor:
    """KL(p ‖ q) = Σ p_i log(p_i / q_i), in nats (eq. 4).

    Args:
        p (`Tensor` of shape `(..., K)`): probabilities. Labels with p_i = 0 add nothing (0 log 0 = 0), whatever q_i
            is, and have gradient 0 with respect to `log_q`, also where `log_q` is -inf.
        log_q (`Tensor` of shape `(..., K)`): log-probabilities. It need not be normalised over the labels: with
            log-probabilities under the full vocabulary the result also charges for the mass given to other tokens.

    Returns:
        `Tensor` of shape `(...,)`; at least 0 (up to rounding) for normalised q; infinite where p_i > 0 and q_i = 0.

    Example:
        >>> kl_divergence(torch.tensor([0.5, 0.5, 0.0]), torch.tensor([0.5, 0.25, 0.25]).log())
        tensor(0.3466)
    """
    # The input is masked and not only the product, so that the gradient of the masked labels is 0 and not 0 * inf =
    # NaN.
    safe_log_q = torch.where(p > 0, log_q, torch.zeros_like(log_q))
    return (torch.special.xlogy(p, p) - p * safe_log_q).sum(-1)


def hybrid_loss(
    log_q: Tensor, target: Tensor, reference: Tensor, alpha: float, *, label_smoothing: float = 0.0
) -> Tensor:
    """α KL(target ‖ q) + (1 - α) (-log q_reference), in nats (eq. 6).

    Args:
        log_q (`Tensor` of shape `(..., K)`): the judge's label log-probabilities.
        target (`Tensor` of shape `(..., K)`): the human distribution, or the adversary's perturbation of it.
        reference (`Tensor` of shape `(...,)`, int64): index of the reference label (eq. 3).
        alpha (`float`): weight of the KL term, in [0, 1]. 0 is the single-point objective (eq. 5), 1 pure alignment.
        label_smoothing (`float`, defaults to 0): of the cross-entropy, in [0, 1); see [`reference_nll`].

    Returns:
        `Tensor` of shape `(...,)`: one loss an item; no reduction.

    Raises:
        `ValueError`: `alpha` or `label_smoothing` outside its range.
    """
    if not 0.0 <= alpha <= 1.0:
        raise ValueError(f"`alpha` must be between 0 and 1, got {alpha}.")
    # A term of weight 0 is left out, not multiplied by 0: an infinite KL must not turn the single-point loss into NaN.
    if alpha == 0.0:
        return reference_nll(log_q, reference, label_smoothing)
    if alpha == 1.0:
        return kl_divergence(target, log_q)
    return alpha * kl_divergence(target, log_q) + (1.0 - alpha) * reference_nll(log_q, reference, label_smoothing)


def reference_nll(log_q: Tensor, reference: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """-log q_r, the cross-entropy on the reference label (eq. 5): `(..., K)` and int64 `(...,)` to `(...,)`, in nats.

    With `label_smoothing` s in [0, 1) the target is (1 - s) on the reference label and s / K on every label, as in
    `torch.nn.functional.cross_entropy`.
    """
    if not 0.0 <= label_smoothing < 1.0:
        raise ValueError(f"`label_smoothing` must be at least 0 and less than 1, got {label_smoothing}.")
    nll = -log_q.gather(-1, reference.unsqueeze(-1)).squeeze(-1)
    if label_smoothing == 0.0:
        return nll
    return (1.0 - label_smoothing) * nll - label_smoothing * log_q.mean(-1)


def ranked_probability_score(p: Tensor, log_q: Tensor) -> Tensor:
    """Σ_k (P_k - Q_k)² / (K - 1) over the K - 1 thresholds between neighbouring labels, P and Q cumulative (Epstein
    1969): a distance that knows the labels' order. 4 is nearer to 5 than 1 is, where KL counts all wrong labels alike.

    With p on one label, a single vote, it is the ranked probability score of that vote: the discrete CRPS over K - 1.
    Its mean over the annotators' votes is this distance to their distribution p plus Σ_k P_k (1 - P_k) / (K - 1). The
    addend does not depend on q, so both have the same gradient, and p alone minimises both (strictly proper).

    It is added to KL or cross-entropy and does not replace them: where the judge is sure of a wrong label, its
    gradient with respect to the logits vanishes, and theirs does not.

    The Wasserstein distance Σ_k |P_k - Q_k| is a metric (`wasserstein`) and no loss here. Its mean over votes is least
    where all of q is on a median label. To p as a whole its gradient keeps its size until it changes its sign, so that
    gradient descent does not settle.

    Args:
        p (`Tensor` of shape `(..., K)`): probabilities of K >= 2 labels, in their order, rising or falling. Rows sum
            to 1. Neighbours count as equally far apart.
        log_q (`Tensor` of shape `(..., K)`): log-probabilities. They are normalised over the labels: mass on other
            tokens has no place on the scale. KL or cross-entropy charges for it.

    Returns:
        `Tensor` of shape `(...,)`; in [0, 1]. 0 where p = q, 1 where they are at opposite ends of the scale.

    Example:
        >>> p = torch.tensor([0.0, 0.0, 0.0, 0.0, 1.0])
        >>> ranked_probability_score(p, torch.eye(5).log())  # q on label 1, ..., on label 5
        tensor([1.0000, 0.7500, 0.5000, 0.2500, 0.0000])
    """
    differences = p - log_q.softmax(-1)
    # Sums over labels up to each threshold, and not `cumsum`: on CUDA that has no deterministic implementation, and
    # `full_determinism` would refuse it.
    up_to = torch.ones(p.shape[-1] - 1, p.shape[-1], dtype=differences.dtype, device=differences.device).tril()
    return (differences.unsqueeze(-2) * up_to).sum(-1).square().mean(-1)


def dirichlet_smoothing(p: Tensor, num_annotators: Tensor, pseudo_count: float) -> Tensor:
    """(n p + λ) / (n + K λ): the mean of the posterior over an item's true distribution after n votes with shares p,
    under a symmetric Dirichlet prior with `pseudo_count` λ per label (add-λ smoothing).

    Args:
        p (`Tensor` of shape `(..., K)`): shares of the votes.
        num_annotators (`Tensor` of shape `(...,)`): n, at least 1.
        pseudo_count (`float`): λ, at least 0; 0 leaves p as it is.

    Returns:
        `Tensor` of shape `(..., K)`; rows sum to 1. The largest entry stays where it was.
    """
    if pseudo_count < 0.0:
        raise ValueError(f"`pseudo_count` must be at least 0, got {pseudo_count}.")
    if pseudo_count == 0.0:
        return p
    n = num_annotators.to(p.dtype).unsqueeze(-1)
    return (n * p + pseudo_count) / (n + p.shape[-1] * pseudo_count)
