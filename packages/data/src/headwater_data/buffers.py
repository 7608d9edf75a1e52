"""Texts as the two buffers of an Arrow string column: UTF-8 bytes end to end, and where each text starts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
import pyarrow as pa


def text_buffers(texts: Sequence[str] | pl.Series) -> tuple[np.ndarray, np.ndarray]:
    """The column's buffers; a polars column of one chunk is not copied.

    Returns:
        (bytes,) uint8 and (texts + 1,) int64 offsets into it.

    Raises:
        UnicodeEncodeError: a text holds a lone surrogate.
    """
    column = texts.to_arrow() if isinstance(texts, pl.Series) else pa.array(list(texts), pa.large_string())
    if not pa.types.is_large_string(column.type):
        column = column.cast(pa.large_string())
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    _, offsets, data = column.buffers()
    starts = np.frombuffer(offsets, np.int64)[column.offset : column.offset + len(column) + 1] if offsets else None
    if starts is None or not len(starts):
        return np.zeros(0, np.uint8), np.zeros(1, np.int64)
    return (np.frombuffer(data, np.uint8) if data is not None else np.zeros(0, np.uint8)), starts
