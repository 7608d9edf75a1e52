"""MinHash signatures and LSH bands over word shingles, and the clusters they make.

Broder 1997 for MinHash; bands and rows as in Leskovec, Rajaraman and Ullman, chapter 3; FineWeb (arXiv 2406.17557,
section 3.4) takes 5-word shingles, 14 bands of 8 rows. The permutations are datasketch's scheme `affine32`, and
signatures equal datasketch's for the same 32-bit shingle hashes (tests/test_minhash.py); here they are computed for a
whole block of documents at once.
"""

from __future__ import annotations

import numpy as np
from datasketch import MinHash
from numba import njit
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from ..words import WordStream, mix64, ngram_hashes
from .runs import groups

NEIGHBOURS = 8


def shingles(stream: WordStream, n: int) -> tuple[np.ndarray, np.ndarray]:
    """n-word shingles of every text; a text of fewer words has one, of all its words.

    Returns:
        (shingles,) uint64 hashes, and (texts + 1,) int64 starts as in WordStream; a text without words has none.
    """
    hashes, positions = ngram_hashes(stream, n)
    owner = np.searchsorted(stream.starts, positions, side="right") - 1
    lengths = np.diff(stream.starts)
    short = np.flatnonzero((lengths > 0) & (lengths < n))
    if len(short):
        whole = np.array([_whole(stream.hashes[stream.starts[i] : stream.starts[i + 1]]) for i in short], np.uint64)
        hashes, owner = np.concatenate((hashes, whole)), np.concatenate((owner, short))
        order = np.argsort(owner, kind="stable")
        hashes, owner = hashes[order], owner[order]
    starts = np.searchsorted(owner, np.arange(len(stream.starts)))
    return hashes, starts.astype(np.int64)


def _whole(words: np.ndarray) -> np.uint64:
    total = np.uint64(len(words))
    with np.errstate(over="ignore"):
        for word in words:
            total = total * np.uint64(0x9E3779B97F4A7C15) + word
    return np.uint64(mix64(np.array([total], np.uint64))[0])


def signatures(hashes: np.ndarray, starts: np.ndarray, permutations: int, seed: int) -> np.ndarray:
    """MinHash signatures, (texts, permutations) uint32; a text without shingles has all ones.

    Args:
        hashes: (shingles,) uint64; the low 32 bits count.
        starts: (texts + 1,) int64.
    """
    a, b = MinHash(num_perm=permutations, seed=seed, scheme="affine32").permutations
    result = np.full((len(starts) - 1, permutations), np.uint32(0xFFFFFFFF), np.uint32)
    _permute(hashes, starts, np.ascontiguousarray(a, np.uint32), np.ascontiguousarray(b, np.uint32), result)
    return result


@njit(cache=True, nogil=True)
def _permute(hashes, starts, a, b, result):
    """Each shingle through MurmurHash3's 32-bit finaliser, as datasketch does, then through every permutation."""
    for text in range(len(starts) - 1):
        least = result[text]
        for i in range(starts[text], starts[text + 1]):
            h = np.uint32(hashes[i])
            h = np.uint32((h ^ (h >> np.uint32(16))) * np.uint32(0x85EBCA6B))
            h = np.uint32((h ^ (h >> np.uint32(13))) * np.uint32(0xC2B2AE35))
            h = np.uint32(h ^ (h >> np.uint32(16)))
            for k in range(len(a)):  # the inner loop is one vector instruction for several permutations
                value = np.uint32(h * a[k] + b[k])
                least[k] = min(least[k], value)


def band_keys(signature: np.ndarray, bands: int, rows: int) -> np.ndarray:
    """One 64-bit key a band: (texts, bands * rows) uint32 -> (texts, bands) uint64."""
    total = np.zeros((len(signature), bands), np.uint64)
    with np.errstate(over="ignore"):
        for row in range(rows):
            total = (
                total * np.uint64(0x100000001B3) + signature[:, row::rows][:, :bands].astype(np.uint64) + np.uint64(1)
            )
    return mix64(total)


def bucket_pairs(keys: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Pairs that share a bucket: (pairs, 2) int64, smaller place first; a pair stands once a bucket.

    Of a bucket, each member is paired with the first and with the `NEIGHBOURS` before it: all pairs of a small one,
    and enough to connect a large one without the square of its size.

    Args:
        keys: (entries,) uint64, ascending: a bucket is a run of equal ones.
        places: (entries,) int64, ascending within a bucket.
    """
    found = [np.zeros((0, 2), np.int64)]
    first, here = groups(keys), np.arange(len(keys))
    for step in range(1, NEIGHBOURS + 1):
        later = np.flatnonzero(here - first >= step)
        if not len(later):
            break
        found.append(np.stack([places[later - step], places[later]], axis=1))
    far = np.flatnonzero(here - first > NEIGHBOURS)
    found.append(np.stack([places[first[far]], places[far]], axis=1))
    return np.concatenate(found)


def jaccard(a: np.ndarray, b: np.ndarray) -> float:
    """True Jaccard similarity of two sorted arrays of distinct hashes."""
    shared = len(np.intersect1d(a, b, assume_unique=True))
    union = len(a) + len(b) - shared
    return shared / union if union else 1.0


def clusters(count: int, pairs: np.ndarray) -> np.ndarray:
    """Connected components: (count,) labels, the smallest index of each component's members.

    Args:
        pairs: (pairs, 2) int64.
    """
    graph = coo_array((np.ones(len(pairs), np.int8), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    _, labels = connected_components(graph, directed=False)
    _, first = np.unique(labels, return_index=True)
    return first[labels]
