"""Merges learned from counted pieces: cost grows with distinct pieces, not with text.

The order is that of Hugging Face tokenizers' trainer: the pair that occurs most often first, of equals the one of lower
ids. As there, a token of `longest` bytes or more is never formed, and the occurrences of what would form one are not
counted. Pairs are counted in 64 bits.

    pieces counted (one walk over the text, a table of distinct ones)
    -> symbols of all distinct pieces end to end; pair -> count, and the pieces that hold it as a linked list
    -> a heap of pairs; each merge touches only the pieces that hold its pair
"""

from __future__ import annotations

from collections import namedtuple

import numpy as np
from numba import njit

from headwater_tokenizer.bpe import pair_key, place
from headwater_tokenizer.pieces import piece_end

_SPREAD = np.uint64(0x9E3779B97F4A7C15)
_HASH = np.uint64(0x100000001B3)

Counter = namedtuple("Counter", ["slots", "hashes", "starts", "counts", "bytes", "used"])
"""Distinct pieces: an open-addressing table of their numbers + 1 (0: free); of each its hash, where its bytes begin in
`bytes` (one more than pieces), how often it was met; used (2,) int64: pieces, bytes."""


def new_counter(pieces: int = 1 << 12, size: int = 1 << 16) -> Counter:
    """An empty one, with room for so many pieces and bytes."""
    return Counter(
        np.zeros(4 * pieces, np.int64), np.zeros(pieces, np.uint64), np.zeros(pieces + 1, np.int64),
        np.zeros(pieces, np.int64), np.zeros(size, np.uint8), np.zeros(2, np.int64),
    )  # fmt: skip


def count_pieces(
    counter: Counter, data: np.ndarray, offsets: np.ndarray, classes, pattern: int, digits: int
) -> Counter:
    """Count the pieces of some texts (as of encoder.buffers); returns the counter, grown where it was full."""
    text, at = 0, int(offsets[0])
    while True:
        text, at = _count(counter, data, offsets, classes, pattern, digits, text, at)
        if text < 0:
            return counter
        counter = _grown(counter)


def _grown(old: Counter) -> Counter:
    pieces, size = old.used.tolist()
    new = new_counter(2 * len(old.counts), 2 * len(old.bytes))
    new.hashes[:pieces], new.counts[:pieces] = old.hashes[:pieces], old.counts[:pieces]
    new.starts[: pieces + 1], new.bytes[:size] = old.starts[: pieces + 1], old.bytes[:size]
    new.used[:] = old.used
    _rehash(new)
    return new


@njit(cache=True)
def _rehash(counter):
    mask = len(counter.slots) - 1
    for piece in range(counter.used[0]):
        at = np.int64(counter.hashes[piece] >> np.uint64(20)) & mask
        while counter.slots[at]:
            at = (at + 1) & mask
        counter.slots[at] = piece + 1


@njit(cache=True, nogil=True)
def _count(counter, data, offsets, classes, pattern, digits, text, i):
    """Count from byte i of a text on; returns (-1, 0) at the end, or where it stopped for want of room."""
    mask = len(counter.slots) - 1
    while text < len(offsets) - 1:
        end = offsets[text + 1]
        while i < end:
            stop = piece_end(data, i, end, classes, pattern, digits)
            h = np.uint64(stop - i)
            for k in range(i, stop):
                h = (h ^ np.uint64(data[k])) * _HASH
            h *= _SPREAD
            at = np.int64(h >> np.uint64(20)) & mask
            found = -1
            while counter.slots[at]:
                piece = counter.slots[at] - 1
                start = counter.starts[piece]
                if counter.hashes[piece] == h and counter.starts[piece + 1] - start == stop - i:
                    same = True
                    for k in range(stop - i):
                        if counter.bytes[start + k] != data[i + k]:
                            same = False
                            break
                    if same:
                        found = piece
                        break
                at = (at + 1) & mask
            if found >= 0:
                counter.counts[found] += 1
            else:
                pieces, size = counter.used
                if pieces == len(counter.counts) or size + stop - i > len(counter.bytes):
                    return text, i
                counter.slots[at], counter.hashes[pieces], counter.counts[pieces] = pieces + 1, h, 1
                counter.bytes[size : size + stop - i] = data[i:stop]
                counter.starts[pieces + 1] = size + stop - i
                counter.used[0], counter.used[1] = pieces + 1, size + stop - i
            i = stop
        text += 1
        if text < len(offsets) - 1:
            i = offsets[text]
    return -1, 0


def learn_merges(
    counter: Counter, byte_ids: np.ndarray, merges: int, min_frequency: int, longest: int | None
) -> np.ndarray:
    """Learn pairs from counted pieces.

    Args:
        byte_ids: (256,) id of each byte, 0 to 255.
        merges: how many tokens to learn.
        min_frequency: a pair that occurs less often is not merged.
        longest: tokens are shorter than so many bytes; None: of any length.

    Returns:
        (learned, 2) ids of the pairs in their order; they become the ids from 256 on.
    """
    pieces, size = counter.used.tolist()
    starts = counter.starts[: pieces + 1].copy()
    symbols = byte_ids.astype(np.int32)[counter.bytes[:size]]
    return merge_symbols(symbols, starts, counter.counts[:pieces], len(byte_ids), merges, min_frequency, longest)


def merge_symbols(
    symbols: np.ndarray,
    starts: np.ndarray,
    counts: np.ndarray,
    first: int,
    merges: int,
    min_frequency: int,
    longest: int | None,
) -> np.ndarray:
    """Learn pairs from counted sequences of any symbols.

    Args:
        symbols: (symbols,) int32, all sequences end to end; overwritten.
        starts: (sequences + 1,) int64, where each begins.
        counts: (sequences,) int64, how often each occurs.
        first: id of the first pair learned, above every symbol.
        merges, min_frequency, longest: as of `learn_merges`; a token is as long as the symbols in it.

    Returns:
        (learned, 2) ids of the pairs in their order; they become the ids from `first` on.
    """
    most = longest if longest is not None else 1 << 30
    return _learn(symbols, starts, counts, first, merges, min_frequency, most)


@njit(inline="always")
def _before(count_a, key_a, count_b, key_b):
    """Whether a pair is to be merged before another: it occurs more often, or its ids are lower."""
    return count_a > count_b or (count_a == count_b and key_a < key_b)


@njit
def _push(heap_counts, heap_pairs, size, count, pair, pair_keys):
    if size == len(heap_counts):
        heap_counts = np.concatenate((heap_counts, np.empty(size, np.int64)))
        heap_pairs = np.concatenate((heap_pairs, np.empty(size, np.int64)))
    at = size
    while at > 0:
        up = (at - 1) // 2
        if not _before(count, pair_keys[pair], heap_counts[up], pair_keys[heap_pairs[up]]):
            break
        heap_counts[at], heap_pairs[at] = heap_counts[up], heap_pairs[up]
        at = up
    heap_counts[at], heap_pairs[at] = count, pair
    return heap_counts, heap_pairs, size + 1


@njit
def _pop(heap_counts, heap_pairs, size, pair_keys):
    """Take the first out; returns the new size."""
    size -= 1
    count, pair = heap_counts[size], heap_pairs[size]
    at = 0
    while 2 * at + 1 < size:
        down = 2 * at + 1
        if down + 1 < size and _before(
            heap_counts[down + 1], pair_keys[heap_pairs[down + 1]], heap_counts[down], pair_keys[heap_pairs[down]]
        ):
            down += 1
        if not _before(heap_counts[down], pair_keys[heap_pairs[down]], count, pair_keys[pair]):
            break
        heap_counts[at], heap_pairs[at] = heap_counts[down], heap_pairs[down]
        at = down
    heap_counts[at], heap_pairs[at] = count, pair
    return size


@njit(cache=True, nogil=True)
def _learn(symbols, starts, counts, first_id, merges, min_frequency, longest):
    words = len(counts)
    lengths = np.empty(words, np.int64)
    sizes = np.ones(len(symbols), np.int32)  # of each symbol, in first ones
    for word in range(words):
        lengths[word] = starts[word + 1] - starts[word]
    # pairs: number -> key (left << 32 | right, + 1), count, head of the list of pieces that hold it
    keys = np.zeros(1 << 18, np.uint64)
    numbers = np.zeros(1 << 18, np.int64)
    pair_keys = np.zeros(1 << 16, np.uint64)
    pair_counts = np.zeros(1 << 16, np.int64)
    heads = np.full(1 << 16, -1, np.int64)
    pairs = 0
    node_word = np.empty(max(len(symbols), 16), np.int32)
    node_next = np.empty(max(len(symbols), 16), np.int64)
    nodes = 0
    touched = np.empty(1 << 12, np.int64)  # pairs that a merge made more of
    mark = np.zeros(1 << 16, np.int64)
    heap_counts, heap_pairs, heap = np.empty(1 << 16, np.int64), np.empty(1 << 16, np.int64), 0
    learned_pairs = np.empty((merges, 2), np.int64)
    learned = 0

    left, right, merged = -1, -1, -1
    current = np.int64(-1)
    while True:
        # ---- the pieces to look at: all of them first, then those that hold the merged pair
        node = heads[current] if current >= 0 else np.int64(0)
        round_ = learned + 1
        touches = 0
        word = np.int64(0)
        while (word < words) if current < 0 else (node >= 0):
            if current >= 0:
                word = np.int64(node_word[node])
                node = node_next[node]
            first, length, times = starts[word], lengths[word], counts[word]
            kept = 0
            k = 0
            while k < length:
                here = first + k
                if current >= 0:
                    if not (k + 1 < length and symbols[here] == left and symbols[here + 1] == right):
                        symbols[first + kept], sizes[first + kept] = symbols[here], sizes[here]
                        kept += 1
                        k += 1
                        continue
                    size = sizes[here] + sizes[here + 1]
                    before = symbols[first + kept - 1] if kept else -1
                    before_size = sizes[first + kept - 1] if kept else 0
                    after = symbols[here + 2] if k + 2 < length else -1
                    after_size = sizes[here + 2] if k + 2 < length else 0
                else:
                    if k + 1 >= length:
                        break
                    before, before_size, size, after, after_size = -1, 0, 0, -1, 0
                for change in range(4 if current >= 0 else 1):
                    if current < 0:
                        a, b, step = symbols[here], symbols[here + 1], times
                    elif change == 0:
                        a, b, step = before, left, -times
                    elif change == 1:
                        a, b, step = before, merged, times
                    elif change == 2:
                        a, b, step = right, after, -times
                    else:
                        a, b, step = merged, after, times
                    if a < 0 or b < 0:
                        continue
                    if change == 1 and before_size + size >= longest:
                        continue
                    if change == 3 and after_size + size >= longest:
                        continue
                    key = pair_key(a, b)
                    at = place(keys, key)
                    if keys[at] == 0:
                        if pairs == len(pair_keys):
                            pair_keys = np.concatenate((pair_keys, np.zeros(pairs, np.uint64)))
                            pair_counts = np.concatenate((pair_counts, np.zeros(pairs, np.int64)))
                            heads = np.concatenate((heads, np.full(pairs, -1, np.int64)))
                            mark = np.concatenate((mark, np.zeros(pairs, np.int64)))
                        keys[at], numbers[at], pair_keys[pairs] = key, pairs, key
                        pairs += 1
                        if 2 * pairs > len(keys):
                            keys = np.zeros(2 * len(keys), np.uint64)
                            numbers = np.zeros(len(keys), np.int64)
                            for pair in range(pairs):
                                to = place(keys, pair_keys[pair])
                                keys[to], numbers[to] = pair_keys[pair], pair
                            at = place(keys, key)
                    pair = numbers[at]
                    pair_counts[pair] += step
                    if step > 0:
                        if heads[pair] < 0 or node_word[heads[pair]] != word:
                            if nodes == len(node_word):
                                node_word = np.concatenate((node_word, np.empty(nodes, np.int32)))
                                node_next = np.concatenate((node_next, np.empty(nodes, np.int64)))
                            node_word[nodes], node_next[nodes] = word, heads[pair]
                            heads[pair] = nodes
                            nodes += 1
                        if mark[pair] != round_:
                            mark[pair] = round_
                            if touches == len(touched):
                                touched = np.concatenate((touched, np.empty(touches, np.int64)))
                            touched[touches] = pair
                            touches += 1
                if current >= 0:
                    symbols[first + kept], sizes[first + kept] = merged, size
                    kept += 1
                    k += 2
                else:
                    k += 1
            if current >= 0:
                lengths[word] = kept
            else:
                word += 1
        for k in range(touches):
            pair = touched[k]
            if pair_counts[pair] > 0:
                heap_counts, heap_pairs, heap = _push(heap_counts, heap_pairs, heap, pair_counts[pair], pair, pair_keys)
        # ---- the next pair
        found = False
        while heap and learned < merges:
            count, pair = heap_counts[0], heap_pairs[0]
            heap = _pop(heap_counts, heap_pairs, heap, pair_keys)
            if pair == current:
                continue  # merged already
            if count != pair_counts[pair]:
                if pair_counts[pair] > 0:
                    heap_counts, heap_pairs, heap = _push(
                        heap_counts, heap_pairs, heap, pair_counts[pair], pair, pair_keys
                    )
                continue
            found = count >= max(min_frequency, 1)
            break
        if not found:
            break
        key = pair_keys[pair] - np.uint64(1)
        left, right, merged = np.int64(key >> np.uint64(32)), np.int64(key & np.uint64(0xFFFFFFFF)), first_id + learned
        learned_pairs[learned, 0], learned_pairs[learned, 1] = left, right
        learned += 1
        current = pair
        pair_counts[pair] = 0
    return learned_pairs[:learned]
