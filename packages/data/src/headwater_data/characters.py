"""Unicode character classes as one table, so that compiled loops judge a code point as Python's own str methods do.

The kernels (words.py, quality/heuristics.py) walk UTF-8 bytes; a table lookup a character replaces a method call.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from datatrove.utils.text import PUNCTUATION_SET, TERMINAL_PUNCTUATION
from numba import njit

SPACE, LINE_BREAK, ALPHA, ALNUM, PUNCTUATION, TERMINAL, DECIMAL, UPPER = (1 << i for i in range(8))
"""str.isspace, str.splitlines, isalpha, isalnum, datatrove's two punctuation sets, isdecimal, isupper."""

LIMIT = 0x33500
"""No code point from here on is in any class or has a lower case (asserted against Python in the tests)."""

DOTTED_CAPITAL_I = 0x130
"""The one character whose lower case is two: i and a combining dot, which is no letter."""

_BREAKS = frozenset("\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029")


@cache
def class_table() -> np.ndarray:
    """(LIMIT,) uint8: the classes of every code point, as bits."""
    table = np.zeros(LIMIT, np.uint8)
    for point, c in enumerate(map(chr, range(LIMIT))):
        if c.isalnum():
            table[point] = ALNUM | (ALPHA * c.isalpha()) | (DECIMAL * c.isdecimal()) | (UPPER * c.isupper())
    for point in range(0x3100):  # every space is below
        if chr(point).isspace():
            table[point] |= SPACE
    for characters, bit in ((_BREAKS, LINE_BREAK), (PUNCTUATION_SET, PUNCTUATION), (TERMINAL_PUNCTUATION, TERMINAL)):
        table[[ord(c) for c in characters]] |= bit
    return table


@cache
def lower_table() -> np.ndarray:
    """(LIMIT,) uint32: each code point's lower case; final sigma counts as sigma, dotted capital I as i."""
    table = np.arange(LIMIT, dtype=np.uint32)
    for point, c in enumerate(map(chr, range(LIMIT))):
        lower = c.lower()
        if lower != c:
            table[point] = ord(lower[0])
    table[ord("ς")] = ord("σ")
    return table


@njit(inline="always")
def decode(data, i):
    """The code point at byte i of valid UTF-8, and its length in bytes."""
    b = np.uint32(data[i])
    if b < 0x80:
        return b, 1
    if b < 0xE0:
        return ((b & np.uint32(0x1F)) << np.uint32(6)) | (np.uint32(data[i + 1]) & np.uint32(0x3F)), 2
    if b < 0xF0:
        return (
            ((b & np.uint32(0x0F)) << np.uint32(12))
            | ((np.uint32(data[i + 1]) & np.uint32(0x3F)) << np.uint32(6))
            | (np.uint32(data[i + 2]) & np.uint32(0x3F))
        ), 3
    return (
        ((b & np.uint32(0x07)) << np.uint32(18))
        | ((np.uint32(data[i + 1]) & np.uint32(0x3F)) << np.uint32(12))
        | ((np.uint32(data[i + 2]) & np.uint32(0x3F)) << np.uint32(6))
        | (np.uint32(data[i + 3]) & np.uint32(0x3F))
    ), 4


@njit(inline="always")
def mixed(h):
    """MurmurHash3's 64-bit finaliser: spreads a hash over all bits."""
    h = (h ^ (h >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
    h = (h ^ (h >> np.uint64(33))) * np.uint64(0xC4CEB9FE1A85EC53)
    return h ^ (h >> np.uint64(33))
