"""The documents artefact: Parquet shards, rejects, and the funnel of what each stage lets through."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from ._contracts.errors import UsageError, UserError

COLUMNS = ("id", "text", "source", "category", "url", "lang", "licence", "meta")
SCHEMA = pa.schema([pa.field(name, pa.large_string()) for name in COLUMNS])
"""`meta` is JSON; signal columns may follow."""

REJECTS = {
    "id": pl.String,
    "stage": pl.String,
    "rule": pl.String,
    "value": pl.Float64,
    "threshold": pl.Float64,
    "source": pl.String,
    "text": pl.String,
    "meta": pl.String,
}

_PIECE = re.compile(r"(#\d{4})?(~\d+)*$")
_LATER_PIECE = re.compile(r"~(cut)?\d+$")

ROWS_PER_GROUP = 2_000  # a row group of web documents is then about 8 MB: what a reader must hold at once


def work_of(id_: str) -> str:
    """The id of the work that a document is a piece of, as extract and decontaminate number pieces."""
    return _PIECE.sub("", id_)


def base_id(id_: str) -> str:
    """The id that a document had at filter, of one that a later stage cut in pieces."""
    return _LATER_PIECE.sub("", id_)


def named(names: Iterable[str]) -> pl.Expr:
    """True for documents whose source or category is one of the names."""
    names = list(names)
    return pl.col("source").is_in(names) | pl.col("category").is_in(names)


def draws(salt: str, ids: Iterable[str]) -> pl.Series:
    """A random number in [0, 2**64) for each id, u64: a hash, so the same in any order and on any machine."""
    return pl.Series([xxhash.xxh3_64_intdigest(f"{salt} {id_}") for id_ in ids], dtype=pl.UInt64)


def check_number_column(setting: str, name: str, columns: Mapping[str, pl.DataType], hint: str = "") -> None:
    """Refuse a setting that names a column that is not there, or holds no numbers.

    Args:
        setting: where the user wrote it, for the message.
        hint: what else to write there.

    Raises:
        UsageError: naming the columns of numbers there are.
    """
    if name in columns and columns[name].is_numeric():
        return
    numbers = ", ".join(c for c, kind in columns.items() if kind.is_numeric())
    raise UsageError(
        f"{setting}: the documents have no column of numbers {name!r}; "
        f"{f'they have {numbers}' if numbers else 'run headwater-data signals before'}{hint}"
    )


def part_name(number: int) -> str:
    """File name of the shard with this number."""
    return f"part-{number:05d}.parquet"


def parts(folder: Path) -> list[Path]:
    """The shards of a documents folder (or of train/, heldout/), in order.

    Raises:
        UserError: there is none.
    """
    found = sorted(folder.glob("part-*.parquet"))
    if not found:
        raise UserError(f"{folder}: holds no part-*.parquet; make it again with the stage before")
    return found


@dataclass(frozen=True)
class Block:
    """A row group of a shard: the unit of work of the stages after extract."""

    number: int
    """Of the part that it becomes."""
    path: Path
    group: int

    def rows(self) -> int:
        """How many documents it holds."""
        return pq.read_metadata(self.path).row_group(self.group).num_rows

    def columns(self) -> Mapping[str, pl.DataType]:
        """Its columns with their types."""
        return pl.read_parquet_schema(self.path)

    def read(self, columns: list[str] | None = None) -> pl.DataFrame:
        """The block's documents.

        Raises:
            UserError: the file is no readable Parquet.
        """
        try:
            with pq.ParquetFile(self.path) as file:
                frame = pl.from_arrow(file.read_row_group(self.group, columns=columns))
        except (pa.ArrowException, OSError) as e:
            raise UserError(
                f"{self.path}: not readable as Parquet ({e}); make it again with the stage before"
            ) from None
        assert isinstance(frame, pl.DataFrame)
        return frame


def blocks(folder: Path) -> list[Block]:
    """Every row group of a documents folder, in order: a large shard is work for several workers.

    Raises:
        UserError: no shard, or one is no readable Parquet.
    """
    found: list[tuple[Path, int]] = []
    for path in parts(folder):
        try:
            groups = pq.read_metadata(path).num_row_groups
        except (pa.ArrowException, OSError) as e:
            raise UserError(f"{path}: not readable as Parquet ({e}); make it again with the stage before") from None
        found += [(path, group) for group in range(groups)]
    return [Block(number, path, group) for number, (path, group) in enumerate(found)]


def read_part(path: Path, columns: list[str] | None = None) -> pl.DataFrame:
    """One shard as a frame.

    Raises:
        UserError: the file is no readable Parquet.
    """
    try:
        return pl.read_parquet(path, columns=columns, use_statistics=False)
    except pl.exceptions.PolarsError as e:
        raise UserError(f"{path}: not readable as Parquet ({e}); make it again with the stage before") from None


def write_part(path: Path, table: pl.DataFrame | pa.Table) -> None:
    """Write a shard atomically: zstd, equal rows give equal bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    arrow = table if isinstance(table, pa.Table) else table.to_arrow()
    pq.write_table(arrow.replace_schema_metadata(None), beside, compression="zstd", row_group_size=ROWS_PER_GROUP)
    os.replace(beside, path)


def write_split(folder: Path, number: int, kept: pl.DataFrame, rejected: pl.DataFrame) -> None:
    """Write a shard's survivors and rejects: `part-N.parquet` and, if any, `rejects/part-N.parquet`."""
    if len(rejected):
        write_part(folder / "rejects" / part_name(number), rejected.select(list(REJECTS)))
    write_part(folder / part_name(number), kept)


def rejects_frame(
    documents: pl.DataFrame, stage: str, rule: pl.Expr, value: pl.Expr, threshold: pl.Expr, meta: pl.Expr | None = None
) -> pl.DataFrame:
    """Documents as rejects: which stage and rule, the value it found and the threshold it missed."""
    return documents.select(
        "id",
        pl.lit(stage).alias("stage"),
        rule.cast(pl.String).alias("rule"),
        value.cast(pl.Float64).alias("value"),
        threshold.cast(pl.Float64).alias("threshold"),
        "source",
        "text",
        (pl.col("meta") if meta is None else meta).alias("meta"),
    )


def span_rejects(document: Mapping[str, str], stage: str, spans: Iterable[tuple[str, str, int]]) -> list[dict]:
    """What was cut out of a document as rejects, `ID~cut1`, `ID~cut2`, ...

    Args:
        document: id, source and meta.
        spans: (rule, text, its first character in the document) each; that place becomes the reject's `value`.
    """
    return [
        {
            "id": f"{document['id']}~cut{number}", "stage": stage, "rule": rule, "value": float(start),
            "threshold": None, "source": document["source"], "text": text, "meta": document["meta"],
        }
        for number, (rule, text, start) in enumerate(spans, 1)
    ]  # fmt: skip


def publish_parts(folder: Path, out: Path) -> None:
    """Link finished shards from the work folder into the artefact."""
    for path in sorted(folder.rglob("*.parquet")):
        if path.name.startswith("."):
            continue
        target = out / path.relative_to(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(path, target)
        except OSError:
            shutil.copy2(path, target)


def funnel(counted_in: pl.DataFrame, counted_out: pl.DataFrame, rejects: Iterable[pl.DataFrame] = ()) -> dict:
    """Documents and bytes in and out, by source and by rule.

    Args:
        counted_in, counted_out: columns source (str) and bytes (UTF-8 bytes of the text), one row a document.
        rejects: frames with rule and bytes, one row a rejected document.
    """
    by_source: dict[str, dict[str, int]] = {}
    totals = {"documents_in": 0, "documents_out": 0, "bytes_in": 0, "bytes_out": 0}
    for side, frame in (("in", counted_in), ("out", counted_out)):
        sums = frame.group_by("source").agg(pl.len().alias("n"), pl.col("bytes").sum()).sort("source")
        for source, n, size in sums.iter_rows():
            entry = by_source.setdefault(source, dict.fromkeys(totals, 0))
            entry[f"documents_{side}"], entry[f"bytes_{side}"] = n, int(size)
            totals[f"documents_{side}"] += n
            totals[f"bytes_{side}"] += int(size)
    by_rule: dict[str, dict[str, int]] = {}
    for frame in rejects:
        for rule, n, size in frame.group_by("rule").agg(pl.len(), pl.col("bytes").sum()).sort("rule").iter_rows():
            entry = by_rule.setdefault(rule, {"documents": 0, "bytes": 0})
            entry["documents"] += n
            entry["bytes"] += int(size)
    return {**totals, "by_source": by_source, "by_rule": by_rule}


def count_folder(folder: Path) -> pl.DataFrame:
    """One row a document of a folder of shards: source and bytes."""
    return _count(folder, "source")


def count_rejects(folder: Path) -> pl.DataFrame:
    """One row a rejected document: rule and bytes."""
    if not (folder / "rejects").is_dir():
        return pl.DataFrame(schema={"rule": pl.String, "bytes": pl.UInt32})
    return _count(folder / "rejects", "rule")


def _count(folder: Path, column: str) -> pl.DataFrame:
    return (
        pl.scan_parquet(folder / "part-*.parquet", glob=True)
        .select(column, pl.col("text").str.len_bytes().alias("bytes"))
        .collect(engine="streaming")
    )


def read_json(path: Path) -> dict:
    """A JSON file that another stage wrote.

    Raises:
        UserError: it is missing or not JSON.
    """
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as e:
        raise UserError(f"{path}: not readable as JSON ({e}); make it again with the stage before") from None
