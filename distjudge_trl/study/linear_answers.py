"""What linear judges of KL + CE answer for the test items, and the files that keep it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from distjudge_trl.errors import UserInputError
from distjudge_trl.files.atomic import replacing
from distjudge_trl.study.groups import REFERENCE
from distjudge_trl.study.linear_judges import Measured


_SCHEMA = pa.schema([("seed", pa.int32()), ("id", pa.string()), ("judge_distribution", pa.list_(pa.float32()))])


def write_answers(path: Path, ids: Sequence[str], measured: Sequence[Measured]) -> None:
    """Write what judges of KL + CE answer after temperature scaling, as Parquet.

    Args:
        path (`Path`): the file.
        ids (`Sequence[str]`): of the N test items.
        measured (`Sequence`): judges, of any method; one of KL + CE a seed.
    """
    judges = [judge for judge in measured if judge.outcome.method == REFERENCE]
    columns = {
        "seed": np.repeat([judge.outcome.seed for judge in judges], len(ids)),
        "id": [*ids] * len(judges),
        "judge_distribution": [row for judge in judges for row in np.exp(judge.log_q)],
    }
    with replacing(path) as temporary:
        pq.write_table(pa.table(columns, _SCHEMA), temporary, compression="zstd", compression_level=19)


def read_answers(path: Path) -> dict[int, dict[str, np.ndarray]]:
    """Such a file: seed to id to distribution `(K,)`. All seeds have the same ids.

    Raises:
        [`UserInputError`]: it is damaged, or of another form.
    """
    try:
        table = pq.read_table(path)
        if table.schema.remove_metadata() != _SCHEMA or any(column.null_count for column in table.columns):
            raise ValueError(table.schema)
        rows = table.to_pylist()
        found: dict[int, dict[str, np.ndarray]] = {}
        for row in rows:
            found.setdefault(row["seed"], {})[row["id"]] = np.array(row["judge_distribution"])
        (ids,) = {frozenset(answers) for answers in found.values()}
        if len(rows) != len(found) * len(ids):
            raise ValueError("an item stands twice")
        np.stack([q for answers in found.values() for q in answers.values()])  # as many labels everywhere
    except (pa.ArrowException, OSError, ValueError):
        raise UserInputError(
            f"{path}: was not written by scripts/benchmarks/linear_judges.py. Run it again with --out"
            f" {path.with_suffix('.json')}."
        ) from None
    return found
