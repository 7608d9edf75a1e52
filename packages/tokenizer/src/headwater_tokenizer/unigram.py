"""The likeliest cut into entries, as Hugging Face tokenizers' Unigram finds it (Kudo 2018; Viterbi, in f64).

Where two cuts are equally likely the one met first stays: of the longer last entry. A character without an entry of its
own may be unknown, at the lowest score less ten. Neighbouring unknown characters are one string; a string that is no
entry becomes its bytes' entries, if there are all of them, or else the unknown token.
"""

from __future__ import annotations

from collections import namedtuple

import numpy as np
from numba import njit

from headwater_tokenizer.bpe import place
from headwater_tokenizer.jit import counted, uncounted

UNKNOWN_PENALTY = 10.0
"""Below the lowest score (K_UNK_PENALTY of tokenizers and sentencepiece)."""

Trie = namedtuple("Trie", ["keys", "children", "ids"])
"""Entries by their bytes: an open-addressing table of edges, keys (node << 8 | byte) + 1 uint64 (0: free), the node
that each leads to, int32; and of each node the entry that ends there or -1, int32."""
Path = namedtuple("Path", ["scores", "begins", "ids"])
"""Room for the best cut up to each byte of a piece and its end: its score, float64, and its last entry's beginning,
int64, and id, int32."""
Scores = namedtuple("Scores", ["of", "unknown_score", "unknown"])
"""Log probability of each entry, (entries,) float64; that of an unknown character, and the unknown token's id."""


def trie_of(entries: dict[bytes, int]) -> Trie:
    """The trie of entries and their ids; an empty entry is never found."""
    starts = np.cumsum([0, *map(len, entries)])
    data = np.frombuffer(b"".join(entries) or b"\0", np.uint8)
    room = _empty(int(starts[-1]) + 1, int(starts[-1]) + 1)
    nodes = _insert(room, data, starts, np.array(list(entries.values()), np.int32))
    trie = _empty(nodes, nodes)  # the whole was sized for entries that share no beginning
    trie.ids[:] = room.ids[:nodes]
    _copy_edges(room, trie)
    return trie


def _empty(edges: int, nodes: int) -> Trie:
    slots = 1 << max(int(2 * edges - 1).bit_length(), 4)
    return Trie(np.zeros(slots, np.uint64), np.zeros(slots, np.int32), np.full(nodes, -1, np.int32))


@njit(cache=True)
def _insert(trie, data, starts, ids):
    nodes = 1
    for entry in range(len(ids)):
        node = 0
        for k in range(starts[entry], starts[entry + 1]):
            key = _edge(node, data[k])
            at = place(trie.keys, key)
            if trie.keys[at] == 0:
                trie.keys[at], trie.children[at] = key, nodes
                nodes += 1
            node = trie.children[at]
        if node > 0:
            trie.ids[node] = ids[entry]
    return nodes


@njit(cache=True)
def _copy_edges(source, target):
    for slot in range(len(source.keys)):
        key = source.keys[slot]
        if key != 0:
            at = place(target.keys, key)
            target.keys[at], target.children[at] = key, source.children[slot]


@njit(inline="always")
def _edge(node, byte):
    return (np.uint64(node) << np.uint64(8) | np.uint64(byte)) + np.uint64(1)


@njit(inline="always")
def child(trie, node, byte):
    """Where a byte leads from a node; 0, the root, if nowhere."""
    return trie.children[place(trie.keys, _edge(node, byte))]


@uncounted()
def entry_of(trie, data, start, end):
    """The id of the entry that some bytes are, or -1."""
    node = 0
    for k in range(start, end):
        node = child(trie, node, data[k])
        if node == 0:
            return -1
    return trie.ids[node]


@counted(cache=True)
def new_path(size):
    """Room for pieces of at most `size` bytes."""
    return Path(np.empty(size + 1, np.float64), np.empty(size + 1, np.int64), np.empty(size + 1, np.int32))


@uncounted(cache=True)
def best_cut(data, start, end, trie, scores, byte_ids, path, out):
    """Write the ids of a piece of valid UTF-8; returns how many. `out` has room for an id a byte.

    Args:
        byte_ids: (256,) int32, the entries that bytes fall back to, or -1.
        path: overwritten.
    """
    size = end - start
    best, begins, ids = path.scores, path.begins, path.ids
    best[0] = 0.0
    for k in range(1, size + 1):
        begins[k] = -1
    i = 0
    while i < size:
        byte = data[start + i]
        width = 1 if byte < 0x80 else 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
        node, single, k = 0, False, i
        while k < size:
            node = child(trie, node, data[start + k])
            if node == 0:
                break
            k += 1
            entry = trie.ids[node]
            if entry >= 0:
                score = scores.of[entry] + best[i]
                if begins[k] < 0 or score > best[k]:
                    best[k], begins[k], ids[k] = score, i, entry
                single |= k == i + width
        if not single:
            k = i + width
            score = scores.unknown_score + best[i]
            if begins[k] < 0 or score > best[k]:
                best[k], begins[k], ids[k] = score, i, scores.unknown
        i += width
    # the entries from last to first, turned round below
    written, at = 0, size
    while at > 0:
        stop = at
        while at > 0 and ids[at] == scores.unknown:
            at = begins[at]
        if at < stop:
            written = _unknown_string(data, start + at, start + stop, trie, scores, byte_ids, out, written)
        else:
            out[written] = ids[at]
            written += 1
            at = begins[at]
    for k in range(written // 2):
        out[k], out[written - 1 - k] = out[written - 1 - k], out[k]
    return written


@uncounted()
def _unknown_string(data, start, end, trie, scores, byte_ids, out, written):
    """Write the ids of a run of unknown characters, the last first."""
    entry = entry_of(trie, data, start, end)
    if entry >= 0:
        out[written] = entry
        return written + 1
    for k in range(start, end):
        if byte_ids[data[k]] < 0:
            out[written] = scores.unknown
            return written + 1
    for k in range(end - 1, start - 1, -1):
        out[written] = byte_ids[data[k]]
        written += 1
    return written
