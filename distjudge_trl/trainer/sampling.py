"""How a run draws rows into batches: as transformers does, or so that rows with a common prefix share a batch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from accelerate.data_loader import BatchSamplerShard
from datasets import Dataset
from torch.utils.data import DataLoader

from distjudge_trl.batching import PrefixGroupSampler, saved_by_grouping


if TYPE_CHECKING:
    from distjudge_trl.trainer.distribution_sft_config import DistributionSFTConfig

GROUP_BY_PREFIX = "group_by_prefix"

# `train_sampling_strategy="auto"` groups rows only if that saves this share of the tokens, because batches of similar
# rows are worse samples of the data.
MIN_SAVED_BY_GROUPING = 0.15


@dataclass(frozen=True)
class Sampling:
    """How rows are drawn.

    Args:
        strategy (`str`): `train_sampling_strategy`, with `"auto"` resolved.
        sampler ([`PrefixGroupSampler`], *optional*): for `"group_by_prefix"`.
        saved (`float`, *optional*): share of the tokens that grouping saves, if `"auto"` chose it for that.
    """

    strategy: str
    sampler: PrefixGroupSampler | None = None
    saved: float | None = None

    def describe(self) -> dict[str, Any]:
        """The properties that a resuming run has to share with this one to draw the same batches."""
        return {
            "train_sampling_strategy": self.strategy,
            "group_size": self.sampler.batch_size if self.sampler is not None else None,
        }


def choose_sampling(
    args: DistributionSFTConfig, dataset: Dataset | None, batch_size: int, *, shares: bool
) -> Sampling:
    """How a new run draws its rows.

    Args:
        args ([`DistributionSFTConfig`]): of the run.
        dataset (`Dataset`, *optional*): tokenized training rows.
        batch_size (`int`): rows of one process in one forward pass.
        shares (`bool`): whether the model reads packs.
    """
    strategy = args.train_sampling_strategy
    if strategy == GROUP_BY_PREFIX and dataset is not None:
        return Sampling(strategy, _make_sampler(args, dataset, batch_size))
    if strategy != "auto":
        return Sampling(strategy)
    if not shares or dataset is None:
        return Sampling("random")
    sampler = _make_sampler(args, dataset, batch_size)
    saved = saved_by_grouping(dataset["input_ids"], sampler)
    return Sampling(GROUP_BY_PREFIX, sampler, saved) if saved >= MIN_SAVED_BY_GROUPING else Sampling("random")


def resume_sampling(args: DistributionSFTConfig, dataset: Dataset, batch_size: int, saved: dict[str, Any]) -> Sampling:
    """How a resumed run draws the rest of its rows: as it began, whatever the number of processes and their batch
    size. A strategy in `args` other than `"auto"` is taken as it is, and [`check_same_run`] compares it.

    Args:
        saved (`dict`): the result of [`Sampling.describe`] for the run that is resumed.
    """
    strategy = args.train_sampling_strategy
    if strategy == "auto":
        strategy = saved["train_sampling_strategy"]
    if strategy != GROUP_BY_PREFIX:
        return Sampling(strategy)
    return Sampling(strategy, _make_sampler(args, dataset, saved.get("group_size") or batch_size))


def _make_sampler(args: DistributionSFTConfig, dataset: Dataset, batch_size: int) -> PrefixGroupSampler:
    return PrefixGroupSampler(_rows(dataset), batch_size, args.data_seed if args.data_seed is not None else args.seed)


def _rows(dataset: Dataset) -> Iterator[list[int]]:
    """Token ids, row by row: all rows at once would take ten times as much memory as on disk."""
    for rows in dataset.select_columns(["input_ids"]).with_format(None).iter(1000):
        yield from rows["input_ids"]


def pass_epoch_to_sampler(loader: DataLoader, sampler: PrefixGroupSampler) -> None:
    """Let a dataloader pass the epoch on to its sampler also if accelerate distributes batches to processes and, in a
    resumed run, skips some. accelerate looks for a sampler two levels deep; this places ours where it looks, as
    accelerate does with its own.
    """
    shard = loader.batch_sampler
    if isinstance(shard, BatchSamplerShard):
        shard.sampler = sampler
