"""Predictions as small as Parquet can store them, without texts of the data set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq


# The smallest number of single precision with all its digits.
_SMALLEST = float(np.finfo(np.float32).tiny)


def without_texts(path: Path) -> pa.Table:
    """The predictions without texts, and in single precision where that is precise enough."""
    # As arrow stores them, without the library's notes on the features of columns that change here.
    table = pq.read_table(path).replace_schema_metadata(None)
    prompts = table.schema.get_field_index("prompt")
    table = table.set_column(
        prompts, "prompt", pa.array([[] for _ in range(len(table))], table.schema.field(prompts).type)
    )
    # A group may be named by a text, such as a premise. The order stays, in which groups are drawn for intervals.
    names = table.column("group").to_pylist()
    numbers = {name: f"{number:06d}" for number, name in enumerate(sorted(set(names)))}
    place = table.schema.get_field_index("group")
    table = table.set_column(place, "group", pa.array([numbers[name] for name in names], pa.string()))
    for name in ("label_distribution", "judge_distribution", "raw_distribution"):
        if (place := table.schema.get_field_index(name)) >= 0:
            values = np.array(table.column(name).to_pylist(), dtype=float)
            if values[values > 0].min() >= _SMALLEST:
                table = table.set_column(place, name, table.column(name).cast(pa.list_(pa.float32())))
    return table


def write_small(table: pa.Table, path: Path) -> None:
    """Write predictions as small as Parquet can: the bytes of a judge's numbers apart, the first of all numbers, the
    second of all, and so on, which are alike (a third less than without); everything else as numbers of a list.
    """
    judged = [
        f"{name}.list.element" for name in table.column_names if name in ("judge_distribution", "raw_distribution")
    ]
    rest = ["id", "group", "num_annotators", "label_distribution.list.element"]
    pq.write_table(
        table, path, compression="zstd", compression_level=19, use_dictionary=rest, use_byte_stream_split=judged
    )
