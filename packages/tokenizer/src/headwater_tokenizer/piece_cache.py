"""Pieces of text that stood before, and their ids.

Text is Zipfian: of a corpus's pieces nearly all stood before, so looking them up is what encoding costs, and a look-up
costs its misses of the processor's cache. A slot is half a cache line, and most pieces need nothing else:

    word 0, 1   the piece's bytes and length, up to 15 bytes; of a longer one two hashes
    word 2      where its ids begin in `pool`, its size in bytes, how many ids it has
    word 3      its first two ids

A longer piece's bytes follow its ids in `pool` and are compared, so that no two pieces are ever taken for one.
"""

from __future__ import annotations

from collections import namedtuple

import numpy as np
from numba import njit

from headwater_tokenizer.jit import uncounted

SLOTS = 1 << 20
"""The cache takes no new pieces once half of them are in use: 32 MB, whatever the corpus."""
POOL = 4 << 20
"""32-bit words for ids and long pieces' bytes: 16 MB."""
LONGEST = 255
"""Bytes of a piece at most; longer ones seldom come twice."""
_WORDS = 4
_EXACT = 15
"""Bytes of a piece that words 0 and 1 hold."""
_LINE = 64
_PRIME_A, _PRIME_B = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F)
_HASHED = np.uint64(0xFF) << np.uint64(56)
_LOW = np.uint64(0xFFFFFFFF)

Cache = namedtuple("Cache", ["slots", "pool", "used"])
"""slots (4 * SLOTS,) uint64; pool (POOL,) int32; used (2,) int64: slots, words of the pool."""


def new_cache() -> Cache:
    """An empty one."""
    raw = np.zeros((_WORDS * SLOTS + _LINE // 8), np.uint64)
    first = -raw.ctypes.data % _LINE // 8  # no slot lies across two lines
    return Cache(raw[first : first + _WORDS * SLOTS], np.zeros(POOL, np.int32), np.zeros(2, np.int64))


@njit(inline="always")
def piece_key(data, start, size):
    """Words 0 and 1 of a piece; the second is never 0."""
    a, b = np.uint64(0), np.uint64(0)
    if size <= _EXACT:
        for k in range(start, start + min(size, 8)):
            a = a << np.uint64(8) | np.uint64(data[k])
        for k in range(start + 8, start + size):
            b = b << np.uint64(8) | np.uint64(data[k])
        return a, b | np.uint64(size) << np.uint64(56)
    for k in range(start, start + size):
        byte = np.uint64(data[k])
        a = (a ^ byte) * _PRIME_A
        b = (b + byte) * _PRIME_B
        b ^= b >> np.uint64(29)
    return a, b | _HASHED


@njit(inline="always")
def find(cache, a, b, data, start, size):
    """Where a piece's slot begins in `slots`, or the free one where it may be put."""
    slots = cache.slots
    mask = np.int64(len(slots) - 1)
    mixed = (a ^ b * _PRIME_B) * _PRIME_A
    mixed = (mixed ^ mixed >> np.uint64(32)) * _PRIME_B
    at = np.int64(mixed >> np.uint64(32)) * _WORDS & mask
    while slots[at + 1] != 0:
        if slots[at] == a and slots[at + 1] == b and (size <= _EXACT or _same(cache, at, data, start, size)):
            break
        at = (at + _WORDS) & mask
    return at


@uncounted()
def _same(cache, at, data, start, size):
    """Whether a slot's piece has these bytes."""
    begin, kept, count = _place(cache.slots[at + 2])
    if kept != size:
        return False
    for k in range(size):
        word = cache.pool[begin + count + (k >> 2)]
        if (word >> (8 * (k & 3))) & 0xFF != data[start + k]:
            return False
    return True


@njit(inline="always")
def _place(word):
    """Of word 2: where ids begin, bytes of the piece, ids."""
    return (
        np.int64(word >> np.uint64(32)), np.int64(word >> np.uint64(16) & np.uint64(0xFFFF)),
        np.int64(word & np.uint64(0xFFFF)),
    )  # fmt: skip


@njit(inline="always")
def copy(cache, at, out, written):
    """Write a slot's ids; returns the new `written`. `out` needs room for two ids whatever their number."""
    two = cache.slots[at + 3]
    begin, _, count = _place(cache.slots[at + 2])
    out[written] = two & _LOW
    out[written + 1] = two >> np.uint64(32)
    for k in range(2, count):
        out[written + k] = cache.pool[begin + k]
    return written + count


@uncounted()
def keep(cache, at, a, b, data, start, size, ids, count):
    """Put a piece and its `count` ids into the free slot that `find` gave, if there is room."""
    used, begin = cache.used
    words = count + ((size + 3) >> 2 if size > _EXACT else 0)
    if 2 * (used + 1) > len(cache.slots) // _WORDS or begin + words > len(cache.pool):
        return
    for k in range(count):
        cache.pool[begin + k] = ids[k]
    if size > _EXACT:
        for k in range(count, words):
            cache.pool[begin + k] = 0
        for k in range(size):
            cache.pool[begin + count + (k >> 2)] |= np.int32(data[start + k]) << np.int32(8 * (k & 3))
    first = np.uint64(ids[0]) if count > 0 else np.uint64(0)
    second = np.uint64(ids[1]) if count > 1 else np.uint64(0)
    cache.slots[at], cache.slots[at + 1] = a, b
    cache.slots[at + 2] = np.uint64(begin) << np.uint64(32) | np.uint64(size) << np.uint64(16) | np.uint64(count)
    cache.slots[at + 3] = second << np.uint64(32) | first
    cache.used[0], cache.used[1] = used + 1, begin + words
