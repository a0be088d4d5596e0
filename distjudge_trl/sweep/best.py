"""The best configuration: its score on the test items, and a config for its recipe."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from filelock import Timeout

from distjudge_trl.errors import RunFailedError, UserInputError
from distjudge_trl.evaluation import read_results
from distjudge_trl.files.atomic import read_json, replacing, write_json
from distjudge_trl.judge_folder.judge_file import JUDGE_FILE_NAME
from distjudge_trl.report.tables import results_table
from distjudge_trl.runtime.devices import seeing
from distjudge_trl.sweep.definition import Definition
from distjudge_trl.sweep.process import LOG_NAME
from distjudge_trl.sweep.space import name_of
from distjudge_trl.sweep.store import Store
from distjudge_trl.sweep.table import Row, ranked, read_rows, score_text


BEST_NAME = "best"


def find_best(store: Store) -> Row:
    """The best configuration that is done.

    Raises:
        [`UserInputError`]: no configuration is done.
    """
    found = ranked(store)
    if not found:
        raise UserInputError(f"The study {store.name!r} has no finished trial yet.")
    return found[0]


def score_best(store: Store, data_path: str | None, log: Callable[[str], None], devices: Sequence[str] = ()) -> None:
    """Evaluate the judges of the best configuration on the test items, on GPUs that the sweep holds (`devices`).

    One of several workers does it. If the judges are on the disk of another machine, that machine is named.

    Raises:
        [`RunFailedError`]: the evaluation failed; its log is named.
    """
    row, definition = find_best(store), store.definition
    folder, out = store.out / str(row.trial.user_attrs["folder"]), store.out / BEST_NAME
    try:
        with store.lock(BEST_NAME).acquire(timeout=0):
            if read_json(out / "winner.json").get("folder") != str(folder):
                judges = [folder / f"seed-{seed}" for seed in definition.seeds]
                if not all((judge / JUDGE_FILE_NAME).is_file() for judge in judges):
                    host = row.trial.user_attrs.get("host")
                    log(f"The best judge is not here but in {folder} on {host}: test it there with `evaluate`.")
                    return
                shutil.rmtree(out, ignore_errors=True)
                for judge in judges:
                    _evaluate(judge, out / judge.name, definition, data_path, devices)
                winner = {"folder": str(folder), "parameters": row.parameters, "value": row.value}
                write_json(out / "winner.json", winner)
    except Timeout:
        log(f"Best: {name_of(row.parameters)}. Another worker scores it on test items, into {out}.")
        return
    log(
        f"Best: {name_of(row.parameters)}: {definition.metric} {score_text(row)} on validation items, by which it was"
        f" chosen. On test items:\n"
    )
    results = [read_results(out / f"seed-{seed}") for seed in definition.seeds]
    for seed, result in zip(definition.seeds, results, strict=True):
        log((f"Seed {seed}:\n\n" if len(results) > 1 else "") + results_table([result]) + "\n")
    log(f"Judge: {folder / f'seed-{definition.seeds[0]}'}")


def _evaluate(judge: Path, out: Path, definition: Definition, data_path: str | None, devices: Sequence[str]) -> None:
    command = [sys.executable, "-m", "distjudge_trl", "evaluate", "--model", str(judge), "--task", definition.task]
    command += ["--data-path", data_path] if data_path is not None else []
    most = definition.options.get("max_eval_samples")
    command += ["--max-eval-samples", str(most)] if most is not None else []
    command += ["--trust-remote-code"] if definition.options.get("trust_remote_code") else []
    out.mkdir(parents=True, exist_ok=True)
    with (out / LOG_NAME).open("wb") as log:
        done = subprocess.run([*command, "--out", str(out)], check=False, stdout=log, stderr=log, env=seeing(devices))
    if done.returncode:
        raise RunFailedError(f"The best configuration could not be scored on test items; see {out / LOG_NAME}.")


def recipe_config(row: Row, definition: Definition) -> dict[str, Any]:
    """The options with which the recipe trains the configuration."""
    where = {"data_path": definition.data_path} if definition.data_path is not None else {}
    return {**where, **definition.options, **row.parameters}


def write_recipe(path: str | Path, store: Store, row: Row) -> None:
    """Write a YAML file for the recipe's `--config`."""
    import yaml

    definition = store.definition
    head = (
        f"# The best of {len(read_rows(store))} configurations of the sweep {store.name!r} (trial"
        f" {row.number}):\n# {definition.metric} {score_text(row)} on validation items over"
        f" {len(definition.seeds)} seed{'s' if len(definition.seeds) > 1 else ''}.\n"
        f"#   distjudge-trl train {definition.recipe} --config {Path(path).name}\n"
    )
    body = yaml.safe_dump(recipe_config(row, definition), sort_keys=False, allow_unicode=True)
    with replacing(path) as temporary:
        temporary.write_text(head + body, encoding="utf-8")
