"""Pairs merged in the order in which they were learned, as Hugging Face tokenizers' BPE does.

A piece's symbols are its bytes, or its characters; of all neighbours that are a learned pair the one learned first is
merged, the leftmost of equals (Sennrich et al. 2016, algorithm 1, with the whole list of merges). Short pieces are
looked over again after each merge, long ones (a text without blanks is one piece) keep their pairs in a heap, so that
the cost of a piece of n symbols is n log n.
"""

from __future__ import annotations

from collections import namedtuple

import numpy as np
from numba import njit

from headwater_tokenizer.jit import counted, uncounted
from headwater_tokenizer.pieces import decode

SHORT = 20
"""Symbols up to which looking over all pairs is faster than a heap."""
_SPREAD = np.uint64(0x9E3779B97F4A7C15)
_NONE = np.int64(0x7FFFFFFFFFFFFFFF)

Merges = namedtuple("Merges", ["keys", "values"])
"""An open-addressing table of pairs: keys (left << 32 | right) + 1 uint64 (0: free), values rank << 32 | merged id,
int64."""
Symbols = namedtuple("Symbols", ["points", "bytes", "unknown", "fuse"])
"""What a piece begins as. points (0x110000,) int32, the entry of each character or -1; empty: symbols are bytes. bytes
(256,) int32, the entries of bytes: of all of them, or those that a character without an entry falls back to, or -1.
unknown: the unknown token's id or -1; fuse: whether neighbouring unknown characters are one token."""

Chain = namedtuple("Chain", ["values", "after", "before", "heap"])
"""Room for merging a piece: of each symbol rank << 32 | id of the merge with its right neighbour, and both neighbours;
the heap of rank << 32 | position, twice as long; all int64."""


def merges_table(pairs: np.ndarray, ids: np.ndarray) -> Merges:
    """The merges as a table.

    Args:
        pairs: (merges, 2) ids, in the order in which they were learned, each pair once.
        ids: (merges,) id of each merged pair.
    """
    slots = 16
    while slots < 3 * len(pairs):
        slots *= 2
    merges = Merges(np.zeros(slots, np.uint64), np.full(slots, _NONE, np.int64))
    _fill(merges, pairs.astype(np.int64), ids.astype(np.int64))
    return merges


@njit(inline="always")
def pair_key(left, right):
    """What a pair of ids is found by, never 0."""
    return (np.uint64(left) << np.uint64(32) | np.uint64(right)) + np.uint64(1)


@njit(inline="always")
def place(keys, key):
    """Where a key stands in an open-addressing table of a power of two, or may be put (0: free)."""
    mask = np.int64(len(keys) - 1)
    at = np.int64((key * _SPREAD) >> np.uint64(32)) & mask
    while keys[at] != 0 and keys[at] != key:
        at = (at + 1) & mask
    return at


@njit(cache=True)
def _fill(merges, pairs, ids):
    for rank in range(len(pairs)):
        key = pair_key(pairs[rank, 0], pairs[rank, 1])
        at = place(merges.keys, key)
        merges.keys[at], merges.values[at] = key, rank << 32 | ids[rank]


@njit(inline="always")
def _merged(merges, left, right):
    """Rank and id of a pair's merge, rank << 32 | id; above all others if it was never learned."""
    return merges.values[place(merges.keys, pair_key(left, right))]


@uncounted()
def symbols_of(data, start, end, symbols, out, written):
    """Write what a piece begins as; returns the new `written`. `out` has room for an id a byte.

    As in tokenizers an unknown character is written when one with an entry follows, so behind bytes that others between
    them fell back to; without unknown token it is dropped.
    """
    if not len(symbols.points):
        for k in range(start, end):
            out[written] = symbols.bytes[data[k]]
            written += 1
        return written
    pending, i = False, start
    while i < end:
        point, size = decode(data, i)
        entry = symbols.points[point]
        if entry >= 0:
            if pending:
                out[written] = symbols.unknown
                written += 1
                pending = False
            out[written] = entry
            written += 1
        elif _has_bytes(data, i, size, symbols):
            for k in range(i, i + size):
                out[written] = symbols.bytes[data[k]]
                written += 1
        elif symbols.unknown >= 0:
            if pending and not symbols.fuse:
                out[written] = symbols.unknown
                written += 1
            pending = True
        i += size
    if pending:
        out[written] = symbols.unknown
        written += 1
    return written


@njit(inline="always")
def _has_bytes(data, i, size, symbols):
    """Whether every byte of a character has an entry."""
    least = np.int32(0)
    for k in range(i, i + size):
        least = min(least, symbols.bytes[data[k]])
    return least == 0


@uncounted()
def merge(ids, count, merges, chain):
    """Merge the first `count` of `ids` (int32) in place; returns how many are left. `chain` is overwritten."""
    return _merge_short(ids, count, merges, chain.values) if count <= SHORT else _merge_long(ids, count, merges, chain)


@uncounted()
def _merge_short(ids, count, merges, values):
    for k in range(count - 1):
        values[k] = _merged(merges, ids[k], ids[k + 1])
    while count > 1:
        best, where = _NONE, -1
        for k in range(count - 1):
            if values[k] < best:
                best, where = values[k], k
        if where < 0:
            break
        ids[where] = best & 0xFFFFFFFF
        count -= 1
        for k in range(where + 1, count):
            ids[k], values[k - 1] = ids[k + 1], values[k]
        if where > 0:
            values[where - 1] = _merged(merges, ids[where - 1], ids[where])
        if where < count - 1:
            values[where] = _merged(merges, ids[where], ids[where + 1])
    return count


@uncounted()
def _merge_long(ids, count, merges, chain):
    """With a heap; what a merge has made untrue is passed over when it comes up."""
    values, after, before = chain.values, chain.after, chain.before
    waiting = 0
    for k in range(count):
        after[k], before[k] = k + 1, k - 1
        values[k] = _merged(merges, ids[k], ids[k + 1]) if k + 1 < count else _NONE
        waiting = _push(chain.heap, waiting, values[k], k)
    while waiting:
        top = chain.heap[0]
        waiting = _pop(chain.heap, waiting)
        k = top & 0xFFFFFFFF
        if values[k] == _NONE or values[k] >> 32 != top >> 32:
            continue
        right = after[k]
        ids[k] = values[k] & 0xFFFFFFFF
        after[k] = after[right]
        values[k] = values[right] = _NONE
        if after[k] < count:
            before[after[k]] = k
            values[k] = _merged(merges, ids[k], ids[after[k]])
            waiting = _push(chain.heap, waiting, values[k], k)
        left = before[k]
        if left >= 0:
            values[left] = _merged(merges, ids[left], ids[k])
            waiting = _push(chain.heap, waiting, values[left], left)
    kept, k = 0, 0
    while k < count:
        ids[kept] = ids[k]
        kept += 1
        k = after[k]
    return kept


@njit(inline="always")
def _push(heap, size, value, position):
    """Put a pair in, if it is one that was learned; returns the new size."""
    if value == _NONE:
        return size
    key, at = value >> 32 << 32 | position, size
    while at > 0 and heap[(at - 1) >> 1] > key:
        heap[at] = heap[(at - 1) >> 1]
        at = (at - 1) >> 1
    heap[at] = key
    return size + 1


@njit(inline="always")
def _pop(heap, size):
    """Take the lowest out; returns the new size."""
    size -= 1
    key, at = heap[size], 0
    while 2 * at + 1 < size:
        down = 2 * at + 1
        down += down + 1 < size and heap[down + 1] < heap[down]
        if heap[down] >= key:
            break
        heap[at] = heap[down]
        at = down
    heap[at] = key
    return size


@counted(cache=True)
def new_chain(size):
    """Room for pieces of at most `size` symbols."""
    heap = np.empty(2 * size, np.int64)
    return Chain(np.empty(size, np.int64), np.empty(size, np.int64), np.empty(size, np.int64), heap)
