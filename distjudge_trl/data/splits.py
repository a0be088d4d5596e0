"""Splits and subsamples that depend on ids and a seed alone, not on row order, machine or Python's hash."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal, NamedTuple

from datasets import Dataset

from distjudge_trl.errors import UserInputError


# The suffix of the id of a pair in the swapped order, which has the same votes with A and B exchanged.
SWAPPED = "/swapped"

SplitKind = Literal["group", "paper"]
# The parts of an official split, as the column `split` of the records names them.
OFFICIAL_PARTS = ("train", "validation", "test")


def stable_key(seed: int, name: str) -> bytes:
    """A pseudo-random sort key for `name`: the same on every machine, another for every seed."""
    return hashlib.sha256(f"{seed}:{name}".encode()).digest()


def split_records(
    dataset: Dataset, kind: SplitKind = "group", *, test_fraction: float = 0.2, seed: int = 0
) -> tuple[Dataset, Dataset]:
    """Split records into train and test.

    Args:
        dataset (`Dataset`): judgment records.
        kind (`"group"` or `"paper"`, defaults to `"group"`): `"group"` keeps all records of a group (an article, a
            premise, a word family) on one side, so that nothing leaks; `"paper"` draws single records at random, as
            the paper does.
        test_fraction (`float`, defaults to 0.2): share of the records for the test side; exact for `"paper"`, reached
            up to one group for `"group"`.
        seed (`int`, defaults to 0): another seed, another split.

    Returns:
        `tuple[Dataset, Dataset]`: train and test, both in the dataset's own order.

    Raises:
        [`UserInputError`]: an unknown kind, a fraction outside (0, 1), or one side would be empty.
    """
    if kind not in ("group", "paper"):
        raise UserInputError(f"Unknown split {kind!r}; choose 'group' (no leaks) or 'paper' (random records).")
    if not 0 < test_fraction < 1:
        raise UserInputError(f"The test fraction must lie between 0 and 1, got {test_fraction}.")
    names = dataset["group"] if kind == "group" else dataset["id"]
    members: dict[str, list[int]] = {}
    for index, name in enumerate(names):
        members.setdefault(name, []).append(index)
    wanted = round(test_fraction * len(dataset))
    test: list[int] = []
    for name in sorted(members, key=lambda name: stable_key(seed, name)):
        if len(test) >= wanted:
            break
        test.extend(members[name])
    chosen = set(test)
    train = [i for i in range(len(dataset)) if i not in chosen]
    if not train or not test:
        raise UserInputError(
            f"The {kind!r} split leaves one side empty: {len(dataset)} records in {len(members)} "
            f"{'groups' if kind == 'group' else 'records'}. Use more data or --split paper."
        )
    return dataset.select(train), dataset.select(sorted(test))


class Partition(NamedTuple):
    """Records to train on, to choose and calibrate on (a part of the training side), and to test on. A part that was
    not requested is `None`.
    """

    train: Dataset | None
    validation: Dataset | None
    test: Dataset


@dataclass(frozen=True)
class SplitPlan:
    """Which records are used for what. Training, evaluation and sweeps all split by a plan, so that the same settings
    mean the same test items wherever a judge is scored.

    Args:
        kind (`"official"`, `"group"`, `"paper"` or `"all"`, defaults to `"group"`): `"official"` takes the parts that
            the source of the data names (the column `split` of the records); `"group"` and `"paper"` are those of
            [`split_records`]; with `"all"` every record is a test record.
        seed (`int`, defaults to 0): seed of the split, and of the samples that are drawn from its parts.
        validation_fraction (`float`, defaults to 0.1): share of the training side that is held out, if anything is.
    """

    kind: Literal["official", "group", "paper", "all"] = "group"
    seed: int = 0
    validation_fraction: float = 0.1

    @property
    def match_by(self) -> Literal["group", "id"]:
        """By what a test item counts as seen in training. An official split and the paper's may have items of one
        group on both sides; comparisons with others need all of their test items.
        """
        return "group" if self.kind in ("group", "all") else "id"

    def partition(self, records: Dataset, *, hold_out: bool = True) -> Partition:
        """The parts of `records`. Without `hold_out` the validation records stay among the training records, but for
        those of an official validation part, on which nothing is ever trained.

        Raises:
            [`UserInputError`]: as [`split_records`], or there is no official split.
        """
        if self.kind == "official":
            return self._official_parts(records, hold_out)
        if "split" in records.column_names:
            records = records.remove_columns("split")
        if self.kind == "all":
            return Partition(None, None, records)
        if not hold_out:
            train, test = split_records(records, self.kind, seed=self.seed)
            return Partition(train, None, test)
        return partition(records, self.kind, validation_fraction=self.validation_fraction, seed=self.seed)

    def _official_parts(self, records: Dataset, hold_out: bool) -> Partition:
        """The parts that the source names. Where it has no test part its validation part is tested on, and validation
        records are drawn from the training part.
        """
        if "split" not in records.column_names:
            raise UserInputError("--split official: the source of the data names no parts. Use --split group.")
        names = records["split"][:]
        parts = {
            part: records.select([i for i, name in enumerate(names) if name == part]).remove_columns("split")
            for part in OFFICIAL_PARTS
        }
        train, validation, test = (parts[part] for part in OFFICIAL_PARTS)
        if not len(train) or not (len(validation) or len(test)):
            sizes = ", ".join(f"{len(records):,} {part}" for part, records in parts.items())
            raise UserInputError(
                f"--split official: needs a training part, and one to test on; there are {sizes} records. Give the"
                " files of the other parts, or use --split group (to evaluate on one part alone: --split all)."
            )
        if len(validation) and len(test):
            return Partition(train, validation if hold_out else None, test)
        test = test if len(test) else validation
        if not hold_out:
            return Partition(train, None, test)
        train, held_out = split_records(train, test_fraction=self.validation_fraction, seed=self.seed + 1)
        return Partition(train, held_out, test)

    def sample(self, records: Dataset, max_samples: int | None, *, pairs: bool = False) -> Dataset:
        """At most `max_samples` records of a part; see [`subsample`]."""
        return subsample(records, max_samples, seed=self.seed, pairs=pairs)


def partition(
    dataset: Dataset, kind: SplitKind = "group", *, validation_fraction: float = 0.1, seed: int = 0
) -> Partition:
    """Split 8:2 with [`split_records`], and split the training side once more. The same arguments always give the same
    three parts.
    """
    train, test = split_records(dataset, kind, seed=seed)
    train, validation = split_records(train, kind, test_fraction=validation_fraction, seed=seed + 1)
    return Partition(train, validation, test)


def within_budget(dataset: Dataset, budget: int, *, seed: int = 0) -> Dataset:
    """As many items as `budget` votes pay for, in the order in which [`subsample`] draws them. A pair in both orders
    is two records of one item, whose votes are paid once.

    Raises:
        [`UserInputError`]: the budget does not pay for one item.
    """
    price = _votes_of_items(dataset)
    chosen, spent = set(), 0
    for name in sorted(price, key=lambda name: stable_key(seed, name)):
        if spent + price[name] > budget:
            break
        spent += price[name]
        chosen.add(name)
    if not chosen:
        raise UserInputError(f"A budget of {budget} votes does not pay for one item.")
    return dataset.select([i for i, name in enumerate(dataset["id"]) if name.removesuffix(SWAPPED) in chosen])


def num_votes(dataset: Dataset) -> int:
    """Number of votes behind the records; those of a pair in both orders count once."""
    return sum(_votes_of_items(dataset).values())


def _votes_of_items(dataset: Dataset) -> dict[str, int]:
    return {
        name.removesuffix(SWAPPED): votes for name, votes in zip(dataset["id"], dataset["num_annotators"], strict=True)
    }


def subsample(dataset: Dataset, max_samples: int | None, *, seed: int = 0, pairs: bool = False) -> Dataset:
    """At most `max_samples` records, drawn by hash of their ids: a larger budget always contains a smaller one's
    records. With `pairs` both orders of a pair are drawn together.
    """
    if max_samples is None or max_samples >= len(dataset):
        return dataset
    if max_samples < 1:
        raise UserInputError(f"A sample needs at least one record, got {max_samples}.")
    ids = dataset["id"]
    if pairs:
        orders: dict[str, list[int]] = {}
        for row, name in enumerate(ids):
            orders.setdefault(name.removesuffix(SWAPPED), []).append(row)
        chosen = [row for name in sorted(orders, key=lambda name: stable_key(seed, name)) for row in orders[name]]
        if chosen[max_samples] in orders[ids[chosen[max_samples - 1]].removesuffix(SWAPPED)]:
            max_samples -= 1  # it would cut the last pair
    else:
        chosen = sorted(range(len(dataset)), key=lambda i: stable_key(seed, ids[i]))
    chosen = chosen[:max_samples]
    return dataset.select(sorted(chosen))
