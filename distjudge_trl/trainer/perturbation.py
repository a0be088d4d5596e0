"""The trainer's adversary: made from the options, and applied to the target distributions of a batch."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from torch import Tensor

from distjudge_trl.errors import UserInputError
from distjudge_trl.objective import PGDAdversary, WorstCaseAdversary, minimax_target
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
    if args.adversary == "pgd" and radius > 0 and args.perturbation_steps > 0:
        return PGDAdversary(
            radius, args.perturbation_step_size, args.perturbation_steps, projection=args.projection_solver
        )
    if args.adversary == "worst_case" and radius > 0:
        return WorstCaseAdversary(radius)
    return None


def perturb(
    adversary: Adversary, args: DistributionSFTConfig, target: Tensor, log_q: Tensor, num_annotators: Tensor
) -> Tensor:
    """Target distributions `(B, K)` after the adversary's move, from the human ones `(B, K)`, the judge's label
    log-probabilities `(B, K)` and the numbers of annotators `(B,)`.

    It is found on the CPU: its few hundred kernels on B x K numbers and the answers that it waits for take longer on a
    GPU, which would be idle meanwhile.
    """
    device, target = target.device, target.cpu()
    if args.radius_scaling == "annotators":
        adversary.radius = _radius(args, num_annotators)
    return adversary(target, log_q.detach().cpu()).to(device)


def saddle_point(args: DistributionSFTConfig, target: Tensor, reference: Tensor, num_annotators: Tensor) -> Tensor:
    """Where `adversary="minimax"` trains to: the distributions `(B, K)` that solve eq. 7 for human ones `(B, K)`, the
    reference labels `(B,)` and the numbers of annotators `(B,)`.
    """
    return minimax_target(
        target, reference, _radius(args, num_annotators), args.alpha, label_smoothing=args.label_smoothing
    )


def _radius(args: DistributionSFTConfig, num_annotators: Tensor) -> float | Tensor:
    if args.radius_scaling == "constant":
        return args.perturbation_radius
    return args.perturbation_radius * (REFERENCE_ANNOTATORS / num_annotators.cpu().float()).sqrt()
