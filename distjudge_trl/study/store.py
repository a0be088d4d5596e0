"""The results folder of a study: a small folder for every finished run, fit for a repository.

A folder is one that `distjudge-trl report` reads, without what is large, another's or of one machine: predictions are
in single precision, prompts are left out and groups are numbered, so that no text of a data set is in them, apart from
items' ids; of absolute paths the last name stays.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from distjudge_trl.errors import UserInputError, counted
from distjudge_trl.evaluation.results import (
    PREDICTIONS_NAME,
    RESULTS_NAME,
    digest_of,
    read_results,
)
from distjudge_trl.files.atomic import replacing
from distjudge_trl.judge_folder.training_items import SeenItems
from distjudge_trl.report.runs import Row, Run
from distjudge_trl.report.tables import rows_of
from distjudge_trl.study.named_files import named_files
from distjudge_trl.study.plan import Plan, transfer_names
from distjudge_trl.study.planned_run import PlannedRun, options_apart
from distjudge_trl.study.small_predictions import without_texts, write_small


# Of the provenance, what is not in a run's options already.
_KEPT = ("versions", "git_revision", "platform", "world_size", "train_fingerprint", "data_report", "evaluation")
# Of `evaluation`: where files are on the machine that read them.
_PLACES = ("data_path", "leave_out")
_DIGITS = 6
# Compared with a plan, so that they are not rounded.
_AS_GIVEN = ("options", "vary", "start_options")
# What every result says of its run.
_KINDS = {
    **dict.fromkeys(("data", "method", "date"), str),
    **dict.fromkeys(("options", "vary", "machine"), dict),
    "seed": int,
    "seconds": int | float | None,
}


@dataclass(frozen=True)
class StudyResult:
    """A finished run. `about` is what the study says of it: `data`, `task`, `method`, `seed`, `vary`, `options`,
    `seconds` (`None` if not known), `machine`, `date`, and `transfer` (a task) if the judge was tested on other data
    than its own.
    """

    path: Path
    results: dict[str, Any]
    about: dict[str, Any]

    @cached_property
    def run(self) -> Run:
        """With its predictions."""
        return Run(self.path)

    @cached_property
    def rows(self) -> dict[str, Row]:
        """The judge under `"plain"`, its variants under `"temperature"` and `"vector"`, and the constants by name."""
        rows = {}
        for content in rows_of(self.results):
            name = content["method"] if "constant" in content else content["method"].partition(" + ")[2] or "plain"
            rows[name] = Row(self.run, content, self.results["model"])
        return rows


def result_folder(root: Path, run: PlannedRun, transfer: str | None = None) -> Path:
    """Where the results of a run are kept."""
    return root / (run.data if transfer is None else transfer_names({transfer: None}, run.data)[0]) / run.name


def is_done(root: Path, run: PlannedRun, transfer: str | None = None) -> bool:
    """Whether the results of a run are there.

    Raises:
        [`UserInputError`]: they are, but of another run or of one with other options, or they are damaged.
    """
    folder = result_folder(root, run, transfer)
    if not (folder / RESULTS_NAME).is_file():
        return False
    about = _read_about(folder, read_results(folder))
    if not (folder / PREDICTIONS_NAME).is_file():
        raise UserInputError(
            f"{folder}: lacks its {PREDICTIONS_NAME}. Get it from where the run was made, or delete the folder: then"
            " it is made again."
        )
    if apart := _apart(about, run, transfer):
        raise UserInputError(
            f"{folder}: was made with other options than the plan's: {apart} (there and in the plan). Choose"
            " another folder for the results with --out, give the new run another name in the plan, or delete that"
            " folder."
        )
    return True


def _apart(about: dict[str, Any], run: PlannedRun, transfer: str | None) -> str:
    """What distinguishes a kept result from a run of a plan, as text; empty if nothing does."""
    wanted = _about(run, transfer)
    if text := options_apart(about["options"], wanted.pop("options")):
        return text
    # Results of earlier versions do not say all that follows.
    started = wanted.pop("start_options", {})
    if text := options_apart(about.get("start_options", started), started):
        return f"in the judge of {run.start}, from which it starts, {text}"
    before, now = about.get("files", {}), wanted.pop("files")
    for name in before.keys() & now.keys():
        if before[name] != now[name]:
            return f"{name} names other files now"
    later: dict[str, Any] = {key: wanted[key] for key in ("task", "start_task", "transfer_task") if key in wanted}
    return options_apart(later | {key: about[key] for key in wanted if key in about}, wanted)


def _about(run: PlannedRun, transfer: str | None) -> dict[str, Any]:
    return {
        "data": run.data,
        "task": run.task,
        "method": run.method,
        "seed": run.seed,
        "vary": _portable(dict(run.vary)),
        "options": {**_portable(dict(run.options)), **({"start_from": run.start} if run.start else {})},
        "files": named_files(run.options),
        **({"start_options": _portable(dict(run.start_options)), "start_task": run.start_task} if run.start else {}),
        **({"transfer": transfer, "transfer_task": run.transfer[transfer]} if transfer else {}),
    }


def _read_about(folder: Path, results: dict[str, Any]) -> dict[str, Any]:
    about: Any = results["provenance"].get("study")
    if about is None:
        raise UserInputError(f"{folder}: holds results that are no study's. Choose another folder for the results.")
    if (wrong := _wrong_key(about)) is not None:
        raise UserInputError(
            f"{folder / RESULTS_NAME}: is damaged (`provenance.study` has no valid `{wrong}`). Delete the folder:"
            " then the run is made again."
        )
    found: dict[str, Any] = about
    return found


def _wrong_key(about: Any) -> str | None:
    """The first key that is missing or has a value of another kind, in what a study says of a run."""
    for name, kind in _KINDS.items():
        if not isinstance(about, dict) or not isinstance(about.get(name), kind):
            return name
    speed = about["machine"].get("gflops")
    return None if isinstance(speed, int | float) and speed > 0 else "machine"


def keep(
    root: Path,
    run: PlannedRun,
    made: Path,
    about: dict[str, Any],
    transfer: str | None = None,
    *,
    places: Sequence[Path] = (),
) -> StudyResult:
    """Copy the results of a finished run into the results folder, predictions first: a folder with results is
    complete.

    Args:
        root (`Path`): the results folder.
        run ([`PlannedRun`]): the run.
        made (`Path`): the folder that the run has written.
        about (`dict`): `seconds`, `machine` and `date`.
        transfer (`str`, *optional*): the other task that the judge was tested on.
        places (`Sequence[Path]`): folders of this machine. In texts their names are left out.
    """
    folder = result_folder(root, run, transfer)
    results = read_results(made)
    with replacing(folder / PREDICTIONS_NAME) as temporary:
        write_small(without_texts(made / PREDICTIONS_NAME), temporary)
        digest = digest_of(temporary)
    provenance = {name: results["provenance"][name] for name in _KEPT if name in results["provenance"]}
    if "evaluation" in provenance:
        provenance["evaluation"] = {k: v for k, v in provenance["evaluation"].items() if k not in _PLACES}
    results = {
        **results,
        "model": _model_name(run, results["model"]),
        "settings": _portable(results["settings"]),
        "provenance": {**_portable(provenance, places), "study": {**_about(run, transfer), **about}},
        "predictions_sha256": digest,
    }
    results = _rounded(results)
    with replacing(folder / RESULTS_NAME) as temporary:
        temporary.write_text(json.dumps(results, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
    return StudyResult(folder, results, results["provenance"]["study"])


def _model_name(run: PlannedRun, model: str) -> str:
    """How tables and reports call a run's model: a judge that was trained further is not called as its folder."""
    if run.start is None:
        return str(_portable(model))
    plain = run.options.get("model_name_or_path")
    return f"{_portable(str(plain))}, from {run.start}" if plain else f"from {run.start}"


def keep_seen_items(root: Path, run: PlannedRun, made: Path) -> None:
    """Keep which items a judge was trained on (hashes of their ids): an untrained model is tested on other tasks
    without them.
    """
    seen, before = SeenItems.read(made), SeenItems.read(root / run.data)
    if seen is not None:
        # Of all judges: a method of the plan may train on others.
        (seen if before is None else seen.after(before)).write(root / run.data)


def seen_items(root: Path, run: PlannedRun) -> Path | None:
    """The folder that lists the items which judges of a run's data were trained on; `None` if no judge is done yet."""
    return root / run.data if SeenItems.read(root / run.data) is not None else None


def _portable(value: Any, places: Sequence[Path] = ()) -> Any:
    """Without the paths of this machine."""
    if isinstance(value, dict):
        return {_portable(key, places): _portable(entry, places) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_portable(entry, places) for entry in value]
    if not isinstance(value, str):
        return value
    if Path(value).is_absolute():
        return Path(value).name
    for place in places:
        value = value.replace(f"{place.resolve()}/", "").replace(f"{place}/", "")
    return value


def _rounded(value: Any) -> Any:
    """Numbers with six significant digits: the predictions beside them tell more."""
    if isinstance(value, float):
        return float(f"{value:.{_DIGITS}g}")
    if isinstance(value, dict):
        return {key: entry if key in _AS_GIVEN else _rounded(entry) for key, entry in value.items()}
    return [_rounded(entry) for entry in value] if isinstance(value, list) else value


def read_study(root: str | Path, *, plan: Plan | None = None) -> list[StudyResult]:
    """All finished runs of a results folder, sorted by their folders.

    Args:
        root (`str` or `Path`): the folder.
        plan ([`Plan`], *optional*): read only its runs. The folder may hold those of other plans.

    Raises:
        [`UserInputError`]: the folder does not exist, a result in it is damaged or no study's, or it was made with
            other options than the plan's.
    """
    root = Path(root)
    if not root.is_dir():
        raise UserInputError(f"{root}: no such folder.")
    wanted = None
    if plan is not None:
        wanted = {
            result_folder(root, run, transfer)
            for run in plan.runs()
            for transfer in (None, *run.transfer)
            if is_done(root, run, transfer)
        }
    found = []
    for path in sorted(root.glob(f"*/*/{RESULTS_NAME}")):
        if wanted is None or path.parent in wanted:
            results = read_results(path)
            found.append(StudyResult(path.parent, results, _read_about(path.parent, results)))
    return found


def size_text(root: Path) -> str:
    """How many results a folder holds, and how large they are, as text."""
    runs = sum(1 for _ in root.glob(f"*/*/{RESULTS_NAME}"))
    size = sum(path.stat().st_size for path in root.rglob("*") if path.is_file())
    return f"{root}: {counted(runs, 'result')}, " + (f"{size / 1e3:.0f} kB" if size < 1e6 else f"{size / 1e6:.1f} MB")
