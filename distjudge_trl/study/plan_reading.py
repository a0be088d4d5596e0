"""Reading a plan file, with all that it names looked up."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from distjudge_trl.errors import UserInputError, listing, nearest
from distjudge_trl.files.yaml import read_mapping
from distjudge_trl.methods import METHODS
from distjudge_trl.study.plan import Plan, transfer_names
from distjudge_trl.study.plan_file import NAME, PlanFile, PlannedMethod, finding
from distjudge_trl.tasks import get_task


def read_plan(path: str | Path) -> Plan:
    """Read and check a plan file.

    Raises:
        [`UserInputError`]: the file cannot be read; a key or a type is wrong; a part names a data set, a method or a
            task that does not exist. The message names the file and the key.
    """
    path = Path(path)
    content = read_mapping(path, "is not a plan: it has to hold the keys model, data and runs (see docs/studies.md).")
    if {"labels", "template"} & set(content):
        raise UserInputError(f"{path}: is a task, and not a plan, which lists it under `data` (docs/studies.md).")
    try:
        plan = Plan(PlanFile.model_validate(content), path.parent, place=f"{path}: ")
    except ValidationError as error:
        raise UserInputError(f"{path}: {finding(error)}") from None
    check_plan(plan)
    return plan


def check_plan(plan: Plan) -> None:
    """Check that everything which a plan names exists.

    Raises:
        [`UserInputError`]: a part names a data set, a method or a task that does not exist.
    """
    content, place = plan.content, plan.place
    for part, entry in content.runs.items():
        _check_names(f"{place}`runs.{part}.data`", entry.data, content.data)
        _check_names(f"{place}`runs.{part}.methods`", entry.methods, {**METHODS, **content.methods})
    for name, method in content.methods.items():
        if name in METHODS:
            raise UserInputError(f"{place}`methods.{name}`: is a method of the recipes. Choose another name.")
        _check_names(f"{place}`methods.{name}.method`", [method.method], METHODS)
    for data, planned in content.data.items():
        if (start := planned.start) is not None:
            where = f"{place}`data.{data}.start_from`"
            _check_names(where, [start.data], content.data)
            _check_names(where, [start.method] if start.method else [], {**METHODS, **content.methods})
            own = content.methods.get(start.method or "", PlannedMethod(method=start.method or ""))
            if own.method == "raw":
                raise UserInputError(f"{where}: {start.method!r} trains nothing. Name a method that does.")
            if content.data[start.data].start is not None:
                raise UserInputError(
                    f"{where}: {start.data!r} starts from another judge itself. Name a data set whose judges start"
                    " from the plan's model."
                )
        _check_names(f"{place}`data.{data}.compare_with`", planned.compare_with, content.data)
        if planned.compare_with and planned.start is None:
            raise UserInputError(
                f"{place}`data.{data}.compare_with`: is for judges that start from another judge. Give"
                f" `data.{data}.start_from`, too, or leave it out."
            )
        if data == "report":
            raise UserInputError(f"{place}`data.{data}`: the report's folder has this name. Choose another one.")
        for name in planned.transfer:
            (folder,) = transfer_names({name: None}, data)
            if transfer_names(planned.transfer, data).count(folder) > 1:
                raise UserInputError(
                    f"{place}`data.{data}.transfer`: the results of two tasks would have the folder {folder}. Call"
                    " their files differently."
                )
            if not re.fullmatch(NAME, folder):
                raise UserInputError(
                    f"{place}`data.{data}.transfer`: the name of {name!r} becomes a folder's. Call the file by"
                    " letters, digits, dots, dashes and underscores."
                )
        taken = [name for other, entry in content.data.items() for name in transfer_names(entry.transfer, other)]
        if data in taken:
            raise UserInputError(f"{place}`data.{data}`: results of a transfer have this name. Choose another one.")
        for name in (planned.task, *planned.transfer):
            try:
                get_task(plan.find_task(name))
            except UserInputError as error:
                raise UserInputError(f"{place}`data.{data}`: {error}") from None


def _check_names(place: str, names: list[str], known: Mapping[str, Any]) -> None:
    for name in names:
        if name not in known:
            close = nearest(name, known)
            hint = f" Did you mean {close!r}?" if close else ""
            raise UserInputError(f"{place}: there is no {name!r}.{hint} There are: {listing(known)}.")
