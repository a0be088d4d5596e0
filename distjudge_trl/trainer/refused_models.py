"""Models that the trainer cannot load by name as judges. They are refused before their weights are fetched."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from distjudge_trl.modeling.kinds import Trains, check_quantization, find_kind
from distjudge_trl.modeling.loading import load_tokenizer


if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase
    from trl import SFTConfig


def check_model(
    model: str, args: SFTConfig, given: Mapping[str, Any], processing_class: PreTrainedTokenizerBase | None
) -> PreTrainedTokenizerBase:
    """The tokenizer of a model: the given one, or that of the model's folder. TRL would load the image processor of a
    model that has one. `given` holds the other arguments of the trainer.

    Raises:
        [`UserInputError`]: it is not a causal language model, or is quantised in a way that this run cannot use.
    """
    options: dict[str, Any] = args.model_init_kwargs if isinstance(args.model_init_kwargs, dict) else {}
    where: dict[str, Any] = {"revision": options.get("revision"), "trust_remote_code": args.trust_remote_code}
    kind = find_kind(model, **where)
    settings = given.get("quantization_config") or options.get("quantization_config")
    bits: Literal[4, 8] | None = None
    if settings is not None:
        bits = 4 if getattr(settings, "load_in_4bit", False) else 8
    trains: Trains | None = "adapter" if given.get("peft_config") is not None else None
    check_quantization(f"The model {model!r}", kind.config, trains=trains, bits=bits)
    if kind.vision and args.ddp_find_unused_parameters is None:
        args.ddp_find_unused_parameters = True  # the part for images gets no gradient
    return processing_class if processing_class is not None else load_tokenizer(model, **where)
