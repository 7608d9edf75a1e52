"""The splits (splits.py) as one walk over UTF-8 bytes: where each piece ends, without a regular expression's engine.

A piece is what the pattern's first alternative that matches takes, as greedy as the pattern says; after it the next
one begins. tests/test_pieces.py holds the walk against tokenizers' own engine over every code point and any text.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from headwater_tokenizer.classes import LETTER, NEWLINE, NUMBER, SCRIPT, SPACE

GPT2, GPT4, RAW, MARKED, WHOLE = range(5)
"""RAW: splits.RAW; MARKED: before each U+2581, sentencepiece's blank; WHOLE: nowhere."""
BY_SCRIPT = 8
"""Added to GPT2 or GPT4: a run of letters ends where another script begins."""
PATTERNS = {"gpt2": GPT2, "gpt4": GPT4, "llama3": GPT4}
_APOSTROPHE, _BLANK = 0x27, 0x20


@njit(inline="always")
def decode(data, i):
    """Code point at byte i of valid UTF-8, and its size in bytes."""
    b = np.uint32(data[i])
    if b < 0x80:
        return b, 1
    if b < 0xE0:
        return (b & np.uint32(0x1F)) << np.uint32(6) | np.uint32(data[i + 1]) & np.uint32(0x3F), 2
    if b < 0xF0:
        high = (b & np.uint32(0x0F)) << np.uint32(12) | (np.uint32(data[i + 1]) & np.uint32(0x3F)) << np.uint32(6)
        return high | np.uint32(data[i + 2]) & np.uint32(0x3F), 3
    high = (b & np.uint32(0x07)) << np.uint32(18) | (np.uint32(data[i + 1]) & np.uint32(0x3F)) << np.uint32(12)
    high |= (np.uint32(data[i + 2]) & np.uint32(0x3F)) << np.uint32(6)
    return high | np.uint32(data[i + 3]) & np.uint32(0x3F), 4


@njit(inline="always")
def _letters(data, i, end, classes, first, pattern):
    """Where the run of letters from i ends; before it stands a letter of class `first`."""
    while i < end:
        point, size = decode(data, i)
        kind = classes[point]
        if not kind & LETTER or (pattern & BY_SCRIPT and kind & SCRIPT != first & SCRIPT):
            break
        i += size
    return i


@njit(inline="always")
def _numbers(data, i, end, classes, most):
    """Where the run of at most `most` numbers from i ends; 0: of any length."""
    count = 0
    while i < end and (most == 0 or count < most):
        point, size = decode(data, i)
        if not classes[point] & NUMBER:
            break
        i += size
        count += 1
    return i


@njit(inline="always")
def _others(data, i, end, classes):
    """Where the run of what is neither letter, number nor white space ends."""
    while i < end:
        point, size = decode(data, i)
        if classes[point] & (LETTER | NUMBER | SPACE):
            break
        i += size
    return i


@njit(inline="always")
def _contraction(data, i, end, any_case):
    """Where `'s`, `'t`, `'ll` and the like end, i if there is none; case-insensitively ſ (U+017F) is an s, too."""
    if i + 1 >= end:
        return i
    a = data[i + 1]
    b = data[i + 2] if i + 2 < end else np.uint8(0)
    if any_case:
        if a == 0xC5 and b == 0xBF:
            return i + 3
        a, b = a | (np.uint8(0x20) if a < 0x80 else np.uint8(0)), b | (np.uint8(0x20) if b < 0x80 else np.uint8(0))
    if a == 0x73 or a == 0x64 or a == 0x6D or a == 0x74:  # s d m t
        return i + 2
    if (a == 0x6C and b == 0x6C) or ((a == 0x76 or a == 0x72) and b == 0x65):  # ll ve re
        return i + 3
    return i


@njit(inline="always")
def _blanks(data, i, end, classes, newlines):
    """Where a piece of white space from i ends: up to its last newline, or all but the last blank before a word."""
    last, after_newline, at = i, i, i
    while at < end:
        point, size = decode(data, at)
        kind = classes[point]
        if not kind & SPACE:
            break
        last = at
        at += size
        if newlines and kind & NEWLINE:
            after_newline = at
    if after_newline > i:
        return after_newline
    return at if at == end or last == i else last


@njit(inline="always")
def _raw(data, i, end):
    """Where a piece of the raw stream ends: line ends, blanks, or the rest with one blank before it."""
    at = i
    if data[i] == 10:
        while at < end and data[at] == 10:
            at += 1
        return at
    while at < end and data[at] == _BLANK:
        at += 1
    if at == end or data[at] == 10:
        return at
    if at - i > 1:
        return at - 1  # the last blank goes with what follows
    while at < end and data[at] != _BLANK and data[at] != 10:
        at += 1
    return at


@njit(inline="always")
def _marked(data, i, end):
    """Where a piece ends that may begin with U+2581 and holds no other one."""
    at = i + 1
    while at < end and not (data[at] == 0xE2 and data[at + 1] == 0x96 and data[at + 2] == 0x81):
        at += 1
    return at


@njit(inline="always")
def piece_end(data, i, end, classes, pattern, digits):
    """Where the piece that begins at byte i ends, i < end."""
    if pattern == RAW:
        return _raw(data, i, end)
    if pattern == MARKED:
        return _marked(data, i, end)
    if pattern == WHOLE:
        return end
    point, size = decode(data, i)
    gpt4 = pattern & ~BY_SCRIPT == GPT4
    if point == _APOSTROPHE:
        found = _contraction(data, i, end, gpt4)
        if found > i:
            return found
    # each kind of run is called from one place: every call is compiled into every loop
    kind, after, next_size, next_kind = classes[point], i + size, 0, np.uint8(SPACE)
    if not kind & LETTER and after < end:
        following, next_size = decode(data, after)
        next_kind = classes[following]
    joins = not kind & (NUMBER | NEWLINE) if gpt4 else point == _BLANK  # what follows, if it is a letter
    if kind & LETTER or (joins and next_kind & LETTER):
        first = kind if kind & LETTER else next_kind
        return _letters(data, after + next_size, end, classes, first, pattern)
    spaced = point == _BLANK and not gpt4 and next_kind & NUMBER
    if kind & NUMBER or spaced:
        return _numbers(data, after if spaced else i, end, classes, digits)
    if kind & SPACE and (point != _BLANK or next_kind & (NUMBER | SPACE)):
        return _blanks(data, i, end, classes, gpt4)
    at = _others(data, after, end, classes)
    while gpt4 and at < end and (data[at] == 10 or data[at] == 13):
        at += 1
    return at


@njit(cache=True, nogil=True)
def split(data, start, end, classes, pattern, digits):
    """Ends of the pieces of data[start:end], int64."""
    ends = np.empty(end - start, np.int64)
    count, i = 0, start
    while i < end:
        i = piece_end(data, i, end, classes, pattern, digits)
        ends[count] = i
        count += 1
    return ends[:count].copy()


@njit(cache=True, nogil=True)
def count_words(data, offsets, classes):
    """Runs without white space in each text, (texts,) int64."""
    counts = np.zeros(len(offsets) - 1, np.int64)
    for text in range(len(offsets) - 1):
        i, end, inside = offsets[text], offsets[text + 1], False
        while i < end:
            point, size = decode(data, i)
            blank = classes[point] & SPACE != 0
            counts[text] += inside and blank
            inside = not blank
            i += size
        counts[text] += inside
    return counts
