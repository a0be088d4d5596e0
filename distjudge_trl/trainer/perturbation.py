"""The trainer's adversary: made from the options, and applied to the target distributions of a batch."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from torch import Tensor

from distjudge_trl.errors import UserInputError
from distjudge_trl.objective import PGDAdversary, WorstCaseAdversary, coverage_radius, minimax_target
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
