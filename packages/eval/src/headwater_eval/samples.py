"""What a model made of each item: a row an item, the same columns whatever the task (contracts/schemas/results.md)."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from .benchmark import Row

SCHEMA = pa.schema(
    [
        ("task", pa.string()),
        ("doc_id", pa.string()),
        ("cluster", pa.string()),
        ("prompt", pa.string()),
        ("choices", pa.list_(pa.string())),
        ("logprobs", pa.list_(pa.float64())),
        ("picked", pa.int32()),
        ("label", pa.int32()),
        ("response", pa.string()),
        ("answers", pa.list_(pa.string())),
        ("score", pa.float64()),
        ("correct", pa.bool_()),
        ("category", pa.string()),
        ("direction", pa.string()),
        ("outcomes", pa.list_(pa.string())),
    ]
)
"""cluster: items that share a passage share it; null where every item stands alone. score: the headline metric of the
item; correct: whether it is 1, null where right and wrong have no meaning. outcomes: of programs, a line on each
sample of the item (`passed`, `error: NameError`, `timeout`)."""
NAME = "samples.parquet"


def write(folder: Path, rows: list[Row]) -> None:
    """Rows to `folder`/samples.parquet; a column that a row lacks is null."""
    table = pa.Table.from_pylist([{name: row.get(name) for name in SCHEMA.names} for row in rows], SCHEMA)
    pq.write_table(table, folder / NAME, compression="zstd")


def read(folder: Path) -> list[Row]:
    """The rows of a results artefact."""
    return pq.read_table(folder / NAME, schema=SCHEMA).to_pylist()
