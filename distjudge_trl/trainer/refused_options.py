"""Options that do not apply: those of SFTConfig to judgments, and ours to labels without an order. They are refused
rather than ignored.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from distjudge_trl.errors import UserInputError, listing
from distjudge_trl.runtime.launches import launcher_asks
from distjudge_trl.trainer.refused_launches import refuse_parallelism


if TYPE_CHECKING:
    from trl import SFTConfig

    from distjudge_trl.labels import LabelSpace

_ALONE = "the loss is only on the judgment position."
_KINDS = ("tp", "cp", "sp")
_TOKENIZED = "judgment records are tokenized here."

# Options with only one possible value: that value and the reason. Fields of TRL and transformers that are neither here
# nor in `check_inherited` keep their meaning (tests/trainer/test_refused_options.py lists them all).
ONLY: dict[str, tuple[Any, str]] = {
    "dataloader_drop_last": (False, "it would drop rows of the evaluation, too."),
    "packing": (False, "every row has its own judgment position. Use `share_prefixes` to save compute."),
    "eval_packing": (None, "every row has its own judgment position. Use `share_prefixes` to save compute."),
    "packing_strategy": ("bfd", "rows are not packed. Use `share_prefixes` to save compute."),
    "padding_free": (False, "rows are padded on the left, or packed with `share_prefixes`."),
    "assistant_only_loss": (False, _ALONE),
    "truncation_mode": ("keep_start", "prompts are never cut, their end asks for the answer."),
    "label_smoothing_factor": (0.0, "it smooths over the vocabulary. Use `label_smoothing`."),
    "loss_type": ("nll", "the objective is set by `alpha` and `adversary`."),
    "average_tokens_across_devices": (True, "the loss is always the mean over the rows of all processes."),
    "pad_token": (None, "padding is masked out, and takes the tokenizer's pad or end-of-text token."),
    "dataset_text_field": ("text", _TOKENIZED),
    "shuffle_dataset": (False, "rows are drawn in a new order in every epoch; shuffle the dataset itself."),
    "batch_eval_metrics": (False, "metrics are computed once, over all rows."),
    "eval_do_concat_batches": (True, "metrics are computed once, over all rows."),
    "eval_use_gather_object": (False, "log-probabilities and distributions are gathered as tensors."),
    "prediction_loss_only": (False, "an evaluation is of the label distributions."),
    "label_names": (None, "metrics receive the human distributions."),
    "bf16_full_eval": (False, "a judge is evaluated in the precision that it is trained and read in."),
    "fp16_full_eval": (False, "a judge is evaluated in the precision that it is trained and read in."),
}


def check_inherited(args: SFTConfig) -> None:
    """Refuse the options of SFT that would be ignored or would make judgments wrong.

    Raises:
        [`UserInputError`]: names the option and what to use instead.
    """
    for name, (value, why) in ONLY.items():
        given = getattr(args, name)
        if given != value and (given or value):
            raise UserInputError(f"`{name}={given!r}` does not apply: {why}")
    if args.completion_only_loss is False:
        raise UserInputError(f"`completion_only_loss=False` does not apply: {_ALONE}")
    if args.dataset_kwargs:
        names = ", ".join(args.dataset_kwargs) if isinstance(args.dataset_kwargs, dict) else args.dataset_kwargs
        raise UserInputError(f"`dataset_kwargs` ({names}) does not apply: {_TOKENIZED}")
    if "inputs" in args.include_for_metrics:
        raise UserInputError("`include_for_metrics` inputs does not apply: rows are padded, or packed into one.")
    if args.router_aux_loss_coef:
        raise UserInputError("`router_aux_loss_coef` does not apply: the objective has no load-balancing term.")
    # If it were unset, the model's own value would apply, and the model would compute a loss that is not used.
    args.router_aux_loss_coef = 0.0
    if isinstance(args.pad_to_multiple_of, int) and args.pad_to_multiple_of < 1:
        raise UserInputError(f"`pad_to_multiple_of` must be at least 1, got {args.pad_to_multiple_of}.")
    _check_dataloader(args)
    _check_parallelism(args)


def check_order(ordinal_loss_weight: float, label_space: LabelSpace) -> None:
    """Refuse a term for ordered labels where the labels have no order.

    Raises:
        [`UserInputError`]: names the labels and says how they get an order.
    """
    if ordinal_loss_weight and not label_space.ordinal:
        raise UserInputError(
            f"`ordinal_loss_weight={ordinal_loss_weight:g}` needs labels with an order, and"
            f" {listing(label_space.labels)} have none: leave it at 0. If their order means something, say so with"
            " `ordinal: true` in the task file, or `LabelSpace(..., ordinal=True)`."
        )


def _check_dataloader(args: SFTConfig) -> None:
    config = args.accelerator_config
    if config.split_batches:
        raise UserInputError(
            "`accelerator_config.split_batches` does not apply: give the batch of one process with"
            " `per_device_train_batch_size`."
        )
    if config.dispatch_batches:
        raise UserInputError(
            "`accelerator_config.dispatch_batches` does not apply: every process pads or packs its own rows."
        )
    if not config.even_batches:
        raise UserInputError(
            "`accelerator_config.even_batches=False` does not apply: processes must make the same number of steps;"
            " rows that are repeated to even them out count nothing."
        )


def _check_parallelism(args: SFTConfig) -> None:
    """Check the given parallelism, or that of an accelerate config, which is passed in the environment."""
    config = args.parallelism_config
    if config is None and launcher_asks("ACCELERATE_USE_PARALLELISM_CONFIG"):
        kinds = {kind: int(os.environ.get(f"PARALLELISM_CONFIG_{kind.upper()}_SIZE", "1")) for kind in _KINDS}
    else:
        kinds = {kind: getattr(config, f"{kind}_size", None) or 1 for kind in _KINDS}
    refuse_parallelism({kind: size for kind, size in kinds.items() if size > 1})
