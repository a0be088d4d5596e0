"""Which models read packs of rows that share beginnings exactly like single rows, and with which attention."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import torch
from accelerate.utils import gather_object
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.flex_attention import flex_attention_forward
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from distjudge_trl.batching.prefixes import BLOCK, PrefixSharing
from distjudge_trl.errors import UserInputError, first_line, memory_exhausted


if TYPE_CHECKING:
    from transformers import PreTrainedModel

SharePrefixes = bool | Literal["auto"]

# Name under which transformers finds attention that takes block masks and is sdpa for all others.
PACK_ATTENTION = "sdpa_or_blocks"
# Tested in tests/batching/test_sharing.py: read packs exactly, where it cannot be tried (weights in parts).
KNOWN_MODEL_TYPES = {"llama", "mistral", "qwen2", "qwen3", "smollm3"}
_REACHES_AS_FAR_AS_A_ROW = {"full_attention", "sliding_attention"}


def _attend(module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **kwargs: Any):
    forward = flex_attention_forward if isinstance(attention_mask, BlockMask) else sdpa_attention_forward
    return forward(module, query, key, value, attention_mask, **kwargs)


AttentionInterface.register(PACK_ATTENTION, _attend)
AttentionMaskInterface.register(PACK_ATTENTION, sdpa_mask)


def attention_name(config: Any) -> str | None:
    """The attention implementation of a model's config by a name that any process knows: `find_sharing` exchanges sdpa
    for one that is registered here alone.
    """
    name = getattr(config, "_attn_implementation", None)
    return "sdpa" if name == PACK_ATTENTION else name


def find_sharing(
    model: PreTrainedModel,
    share: SharePrefixes,
    autocast: torch.dtype | None = None,
    log: Callable[[str], None] = lambda line: None,
) -> PrefixSharing | None:
    """How `model` reads packs; `None` where it shall not, or (with `"auto"`) cannot.

    That takes attention that honours a 4-D mask (sdpa) and nothing that reaches over the mask: no recurrent or
    state-space layers, no positions that are derived from the mask. Besides, it is tried: a small pack has to give the
    logits of its rows; where the weights are in parts (ZeRO-3), known kinds of models alone are trusted. Windows of
    sliding attention are honoured row by row. On GPUs the model's attention is exchanged for one that takes block
    masks as well, where FlexAttention runs.

    Args:
        model (`PreTrainedModel`): on the device where it will compute.
        share (`bool` or `"auto"`): what is asked for.
        autocast (`torch.dtype`, *optional*): under which it will compute.
        log (`Callable`, *optional*): takes a line that says why `"auto"` shares nothing.

    Raises:
        [`UserInputError`]: `share` is `True`, and the model cannot.
        `RuntimeError`: torch's own, if memory runs out as it is tried.
    """
    if share is False:
        return None
    config = model.config.get_text_config()
    problem = _problem(model, config) or _mismatch(model, config)
    if problem is not None:
        if share is True:
            raise UserInputError(
                f"`share_prefixes` does not work for this model: {problem}. Or leave it to the model: --share_prefixes"
                " auto."
            )
        log(f"Common beginnings of prompts are read anew in every row: {problem}.")
        return None
    window = getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None
    blocks = _take_block_masks(model, config, autocast)
    return PrefixSharing(width=config.hidden_size, longest=window or None, always=share is True, blocks=blocks)


def agree_on_sharing(sharing: PrefixSharing | None) -> PrefixSharing | None:
    """What all processes of a run can do: each tries on its own device, and all have to draw and order rows alike."""
    everyone = gather_object([sharing])
    found = [one for one in everyone if one is not None]
    if sharing is None or len(found) < len(everyone):
        return None
    return replace(sharing, blocks=all(one.blocks for one in found))


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


def _mismatch(model: PreTrainedModel, config: Any) -> str | None:
    """What is wrong with the logits of a pack of three rows, compared with those of the rows alone."""
    weights = [model.get_input_embeddings().weight, *model.parameters()]
    known = config.model_type in KNOWN_MODEL_TYPES
    if any(weight.is_meta or hasattr(weight, "ds_id") for weight in weights):
        return None if known else f"models of type {config.model_type!r} are not known to read packs exactly"
    if known and weights[0].device.type == "cpu" and torch.accelerator.is_available():
        return None  # on its way to a GPU; a large one is slow here
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
                    attention_mask=dense_mask(torch.tensor([ends], device=device)),
                    logits_to_keep=torch.tensor(last, device=device),
                    use_cache=False,
                )
                .logits[0]
                .float()
            )
    except (TypeError, ValueError, RuntimeError, IndexError) as error:
        if memory_exhausted(error) is not None:
            raise  # which says nothing of the model
        return f"it takes no packs ({first_line(error)})"
    finally:
        for module, training in modes:
            module.training = training
    # Over a row's logits: half precision rounds some of 50,000 by a tenth of their spread, a row that sees another one
    # moves all of them by half of it or more.
    apart = (alone - packed).square().mean(-1).sqrt() / alone.std(-1).clamp(min=1e-6)
    if apart.max() > (1e-3 if weights[0].dtype == torch.float32 and not _is_quantised(model) else 0.2):
        return "a row's logits in a pack are not those that it has alone"
    return None


def _is_quantised(model: PreTrainedModel) -> bool:
    return getattr(model.config, "quantization_config", None) is not None


def _take_block_masks(model: PreTrainedModel, config: Any, autocast: torch.dtype | None) -> bool:
    """Let the model's attention take block masks, if FlexAttention runs on its device: forward and backward are tried
    with heads of its number, size and type.
    """
    base = model.get_base_model() if hasattr(model, "peft_config") else model
    weight = next(iter(base.parameters()))
    if not _is_on_gpu(weight) or not getattr(base, "_supports_flex_attn", False):
        return False
    if getattr(config, "attention_dropout", 0.0):
        return False
    if config._attn_implementation == PACK_ATTENTION:
        return True
    count = config.num_attention_heads
    pairs = getattr(config, "num_key_value_heads", None) or count
    width = getattr(config, "head_dim", None) or config.hidden_size // count
    dtype = autocast or base.dtype
    try:
        # Not random: that would change what the run draws from here on.
        heads = torch.ones(1, count, BLOCK, width, device=weight.device, dtype=dtype, requires_grad=True)
        ends = torch.full((1, BLOCK), BLOCK, device=weight.device)
        module, others = torch.nn.Module(), heads[:, :pairs]
        flex_attention_forward(module, heads, others, others, block_mask(ends))[0].sum().backward()
    except Exception:  # noqa: BLE001 - a compiler, a driver, a kernel: whatever it is, sdpa stays
        return False
    base.set_attn_implementation(PACK_ATTENTION)
    return True


def _is_on_gpu(weight: Tensor) -> bool:
    return weight.device.type == "cuda"


def dense_mask(subtree_ends: Tensor) -> Tensor:
    """What tokens of packs see: boolean `(S, 1, T, T)` from `subtree_ends` `(S, T)`. A token sees those before it
    whose subtree it is in; padding sees itself (a row without any True would be NaN).
    """
    index = torch.arange(subtree_ends.shape[-1], device=subtree_ends.device)
    return ((index[:, None] >= index) & (index[:, None] < subtree_ends[:, None, :]))[:, None]


def block_mask(subtree_ends: Tensor) -> BlockMask:
    """The same as FlexAttention takes it; T is a multiple of 128. Made of (T / 128)^2 numbers: torch's own
    `create_block_mask` goes over all T^2.
    """

    def sees(pack: Tensor, _: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (query >= key) & (query < subtree_ends[pack, key])

    count, length = subtree_ends.shape
    blocks = subtree_ends.view(count, 1, -1, BLOCK)
    furthest, nearest = blocks.amax(-1)[:, :, None], blocks.amin(-1)[:, :, None]
    index = torch.arange(length // BLOCK, device=subtree_ends.device)
    query, key = index[:, None], index
    # Of a block of keys, the last query block that sees any, and the last of which all see all.
    some = (query >= key) & (query * BLOCK < furthest)
    whole = (query > key) & ((query + 1) * BLOCK <= nearest)
    return BlockMask.from_kv_blocks(
        *_in_order(some & ~whole), *_in_order(whole), BLOCK_SIZE=BLOCK, mask_mod=sees, seq_lengths=(length, length)
    )


def _in_order(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """Per row of blocks how many are taken, and which: they come first."""
    order = blocks.to(torch.int8).argsort(dim=-1, descending=True, stable=True)
    return blocks.sum(-1, dtype=torch.int32), order.to(torch.int32)
