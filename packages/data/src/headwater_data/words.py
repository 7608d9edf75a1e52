"""Texts as one stream of 64-bit word hashes, and their n-grams: shared by dedup and decontaminate.

A word is `\\w+` in lower case: punctuation, case and white space don't hide a copy. Hashing is xxh3, the same on every
machine and in every process (Python's own `hash` is neither).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import xxhash

WORD = re.compile(r"\w+")
_BASE = np.uint64(0x9E3779B97F4A7C15)  # odd, so its powers keep all 64 bits


@dataclass(frozen=True)
class WordStream:
    """The words of several texts, end to end."""

    hashes: np.ndarray
    """(words,) uint64."""
    starts: np.ndarray
    """(texts + 1,) int64: text i holds the words starts[i] to starts[i+1]."""


def word_stream(texts: list[str]) -> WordStream:
    """Split and hash texts; each distinct word is hashed once."""
    known: dict[str, int] = {}
    starts = np.zeros(len(texts) + 1, np.int64)
    pieces = []
    for i, text in enumerate(texts):
        words = WORD.findall(text.lower())
        for word in set(words):
            if word not in known:
                known[word] = xxhash.xxh3_64_intdigest(word)
        pieces.append(np.fromiter(map(known.__getitem__, words), np.uint64, len(words)))
        starts[i + 1] = starts[i] + len(words)
    return WordStream(np.concatenate(pieces) if pieces else np.zeros(0, np.uint64), starts)


def ngram_hashes(stream: WordStream, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Hashes of all n-grams that lie within one text.

    Returns:
        (ngrams,) uint64 hashes in the order of the text, and (ngrams,) int64 positions of their first words.
    """
    count = len(stream.hashes) - n + 1
    if count < 1:
        return np.zeros(0, np.uint64), np.zeros(0, np.int64)
    with np.errstate(over="ignore"):
        total = np.zeros(count, np.uint64)
        for k in range(n):
            total = total * _BASE + stream.hashes[k : k + count]
    owner = np.searchsorted(stream.starts, np.arange(len(stream.hashes)), side="right")
    inside = np.flatnonzero(owner[:count] == owner[n - 1 :])
    return mix64(total[inside]), inside


def mix64(values: np.ndarray) -> np.ndarray:
    """MurmurHash3's 64-bit finaliser: spreads sums of word hashes over all bits. (n,) uint64 -> (n,) uint64."""
    with np.errstate(over="ignore"):
        h = values ^ (values >> np.uint64(33))
        h = h * np.uint64(0xFF51AFD7ED558CCD)
        h ^= h >> np.uint64(33)
        h = h * np.uint64(0xC4CEB9FE1A85EC53)
        return h ^ (h >> np.uint64(33))
