"""Megatron's token files: NAME.bin holds the ids end to end, NAME.idx says where each document lies.

Format MMIDIDX version 1, as megatron.core.datasets.indexed_dataset reads it (little-endian):

    9 bytes  magic "MMIDIDX\\0\\0"
    uint64   version, 1
    uint8    code of the ids' type: 8 uint16, 4 int32
    uint64   number of sequences S (here one a document)
    uint64   number of document boundaries, S + 1
    int32[S]    ids a sequence
    int64[S]    byte at which each sequence begins in the .bin
    int64[S+1]  index of the sequence that begins each document, and S at the end
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

MAGIC = b"MMIDIDX\x00\x00"
TYPE_CODES: dict[np.dtype, int] = {np.dtype(np.uint16): 8, np.dtype(np.int32): 4}


def write_index(path: Path, lengths: np.ndarray, dtype: np.dtype) -> None:
    """Write the .idx of a .bin whose documents hold `lengths` ids each (int32 [documents]) of type `dtype`."""
    boundaries = np.arange(len(lengths) + 1, dtype="<i8")
    ends = np.cumsum(lengths, dtype=np.int64) * dtype.itemsize
    starts = np.concatenate([np.zeros(1, np.int64), ends[:-1]])[: len(lengths)]
    with open(path, "wb") as f:
        f.write(MAGIC + struct.pack("<QBQQ", 1, TYPE_CODES[dtype], len(lengths), len(boundaries)))
        for array in (lengths.astype("<i4"), starts.astype("<i8"), boundaries):
            f.write(array.tobytes())


def read_index(path: Path) -> tuple[np.ndarray, np.dtype]:
    """Lengths (int32 [documents]) and type of the ids, from an .idx that `write_index` wrote.

    Raises:
        ValueError: other magic, version or type.
    """
    with open(path, "rb") as f:
        magic, (version, code, sequences, _) = f.read(9), struct.unpack("<QBQQ", f.read(25))
        types = {number: dtype for dtype, number in TYPE_CODES.items()}
        if magic != MAGIC or version != 1 or code not in types:
            raise ValueError(f"{path}: not an MMIDIDX version 1 index of uint16 or int32 ids")
        return np.fromfile(f, "<i4", sequences), types[code]
