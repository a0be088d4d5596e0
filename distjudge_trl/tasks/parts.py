"""The parts of a task's split: training, validation and test records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from distjudge_trl.data.splits import SWAPPED, Partition, SplitPlan
from distjudge_trl.data.template import PromptTemplate
from distjudge_trl.tasks.items import Item, LoadReport, TaskOptions
from distjudge_trl.tasks.task import JudgmentTask


if TYPE_CHECKING:
    from distjudge_trl.batching import PromptFitter


def load_partition(
    task: JudgmentTask,
    data_path: str | Path | None,
    options: TaskOptions,
    plan: SplitPlan,
    *,
    hold_out: bool,
    template: PromptTemplate | None = None,
    fitter: PromptFitter | None = None,
    report: LoadReport,
) -> Partition:
    """All records of a task, split as `plan` says; see [`SplitPlan.partition`] for `hold_out`.

    `max_annotators` draws from the votes of training items alone: a judge that was trained on a small budget is
    chosen and tested on all votes.

    Raises:
        [`UserInputError`]: a problem with the files or the split.
    """
    all_votes = replace(options, max_annotators=None)
    items: Iterable[Item] = task.items(data_path, all_votes, report=report)
    if options.max_annotators is not None:
        items = list(items)  # they are needed twice
    drawn = task.draw(items, all_votes, report=report)
    records = task.records(drawn, all_votes, template=template, fitter=fitter, report=report)
    parts = plan.partition(records, hold_out=hold_out)
    if options.max_annotators is not None and parts.train is not None:
        names = set(parts.train["id"])
        # A pair in both orders has two ids, and a split of single records may take only one of them.
        chosen = [item for item in items if item.id in names or f"{item.id}{SWAPPED}" in names]
        training_report = LoadReport(num_read=len(chosen), files=report.files)
        budget = task.draw(chosen, options, report=training_report)
        # The report already counts prompts that were shortened.
        without_notes = replace(training_report, notes=Counter())
        train = task.records(budget, options, template=template, fitter=fitter, report=without_notes)
        train = train.select([i for i, name in enumerate(train["id"]) if name in names])
        train = train.select_columns(parts.train.column_names)
        report.add_training(training_report)
        parts = parts._replace(train=train)
    return parts
