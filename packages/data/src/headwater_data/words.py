"""Texts as one stream of 64-bit word hashes, and their n-grams: shared by dedup and decontaminate.

A word is `\\w+` in lower case: punctuation, case and white space don't hide a copy. One compiled pass over the UTF-8
bytes finds and hashes the words; the hash is FNV-1a over the lower-case code points, finalised by MurmurHash3's mixer,
the same on every machine and in every process (Python's own `hash` is neither).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numba import njit

from .buffers import text_buffers
from .characters import ALNUM, DOTTED_CAPITAL_I, LIMIT, class_table, decode, lower_table, mixed

WORD = re.compile(r"\w+")
_BASE = np.uint64(0x9E3779B97F4A7C15)  # odd, so its powers keep all 64 bits
_FNV_OFFSET, _FNV_PRIME = np.uint64(0xCBF29CE484222325), np.uint64(0x100000001B3)
_UNDERSCORE = np.uint32(ord("_"))


@dataclass(frozen=True)
class WordStream:
    """The words of several texts, end to end."""

    hashes: np.ndarray
    """(words,) uint64."""
    starts: np.ndarray
    """(texts + 1,) int64: text i holds the words starts[i] to starts[i+1]."""


def word_stream(texts: Sequence[str] | pl.Series) -> WordStream:
    """Split and hash texts: word for word what `WORD.findall(text.lower())` finds."""
    data, offsets = text_buffers(texts)
    counts = np.zeros(len(offsets), np.int64)
    hashes = np.empty(int(offsets[-1] - offsets[0]) // 2 + len(offsets), np.uint64)  # a word and a gap: 2 bytes or more
    total = _hash_words(data, offsets, class_table(), lower_table(), hashes, counts)
    return WordStream(hashes[:total].copy(), np.cumsum(counts))


@njit(cache=True, nogil=True)
def _hash_words(data, offsets, classes, lower, hashes, counts):
    """Fill `hashes`, and `counts[i + 1]` with text i's words; returns the number of words."""
    total = 0
    for text in range(len(offsets) - 1):
        first, i, end, inside, h = total, offsets[text], offsets[text + 1], False, _FNV_OFFSET
        while i < end:
            point, size = decode(data, i)
            i += size
            if point < LIMIT and (classes[point] & ALNUM or point == _UNDERSCORE):
                h = (h ^ np.uint64(lower[point])) * _FNV_PRIME
                inside = True
                if point != DOTTED_CAPITAL_I:
                    continue  # its combining dot ends the word
            if inside:
                hashes[total] = mixed(h)
                total += 1
                inside, h = False, _FNV_OFFSET
        if inside:
            hashes[total] = mixed(h)
            total += 1
        counts[text + 1] = total - first
    return total


def word_spans(text: str) -> list[tuple[int, int]]:
    """Where the words of `text.lower()` stand in `text`: lower case can be longer (İ becomes two characters)."""
    low = text.lower()
    if len(low) == len(text):  # no letter became two
        return [match.span() for match in WORD.finditer(low)]
    origin = [i for i, c in enumerate(text) for _ in c.lower()]
    found = WORD.finditer("".join(c.lower() for c in text))
    return [(origin[m.start()], origin[m.end() - 1] + 1) for m in found]


def ngram_hashes(stream: WordStream, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Hashes of all n-grams that lie within one text.

    Returns:
        (ngrams,) uint64 hashes in the order of the text, and (ngrams,) int64 positions of their first words.
    """
    room = int(np.maximum(np.diff(stream.starts) - n + 1, 0).sum())
    hashes, positions = np.empty(room, np.uint64), np.empty(room, np.int64)
    _hash_ngrams(stream.hashes, stream.starts, n, hashes, positions)
    return hashes, positions


@njit(cache=True, nogil=True)
def _hash_ngrams(words, starts, n, hashes, positions):
    """The sum of base^k * word over each window: the next window's follows from the last in two steps."""
    top = np.uint64(1)
    for _ in range(n - 1):
        top *= _BASE
    at = 0
    for text in range(len(starts) - 1):
        total = np.uint64(0)
        for word in range(starts[text], starts[text + 1]):
            first = word - n + 1
            if first > starts[text]:
                total -= words[first - 1] * top
            total = total * _BASE + words[word]
            if first >= starts[text]:
                hashes[at], positions[at] = mixed(total), first
                at += 1


def mix64(values: np.ndarray) -> np.ndarray:
    """MurmurHash3's 64-bit finaliser: spreads sums of word hashes over all bits. (n,) uint64 -> (n,) uint64."""
    with np.errstate(over="ignore"):
        h = values ^ (values >> np.uint64(33))
        h = h * np.uint64(0xFF51AFD7ED558CCD)
        h ^= h >> np.uint64(33)
        h = h * np.uint64(0xC4CEB9FE1A85EC53)
        return h ^ (h >> np.uint64(33))
