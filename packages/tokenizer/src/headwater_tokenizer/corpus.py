"""Reading a corpus artefact: Parquet shards in train/ and heldout/, row group by row group."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from headwater_tokenizer._contracts.errors import UserError

SPLITS = ("train", "heldout")
BYTES_A_WORKER = 64_000_000
"""Of text: a worker takes some two seconds to start, in which one process encodes or counts as much as this."""
BATCH_ROWS = 512  # documents in memory at a time: a few MB of text, so memory does not grow with the shard


@dataclass
class Batch:
    """Some documents of one row group, in order; a document whose text is unusable is in `rejects` instead."""

    ids: list[str] = field(default_factory=list)
    texts: pa.LargeStringArray = field(default_factory=lambda: pa.array([], pa.large_string()))
    sources: list[str] = field(default_factory=list)
    langs: list[str] = field(default_factory=list)
    """Language codes; empty strings where the corpus has no column lang or a null in it."""
    rejects: list[dict] = field(default_factory=list)
    """`{"id", "source", "rule"}` a document."""


@dataclass(frozen=True)
class RowGroup:
    """One row group of one Parquet file of the corpus: what a worker takes at a time."""

    split: str
    file: Path
    number: int
    """The file's place in its split, from 0."""
    group: int

    @property
    def name(self) -> str:
        return f"{self.split}-{self.number:05d}-{self.group:05d}"

    def read(self) -> Iterator[Batch]:
        """Its documents, `BATCH_ROWS` at a time."""
        return read_group(self.file, self.group)


def row_groups(corpus: Path, split: str) -> list[RowGroup]:
    """A split's row groups, in order.

    Raises:
        UserError: there is no file, or one is not readable.
    """
    files = enumerate(shards(corpus, split))
    return [RowGroup(split, file, number, group) for number, file in files for group in range(_groups_of(file))]


def workers_for(groups: list[RowGroup]) -> int:
    """Workers to read so much text: one a core, fewer where there is too little to be worth starting them."""
    size = 0
    for file in {group.file for group in groups}:
        metadata = pq.ParquetFile(file).metadata
        size += sum(metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups))
    return max(1, min(len(os.sched_getaffinity(0)), size // BYTES_A_WORKER))


def shards(corpus: Path, split: str) -> list[Path]:
    """The split's Parquet files, in order.

    Raises:
        UserError: there is none.
    """
    found = sorted((corpus / split).glob("*.parquet"))
    if not found:
        raise UserError(f"{corpus / split}: no Parquet shard there, so nothing to read; make the corpus again")
    return found


def _groups_of(shard: Path) -> int:
    """Number of row groups of a shard, its columns checked.

    Raises:
        UserError: not Parquet, or a needed column is missing or no string.
    """
    try:
        metadata = pq.ParquetFile(shard)
    except (pa.ArrowException, OSError) as e:
        raise UserError(f"{shard}: not readable as Parquet ({e}); make the corpus again") from None
    columns = {f.name: f.type for f in metadata.schema_arrow}
    for name in ("id", "text", "source"):
        kind = columns.get(name)
        if kind is None:
            raise UserError(f"{shard}: no column {name} among {', '.join(columns)}; a corpus has id, text and source")
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)):
            raise UserError(f"{shard}: column {name} is {kind}, but must be a string")
    return metadata.num_row_groups


def read_group(shard: Path, group: int) -> Iterator[Batch]:
    """The documents of one row group, `BATCH_ROWS` at a time."""
    source = pq.ParquetFile(shard)
    names = [name for name in ("id", "text", "source", "lang") if name in source.schema_arrow.names]
    for rows in source.iter_batches(BATCH_ROWS, row_groups=[group], columns=names):
        columns = [rows.column(name).cast(pa.large_string(), safe=False) for name in names]
        langs = columns[3].fill_null("") if len(columns) > 3 else pa.array([""] * len(rows), pa.large_string())
        columns = columns[:3]
        if any(column.null_count for column in columns) or not all(map(_is_utf8, columns)):
            yield _batch(*map(_strings, [*columns, langs]))
        else:
            ids, texts, sources = columns
            yield Batch(ids.to_pylist(), texts, sources.to_pylist(), langs.to_pylist())


def read_split(corpus: Path, split: str) -> Iterator[Batch]:
    """Every document of a split, in order."""
    for group in row_groups(corpus, split):
        yield from group.read()


def _batch(ids: list, texts: list, sources: list, langs: list) -> Batch:
    """Rows one by one: what is null or no UTF-8 is set aside."""
    good: list[tuple] = []
    rejects = []
    for *row, lang in zip(ids, texts, sources, langs, strict=True):
        bad = next((i for i, value in enumerate(row) if not isinstance(value, str)), None)
        if bad is None:
            good.append((*row, lang if isinstance(lang, str) else ""))
        else:
            fault = "is null" if row[bad] is None else "is not UTF-8"
            rule = f"{('id', 'text', 'source')[bad]} {fault}"
            rejects.append({"id": _shown(row[0]), "source": _shown(row[2]), "rule": rule})
    ids, texts, sources, langs = ([row[i] for row in good] for i in range(4))
    return Batch(ids, pa.array(texts, pa.large_string()), sources, langs, rejects)


def _is_utf8(column: pa.LargeStringArray) -> bool:
    try:
        column.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def _strings(column: pa.Array) -> list[str | bytes | None]:
    """Python strings; a value that is not UTF-8 (Parquet does not forbid it) stays bytes."""
    try:
        return column.to_pylist()
    except UnicodeDecodeError:
        return [_decode(value) for value in column.cast(pa.large_binary()).to_pylist()]


def _decode(value: bytes | None) -> str | bytes | None:
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError:
        return value


def _shown(value: str | bytes | None) -> str | None:
    return value.decode(errors="backslashreplace") if isinstance(value, bytes) else value
