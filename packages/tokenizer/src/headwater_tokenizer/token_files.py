"""The token files of one split, written document by document and read back.

    SPLIT.bin, SPLIT.idx            the ids (megatron_format.py)
    SPLIT-SOURCE.bin, .idx          the same by source, where that is asked for
    documents/SPLIT.parquet         a row a document, in the same order: where its ids come from and what they count

The table is what makes a token file more than numbers: it leads each document back to the corpus, and joining, taking a
part and counting need no decoding.
"""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from headwater_tokenizer._contracts.errors import UserError
from headwater_tokenizer.measure import Counts
from headwater_tokenizer.megatron_format import read_index, write_index

DOCUMENTS = pa.schema(
    [
        ("id", pa.large_string()), ("source", pa.large_string()), ("lang", pa.large_string()),
        ("bytes", pa.int64()), ("words", pa.int64()), ("tokens", pa.int64()),
    ]
)  # fmt: skip
"""A document's id in the corpus, source, language ("" where unknown), UTF-8 bytes and words of its text, and ids in the
.bin, its end included."""
LONGEST = 2**31 - 1
"""Tokens a document: the index holds lengths as int32."""
Part = tuple[np.ndarray, pa.Table, list[dict]]
"""Some documents of a split in order: their ids end to end, (tokens,), their rows (`DOCUMENTS`), and what was set aside
among them."""
COUNTS = ("documents", "bytes", "words", "tokens")


def documents_path(folder: Path, split: str) -> Path:
    """Where a split's table of documents lies."""
    return folder / "documents" / f"{split}.parquet"


class SplitWriter:
    """Token files that grow batch by batch; the index and the figures at the end.

    Args:
        out: folder of the dataset; exists.
        dtype: of the ids, uint16 or int32.
        per_source: whether each source gets files of its own beside.
    """

    def __init__(self, out: Path, split: str, dtype: np.dtype, per_source: bool = False):
        self.out, self.split, self.dtype, self.per_source = out, split, dtype, per_source
        self._files = contextlib.ExitStack()
        self._whole = _Growing(out / split, dtype, self._files)
        self._sources: dict[str, _Growing] = {}
        path = documents_path(out, split)
        path.parent.mkdir(exist_ok=True)
        self._table = self._files.enter_context(pq.ParquetWriter(path, DOCUMENTS, compression="zstd"))
        self._groups = pl.DataFrame(schema={"source": pl.String, "lang": pl.String, **dict.fromkeys(COUNTS, pl.Int64)})
        self._longest: tuple[int, str] = (0, "")

    def __enter__(self) -> SplitWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._files.close()

    def write(self, ids: np.ndarray, documents: pa.Table) -> None:
        """Add documents: their ids end to end, (tokens,) of `dtype`, and their rows of the table (`DOCUMENTS`).

        Raises:
            UserError: two sources would share a file, or a document is longer than the index can say.
        """
        if not len(documents):
            return
        lengths = documents["tokens"].to_numpy()
        if lengths.max() > LONGEST:
            raise UserError(f"document {documents['id'][int(lengths.argmax())]}: {lengths.max()} tokens, but an index "
                            f"holds at most {LONGEST} a document; cut it before")  # fmt: skip
        self._whole.write(ids, lengths)
        self._table.write_table(documents.cast(DOCUMENTS))
        frame = pl.DataFrame(documents)
        counted = frame.group_by("source", "lang").agg(
            pl.len().cast(pl.Int64).alias("documents"), pl.col("bytes", "words", "tokens").sum()
        )
        self._groups = pl.concat([self._groups, counted]).group_by("source", "lang").agg(pl.col(COUNTS).sum())
        longest = int(lengths.argmax())
        if lengths[longest] > self._longest[0]:
            self._longest = int(lengths[longest]), documents["id"][longest].as_py()
        if self.per_source:
            sources = frame["source"].to_numpy()
            of_ids = np.repeat(sources, lengths)
            for source in sorted(set(sources)):
                self._file_of(source).write(ids[of_ids == source], lengths[sources == source])

    def finish(self, rejected: int) -> tuple[dict, dict]:
        """Write the indices; returns the split's figures for metrics.json and, in detail, for tokens.json.

        Args:
            rejected: documents that were set aside before.
        """
        for file in (self._whole, *self._sources.values()):
            file.write_index()
        self._files.close()
        groups = self._groups.sort("source", "lang").rows(named=True)
        whole = _counts(groups).figures() | {"rejected": rejected, "longest_document_tokens": self._longest[0]}
        by_source = _grouped(groups, "source")
        detail = whole | {
            "longest_document_id": self._longest[1],
            "by_source": {
                name: figures | ({"files": self._sources[name].path.name} if name in self._sources else {})
                for name, figures in by_source.items()
            },
            "by_language": _grouped(groups, "lang"),
            "by_source_and_language": [
                {"source": row["source"], "language": row["lang"] or "unknown", **_counts([row]).figures()}
                for row in groups
            ],
        }
        return whole | {"by_source": by_source}, detail

    def _file_of(self, source: str) -> _Growing:
        if source not in self._sources:
            path = self.out / f"{self.split}-{re.sub(r'[^A-Za-z0-9._-]', '_', source)}"
            if clash := [name for name, file in self._sources.items() if file.path == path]:
                raise UserError(
                    f"sources {clash[0]} and {source} would both be {path.name}.bin; rename one, or switch per_source "
                    "off"
                )
            self._sources[source] = _Growing(path, self.dtype, self._files)
        return self._sources[source]


class _Growing:
    """A .bin that grows, and its .idx at the end."""

    def __init__(self, path: Path, dtype: np.dtype, files: contextlib.ExitStack):
        self.path, self.dtype = path, dtype
        self.file = files.enter_context(path.with_name(f"{path.name}.bin").open("wb"))
        self.lengths: list[np.ndarray] = [np.zeros(0, np.int64)]

    def write(self, ids: np.ndarray, lengths: np.ndarray) -> None:
        self.file.write(np.ascontiguousarray(ids, self.dtype.newbyteorder("<")).data)
        self.lengths.append(lengths)

    def write_index(self) -> None:
        write_index(self.path.with_name(f"{self.path.name}.idx"), np.concatenate(self.lengths), self.dtype)


def _counts(groups: list[dict]) -> Counts:
    return Counts(**{name: sum(group[name] for group in groups) for name in COUNTS})


def _grouped(groups: list[dict], key: str) -> dict[str, dict]:
    names = sorted({group[key] or "unknown" for group in groups})
    return {name: _counts([g for g in groups if (g[key] or "unknown") == name]).figures() for name in names}


def read_documents(folder: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """A split's ids, end to end and read from disk as they are used, and where each document begins in them.

    Returns:
        (tokens,) uint16 or int32; (documents + 1,) int64.

    Raises:
        UserError: the files are missing, or the ids are not as many as the index says.
    """
    try:
        lengths, dtype = read_index(folder / f"{split}.idx")
        size = (folder / f"{split}.bin").stat().st_size
    except (OSError, ValueError) as e:
        raise UserError(f"{folder}: no readable token files of {split} ({e}); encode the corpus again") from None
    starts = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    if size != starts[-1] * dtype.itemsize:
        raise UserError(
            f"{folder / f'{split}.bin'}: {size} bytes, but its index says {int(starts[-1])} ids of {dtype.itemsize}; "
            "encode the corpus again"
        )
    if not size:
        return np.zeros(0, dtype), starts
    return np.memmap(folder / f"{split}.bin", dtype, mode="r"), starts
