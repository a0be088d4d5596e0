"""Rows with common prefixes: how much work a batch saves by computing them once, and a sampler that draws such rows
into one batch.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import sqrt
from typing import Literal

from torch.utils.data import Sampler


Row = Sequence[int]
# How the mask of a pack is stored, from the most to the fewest pairs of tokens that are computed.
PackMask = Literal["dense", "tiles", "blocks"]

# The cost of a pair of tokens in attention, relative to a multiply-add in a linear layer: attention kernels reach a
# third of a matrix product's speed or less (scripts/benchmarks/training.py).
ATTENTION_COST = 3
# A pack has to save this share of the work. The estimates are too coarse for smaller savings.
MIN_SAVING = 0.1
# Width of FlexAttention's blocks.
BLOCK = 128
# What a tile costs beside its pairs, as a number of queries: its keys are gathered.
_TILE_COST = 24
# An order of rows is judged by this many batches.
_NUM_JUDGED = 256


@dataclass(frozen=True)
class PrefixSharing:
    """How the rows of a model's batches share prefixes.

    Args:
        width (`int`): hidden size of the model.
        longest (`int`, *optional*): longer rows exceed a sliding window, so their batches are padded.
        always (`bool`): pack even if it does not save work.
        mask (`str`): packs are read by FlexAttention with a mask in `"blocks"`, which skips masked blocks and takes (T
            / 128)^2 numbers; in `"tiles"` of queries with the keys that they see; or by sdpa with a `"dense"` mask of
            T x T.
    """

    width: int
    longest: int | None = None
    always: bool = False
    mask: PackMask = "dense"

    @property
    def pad_to_multiple_of(self) -> int:
        """The length of a pack is a multiple of this."""
        return BLOCK if self.mask == "blocks" else 1

    def packs(self, rows: Sequence[Sequence[int]]) -> bool:
        """Whether a batch of rows (token ids) is read as a pack, which is the case if that is clearly less work. As a
        rule it then takes less memory, too, because activations outweigh what attention keeps (docs/performance.md).
        """
        return self._choose(rows)[0]

    def work(self, rows: Sequence[Sequence[int]]) -> float:
        """The work of reading a batch, in the unit of [`padded_work`]."""
        return self._choose(rows)[1]

    def _choose(self, rows: Sequence[Sequence[int]]) -> tuple[bool, float]:
        padded = padded_work(rows, self.width)
        if self.longest is not None and max(map(len, rows)) > self.longest:
            return False, padded
        packed = packed_work(rows, self.width, self.mask)
        return (True, packed) if self.always or is_clearly_less(packed, padded) else (False, padded)


def common_length(one: Row, other: Row) -> int:
    """Length of the common prefix of two rows of token ids (or of bytes)."""
    low, high = 0, min(len(one), len(other))
    while low < high:  # slices compare many times faster than a loop
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def padded_work(rows: Sequence[Row], width: int) -> float:
    """Multiply-adds of a layer, divided by 2 `width`, for reading rows padded to one length.

    A token costs about 12 width^2 in the linear layers and 2 c width beside c others in attention.
    """
    longest = max(map(len, rows))
    return _work(len(rows) * longest, len(rows) * longest**2, width)


def packed_work(rows: Sequence[Row], width: int, mask: PackMask = "dense") -> float:
    """The same for one pack in which common prefixes occur once. Attention is computed over all pairs of tokens; with
    `"tiles"` over a tile's queries and keys, with `"blocks"` over about those that see each other.
    """
    length, longest = packed_length(rows), max(map(len, rows))
    pairs = length * {"dense": length, "tiles": longest + tile_width(length, longest), "blocks": longest}[mask]
    return _work(length, pairs, width)


def tile_width(length: int, longest: int) -> int:
    """Number of queries in a tile of a pack of `length` tokens whose rows have up to `longest`.

    W queries have up to `longest` + W keys, so narrow tiles compute fewer pairs. Wide tiles gather fewer keys.
    """
    count = -(-length // round(sqrt(_TILE_COST * longest) + 1))
    return -(-length // (8 * count)) * 8  # the last tile should be about as full as the others


def packed_length(rows: Sequence[Row]) -> int:
    """Number of tokens of a pack: of every row, in lexicographic order, those after its common prefix with the row
    before it.
    """
    ordered = sorted(map(list, rows))
    return len(ordered[0]) + sum(len(row) - common_length(before, row) for before, row in pairwise(ordered))


def _work(tokens: int, pairs: int, width: int) -> float:
    return 6 * width * tokens + ATTENTION_COST * pairs


def is_clearly_less(work: float, other: float) -> bool:
    """Whether some work is less than other work by more than the error of the estimates."""
    return work < (1 - MIN_SAVING) * other


class PrefixGroupSampler(Sampler[int]):
    """Draws rows with common prefixes into one batch; the batches come in random order.

    The rows form a tree of their prefixes. From the leaves up, every node shuffles the rows below it, cuts them into
    full batches and passes the rest on to its parent. So rows are drawn with those that share most with them, and no
    row is left out or drawn twice. Only the last batch of an epoch may be smaller. Every epoch is a new draw that
    depends only on `seed` and the epoch: it is the same on all ranks and in a resumed run.

    Args:
        rows (`Iterable` of token ids): the prompts; they are not kept.
        batch_size (`int`): rows that are drawn together, which are those of one process in one forward pass. It may be
            changed later; the draw changes with it.
        seed (`int`, defaults to 0): of the draw.
    """

    def __init__(self, rows: Iterable[Row], batch_size: int, seed: int = 0) -> None:
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 0
        self._tree = prefix_tree(rows)
        self._num_rows = sum(len(leaves) for leaves, _ in self._tree)

    def __len__(self) -> int:
        return self._num_rows

    def set_epoch(self, epoch: int) -> None:
        """Called by accelerate's dataloaders."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        for batch in self.batches():
            yield from batch

    def batches(self) -> list[list[int]]:
        """The epoch's batches of row indices."""
        rng = random.Random(f"{self.seed}-{self.epoch}")
        size = self.batch_size
        batches: list[list[int]] = []
        rests: list[list[int]] = []
        for leaves, nodes in self._tree:
            parts = [[leaf] for leaf in leaves] + [rests[node] for node in nodes]
            rng.shuffle(parts)
            below = [row for part in parts for row in part]
            whole = len(below) - len(below) % size
            batches += [below[i : i + size] for i in range(0, whole, size)]
            rests.append(below[whole:])
        rng.shuffle(batches)
        return [*batches, *([rests[-1]] if rests and rests[-1] else [])]


def prefix_tree(rows: Iterable[Row]) -> list[tuple[list[int], list[int]]]:
    """The tree of the rows' prefixes as a list of nodes, children before parents. A node holds the rows that end or
    branch off alone there, and the indices of its child nodes in the list. The root comes last.
    """
    # These bytes sort like the ids and take a ninth of the memory of lists.
    keys = [struct.pack(f">{len(row)}I", *row) for row in rows]
    order = sorted(range(len(keys)), key=keys.__getitem__)
    finished: list[tuple[list[int], list[int]]] = []
    # Open nodes from the root down: length of the common prefix, rows, child nodes.
    path: list[tuple[int, list[int], list[int]]] = [(0, [], [])]
    previous: int | None = None
    for row in order:
        shared = 0 if previous is None else common_length(keys[previous], keys[row]) // 4
        child: int | None = None
        while path[-1][0] > shared:
            _, leaves, nodes = path.pop()
            finished.append((leaves, nodes))
            child = len(finished) - 1
            if path[-1][0] >= shared:
                path[-1][2].append(child)
                child = None
        if path[-1][0] < shared:
            # The new node takes over the node that was closed last, or the previous row alone.
            path.append((shared, [], [child]) if child is not None else (shared, [path[-1][1].pop()], []))
        path[-1][1].append(row)
        previous = row
    while path:
        _, leaves, nodes = path.pop()
        finished.append((leaves, nodes))
        if path:
            path[-1][2].append(len(finished) - 1)
    return finished


def saved_by_grouping(rows: Sequence[Row], sampler: PrefixGroupSampler) -> float:
    """Share of tokens, in [0, 1), that packs of `sampler`'s batches save compared with packs of rows drawn at random;
    estimated from some hundred batches of each.
    """
    order = list(range(len(rows)))
    random.Random(0).shuffle(order)
    size = sampler.batch_size
    at_random = [order[i : i + size] for i in range(0, len(order), size)]

    def share_read(batches: list[list[int]]) -> float:
        # Relative to the rows' own tokens, because the length of rows varies more from batch to batch than the shared
        # part.
        drawn = [[rows[i] for i in batch] for batch in batches[:_NUM_JUDGED]]
        return sum(map(packed_length, drawn)) / sum(len(row) for batch in drawn for row in batch)

    return max(0.0, 1 - share_read(sampler.batches()) / share_read(at_random)) if rows else 0.0


def reading_order(rows: Sequence[Row], batch_size: int, sharing: PrefixSharing | None) -> list[int]:
    """Indices of rows in an order in which batches of consecutive rows take little work: the longest first, so that
    there is least padding; or sorted by content, if packs are read (`sharing`) and that is clearly less work.
    """
    by_length = sorted(range(len(rows)), key=lambda i: (-len(rows[i]), rows[i]))
    if sharing is None:
        return by_length
    by_content = sorted(range(len(rows)), key=lambda i: list(rows[i]))
    starts = range(0, len(rows), batch_size)
    judged = starts[:: max(1, len(starts) // _NUM_JUDGED)]

    def work(order: list[int]) -> float:
        # Relative to the rows' own tokens, as above.
        drawn = [[rows[i] for i in order[s : s + batch_size]] for s in judged]
        return sum(map(sharing.work, drawn)) / sum(len(row) for batch in drawn for row in batch)

    return by_content if rows and is_clearly_less(work(by_content), work(by_length)) else by_length
