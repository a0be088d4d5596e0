"""The votes of a task's training items, for scripts that need no texts."""

import argparse
from typing import NamedTuple


import distjudge_trl  # noqa: F401  # isort: skip (before torch: it says how OpenMP's threads wait)
import numpy as np
from datasets import Dataset

from distjudge_trl.data import SplitPlan
from distjudge_trl.errors import UserInputError
from distjudge_trl.evaluation.metrics import whole_votes
from distjudge_trl.evaluation.scoring import human_side
from distjudge_trl.recipe.parsing import parse_task_options
from distjudge_trl.tasks import LoadReport, get_task
from distjudge_trl.tasks.parts import load_partition


class Votes(NamedTuple):
    """Different vote counts `(N, K)`, each sorted from the most frequent label down, and how many items have them
    `(N,)`. Nothing that is measured here depends on the labels' names; the reference label (eq. 3) is the first.
    """

    counts: np.ndarray
    items: np.ndarray

    @property
    def unanimous(self) -> np.ndarray:
        """Which rows `(N,)` have all votes on one label."""
        return np.asarray(self.counts[:, 0] == self.counts.sum(-1))

    def mean(self, values: np.ndarray, rows: np.ndarray | None = None) -> float:
        """Mean over items of a value `(N,)` of each row, of some rows alone if `rows` `(N,)` marks them."""
        weights = self.items if rows is None else self.items * rows
        return float(values @ weights / weights.sum()) if weights.sum() else float("nan")


def add_task(parser: argparse.ArgumentParser) -> None:
    """The options that `read_votes` takes. A task's own options may follow."""
    parser.add_argument("task", help="name of `distjudge-trl tasks`, or a task file (.yaml)")
    parser.add_argument("--data-path", help="file, archive or folder of the task's data")
    parser.add_argument(
        "--split",
        choices=("official", "group", "paper", "all"),
        help="whose training items; all: every item. Default: official if there is one, else group",
    )


def read_parts(args: argparse.Namespace, task_options: list[str]) -> tuple[Dataset, Dataset, SplitPlan]:
    """The training and test records of the options' split, which `distjudge-trl train` would make, and the split. With
    the split `all` every record is both.

    Raises:
        [`UserInputError`]: a problem with the files or options.
    """
    task = get_task(args.task)
    options = parse_task_options(task, task_options)
    task = task.choose(getattr(options, "question", None))
    plan = SplitPlan(args.split or ("official" if task.official_split else "group"))
    parts = load_partition(task, args.data_path, options, plan, hold_out=False, report=LoadReport())
    return parts.test if parts.train is None else parts.train, parts.test, plan


def read_counts(args: argparse.Namespace, task_options: list[str]) -> np.ndarray:
    """The votes of each training item `(N, K)`, in the order of the labels. Items on which people divide a vote are
    left out.

    Raises:
        [`UserInputError`]: a problem with the files or options, or no item with whole votes.
    """
    _, counts = whole_votes(*human_side(read_parts(args, task_options)[0]))
    if not len(counts):
        raise UserInputError(f"{args.task}: no training item has whole votes.")
    return counts


def read_votes(args: argparse.Namespace, task_options: list[str]) -> Votes:
    """The different votes of the training items, as [`read_counts`] finds them."""
    rows, items = np.unique(-np.sort(-read_counts(args, task_options), axis=-1), axis=0, return_counts=True)
    return Votes(rows, items)
