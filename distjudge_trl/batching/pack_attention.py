"""Attention over packs: which tokens see which, and what computes it."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.flex_attention import flex_attention_forward
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from distjudge_trl.batching.prefixes import BLOCK, PackMask, tile_width


# Name under which transformers finds an attention that takes tiles and block masks, and is sdpa for all other masks.
PACK_ATTENTION = "sdpa_or_packs"
# What some models add to attention scores, by the names under which transformers hands it on. Tiles do not compute it.
_NOT_IN_TILES = ("softcap", "s_aux", "position_bias")
# Tiles of at most this many keys are computed by matrix products that keep their probabilities for the backward.
# Longer ones would keep more than the linear layers do.
_FEW_KEYS = 1024


def pack_mask(subtree_ends: Tensor, kind: PackMask) -> Tensor | BlockMask:
    """The mask with which a model reads a pack, from `subtree_ends` `(1, T)`."""
    if kind == "blocks":
        return block_mask(subtree_ends)
    return tile_mask(subtree_ends) if kind == "tiles" else dense_mask(subtree_ends)


def dense_mask(subtree_ends: Tensor) -> Tensor:
    """Which tokens of packs see which: boolean `(S, 1, T, T)` from `subtree_ends` `(S, T)`. A token sees the earlier
    tokens in whose subtree it is. Padding sees itself, because a row without any True would give NaN.
    """
    index = torch.arange(subtree_ends.shape[-1], device=subtree_ends.device)
    return ((index[:, None] >= index) & (index[:, None] < subtree_ends[:, None, :]))[:, None]


def block_mask(subtree_ends: Tensor) -> BlockMask:
    """The same mask for FlexAttention; T is a multiple of 128. It is made from (T / 128)^2 numbers, while torch's
    `create_block_mask` evaluates all T^2.
    """

    def sees(pack: Tensor, _: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (query >= key) & (query < subtree_ends[pack, key])

    count, length = subtree_ends.shape
    blocks = subtree_ends.view(count, 1, -1, BLOCK)
    furthest, nearest = blocks.amax(-1)[:, :, None], blocks.amin(-1)[:, :, None]
    index = torch.arange(length // BLOCK, device=subtree_ends.device)
    query, key = index[:, None], index
    # For each block of keys: the query blocks that see some of its keys, and those that see all of them.
    some = (query >= key) & (query * BLOCK < furthest)
    whole = (query > key) & ((query + 1) * BLOCK <= nearest)
    return BlockMask.from_kv_blocks(
        *_in_order(some & ~whole), *_in_order(whole), BLOCK_SIZE=BLOCK, mask_mod=sees, seq_lengths=(length, length)
    )


def tile_mask(subtree_ends: Tensor) -> Tensor:
    """The same mask in tiles: int32 `(N, 1, W, K)` from `subtree_ends` `(1, T)`.

    Tile n holds the queries n W to (n + 1) W, and the K keys at most that some of them see: the ancestors of the first
    one, and the queries themselves. An entry is the index of its key if its query sees it, else -1. It is a 4-D
    tensor, so transformers hands it on to the attention as it is.
    """
    ends = subtree_ends[0]
    length = len(ends)
    index = torch.arange(length, device=ends.device)
    # A token is below all tokens before it but those whose subtrees have ended.
    longest = int((index - torch.bincount(ends, minlength=length).cumsum(0)[:length]).max()) + 1
    width = tile_width(length, longest)
    first = torch.arange(0, length, width, device=ends.device)[:, None]
    counts, keys = _in_order((index < first + width) & (ends > first))
    # Few different shapes, because oneDNN compiles its kernels per shape.
    keys = keys[:, : min(length, -(-int(counts.max()) // 16) * 16)]
    queries = (first + torch.arange(width, device=ends.device))[..., None]
    sees = (queries >= keys[:, None]) & (queries < ends[keys.long()][:, None])
    # Queries past the pack's end: a row without any key would give NaN.
    sees[..., 0] |= ~sees.any(-1)
    return keys[:, None].where(sees, -1)[:, None]


def _in_order(selected: Tensor) -> tuple[Tensor, Tensor]:
    """Per row, how many are selected, and all indices, those of the selected ones first."""
    order = selected.to(torch.int8).argsort(dim=-1, descending=True, stable=True)
    return selected.sum(-1, dtype=torch.int32), order.to(torch.int32)


def _attend(module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **kwargs: Any):
    if isinstance(attention_mask, BlockMask):
        return flex_attention_forward(module, query, key, value, attention_mask, **kwargs)
    if isinstance(attention_mask, Tensor) and attention_mask.dtype == torch.int32:
        return _attend_in_tiles(query, key, value, attention_mask, **kwargs), None
    return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)


def _attend_in_tiles(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    tiles: Tensor,
    dropout: float = 0.0,
    scaling: float | None = None,
    **others: Any,
) -> Tensor:
    """Attention `(1, T, H, D)` of a pack's `query` `(1, H, T, D)` to `key` and `value` `(1, H / G, T, D)`, by
    [`tile_mask`]: all tiles in one call, with the G heads that read one key head beside each other as its queries.

    Raises:
        `ValueError`: the model changes its scores (soft-capping, sinks, position biases). `find_sharing` meets it when
            it tries the model, which then reads packs in another way, or none.
    """
    if added := [name for name in _NOT_IN_TILES if others.get(name) is not None]:
        raise ValueError(f"attention in tiles has no {', '.join(added)}")
    device = query.device.type
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
    num_tiles, _, width, num_keys = tiles.shape
    heads, length, size = query.shape[1:]
    key_heads, groups = key.shape[1], heads // key.shape[1]
    query = F.pad(query[0], (0, 0, 0, num_tiles * width - length))
    query = query.view(key_heads, groups, num_tiles, width, size).permute(2, 0, 1, 3, 4)
    query = query.reshape(num_tiles, key_heads, groups * width, size)
    indices = tiles.amax((1, 2)).clamp(min=0).flatten()  # keys that no query sees have weight 0

    def gather(states: Tensor) -> Tensor:
        # In the first dimension, where the backward adds up a key's gradients in float32.
        rows = states[0].transpose(0, 1).flatten(1).index_select(0, indices)
        return rows.view(num_tiles, num_keys, key_heads, -1).transpose(1, 2)

    key, value, sees = gather(key), gather(value), tiles >= 0
    if device == "cpu" and query.dtype == torch.bfloat16 and num_keys <= _FEW_KEYS and not dropout:
        read = _multiply(query, key, value, sees, size**-0.5 if scaling is None else scaling)
    else:
        read = F.scaled_dot_product_attention(
            query, key, value, attn_mask=sees.repeat(1, 1, groups, 1), dropout_p=dropout, scale=scaling
        )
    read = read.view(num_tiles, key_heads, groups, width, -1).permute(0, 3, 1, 2, 4)
    return read.reshape(1, num_tiles * width, heads, -1)[:, :length]


def _multiply(query: Tensor, key: Tensor, value: Tensor, sees: Tensor, scaling: float) -> Tensor:
    """Attention by two matrix products. sdpa's kernel for CPUs multiplies bfloat16 several times more slowly."""
    rows, num_keys = query.shape[2], key.shape[2]
    bias = torch.zeros_like(sees, dtype=query.dtype).masked_fill_(~sees, float("-inf"))
    bias = bias[:, :, None].expand(-1, key.shape[1], rows // sees.shape[2], -1, -1).reshape(-1, rows, num_keys)
    scores = torch.baddbmm(bias, query.flatten(0, 1), key.flatten(0, 1).transpose(1, 2), alpha=scaling)
    return torch.bmm(scores.softmax(-1), value.flatten(0, 1)).view(*query.shape[:3], -1)


AttentionInterface.register(PACK_ATTENTION, _attend)
AttentionMaskInterface.register(PACK_ATTENTION, sdpa_mask)
