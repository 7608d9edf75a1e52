"""One split of a tokens artefact as it lies on disk: what its index says, whether that fits, whose each document is.

Megatron reads the ids (`megatron.core.datasets.indexed_dataset`); it trusts its index, and reads past the end of a .bin
that was cut short. Here nothing is trusted, and nothing of the size of the ids is held in memory.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ._contracts.errors import UserError

MAGIC = b"MMIDIDX\x00\x00"
TYPES: dict[int, np.dtype] = {
    8: np.dtype("<u2"),
    4: np.dtype("<i4"),
}  # of the ids, by Megatron's code; contracts/schemas/tokens.md
CHUNK = 1 << 24  # ids looked at together: 32 or 64 MB


@dataclass(frozen=True)
class Index:
    """What an .idx says of its .bin."""

    lengths: np.ndarray
    """int32 [documents], mapped: ids of each, its end included."""
    dtype: np.dtype
    """Of the ids."""


def read_index(prefix: Path) -> Index:
    """PREFIX.idx, compared with PREFIX.bin.

    Raises:
        UserError: one is missing, the index is none of ids, or the two do not fit.
    """
    index, ids = prefix.with_name(f"{prefix.name}.idx"), prefix.with_name(f"{prefix.name}.bin")
    try:
        with open(index, "rb") as file:
            magic, header = file.read(len(MAGIC)), file.read(25)
        size, held = index.stat().st_size, ids.stat().st_size
    except OSError as e:
        raise UserError(f"{e.filename}: {e.strerror}; encode the corpus again") from None
    version, code, documents, boundaries = struct.unpack("<QBQQ", header) if len(header) == 25 else (0, 0, 0, 0)
    if magic != MAGIC or version != 1 or code not in TYPES:
        raise UserError(f"{index}: not Megatron's index of uint16 or int32 ids (version 1); encode the corpus again")
    start = len(MAGIC) + 25
    if size < start + 12 * documents + 8 * boundaries:
        raise UserError(f"{index}: cut short, {size} bytes for {documents} documents; encode the corpus again")
    dtype = TYPES[code]
    if not documents:
        return Index(np.zeros(0, np.int32), dtype)
    lengths = np.memmap(index, "<i4", "r", start, (documents,))
    places = np.memmap(index, "<i8", "r", start + lengths.nbytes, (documents,))
    said = int(lengths.sum(dtype=np.int64)) * dtype.itemsize
    last = int(places[-1]) + int(lengths[-1]) * dtype.itemsize
    if lengths.min() < 0 or said != held or last != held or places[0] != 0:
        raise UserError(
            f"{ids}: {held} bytes, but its index says {said // dtype.itemsize} ids of {dtype.itemsize}; one of the two "
            "is cut short or another's: encode the corpus again"
        )
    return Index(lengths, dtype)


def refuse_ids_beyond(prefix: Path, index: Index, vocabulary: int) -> None:
    """Look at every id once.

    Raises:
        UserError: one is negative or `vocabulary` or more; names its document.
    """
    if not len(index.lengths) or (index.dtype.kind == "u" and vocabulary > np.iinfo(index.dtype).max):
        return
    path = prefix.with_name(f"{prefix.name}.bin")
    ids = np.memmap(path, index.dtype, "r")
    for start in range(0, len(ids), CHUNK):
        chunk = ids[start : start + CHUNK]
        if chunk.max() < vocabulary and (index.dtype.kind == "u" or chunk.min() >= 0):
            continue
        at = start + int(((chunk >= vocabulary) | (chunk < 0)).argmax())
        document = int(np.searchsorted(np.cumsum(index.lengths, dtype=np.int64), at, side="right"))
        raise UserError(
            f"{path}: document {document} has the id {ids[at]}, but the model's ids end at {vocabulary - 1}; "
            "encode again with this tokenizer, then plan again"
        )


def table_path(folder: Path, split: str) -> Path:
    """Where the table of a split's documents lies, if there is one."""
    return Path(folder) / "documents" / f"{split}.parquet"


def source_files(folder: Path, split: str) -> dict[str, Path]:
    """Source -> prefix of the token files that it has of its own, where the dataset was encoded with `per_source`."""
    try:
        by_source = json.loads((Path(folder) / "tokens.json").read_text())[split]["by_source"]
    except (OSError, ValueError, KeyError):
        return {}
    return {name: Path(folder) / counts["files"] for name, counts in by_source.items() if "files" in counts}


def source_of_documents(folder: Path, split: str, names: Sequence[str]) -> np.ndarray:
    """Of each document of a split, the place of its source in `names`: int16 [documents].

    Raises:
        UserError: the table is missing or not readable, or holds a source that is not among the names.
    """
    path = table_path(folder, split)
    numbers = {name: i for i, name in enumerate(names)}
    try:
        file = pq.ParquetFile(path, read_dictionary=["source"])
        found = np.empty(file.metadata.num_rows, np.int16)
        start = 0
        for batch in file.iter_batches(columns=["source"]):
            column = batch.column(0)
            own = np.array([numbers[name] for name in column.dictionary.to_pylist()], np.int16)
            found[start : start + len(column)] = own[column.indices.to_numpy()]
            start += len(column)
    except KeyError as e:
        raise UserError(f"{path}: has the source {e}, which metrics.json has not; encode the corpus again") from None
    except (OSError, pa.ArrowException) as e:
        raise UserError(f"{path}: not readable ({e}); encode the corpus again") from None
    return found


def column_of_documents(folder: Path, split: str, column: str) -> np.ndarray:
    """A column of the table of documents, [documents]: int64, or object where it holds names.

    Raises:
        UserError: the table is missing or not readable.
    """
    path = table_path(folder, split)
    try:
        return pq.read_table(path, columns=[column]).column(0).to_numpy()
    except (OSError, pa.ArrowException, IndexError) as e:
        raise UserError(f"{path}: not readable ({e}); encode the corpus again") from None


def refuse_other_table(folder: Path, split: str, index: Index) -> None:
    """Compare the table of documents with the index, where there is one.

    Raises:
        UserError: it has other documents, or other counts of tokens.
    """
    if not table_path(folder, split).exists():
        return
    tokens = column_of_documents(folder, split, "tokens")
    if not np.array_equal(tokens, index.lengths):
        raise UserError(
            f"{table_path(folder, split)}: not the documents of {split}.idx ({len(tokens)} rows for "
            f"{len(index.lengths)} documents, or other lengths); encode the corpus again"
        )
