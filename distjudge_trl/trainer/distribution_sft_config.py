"""Configuration of [`DistributionSFTTrainer`]."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import torch
from accelerate.utils import patch_environment
from trl import SFTConfig

from distjudge_trl.errors import UserInputError
from distjudge_trl.runtime.launches import launcher_asks
from distjudge_trl.runtime.precision import resolve_precision, runs_on_cpu
from distjudge_trl.trainer.deepspeed_ops import load_cpu_collectives
from distjudge_trl.trainer.refused_options import check_inherited


# Metrics that are better the smaller they are. `TrainingArguments` would maximise every metric whose name does not end
# in "loss". These are endings, because several evaluation sets put their names in between: eval_NAME_kl.
_LOWER_IS_BETTER = ("_kl", "_ce", "_rps", "_adversarial_gain")

# Those of transformers, and the one for shared prefixes.
SAMPLING_STRATEGIES = ("auto", "random", "sequential", "group_by_length", "batch_rebalance", "group_by_prefix")


@dataclass
class DistributionSFTConfig(SFTConfig):
    r"""
    Configuration for [`DistributionSFTTrainer`]: everything of [`~trl.SFTConfig`], and the paper's objective.

    Parameters:
        alpha (`float`, *optional*, defaults to `0.8`):
            Weight of the KL term in the loss, in [0, 1] (eq. 6). 0 trains on the reference label alone, 1 on the
            distribution alone.
        adversary (`str`, *optional*, defaults to `"pgd"`):
            What perturbs the human distribution before the loss (eq. 7): `"pgd"`, the paper's projected gradient
            ascent; `"worst_case"`, the global maximiser; `"minimax"`, the point to which the worst case leads, as the
            target (no inner loop; see `minimax_target`); `"none"`. With `alpha=0` and an adversary the hard label is
            taken from the perturbed distribution (our reading of the paper's "w/o KL" ablation; otherwise the
            adversary would have no effect).
        perturbation_radius (`float`, *optional*, defaults to `0.25`):
            ε, the L2 radius within which the adversary moves the distribution. 0 is the same as no adversary.
        perturbation_step_size (`float`, *optional*, defaults to `0.05`):
            η, the ascent step of `"pgd"` (eq. 8).
        perturbation_steps (`int`, *optional*, defaults to `5`):
            Ascent steps of `"pgd"`.
        radius_scaling (`str`, *optional*, defaults to `"constant"`):
            `"constant"` uses ε for every item. `"annotators"` uses ε sqrt(5 / n) for an item with n annotators: the
            sampling error of a distribution shrinks with the square root of n, and ε keeps its meaning at the five
            annotators of the paper's NLI data. `"coverage"` computes the radius of each item from its votes, so that
            the ball holds the item's true distribution with the probability `radius_coverage`; ε is not used then.
        radius_coverage (`float`, *optional*, defaults to `0.9`):
            The probability of `radius_scaling="coverage"`, in (0, 1). See `coverage_radius`.
        projection_solver (`str`, *optional*, defaults to `"torch"`):
            How `"pgd"` projects (eq. 9): `"torch"` is exact and batched, `"cvxpy"` the paper's solver, hundreds of
            times slower.

        label_smoothing (`float`, *optional*, defaults to `0.0`):
            Smoothing of the cross-entropy's hard label over the labels, in [0, 1), for the baseline without
            distributions. It replaces `label_smoothing_factor`, which smooths over the vocabulary.
        target_smoothing (`float`, *optional*, defaults to `0.0`):
            λ added to every label's votes before they become the target distribution: the posterior mean under a
            symmetric Dirichlet prior. Metrics keep the annotators' own distribution.
        ordinal_loss_weight (`float`, *optional*, defaults to `0.0`):
            w, at least 0. For labels with an order (`LabelSpace(..., ordinal=True)`) the loss is α KL + (1 - α) CE +
            w RPS, the squared distance of the cumulative distributions, in [0, 1] (`ranked_probability_score`). RPS is
            to the annotators' distribution (smoothed, with `target_smoothing`) and not to the adversary's: it is
            constant in eq. 7, so the KL's maximiser stays the maximiser of the whole loss, and an adversary that knows
            no order cannot draw it to the far end of the scale. It is refused with `adversary="minimax"`, whose
            target solves the loss without it.
        label_normalization (`str`, *optional*, defaults to `"labels"`):
            Softmax of the training loss over the label tokens alone (`"labels"`, eq. 2) or over the full vocabulary
            (`"vocab"`), which also trains the model to answer with a label and so keeps it a text generator.
        share_prefixes (`bool` or `"auto"`, *optional*, defaults to `"auto"`):
            Compute a prefix that rows of a batch share only once: the rows are packed into one sequence with a mask
            that keeps them apart. Loss and gradients are the same up to rounding. `"auto"` packs the batches that gain
            by it, for models that read packs exactly (`sdpa` attention, no recurrent layers). `True` packs all
            batches, and is refused for other models.
        train_sampling_strategy (`str`, *optional*, defaults to `"auto"`):
            As in [`~transformers.TrainingArguments`], and `"group_by_prefix"`: rows with a common prefix (summaries of
            one article) are drawn into one batch, and the batches come in random order. `"auto"` chooses it if
            prefixes are shared and it saves at least 15 % of the tokens, else `"random"`.

    > [!NOTE]
    > Defaults that differ from [`~trl.SFTConfig`]: `pad_to_multiple_of` is 16; `train_sampling_strategy` is `"auto"`;
    > `metric_for_best_model` is `"eval_kl"` when `load_best_model_at_end` is set; `ddp_find_unused_parameters` is
    > `False`. Without `bf16` and `fp16` the hardware decides
    > ([`~distjudge_trl.runtime.precision.decide_precision`]): bf16 where it is fast, fp16 on GPUs that have
    > that alone, else float32, which `bf16=False` asks for. Packing, padding-free batches, smoothing over the
    > vocabulary, other losses and MoE router losses do not apply; they and all others that would be ignored are
    > refused (`distjudge_trl/trainer/refused_options.py`).
    """

    alpha: float = field(
        default=0.8,
        metadata={
            "help": (
                "Weight of the KL term in the loss, in [0, 1]; the rest goes to cross-entropy on the majority label."
            )
        },
    )
    adversary: Literal["pgd", "worst_case", "minimax", "none"] = field(
        default="pgd",
        metadata={
            "help": (
                "What perturbs the human distribution before the loss: 'pgd' (the paper), 'worst_case' (global"
                " maximiser), 'minimax' (trains on the point to which it leads) or 'none'."
            )
        },
    )
    perturbation_radius: float = field(
        default=0.25, metadata={"help": "L2 radius (epsilon) within which the adversary moves the human distribution."}
    )
    perturbation_step_size: float = field(default=0.05, metadata={"help": "Step size (eta) of the 'pgd' adversary."})
    perturbation_steps: int = field(default=5, metadata={"help": "Ascent steps of the 'pgd' adversary."})
    radius_scaling: Literal["constant", "annotators", "coverage"] = field(
        default="constant",
        metadata={
            "help": (
                "'constant' radius; 'annotators': radius * sqrt(5 / n) for an item with n annotators; 'coverage': the"
                " radius within which an item's true distribution lies with the probability radius_coverage."
            )
        },
    )
    radius_coverage: float = field(default=0.9, metadata={"help": "Probability of radius_scaling 'coverage'."})
    projection_solver: Literal["torch", "cvxpy"] = field(
        default="torch",
        metadata={
            "help": "Projection of 'pgd': 'torch' (exact, batched) or 'cvxpy' (the paper's, hundreds of times slower)."
        },
    )
    label_smoothing: float = field(
        default=0.0, metadata={"help": "Smoothing of the cross-entropy's hard label over the labels, in [0, 1)."}
    )
    target_smoothing: float = field(
        default=0.0,
        metadata={
            "help": "Votes added to every label before they become the target distribution (Dirichlet, add-lambda)."
        },
    )
    ordinal_loss_weight: float = field(
        default=0.0,
        metadata={
            "help": (
                "Weight of a third term of the loss, for labels with an order: the squared distance of the cumulative"
                " distributions (ranked probability score), which knows that 4 is nearer to 5 than 1 is."
            )
        },
    )
    label_normalization: Literal["labels", "vocab"] = field(
        default="labels",
        metadata={
            "help": (
                "Softmax of the loss over the label tokens ('labels') or the full vocabulary ('vocab', keeps"
                " generation intact)."
            )
        },
    )
    share_prefixes: Literal["auto", True, False] = field(
        default="auto",
        metadata={
            "help": (
                "Compute prefixes that rows of a batch share only once: 'auto' if the model can (sdpa attention) and a"
                " batch gains by it, True always, False never."
            ),
            # `--share_prefixes` without a value means True, as for any switch.
            "nargs": "?",
            "const": True,
        },
    )
    train_sampling_strategy: str = field(
        default="auto",
        metadata={
            "help": (
                "Sampler for training: 'random', 'sequential', 'group_by_length', 'batch_rebalance', or"
                " 'group_by_prefix' (rows with a common prefix are drawn into one batch; batches in random order);"
                " 'auto' is 'group_by_prefix' if prefixes are shared and that saves much, else 'random'."
            ),
            "choices": list(SAMPLING_STRATEGIES),
        },
    )
    pad_to_multiple_of: int | str | None = field(
        default=16,
        metadata={
            "help": "Round sequence lengths up to a multiple of this, so that kernels compiled per shape are reused."
        },
    )

    def __post_init__(self) -> None:
        if not torch.accelerator.is_available():
            # Without an accelerator, transformers refuses bf16 unless `use_cpu` is set.
            self.use_cpu = True
        # TRL's default is bf16 wherever torch supports it, even if it is emulated. `fp16` is False if it is not given.
        bf16: bool | None = self.bf16  # type: ignore[has-type]
        fp16: bool = self.fp16  # type: ignore[has-type]
        if not (bf16 and fp16):  # transformers refuses both at once
            precision = resolve_precision(bf16, fp16 or None, use_cpu=self.use_cpu or runs_on_cpu())
            self.bf16, self.fp16 = precision.bf16, precision.fp16
        # All trained weights take part in every step; looking for unused ones would cost a walk of the graph.
        find_unused: bool | None = self.ddp_find_unused_parameters  # type: ignore[has-type]
        self.ddp_find_unused_parameters = bool(find_unused)
        metric: str | None = self.metric_for_best_model  # type: ignore[has-type]
        if self.load_best_model_at_end and metric is None:
            metric = "eval_kl"
        if self.greater_is_better is None and f"_{metric}".endswith(_LOWER_IS_BETTER):
            self.greater_is_better: bool | None = False
        self.metric_for_best_model = metric
        if self.deepspeed or launcher_asks("ACCELERATE_USE_DEEPSPEED"):
            # Here and not in the trainer: transformers starts the process group in its own `__post_init__`, and
            # DeepSpeed's needs them.
            load_cpu_collectives()
        # transformers would prefer the precision of an accelerate config, read from this variable, to `--bf16 False`.
        name = "fp16" if self.fp16 else "bf16" if self.bf16 else "no"
        with patch_environment(ACCELERATE_MIXED_PRECISION=name):
            super().__post_init__()
        self._check_objective()
        check_inherited(self)

    def _check_objective(self) -> None:
        for name in ("perturbation_radius", "perturbation_step_size", "learning_rate"):
            if not math.isfinite(getattr(self, name)):
                raise UserInputError(f"`{name}` must be a finite number, got {getattr(self, name)}.")
        for name in ("per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps"):
            if getattr(self, name) < 1:
                raise UserInputError(f"`{name}` must be at least 1, got {getattr(self, name)}.")
        if not 0.0 <= self.alpha <= 1.0:
            raise UserInputError(f"`alpha` must lie between 0 and 1, got {self.alpha}.")
        if not self.perturbation_radius >= 0:
            raise UserInputError(f"`perturbation_radius` must be at least 0, got {self.perturbation_radius}.")
        if not self.perturbation_step_size > 0:
            raise UserInputError(f"`perturbation_step_size` must be positive, got {self.perturbation_step_size}.")
        if self.perturbation_steps < 0:
            raise UserInputError(f"`perturbation_steps` must be at least 0, got {self.perturbation_steps}.")
        if not 0.0 < self.radius_coverage < 1.0:
            raise UserInputError(f"`radius_coverage` must lie between 0 and 1, got {self.radius_coverage}.")
        if not 0.0 <= self.label_smoothing < 1.0:
            raise UserInputError(f"`label_smoothing` must be at least 0 and less than 1, got {self.label_smoothing}.")
        if not 0.0 <= self.target_smoothing < math.inf:
            raise UserInputError(f"`target_smoothing` must be at least 0 and finite, got {self.target_smoothing}.")
        if not 0.0 <= self.ordinal_loss_weight < math.inf:
            raise UserInputError(
                f"`ordinal_loss_weight` must be at least 0 and finite, got {self.ordinal_loss_weight}."
            )
        if self.ordinal_loss_weight and self.adversary == "minimax":
            raise UserInputError(
                "`ordinal_loss_weight` does not go with `adversary=minimax`, whose target solves the loss without that"
                " term: take `worst_case`."
            )
        choices = {
            "adversary": ("pgd", "worst_case", "minimax", "none"),
            "radius_scaling": ("constant", "annotators", "coverage"),
            "projection_solver": ("torch", "cvxpy"),
            "label_normalization": ("labels", "vocab"),
            "share_prefixes": ("auto", True, False),
            "train_sampling_strategy": SAMPLING_STRATEGIES,
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise UserInputError(
                    f"`{name}` must be one of {', '.join(map(str, allowed))}, got {getattr(self, name)!r}."
                )
