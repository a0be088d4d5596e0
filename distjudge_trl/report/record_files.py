"""`distjudge-trl data --out`: a task's records as a Parquet file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from datasets import Dataset

from distjudge_trl.data import fingerprint
from distjudge_trl.errors import UserInputError
from distjudge_trl.files.atomic import replacing
from distjudge_trl.runtime.provenance import library_versions
from distjudge_trl.tasks import JudgmentTask, LoadReport


def check_output(path: str | Path, inputs: Sequence[str]) -> None:
    """Raise [`UserInputError`] unless `path` is the name of a Parquet file that is not one of the `inputs` (data
    files; the part of a name after `!` is a member of an archive).
    """
    path = Path(path)
    if path.suffix != ".parquet":
        raise UserInputError(f"{path}: records are written as Parquet; name a file that ends in .parquet.")
    refuse_inputs(path, inputs)


def refuse_inputs(path: Path, inputs: Sequence[str]) -> None:
    """Raise [`UserInputError`] if `path` is a folder or one of the `inputs`."""
    if path.is_dir():
        raise UserInputError(f"{path}: is a folder; name the file to write.")
    for name in inputs:
        source = Path(name if Path(name).exists() else name.split("!")[0])
        if path.exists() and source.exists() and path.samefile(source):
            raise UserInputError(f"{path}: is the input; name another file to write.")


def write_records(path: str | Path, records: Dataset, task: JudgmentTask, report: LoadReport) -> None:
    """Write records as Parquet, atomically. The file's metadata `distjudge_trl` holds task, labels, fingerprint,
    report and versions as JSON.

    Raises:
        [`UserInputError`]: the file cannot be written.
    """
    import pyarrow.parquet as pq

    about = {
        "task": task.name,
        "labels": list(task.labels),
        "fingerprint": fingerprint(records),
        "report": report.to_dict(),
        "versions": library_versions(),
    }
    table = records.with_format("arrow")[:]
    metadata = {**(table.schema.metadata or {}), b"distjudge_trl": json.dumps(about).encode()}
    try:
        with replacing(path) as temporary:
            pq.write_table(table.replace_schema_metadata(metadata), temporary)
    except OSError as error:
        raise UserInputError(f"{path}: cannot be written ({error.strerror or error}).") from None
