"""Merges learned from counted sequences of symbols: cost grows with distinct ones, not with text.

The order is that of Hugging Face tokenizers' trainer: the pair that occurs most often first, of equals the one of lower
ids. As there, a token of `longest` symbols or more is never formed, and the occurrences of what would form one are not
counted. Pairs are counted in 64 bits.

    symbols of all distinct sequences end to end; pair -> count, and the sequences that hold it as a linked list
    -> a heap of pairs; each merge touches only the sequences that hold its pair
"""

from __future__ import annotations

from collections import namedtuple

import numpy as np
from numba import njit

from headwater_tokenizer.bpe import pair_key, place

Words = namedtuple("Words", ["symbols", "sizes", "starts", "lengths", "counts"])
"""Sequences of symbols, end to end: symbols (symbols,) int32 and how many first symbols are in each; where a sequence
begins, how many symbols it still has, how often it occurs."""
Pairs = namedtuple(
    "Pairs",
    ["slots", "numbers", "keys", "counts", "heads", "marks", "node_word", "node_next", "touched", "used"],
)
"""Pairs of neighbours: an open-addressing table of keys (0: free) with the number of each; of a number its key, how
often it occurs, the head of its list of nodes (each a sequence that holds it), and the last merge that made more of it,
which `touched` lists; used (4,) int64: pairs, nodes, touched, merges."""
Heap = namedtuple("Heap", ["counts", "pairs", "used"])
"""Pairs by their counts, some outdated; used (1,) int64."""


def learn_merges(
    symbols: np.ndarray,
    starts: np.ndarray,
    counts: np.ndarray,
    first: int,
    merges: int,
    min_frequency: int,
    longest: int | None,
    forced: np.ndarray | None = None,
) -> np.ndarray:
    """Learn pairs from counted sequences.

    Args:
        symbols: (symbols,) int32, all sequences end to end.
        starts: (sequences + 1,) int64, where each begins.
        counts: (sequences,) int64, how often each occurs.
        first: id of the first pair learned, above every symbol.
        merges: how many pairs to learn.
        min_frequency: a pair that occurs less often is not merged.
        longest: tokens have fewer symbols than this; None: any number.
        forced: (forced, 2) int64 ids of pairs that are merged first, whatever they count.

    Returns:
        (learned, 2) int64 ids of the pairs in their order, the forced ones first; they become the ids from `first` on.
    """
    most = longest if longest is not None else 1 << 30
    before = np.zeros((0, 2), np.int64) if forced is None else forced.astype(np.int64)
    words = Words(
        symbols.astype(np.int32), np.ones(len(symbols), np.int32), starts.astype(np.int64),
        np.diff(starts).astype(np.int64), counts.astype(np.int64),
    )  # fmt: skip
    return _learn(words, first, merges, min_frequency, most, before[:merges])


@njit(cache=True, nogil=True)
def _learn(words, first, merges, min_frequency, longest, forced):
    pairs = _count_pairs(words)
    heap = _pushed(_new_heap(), pairs)
    learned = np.empty((merges, 2), np.int64)
    for n in range(merges):
        if n < len(forced):
            left, right = forced[n]
            pair = np.int64(-1)
            at = place(pairs.slots, pair_key(left, right))
            if pairs.slots[at] != 0:
                pair = pairs.numbers[at]
        else:
            heap, pair = _commonest(heap, pairs)
            if pair < 0 or pairs.counts[pair] < max(min_frequency, 1):
                return learned[:n]
            key = pairs.keys[pair] - np.uint64(1)
            left, right = np.int64(key >> np.uint64(32)), np.int64(key & np.uint64(0xFFFFFFFF))
        learned[n, 0], learned[n, 1] = left, right
        if pair >= 0:
            pairs.counts[pair] = 0
            pairs = _merge(words, pairs, pair, left, right, first + n, longest)
            heap = _pushed(heap, pairs)
    return learned


# ---- pairs and the sequences that hold them


@njit
def _count_pairs(words):
    """The pairs of all sequences as they are at first; all of them are touched."""
    pairs = Pairs(
        np.zeros(1 << 18, np.uint64), np.zeros(1 << 18, np.int64), np.zeros(1 << 16, np.uint64),
        np.zeros(1 << 16, np.int64), np.full(1 << 16, -1, np.int64), np.full(1 << 16, -1, np.int64),
        np.empty(max(len(words.symbols), 16), np.int32), np.empty(max(len(words.symbols), 16), np.int64),
        np.empty(1 << 16, np.int64), np.zeros(4, np.int64),
    )  # fmt: skip
    for word in range(len(words.counts)):
        start = words.starts[word]
        pairs = _with_room(pairs, words.lengths[word])
        for k in range(start, start + words.lengths[word] - 1):
            _note(pairs, words.symbols[k], words.symbols[k + 1], words.counts[word], word)
    return pairs


@njit
def _merge(words, pairs, pair, left, right, merged, longest):
    """Merge a pair wherever it stands, and count what that changes."""
    pairs.used[2] = 0
    pairs.used[3] += 1
    node = pairs.heads[pair]
    while node >= 0:
        word = np.int64(pairs.node_word[node])
        node = pairs.node_next[node]
        pairs = _with_room(pairs, 2 * words.lengths[word])
        start, end, times = words.starts[word], words.starts[word] + words.lengths[word], words.counts[word]
        to, k = start, start
        while k < end:
            if not (k + 1 < end and words.symbols[k] == left and words.symbols[k + 1] == right):
                words.symbols[to], words.sizes[to] = words.symbols[k], words.sizes[k]
                to, k = to + 1, k + 1
                continue
            size = words.sizes[k] + words.sizes[k + 1]
            if to > start:
                before = words.symbols[to - 1]
                _note(pairs, before, left, -times, word)
                if words.sizes[to - 1] + size < longest:
                    _note(pairs, before, merged, times, word)
            if k + 2 < end:
                after = words.symbols[k + 2]
                _note(pairs, right, after, -times, word)
                if words.sizes[k + 2] + size < longest:
                    _note(pairs, merged, after, times, word)
            words.symbols[to], words.sizes[to] = merged, size
            to, k = to + 1, k + 2
        words.lengths[word] = to - start
    return pairs


@njit(inline="always")
def _note(pairs, left, right, times, word):
    """Count a pair in a sequence `times` more; there is room (`_with_room`)."""
    key = pair_key(left, right)
    at = place(pairs.slots, key)
    if pairs.slots[at] == 0:
        number = pairs.used[0]
        pairs.slots[at], pairs.numbers[at], pairs.keys[number] = key, number, key
        pairs.used[0] = number + 1
    pair = pairs.numbers[at]
    pairs.counts[pair] += times
    if times > 0:
        head = pairs.heads[pair]
        if head < 0 or pairs.node_word[head] != word:
            node = pairs.used[1]
            pairs.node_word[node], pairs.node_next[node], pairs.heads[pair] = word, head, node
            pairs.used[1] = node + 1
        if pairs.marks[pair] != pairs.used[3]:
            pairs.marks[pair] = pairs.used[3]
            pairs.touched[pairs.used[2]] = pair
            pairs.used[2] += 1


@njit
def _with_room(pairs, more):
    """The pairs, grown if so many more of anything would not fit."""
    slots, numbers, keys, counts, heads, marks, node_word, node_next, touched, used = pairs
    if 2 * (used[0] + more) > len(slots):
        size = 2 * len(slots)
        while 2 * (used[0] + more) > size:
            size *= 2
        slots, numbers = np.zeros(size, np.uint64), np.zeros(size, np.int64)
        for pair in range(used[0]):
            at = place(slots, keys[pair])
            slots[at], numbers[at] = keys[pair], pair
    if used[0] + more > len(keys):
        by = max(len(keys), more)
        keys = np.concatenate((keys, np.zeros(by, np.uint64)))
        counts = np.concatenate((counts, np.zeros(by, np.int64)))
        heads = np.concatenate((heads, np.full(by, -1, np.int64)))
        marks = np.concatenate((marks, np.full(by, -1, np.int64)))
    if used[1] + more > len(node_word):
        by = max(len(node_word), more)
        node_word = np.concatenate((node_word, np.empty(by, np.int32)))
        node_next = np.concatenate((node_next, np.empty(by, np.int64)))
    if used[2] + more > len(touched):
        touched = np.concatenate((touched, np.empty(max(len(touched), more), np.int64)))
    return Pairs(slots, numbers, keys, counts, heads, marks, node_word, node_next, touched, used)


# ---- the heap


@njit
def _new_heap():
    return Heap(np.empty(1 << 16, np.int64), np.empty(1 << 16, np.int64), np.zeros(1, np.int64))


@njit(inline="always")
def _first(count_a, key_a, count_b, key_b):
    """Whether a pair is to be merged before another: it occurs more often, or its ids are lower."""
    return count_a > count_b or (count_a == count_b and key_a < key_b)


@njit
def _pushed(heap, pairs):
    """The heap with the touched pairs as they count now."""
    more = pairs.used[2]
    if heap.used[0] + more > len(heap.counts):
        by = max(len(heap.counts), more)
        heap = Heap(np.concatenate((heap.counts, np.empty(by, np.int64))),
                    np.concatenate((heap.pairs, np.empty(by, np.int64))), heap.used)  # fmt: skip
    for k in range(more):
        pair = pairs.touched[k]
        if pairs.counts[pair] > 0:
            _push(heap, pairs, pair)
    return heap


@njit
def _push(heap, pairs, pair):
    count, key = pairs.counts[pair], pairs.keys[pair]
    at = heap.used[0]
    heap.used[0] += 1
    while at > 0:
        up = (at - 1) // 2
        if not _first(count, key, heap.counts[up], pairs.keys[heap.pairs[up]]):
            break
        heap.counts[at], heap.pairs[at] = heap.counts[up], heap.pairs[up]
        at = up
    heap.counts[at], heap.pairs[at] = count, pair


@njit
def _pop(heap, pairs):
    """Take the first out."""
    heap.used[0] -= 1
    size = heap.used[0]
    count, pair = heap.counts[size], heap.pairs[size]
    key = pairs.keys[pair]
    at = 0
    while 2 * at + 1 < size:
        down = 2 * at + 1
        if down + 1 < size and _first(
            heap.counts[down + 1], pairs.keys[heap.pairs[down + 1]], heap.counts[down], pairs.keys[heap.pairs[down]]
        ):
            down += 1
        if not _first(heap.counts[down], pairs.keys[heap.pairs[down]], count, key):
            break
        heap.counts[at], heap.pairs[at] = heap.counts[down], heap.pairs[down]
        at = down
    heap.counts[at], heap.pairs[at] = count, pair


@njit
def _commonest(heap, pairs):
    """The pair to merge next, taken out; -1 where there is none. What is outdated is put in again as it counts now."""
    while heap.used[0]:
        count, pair = heap.counts[0], heap.pairs[0]
        _pop(heap, pairs)
        if count == pairs.counts[pair]:
            return heap, pair
        if pairs.counts[pair] > 0:
            _push(heap, pairs, pair)
    return heap, np.int64(-1)
