"""A trained language model and a linear judge, averaged: is their mean closer to people than either?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from distjudge_trl.errors import UserInputError
from distjudge_trl.evaluation.distances import item_accuracy, item_kl
from distjudge_trl.files.atomic import replacing
from distjudge_trl.report.cells import Table, number
from distjudge_trl.report.test_sets import value_of
from distjudge_trl.study.groups import PAPER, REFERENCE, STARS, Group, difference_text, read_so
from distjudge_trl.study.linear_judges import Measured


_READING = "temperature"


def write_answers(path: Path, ids: Sequence[str], measured: Sequence[Measured]) -> None:
    """Write what judges of KL + CE answer after temperature scaling: a Parquet file with `seed`, `id` and
    `judge_distribution`.
    """
    judges = [judge for judge in measured if judge.outcome.method == REFERENCE]
    columns = {
        "seed": pa.array(np.repeat([judge.outcome.seed for judge in judges], len(ids)), pa.int32()),
        "id": pa.array([*ids] * len(judges), pa.string()),
        "judge_distribution": pa.array(
            [row for judge in judges for row in np.exp(judge.log_q)], pa.list_(pa.float32())
        ),
    }
    with replacing(path) as temporary:
        pq.write_table(pa.table(columns), temporary, compression="zstd", compression_level=19)


def read_answers(path: Path) -> dict[int, dict[str, np.ndarray]]:
    """Such a file: seed to id to distribution `(K,)`.

    Raises:
        [`UserInputError`]: it is damaged, or of another form.
    """
    try:
        rows = pq.read_table(path, columns=["seed", "id", "judge_distribution"]).to_pylist()
    except (pa.ArrowException, OSError):
        raise UserInputError(
            f"{path}: was not written by scripts/benchmarks/linear_judges.py. Run it again with --out"
            f" {path.with_suffix('.json')}."
        ) from None
    found: dict[int, dict[str, np.ndarray]] = {}
    for row in rows:
        found.setdefault(row["seed"], {})[row["id"]] = np.array(row["judge_distribution"])
    return found


def mixtures_table(
    answers: Mapping[str, tuple[str, Mapping[int, Mapping[str, np.ndarray]]]],
    data: Mapping[str, Mapping[str, Group]],
) -> Table | None:
    """For every data set, by name, with a title and answers of linear judges, and with trained judges of KL + CE that
    were tested on the same items: excess KL of either and of their mean, seed by seed. `None` without such a data set.
    """
    rows = []
    for name, (title, seeds) in answers.items():
        trained = data.get(name, {}).get(REFERENCE)
        if trained is None:
            continue
        trained = read_so(trained, _READING, seeds)
        ids = trained.results[0].run.items["id"][:] if trained.results else []
        if not ids or set(ids) != set(next(iter(seeds.values()))):
            continue
        rows.append([title, *_cells(trained, data[name].get(PAPER), seeds, ids)])
    header = ["data", "seeds", "trained model", "linear judge", "their mean", "mean minus trained model"]
    header += [f"mean minus {PAPER}", "accuracy % of the trained model", "of the mean"]
    notes = [
        "Excess KL, all after temperature scaling; mean ± standard deviation over seeds.",
        f"Both judges are of {REFERENCE}. Their probabilities are averaged with a weight of one half everywhere.",
        STARS,
    ]
    return (
        Table("linear-mixtures", "A trained model and a linear judge, averaged", header, rows, notes) if rows else None
    )


def _cells(
    trained: Group, paper: Group | None, seeds: Mapping[int, Mapping[str, np.ndarray]], ids: Sequence[str]
) -> list[str]:
    p = trained.results[0].run.p
    floor = value_of(trained.results[0].results["metrics"], "noise_floor")
    own = np.array([np.exp(result.rows[_READING].log_q) for result in trained.results])
    linear = np.array([[seeds[result.about["seed"]][name] for name in ids] for result in trained.results])
    kls = [np.array([item_kl(p, np.log(q)) for q in each]) for each in (own, linear, (own + linear) / 2)]
    accuracies = [[item_accuracy(p, np.log(q)).mean() for q in each] for each in (own, (own + linear) / 2)]
    against_paper = "-"
    if paper is not None and (papers := read_so(paper, _READING, [r.about["seed"] for r in trained.results])).results:
        known = [result.about["seed"] for result in papers.results]
        rows = [i for i, result in enumerate(trained.results) if result.about["seed"] in known]
        against_paper = difference_text(kls[2][rows], papers.seed_item_kl(_READING), trained.groups)
    return [
        str(len(own)),
        *(number((kl.mean(1) - floor).tolist(), ".3f") for kl in kls),
        difference_text(kls[2], kls[0], trained.groups),
        against_paper,
        *(number(values, ".1f", 100) for values in accuracies),
    ]
