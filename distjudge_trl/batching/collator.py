"""Tokenized judgment rows to the tensors of one forward pass, either left-padded or packed along shared prefixes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from distjudge_trl.errors import UserInputError


@dataclass
class JudgmentCollator:
    """Build a batch whose judgment positions are known.

    Every feature holds `input_ids` (a prompt that ends where the answer begins) and, for training,
    `label_distribution` (K floats),
    `reference` (index of the reference label) and `num_annotators`.

    Args:
        pad_token_id (`int`): fills the gaps; masked out.
        pad_to_multiple_of (`int`, defaults to 16): rounds lengths up, so that kernels compiled per shape (oneDNN,
            torch.compile) are reused.
        share_prefixes (`bool`, defaults to `False`): pack the rows into one sequence in which a common beginning
            stands once.

    Returns a dict with, for B rows padded to T tokens:

        - `label_distribution` `(B, K)` float32, `reference` `(B,)` int64, `num_annotators` `(B,)` int64, where the
          features have them;
        - left-padded: `input_ids`, `attention_mask`, `position_ids`, all `(B, T)` int64. The judgment position is the
          last one;
        - packed: `input_ids` and `position_ids` `(1, T)`, `attention_mask` `(1, 1, T, T)` bool, `judgment_positions`
          `(B,)`.

    Example:
        >>> collate = JudgmentCollator(pad_token_id=0, pad_to_multiple_of=1)
        >>> collate([{"input_ids": [5, 6, 7]}, {"input_ids": [5, 8]}])
        {'input_ids': tensor([[5, 6, 7], [0, 5, 8]]),
         'attention_mask': tensor([[1, 1, 1], [0, 1, 1]]),
         'position_ids': tensor([[0, 1, 2], [0, 0, 1]])}
    """

    pad_token_id: int
    pad_to_multiple_of: int = 16
    share_prefixes: bool = False

    def __call__(self, features: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        batch: dict[str, Tensor] = {}
        # The targets come first: Trainer takes the batch size from the first tensor, and a pack has one row.
        if "label_distribution" in features[0]:
            batch["label_distribution"] = torch.tensor(
                [f["label_distribution"] for f in features], dtype=torch.float32
            )
            batch["reference"] = torch.tensor([f["reference"] for f in features], dtype=torch.int64)
            batch["num_annotators"] = torch.tensor([f["num_annotators"] for f in features], dtype=torch.int64)
        rows = [list(f["input_ids"]) for f in features]
        batch.update(self._pack(rows) if self.share_prefixes else self._pad_left(rows))
        return batch

    def _round_up(self, length: int) -> int:
        multiple = max(self.pad_to_multiple_of, 1)
        return -(-length // multiple) * multiple

    def _pad_left(self, rows: list[list[int]]) -> dict[str, Tensor]:
        width = self._round_up(max(map(len, rows)))
        input_ids = torch.full((len(rows), width), self.pad_token_id, dtype=torch.int64)
        attention_mask = torch.zeros_like(input_ids)
        for i, row in enumerate(rows):
            input_ids[i, width - len(row) :] = torch.tensor(row)
            attention_mask[i, width - len(row) :] = 1
        # Models differ in whether they derive positions from the mask (GPT-2 does not): always say them.
        position_ids = (attention_mask.cumsum(-1) - 1).clamp(min=0)
        return {"input_ids": input_ids, "attention_mask": attention_mask, "position_ids": position_ids}

    def _pack(self, rows: list[list[int]]) -> dict[str, Tensor]:
        """Lay the rows out as a prefix tree: sorted, every row adds only what its predecessor does not begin with.

        A token sees its ancestors in the tree, that is: its own row. Its position id is its depth.
        """
        order = sorted(range(len(rows)), key=rows.__getitem__)
        tokens: list[int] = []
        depths: list[int] = []
        paths: list[tuple[list[int], int, int]] = []  # (indices of the row's tokens, first own depth, first own index)
        path: list[int] = []
        previous: list[int] = []
        judgment_positions = [0] * len(rows)
        for i in order:
            row = rows[i]
            shared = _common(previous, row)
            start = len(tokens)
            tokens.extend(row[shared:])
            depths.extend(range(shared, len(row)))
            path = path[:shared] + list(range(start, len(tokens)))
            paths.append((path, shared, start))
            judgment_positions[i] = path[-1]
            previous = row
        width = self._round_up(len(tokens))
        mask = torch.zeros(width, width, dtype=torch.bool)
        for path, shared, start in paths:
            own = len(path) - shared
            mask[start : start + own, path[:shared]] = True
            mask[start : start + own, start : start + own] = torch.ones(own, own, dtype=torch.bool).tril()
        # Padding sees itself: a row of an attention mask without any True is NaN, and NaN times zero weight spreads.
        mask.fill_diagonal_(True)
        padding = width - len(tokens)
        return {
            "input_ids": torch.tensor([tokens + [self.pad_token_id] * padding]),
            "attention_mask": mask[None, None],
            "position_ids": torch.tensor([depths + [0] * padding]),
            "judgment_positions": torch.tensor(judgment_positions),
        }


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """Length of the common beginning."""
    shared = 0
    while shared < min(len(one), len(other)) and one[shared] == other[shared]:
        shared += 1
    return shared


def sharing_pays(rows: Sequence[Sequence[int]], hidden_size: int) -> bool:
    """Whether reading prompts (token ids) as one pack takes less than half the work of reading them padded.

    Work is counted in multiply-adds of a layer, about 12 d^2 + 2 c d for a token of width d beside c others: few long
    rows that share little would pay more for the attention of a pack, which is computed over all of it, than they
    save.
    """
    ordered = sorted(map(list, rows))
    packed = len(ordered[0]) + sum(len(row) - _common(before, row) for before, row in pairwise(ordered))
    longest = max(map(len, rows))
    padded = len(rows) * longest
    return 2 * packed * (6 * hidden_size + packed) < padded * (6 * hidden_size + longest)


def check_sharing(model: Any) -> None:
    """Raise [`UserInputError`] unless packs with a block mask are read by `model` like single rows.

    That takes attention that honours a 4-D mask (sdpa) and nothing that reaches over the mask: no sliding windows, no
    recurrent or state-space layers, no positions that are derived from the mask.
    """
    config = model.config.get_text_config()
    attention = getattr(config, "_attn_implementation", None)
    problem = None
    if attention != "sdpa":
        problem = f"its attention implementation is {attention!r}; load it with `attn_implementation=sdpa`"
    elif set(getattr(config, "layer_types", None) or ["full_attention"]) != {"full_attention"}:
        problem = f"it has layers that are not full attention ({', '.join(sorted(set(config.layer_types)))})"
    elif getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True):
        problem = f"its attention is limited to a sliding window of {config.sliding_window} tokens"
    elif getattr(model, "_is_stateful", False):
        problem = "it is recurrent"
    elif getattr(config, "alibi", False) or config.model_type in ("bloom", "mpt"):
        problem = "its positions are read off the attention mask (ALiBi)"
    if problem:
        raise UserInputError(
            f"`share_prefixes` does not work for this model: {problem}. Or turn it off: --share_prefixes False."
        )


def read_head_in_float32(model: Any) -> None:
    """Compute the logits in float32, whatever autocast or the weights' dtype say.

    bfloat16 logits have eight significant bits: label probabilities come in steps of several per cent, and in half of
    the rows two labels tie exactly. Only B x V numbers are computed; a head kept in half precision is widened for it,
    which takes 4 bytes per weight of the head for the time of a step.
    """
    head = model.get_output_embeddings()
    if type(head) is not torch.nn.Linear:  # a quantised or unusual head keeps its own way
        return

    def forward(hidden: Tensor) -> Tensor:
        with torch.autocast(hidden.device.type, enabled=False):
            bias = head.bias.float() if head.bias is not None else None
            return torch.nn.functional.linear(hidden.float(), head.weight.float(), bias)

    head.forward = forward  # type: ignore[method-assign, assignment]


def context_length(model: Any) -> int | None:
    """How many tokens the model can read, if its config says so."""
    return getattr(model.config.get_text_config(), "max_position_embeddings", None)


def judgment_logits(model: torch.nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """Next-token logits `(B, V)` at the judgment position of every row of a collated batch; never `(B, T, V)`.

    `model` is called as it is given, wrapped by DDP, DeepSpeed, FSDP or PEFT, without labels.
    """
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "position_ids")}
    if "judgment_positions" in batch:
        return model(**inputs, logits_to_keep=batch["judgment_positions"], use_cache=False).logits[0]
    return model(**inputs, logits_to_keep=1, use_cache=False).logits[:, -1]
