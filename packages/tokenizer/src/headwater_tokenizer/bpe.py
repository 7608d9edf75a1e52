"""Byte pairs merged by a compiled loop: each distinct piece of text once, then looked up.

Text is Zipfian: of a corpus's pieces nearly all stood before. A piece's ids are kept in a table by 128 bits of its
bytes (exactly them for up to eight bytes, two hashes else), so most of the work is to find where pieces end.
Merging is tokenizers': of all neighbours that are a learned pair the one learned first, the leftmost of equals
(Sennrich et al. 2016, algorithm 1, with the whole list of merges).
"""

from __future__ import annotations

from collections import namedtuple

import numpy as np
from numba import njit

from headwater_tokenizer.pieces import piece_end

SLOTS = 1 << 20
"""Of the table of pieces; it stops taking new ones at half: 40 MB, whatever the corpus."""
POOL = 4 << 20
"""Ids that the table's pieces may have in all."""
LONGEST = 4096
"""Bytes of a piece that the loop merges: its cost is their square. A text with a longer one is left to others."""
_SPREAD, _PRIME_A, _PRIME_B = np.uint64(0x9E3779B97F4A7C15), np.uint64(0x100000001B3), np.uint64(0xC2B2AE3D27D4EB4F)
_NONE = np.int32(0x7FFFFFFF)

Merges = namedtuple("Merges", ["byte_ids", "keys", "ranks", "ids"])
"""byte_ids (256,) int32; an open-addressing table of pairs: keys (left << 32 | right) + 1 uint64 (0: free), rank and id
of the pair's merge, int32."""
Cache = namedtuple("Cache", ["key_a", "key_b", "start", "count", "pool", "used"])
"""Pieces seen: their 128 bits, where their ids lie in `pool`; used (2,) int64: pieces, ids."""


def merges_table(byte_ids: np.ndarray, pairs: np.ndarray, ids: np.ndarray) -> Merges:
    """The merges as a table.

    Args:
        byte_ids: (256,) id of each byte.
        pairs: (merges, 2) ids, in the order in which they were learned.
        ids: (merges,) id of each merged pair.
    """
    slots = 16
    while slots < 3 * len(pairs):
        slots *= 2
    merges = Merges(
        byte_ids.astype(np.int32), np.zeros(slots, np.uint64), np.full(slots, _NONE, np.int32),
        np.zeros(slots, np.int32),
    )  # fmt: skip
    _fill(merges, pairs.astype(np.int64), ids.astype(np.int32))
    return merges


def new_cache() -> Cache:
    """An empty table of pieces."""
    return Cache(
        np.zeros(SLOTS, np.uint64), np.zeros(SLOTS, np.uint64), np.zeros(SLOTS, np.int32), np.zeros(SLOTS, np.int32),
        np.zeros(POOL, np.int32), np.zeros(2, np.int64),
    )  # fmt: skip


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
        if merges.keys[at] == 0:
            merges.keys[at], merges.ranks[at], merges.ids[at] = key, rank, ids[rank]


@njit(inline="always")
def _find(merges, left, right):
    """Slot of a pair; free if it was never learned."""
    return place(merges.keys, pair_key(left, right))


@njit
def merge(data, start, end, merges, ids, slots):
    """Ids of one piece into `ids`; returns how many. `slots` is room for as many int64."""
    count = end - start
    for k in range(count):
        ids[k] = merges.byte_ids[data[start + k]]
    for k in range(count - 1):
        slots[k] = _find(merges, ids[k], ids[k + 1])
    while count > 1:
        best, where = _NONE, -1
        for k in range(count - 1):
            rank = merges.ranks[slots[k]]
            if rank < best:
                best, where = rank, k
        if where < 0:
            break
        ids[where] = merges.ids[slots[where]]
        count -= 1
        for k in range(where + 1, count):
            ids[k], slots[k - 1] = ids[k + 1], slots[k]
        if where > 0:
            slots[where - 1] = _find(merges, ids[where - 1], ids[where])
        if where < count - 1:
            slots[where] = _find(merges, ids[where], ids[where + 1])
    return count


@njit(inline="always")
def _keys(data, start, end):
    """128 bits that stand for a piece: its bytes and length up to eight bytes, else two hashes of them."""
    size = end - start
    if size <= 8:
        a = np.uint64(0)
        for k in range(start, end):
            a = a << np.uint64(8) | np.uint64(data[k])
        return a, np.uint64(size)
    a, b = np.uint64(0xCBF29CE484222325), np.uint64(size)
    for k in range(start, end):
        byte = np.uint64(data[k])
        a = (a ^ byte) * _PRIME_A
        b = (b + byte) * _PRIME_B
        b ^= b >> np.uint64(29)
    return a, b | np.uint64(1) << np.uint64(63)


@njit(cache=True, nogil=True)
def encode_texts(data, offsets, classes, pattern, digits, merges, cache, end_id, out, lengths):
    """Encode texts one after the other.

    Args:
        data, offsets: UTF-8 bytes, (bytes,) uint8, and where the texts begin in them, (texts + 1,) int64.
        end_id: written after each text; -1: nothing is.
        out: room for an id a byte and text, int32.
        lengths: (texts,) int64, filled with each text's ids, `end_id` included; -1: left to others, nothing written.

    Returns:
        How many ids were written.
    """
    mask = np.int64(len(cache.key_a) - 1)
    ids, slots = np.empty(LONGEST, np.int32), np.empty(LONGEST, np.int64)
    written = 0
    for text in range(len(offsets) - 1):
        first, i, end = written, offsets[text], offsets[text + 1]
        while i < end:
            stop = piece_end(data, i, end, classes, pattern, digits)
            if stop - i == 1:
                out[written] = merges.byte_ids[data[i]]
                written += 1
                i = stop
                continue
            a, b = _keys(data, i, stop)
            at = np.int64(((a ^ b * _SPREAD) * _SPREAD) >> np.uint64(40)) & mask
            while cache.key_b[at] != 0 and (cache.key_a[at] != a or cache.key_b[at] != b):
                at = (at + 1) & mask
            if cache.key_b[at] != 0:
                here, count = cache.start[at], cache.count[at]
                for k in range(count):
                    out[written + k] = cache.pool[here + k]
                written += count
                i = stop
                continue
            if stop - i > LONGEST:
                written = first - 1
                break
            count = merge(data, i, stop, merges, ids, slots)
            for k in range(count):
                out[written + k] = ids[k]
            written += count
            pieces, pool = cache.used
            if pieces < len(cache.key_a) // 2 and pool + count <= len(cache.pool):
                cache.key_a[at], cache.key_b[at], cache.start[at], cache.count[at] = a, b, pool, count
                cache.pool[pool : pool + count] = ids[:count]
                cache.used[0], cache.used[1] = pieces + 1, pool + count
            i = stop
        if written < first:
            written, lengths[text] = first, -1
            continue
        if end_id >= 0:
            out[written] = end_id
            written += 1
        lengths[text] = written - first
    return written
