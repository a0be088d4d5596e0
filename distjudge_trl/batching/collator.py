"""The collator: tokenized rows become the tensors of one forward pass, either left-padded or packed along shared
prefixes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from distjudge_trl.batching.pack_attention import pack_mask
from distjudge_trl.batching.prefixes import PrefixSharing, common_length


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
        sharing ([`PrefixSharing`], *optional*): pack the rows of a batch into one sequence in which a common prefix
            occurs once, if the sharing says that this pays. By default rows are padded.

    Returns a dict with, for B rows padded to T tokens:

        - `label_distribution` `(B, K)` float32, `reference` `(B,)` int64, `num_annotators` `(B,)` int64, where the
          features have them;
        - left-padded: `input_ids`, `attention_mask`, `position_ids`, all `(B, T)` int64. The judgment position is the
          last one;
        - packed: `input_ids` and `position_ids` `(1, T)`; `subtree_ends` `(1, T)`: a token is seen by the tokens from
          itself up to this index, exclusive; `judgment_positions` `(B,)`.

    Example:
        >>> collate = JudgmentCollator(pad_token_id=0, pad_to_multiple_of=1)
        >>> collate([{"input_ids": [5, 6, 7]}, {"input_ids": [5, 8]}])
        {'input_ids': tensor([[5, 6, 7], [0, 5, 8]]),
         'attention_mask': tensor([[1, 1, 1], [0, 1, 1]]),
         'position_ids': tensor([[0, 1, 2], [0, 0, 1]])}
    """

    pad_token_id: int
    pad_to_multiple_of: int = 16
    sharing: PrefixSharing | None = None

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
        if self.sharing is not None and self.sharing.packs(rows):
            batch.update(self._pack(rows, math.lcm(max(self.pad_to_multiple_of, 1), self.sharing.pad_to_multiple_of)))
        else:
            batch.update(self._pad_left(rows))
        return batch

    def _round_up(self, length: int, multiple: int) -> int:
        return -(-length // multiple) * multiple

    def _pad_left(self, rows: list[list[int]]) -> dict[str, Tensor]:
        width = self._round_up(max(map(len, rows)), max(self.pad_to_multiple_of, 1))
        input_ids = torch.full((len(rows), width), self.pad_token_id, dtype=torch.int64)
        attention_mask = torch.zeros_like(input_ids)
        for i, row in enumerate(rows):
            input_ids[i, width - len(row) :] = torch.tensor(row)
            attention_mask[i, width - len(row) :] = 1
        # Not all models derive positions from the mask (GPT-2 does not), so they are always passed.
        position_ids = (attention_mask.cumsum(-1) - 1).clamp(min=0)
        return {"input_ids": input_ids, "attention_mask": attention_mask, "position_ids": position_ids}

    def _pack(self, rows: list[list[int]], multiple: int) -> dict[str, Tensor]:
        """Lay the rows out as a prefix tree, depth first: in sorted order every row adds only the tokens after its
        common prefix with the row before it.

        A token sees its ancestors in the tree, which are the tokens of its own row. Its position id is its depth.
        """
        order = sorted(range(len(rows)), key=rows.__getitem__)
        tokens: list[int] = []
        depths: list[int] = []
        ends: list[int] = []
        path: list[int] = []  # indices of the tokens of the previous row
        judgment_positions = [0] * len(rows)
        previous: list[int] = []
        for i in order:
            shared = common_length(previous, rows[i])
            for index in path[shared:]:
                ends[index] = len(tokens)
            start = len(tokens)
            tokens += rows[i][shared:]
            depths += range(shared, len(rows[i]))
            ends += [0] * (len(tokens) - start)
            path = path[:shared] + list(range(start, len(tokens)))
            judgment_positions[i] = path[-1]
            previous = rows[i]
        for index in path:
            ends[index] = len(tokens)
        length = self._round_up(len(tokens), multiple)
        padding = length - len(tokens)
        return {
            "input_ids": torch.tensor([tokens + [self.pad_token_id] * padding]),
            "position_ids": torch.tensor([depths + [0] * padding]),
            "subtree_ends": torch.tensor([ends + list(range(len(tokens) + 1, length + 1))]),
            "judgment_positions": torch.tensor(judgment_positions),
        }


def context_length(model: Any) -> int | None:
    """The longest input of the model in tokens, if its config says so."""
    return getattr(model.config.get_text_config(), "max_position_embeddings", None)


def judgment_logits(model: torch.nn.Module, batch: dict[str, Tensor], sharing: PrefixSharing | None = None) -> Tensor:
    """Next-token logits `(B, V)` at the judgment position of every row of a collated batch; never `(B, T, V)`.

    `model` is called as it is given, wrapped by DDP, DeepSpeed, FSDP or PEFT, without labels. `sharing`, of
    [`find_sharing`], says with which mask it reads packs; by default with a dense one.
    """
    inputs: dict[str, Any] = {name: batch[name] for name in ("input_ids", "position_ids")}
    if "judgment_positions" not in batch:
        inputs["attention_mask"] = batch["attention_mask"]
        return model(**inputs, logits_to_keep=1, use_cache=False).logits[:, -1]
    inputs["attention_mask"] = pack_mask(batch["subtree_ends"], "dense" if sharing is None else sharing.mask)
    return model(**inputs, logits_to_keep=batch["judgment_positions"], use_cache=False).logits[0]
