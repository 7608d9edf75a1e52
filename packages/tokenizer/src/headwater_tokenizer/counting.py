"""What the sample holds, counted once: trainers get distinct pieces with their counts instead of text.

| algorithm | what is counted |
| --- | --- |
| bpe, unigram | pieces of the split (pieces.py) |
| wordpiece | words and marks |
| words, moses | words |
| characters | characters |

A count is a polars frame of `piece` (String) and `count` (UInt64), a row a distinct piece. Shards of the corpus are
counted apart, each into files by a hash of the piece, and these are summed one hash after the other: memory does not
grow with the text, and only what is kept for learning is ever held whole.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
from numba import njit
from tokenizers import pre_tokenizers

from headwater_tokenizer.classes import class_table
from headwater_tokenizer.encoder import buffers
from headwater_tokenizer.jit import uncounted
from headwater_tokenizer.pieces import piece_end

SCHEMA = {"piece": pl.String, "count": pl.UInt64}
TEXT_A_PART = 2_000_000_000
"""Bytes of text to a part: what is summed at once is then a few hundred MB at most."""
_MARK = r"!-/:-@\[-`{-~\p{P}"
WORDS_AND_MARKS = rf"[{_MARK}]|[^\s{_MARK}]+"
"""As tokenizers' BertPreTokenizer cuts."""
WORDS = r"\S+"

Texts = Iterable[pa.LargeStringArray]
Count = Callable[[Texts], pl.DataFrame]


def count_pieces(texts: Texts, pattern: int, digits: int) -> pl.DataFrame:
    """Pieces of a split, by one compiled walk over the text.

    Args:
        pattern, digits: as of pieces.piece_end.
    """
    table = _new_table()
    for batch in texts:
        data, offsets = buffers(batch)
        table = _count_batch(table, data, offsets, pattern, digits)
    pieces, size = table.used.tolist()
    offsets = pa.py_buffer(table.starts[: pieces + 1].tobytes())
    found = pa.LargeStringArray.from_buffers(pieces, offsets, pa.py_buffer(table.bytes[:size].tobytes()))
    return pl.DataFrame({"piece": found, "count": table.counts[:pieces].astype(np.uint64)}, schema=SCHEMA)


def count_matches(texts: Texts, pattern: str) -> pl.DataFrame:
    """Matches of a regular expression."""
    return summed(
        pl.Series("piece", batch).str.extract_all(pattern).explode().drop_nulls().value_counts(name="count")
        for batch in texts
    )


def count_cuts(texts: Texts, cut: pre_tokenizers.PreTokenizer) -> pl.DataFrame:
    """What a pre-tokenizer of tokenizers leaves."""
    return summed(
        pl.Series("piece", [piece for text in batch.to_pylist() for piece, _ in cut.pre_tokenize_str(text)], pl.String)
        .value_counts(name="count")
        for batch in texts
    )  # fmt: skip


def count_characters(texts: Texts) -> pl.DataFrame:
    """Characters."""
    counts = np.zeros(0x110000, np.uint64)
    for batch in texts:
        points = np.frombuffer("".join(batch.to_pylist()).encode("utf-32-le"), np.uint32)
        counts += np.bincount(points, minlength=len(counts)).astype(np.uint64)
    met = np.flatnonzero(counts)
    return pl.DataFrame({"piece": list(map(chr, met.tolist())), "count": counts[met]}, schema=SCHEMA)


def summed(frames: Iterable[pl.DataFrame]) -> pl.DataFrame:
    """The sum of several counts."""
    whole = pl.DataFrame(schema=SCHEMA)
    for frame in frames:
        both = [whole, frame.select("piece", pl.col("count").cast(pl.UInt64))]
        whole = pl.concat(both).group_by("piece").agg(pl.col("count").sum())
    return whole


def write_parts(count: pl.DataFrame, path: Path, parts: int) -> None:
    """Write a count as PATH-0.parquet to PATH-(parts - 1).parquet, each piece where its hash says."""
    part = pl.col("piece").hash(seed=0) % parts
    for number in range(parts):
        count.filter(part == number).write_parquet(path.with_name(f"{path.name}-{number}.parquet"))


def read_parts(paths: list[Path], parts: int, most: int) -> tuple[pl.DataFrame, dict]:
    """Sum the counts of all shards and keep the commonest pieces.

    Args:
        paths: as given to `write_parts`.
        most: how many to keep; of equally common ones the first of the alphabet.

    Returns:
        The count, and what it covers: `distinct` and `kept` pieces, and `kept_share` of their occurrences.
    """
    kept, distinct, occurrences = pl.DataFrame(schema=SCHEMA), 0, 0
    for number in range(parts):
        files = [path.with_name(f"{path.name}-{number}.parquet") for path in paths]
        part = pl.scan_parquet(files).group_by("piece").agg(pl.col("count").sum()).collect(engine="streaming")
        distinct, occurrences = distinct + len(part), occurrences + int(part["count"].sum())
        kept = pl.concat([kept, part])
        if len(kept) > most:
            kept = kept.sort("count", "piece", descending=[True, False]).head(most)
    share = int(kept["count"].sum()) / occurrences if occurrences else 1.0
    return kept.sort("piece"), {"distinct": distinct, "kept": len(kept), "kept_share": share}


_SPREAD = np.uint64(0x9E3779B97F4A7C15)
_HASH = np.uint64(0x100000001B3)

_Table = namedtuple("_Table", ["slots", "hashes", "starts", "counts", "bytes", "used"])
"""Distinct pieces: an open-addressing table of their numbers + 1 (0: free); of each its hash, where its bytes begin in
`bytes` (one more than pieces), how often it was met; used (2,) int64: pieces, bytes."""


def _new_table(pieces: int = 1 << 12, size: int = 1 << 16) -> _Table:
    """An empty one, with room for so many pieces and bytes."""
    return _Table(
        np.zeros(4 * pieces, np.int64), np.zeros(pieces, np.uint64), np.zeros(pieces + 1, np.int64),
        np.zeros(pieces, np.int64), np.zeros(size, np.uint8), np.zeros(2, np.int64),
    )  # fmt: skip


def _count_batch(table: _Table, data: np.ndarray, offsets: np.ndarray, pattern: int, digits: int) -> _Table:
    """Count the pieces of some texts (as of encoder.buffers); returns the table, grown where it was full."""
    text, at = 0, int(offsets[0])
    while True:
        text, at = _count(table, data, offsets, class_table(), pattern, digits, text, at)
        if text < 0:
            return table
        table = _grown(table)


def _grown(old: _Table) -> _Table:
    pieces, size = old.used.tolist()
    new = _new_table(2 * len(old.counts), 2 * len(old.bytes))
    new.hashes[:pieces], new.counts[:pieces] = old.hashes[:pieces], old.counts[:pieces]
    new.starts[: pieces + 1], new.bytes[:size] = old.starts[: pieces + 1], old.bytes[:size]
    new.used[:] = old.used
    _rehash(new)
    return new


@njit(cache=True)
def _rehash(table):
    mask = len(table.slots) - 1
    for piece in range(table.used[0]):
        at = np.int64(table.hashes[piece] >> np.uint64(20)) & mask
        while table.slots[at]:
            at = (at + 1) & mask
        table.slots[at] = piece + 1


@uncounted(cache=True, nogil=True)
def _count(table, data, offsets, classes, pattern, digits, text, i):
    """Count from byte i of a text on; returns (-1, 0) at the end, or where it stopped for want of room."""
    mask = len(table.slots) - 1
    while text < len(offsets) - 1:
        end = offsets[text + 1]
        while i < end:
            stop = piece_end(data, i, end, classes, pattern, digits)
            h = np.uint64(stop - i)
            for k in range(i, stop):
                h = (h ^ np.uint64(data[k])) * _HASH
            h *= _SPREAD
            at = np.int64(h >> np.uint64(20)) & mask
            found = -1
            while table.slots[at]:
                piece = table.slots[at] - 1
                start = table.starts[piece]
                if table.hashes[piece] == h and table.starts[piece + 1] - start == stop - i:
                    same = True
                    for k in range(stop - i):
                        if table.bytes[start + k] != data[i + k]:
                            same = False
                            break
                    if same:
                        found = piece
                        break
                at = (at + 1) & mask
            if found >= 0:
                table.counts[found] += 1
            else:
                pieces, size = table.used
                if pieces == len(table.counts) or size + stop - i > len(table.bytes):
                    return text, i
                table.slots[at], table.hashes[pieces], table.counts[pieces] = pieces + 1, h, 1
                for k in range(stop - i):
                    table.bytes[size + k] = data[i + k]
                table.starts[pieces + 1] = size + stop - i
                table.used[0], table.used[1] = pieces + 1, size + stop - i
            i = stop
        text += 1
        if text < len(offsets) - 1:
            i = offsets[text]
    return -1, 0
