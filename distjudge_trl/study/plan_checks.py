"""What the runs of a plan may not differ in, because tables compare them."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable

from distjudge_trl.errors import UserInputError, clipped
from distjudge_trl.study.plan_file import PlanFile
from distjudge_trl.study.planned_run import READING_OPTIONS, PlannedRun, options_apart


# Characters of data set and name; file systems take 255, and logs and locks have endings.
_LONGEST_NAME = 200
# Options that leave a judge as it is.
_OF_NO_RESULT = {"logging_steps", "logging_strategy", "report_to", "save_strategy", "save_steps", "save_total_limit"}


def check_length(run: PlannedRun) -> None:
    if len(run.full_name) > _LONGEST_NAME:
        raise UserInputError(
            f"The name of a run would be too long for a folder: {clipped(run.full_name)}. Choose shorter names or, in"
            " place of long values in `vary`, methods with options."
        )


def check_spelling(runs: Iterable[PlannedRun]) -> None:
    """Values that are equal are one point of a table, so they may not be written in two ways, as 2 and 2.0."""
    firsts: dict[tuple[str, str, int], list[PlannedRun]] = {}
    for run in runs:
        others = firsts.setdefault((run.data, run.method, run.seed), [])
        for other in others:
            if dict(other.vary) == dict(run.vary):
                raise UserInputError(
                    f"The runs {other.full_name} (part {other.parts[0]!r}) and {run.full_name} (part {run.parts[0]!r})"
                    " have the same options, written in two ways. Write them in one."
                )
        others.append(run)


def check_parts(content: PlanFile, runs: Collection[PlannedRun]) -> None:
    """Tables compare the seeds, the methods and what is varied on a data set, so nothing else may differ."""
    options = dict.fromkeys(name for run in runs for name in run.options)
    for data, name in itertools.product(dict.fromkeys(run.data for run in runs), options):
        own = [run for run in runs if run.data == data and not _may_differ(content, run, name)]
        for run in own:
            found = ({key: each.options[key] for key in (name,) if key in each.options} for each in (own[0], run))
            if apart := options_apart(*found):
                raise UserInputError(
                    f"The runs {own[0].full_name} (part {own[0].parts[0]!r}) and {run.full_name} (part"
                    f" {run.parts[0]!r}) would be compared in tables, but besides their methods they have other"
                    f" options: {apart}. Give the option to `data.{data}`, vary it, or name a method that has it."
                )


def _may_differ(content: PlanFile, run: PlannedRun, option: str) -> bool:
    """Whether an option belongs to a run's method or to what its part varies, or changes nothing."""
    if option in _OF_NO_RESULT or not (run.is_trained or option in READING_OPTIONS):
        return True
    method = content.methods.get(run.method)
    return option in {"method", "seed", *run.vary, *(method.options if method is not None else ())}
