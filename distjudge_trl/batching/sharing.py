"""Which models give the same results for packs of rows that share prefixes as for single rows, and with which
attention.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from accelerate.utils import gather_object
from torch import Tensor
from transformers.integrations.flex_attention import flex_attention_forward

from distjudge_trl.batching.pack_attention import PACK_ATTENTION, block_mask, pack_mask
from distjudge_trl.batching.prefixes import BLOCK, PackMask, PrefixSharing
from distjudge_trl.errors import UserInputError, first_line, memory_exhausted


if TYPE_CHECKING:
    from transformers import PreTrainedModel

SharePrefixes = bool | Literal["auto"]

# Types of models that are known to read packs exactly (tests/batching/test_sharing.py), for models that cannot be
# tried because their weights are in parts.
KNOWN_MODEL_TYPES = {"llama", "mistral", "qwen2", "qwen3", "smollm3"}
_REACHES_AS_FAR_AS_A_ROW = {"full_attention", "sliding_attention"}


def attention_name(config: Any) -> str | None:
    """The attention implementation of a model's config, by a name that every process knows: `find_sharing` replaces
    sdpa by one that is registered only here.
    """
    name = getattr(config, "_attn_implementation", None)
    return "sdpa" if name == PACK_ATTENTION else name


def find_sharing(
    model: PreTrainedModel,
    share: SharePrefixes,
    autocast: torch.dtype | None = None,
    log: Callable[[str], None] = lambda line: None,
) -> PrefixSharing | None:
    """How `model` reads packs; `None` if it should not, or (with `"auto"`) cannot.

    This needs an attention that respects a 4-D mask (sdpa) and nothing that ignores the mask: no recurrent or
    state-space layers, no positions that are derived from the mask. It is also tried: a small pack has to give the
    logits of its rows. If the weights are in parts (ZeRO-3), only known types of models are accepted. Windows of
    sliding attention are respected row by row. If the model's class finds its attention by name in transformers, it is
    replaced by one that also takes tiles and, on GPUs where FlexAttention runs, block masks; it is sdpa for all other
    masks. Other classes (Falcon, models with their own code) read packs with a dense mask.

    Args:
        model (`PreTrainedModel`): on the device on which it will compute.
        share (`bool` or `"auto"`): the option `share_prefixes`.
        autocast (`torch.dtype`, *optional*): the autocast type in which it will compute.
        log (`Callable`, *optional*): receives a line that says why `"auto"` shares nothing.

    Raises:
        [`UserInputError`]: `share` is `True`, and the model cannot.
        `RuntimeError`: torch's own, if memory runs out during the trial.
    """
    if share is False:
        return None
    config = model.config.get_text_config()
    problem = _problem(model, config)
    if problem is None:
        mask, problem = _choose_mask(model, config, autocast)
    if problem is not None:
        if share is True:
            raise UserInputError(
                f"`share_prefixes` does not work for this model: {problem}. To let the model decide, use"
                " --share_prefixes auto."
            )
        log(f"Common prefixes of prompts are computed again in every row: {problem}.")
        return None
    window = getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None
    return PrefixSharing(width=config.hidden_size, longest=window or None, always=share is True, mask=mask)


def agree_on_sharing(sharing: PrefixSharing | None) -> PrefixSharing | None:
    """The sharing that all processes of a run support. Each tries on its own device, and all have to draw and order
    rows in the same way.
    """
    everyone = gather_object([sharing])
    found = [one for one in everyone if one is not None]
    if sharing is None or len(found) < len(everyone):
        return None
    return replace(sharing, mask=min((one.mask for one in found), key=get_args(PackMask).index))


def _problem(model: PreTrainedModel, config: Any) -> str | None:
    attention = getattr(config, "_attn_implementation", None)
    layers = set(getattr(config, "layer_types", None) or ["full_attention"])
    if attention not in ("sdpa", PACK_ATTENTION):
        return f"its attention implementation is {attention!r}; load it with `attn_implementation=sdpa`"
    if not layers <= _REACHES_AS_FAR_AS_A_ROW:
        return f"it has layers that are not full attention ({', '.join(sorted(layers))})"
    if getattr(model, "_is_stateful", False):
        return "it is recurrent"
    if getattr(config, "alibi", False) or config.model_type in ("bloom", "mpt"):
        return "its positions are read off the attention mask (ALiBi)"
    return None


def _choose_mask(model: PreTrainedModel, config: Any, autocast: torch.dtype | None) -> tuple[PackMask, str | None]:
    """The best mask with which the model reads packs exactly, and its problem if it does so with none."""
    base = model.get_base_model() if hasattr(model, "peft_config") else model
    if getattr(base, "_supports_attention_backend", False):
        before = config._attn_implementation
        base.set_attn_implementation(PACK_ATTENTION)
        if _mismatch(model, config, "tiles") is None:
            return ("blocks" if _flex_attention_runs(base, config, autocast) else "tiles"), None
        base.set_attn_implementation(before)
    return "dense", _mismatch(model, config, "dense")


def _mismatch(model: PreTrainedModel, config: Any, mask: PackMask) -> str | None:
    """How the logits of a pack of three rows differ from those of the rows alone, as a clause; `None` if they
    agree.
    """
    weights = [model.get_input_embeddings().weight, *model.parameters()]
    known = config.model_type in KNOWN_MODEL_TYPES
    if any(weight.is_meta or hasattr(weight, "ds_id") for weight in weights):
        return None if known else f"models of type {config.model_type!r} are not known to read packs exactly"
    if known and weights[0].device.type == "cpu" and torch.accelerator.is_available():
        return None  # it will be moved to a GPU; trying a large model on the CPU is slow
    common, own = 6, 5
    ids = [(7919 * i + 13) % config.vocab_size for i in range(common + 3 * own)]
    rows = [ids[:common] + ids[start : start + own] for start in range(common, len(ids), own)]
    ends = [len(ids)] * common + [common + (i // own + 1) * own for i in range(3 * own)]
    depths = [*range(common), *(common + i % own for i in range(3 * own))]
    last = [common + (i + 1) * own - 1 for i in range(3)]
    device = weights[0].device
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            alone = model(input_ids=torch.tensor(rows, device=device), use_cache=False).logits[:, -1].float()
            packed = (
                model(
                    input_ids=torch.tensor([ids], device=device),
                    position_ids=torch.tensor([depths], device=device),
                    attention_mask=pack_mask(torch.tensor([ends], device=device), mask),
                    logits_to_keep=torch.tensor(last, device=device),
                    use_cache=False,
                )
                .logits[0]
                .float()
            )
    except (TypeError, ValueError, RuntimeError, IndexError) as error:
        if memory_exhausted(error) is not None:
            raise  # this does not mean that the model cannot
        return f"it takes no packs ({first_line(error)})"
    finally:
        for module, training in modes:
            module.training = training
    # Root mean square over a row's logits: half precision rounds some of 50,000 logits by a tenth of their spread,
    # while a row that sees another one changes all of them by half the spread or more.
    apart = (alone - packed).square().mean(-1).sqrt() / alone.std(-1).clamp(min=1e-6)
    if apart.max() > (1e-3 if weights[0].dtype == torch.float32 and not _is_quantised(model) else 0.2):
        return "a row's logits in a pack differ from those of the row alone"
    return None


def _is_quantised(model: PreTrainedModel) -> bool:
    return getattr(model.config, "quantization_config", None) is not None


def _flex_attention_runs(base: PreTrainedModel, config: Any, autocast: torch.dtype | None) -> bool:
    """Whether FlexAttention runs on the model's device. Forward and backward are tried with the model's number, size
    and type of heads.
    """
    weight = next(iter(base.parameters()))
    if not _is_on_gpu(weight) or not getattr(base, "_supports_flex_attn", False):
        return False
    if getattr(config, "attention_dropout", 0.0):
        return False
    count = config.num_attention_heads
    pairs = getattr(config, "num_key_value_heads", None) or count
    width = getattr(config, "head_dim", None) or config.hidden_size // count
    dtype = autocast or base.dtype
    try:
        # Not random numbers, which would change all later random draws of the run.
        heads = torch.ones(1, count, BLOCK, width, device=weight.device, dtype=dtype, requires_grad=True)
        ends = torch.full((1, BLOCK), BLOCK, device=weight.device)
        module, others = torch.nn.Module(), heads[:, :pairs]
        flex_attention_forward(module, heads, others, others, block_mask(ends))[0].sum().backward()
    except Exception:  # noqa: BLE001 - whatever fails (a compiler, a driver, a kernel), there are tiles
        return False
    return True


def _is_on_gpu(weight: Tensor) -> bool:
    return weight.device.type == "cuda"
