"""Tables of the report, and the text of their cells."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from distjudge_trl.evaluation.statistics import over_seeds
from distjudge_trl.report import paper
from distjudge_trl.report.tables import markdown_table, markdown_text
from distjudge_trl.report.test_sets import Cell, TestSet


PAPER = "paper"
OURS = "ours"
LEVEL = 0.05


@dataclass
class Table:
    """A table of a report. `name` is the name of its file, `rows` are texts, and `notes` are shown below it."""

    name: str
    title: str
    header: list[str]
    rows: list[list[str]]
    notes: list[str] = field(default_factory=list)

    @property
    def paper_rows(self) -> set[int]:
        """Indices of the rows that quote the paper, according to the column `source`."""
        if "source" not in self.header:
            return set()
        source = self.header.index("source")
        return {i for i, row in enumerate(self.rows) if row[source] == PAPER}

    def markdown(self) -> str:
        """Title, table and notes."""
        return f"## {markdown_text(self.title)}\n\n{self.body()}"

    def body(self) -> str:
        """Table and notes, for a page that has a heading of its own."""
        notes = "".join(f"\n- {markdown_text(note)}" for note in self.notes)
        return f"{markdown_table(self.header, self.rows)}\n{notes and notes + chr(10)}"


def number(values: Sequence[float], spec: str, factor: float = 1.0) -> str:
    """Mean of a figure, with the standard deviation over seeds if there are several; a dash without a value."""
    if not values:
        return "-"
    summary = over_seeds([factor * value for value in values])
    if np.isnan(summary.mean):
        return "-"
    text = format(summary.mean, spec)
    return f"{text} ± {format(summary.std, spec)}" if summary.num_runs > 1 else text


def kl_text(cell: Cell, mark: str = "") -> str:
    """The KL with its standard deviation over seeds, or with its interval over items."""
    text = number(cell.values("kl"), ".3f")
    kl = cell.rows[0].metrics["kl"]
    if len(cell.rows) == 1 and kl["low"] is not None:
        text += f" [{kl['low']:.3f}, {kl['high']:.3f}]"
    return text + mark


def accuracy_text(cell: Cell) -> str:
    return number(cell.values("accuracy"), ".1f", 100)


def source_text(cells: Iterable[Cell]) -> str:
    """ "ours" with the number of seeds."""
    counts = sorted({len(cell.rows) for cell in cells})
    if counts == [1]:
        return OURS
    return f"{OURS}, {counts[0]} seeds" if len(counts) == 1 else f"{OURS}, {counts[0]} to {counts[-1]} seeds"


def excess_text(cell: Cell) -> str:
    return number(cell.values("excess_kl"), ".3f")


def floor_text(test_set: TestSet) -> str:
    return f"{test_set.noise_floor:.3f}" if test_set.noise_floor is not None else "-"


class Column(NamedTuple):
    """The column of a test set. A task of the paper without runs of ours has a column, too."""

    title: str
    task: str
    test_set: TestSet | None

    @property
    def cells(self) -> Sequence[Cell]:
        return self.test_set.main_cells if self.test_set is not None else ()


def make_columns(tasks: Sequence[str], test_sets: Sequence[TestSet]) -> list[Column]:
    columns: list[Column] = []
    for task in tasks:
        ours = [test_set for test_set in test_sets if test_set.task == task and test_set.source is None]
        columns += [Column(paper.TITLES[task] if len(ours) == 1 else entry.name, task, entry) for entry in ours]
        columns += [] if ours else [Column(paper.TITLES[task], task, None)]
    return columns
