"""The trainer's loss of each row, with the adversary that the options ask for."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor

from distjudge_trl.errors import UserInputError
from distjudge_trl.objective import (
    PGDAdversary,
    WorstCaseAdversary,
    coverage_radius,
    dirichlet_smoothing,
    hybrid_loss,
    minimax_target,
    ranked_probability_score,
)
from distjudge_trl.runtime.extras import install_hint


if TYPE_CHECKING:
    from distjudge_trl.trainer.distribution_sft_config import DistributionSFTConfig

Adversary = PGDAdversary | WorstCaseAdversary

# With `radius_scaling="annotators"`, the number of annotators at which an item's radius is ε itself: the paper's NLI
# data.
REFERENCE_ANNOTATORS = 5


def make_adversary(args: DistributionSFTConfig) -> Adversary | None:
    """The adversary that the options ask for; `None` if it would move nothing.

    Raises:
        [`UserInputError`]: the solver of the projection is not installed.
    """
    if args.adversary == "pgd" and args.projection_solver == "cvxpy" and find_spec("cvxpy") is None:
        raise UserInputError(f"`projection_solver=cvxpy` needs CVXPY: {install_hint('cvxpy')}.")
    radius = args.perturbation_radius
    has_ball = radius > 0 or args.radius_scaling == "coverage"
    if args.adversary == "pgd" and has_ball and args.perturbation_steps > 0:
        return PGDAdversary(
            radius, args.perturbation_step_size, args.perturbation_steps, projection=args.projection_solver
        )
    if args.adversary == "worst_case" and has_ball:
        return WorstCaseAdversary(radius)
    return None


def row_radius(args: DistributionSFTConfig, votes: Tensor, num_annotators: Tensor) -> float | Tensor:
    """The radius of the ball around each row: one for all, or `(B,)` on the CPU. `votes` `(B, K)` are the shares of
    the annotators' labels, unsmoothed.
    """
    if args.radius_scaling == "annotators":
        return args.perturbation_radius * (REFERENCE_ANNOTATORS / num_annotators.cpu().float()).sqrt()
    if args.radius_scaling == "coverage":
        return coverage_radius(votes.cpu(), num_annotators.cpu(), args.radius_coverage)
    return args.perturbation_radius


def perturb(adversary: Adversary, target: Tensor, log_q: Tensor, radius: float | Tensor) -> Tensor:
    """Target distributions `(B, K)` after the adversary's move, from the human ones `(B, K)`, the judge's label
    log-probabilities `(B, K)` and the radius.

    It is found on the CPU: its few hundred kernels on B x K numbers and the answers that it waits for take longer on a
    GPU, which would be idle meanwhile.
    """
    adversary.radius = radius
    return adversary(target.cpu(), log_q.detach().cpu()).to(target.device)


def saddle_point(args: DistributionSFTConfig, target: Tensor, reference: Tensor, radius: float | Tensor) -> Tensor:
    """Where `adversary="minimax"` trains to: the distributions `(B, K)` that solve eq. 7 for human ones `(B, K)`, the
    reference labels `(B,)` and the radius.
    """
    return minimax_target(target, reference, radius, args.alpha, label_smoothing=args.label_smoothing)


class RowLosses(NamedTuple):
    """Of B rows: the `losses` `(B,)`, and the distributions `(B, K)` that the KL is to: the `smoothed` human ones, and
    what the adversary or the saddle point made of them, `perturbed`.
    """

    losses: Tensor
    smoothed: Tensor
    perturbed: Tensor


def row_losses(
    args: DistributionSFTConfig,
    adversary: Adversary | None,
    log_q: Tensor,
    votes: Tensor,
    reference: Tensor,
    num_annotators: Tensor,
) -> RowLosses:
    """The hybrid loss (eq. 6) on the perturbed targets (eq. 7), with the term for ordered labels on the unperturbed
    ones.

    Args:
        args ([`DistributionSFTConfig`]): the objective's settings.
        adversary (`PGDAdversary` or `WorstCaseAdversary`, *optional*): of [`make_adversary`].
        log_q (`Tensor` of shape `(B, K)`): the judge's label log-probabilities.
        votes (`Tensor` of shape `(B, K)`): shares of the annotators' labels.
        reference (`Tensor` of shape `(B,)`, int64): index of the reference label (eq. 3).
        num_annotators (`Tensor` of shape `(B,)`): how many people voted.
    """
    smoothed = dirichlet_smoothing(votes, num_annotators, args.target_smoothing)
    perturbed, alpha = smoothed, args.alpha
    if args.adversary == "minimax":
        # The saddle point has the cross-entropy in it.
        perturbed, alpha = saddle_point(args, smoothed, reference, row_radius(args, votes, num_annotators)), 1.0
    elif adversary is not None:
        perturbed = perturb(adversary, smoothed, log_q, row_radius(args, votes, num_annotators))
    # Without KL the target enters only through its majority label: the adversary acts by changing that label.
    hard_label = perturbed.argmax(-1) if alpha == 0.0 and adversary is not None else reference
    losses = hybrid_loss(log_q, perturbed, hard_label, alpha, label_smoothing=args.label_smoothing)
    if args.ordinal_loss_weight:
        losses = losses + args.ordinal_loss_weight * ranked_probability_score(smoothed, log_q)
    return RowLosses(losses, smoothed, perturbed)
