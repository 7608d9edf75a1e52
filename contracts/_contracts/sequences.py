"""Rows of unequal length as rectangles: padding, truncation, windows over long rows, and packing of short ones.

What a tokenizer gives is rows of ids; what a model takes is an array. These functions stand between, once for every
package. They know nothing of models: arrays are numpy's, a row is any sequence (ids, flags of a loss mask), and what
happens to ids happens alike to every other column that goes through with the same arguments.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal

import numpy as np

from .errors import UserError

Side = Literal["left", "right"]
IGNORED = -100
"""Label that counts in no loss; the one that torch's cross_entropy leaves out by default."""


def pad(
    rows: Sequence[Sequence[Any]],
    filler: Any,
    to: int | Literal["longest"] = "longest",
    multiple: int = 1,
    side: Side = "right",
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of one width.

    Args:
        rows: ids, flags or numbers; a row may be empty.
        filler: value of the padding.
        to: width, or that of the longest row.
        multiple: the width is rounded up to a multiple of it.
        side: where the padding stands.

    Returns:
        [rows, width], of the type that holds the values and the filler (int64 for ids, bool for flags), and
        bool [rows, width], True where a row's own values stand.

    Raises:
        UserError: a row is longer than `to`.
    """
    lengths = np.array([len(row) for row in rows], np.int64)
    width = int(lengths.max(initial=0)) if to == "longest" else to
    if (lengths > width).any():
        row = int(np.argmax(lengths > width))
        raise UserError(f"row {row} has {lengths[row]} ids, more than the {width} to pad to; truncate it first")
    width = -(-width // multiple) * multiple
    place = np.arange(width)
    own = place < lengths[:, None] if side == "right" else place >= width - lengths[:, None]
    values = np.array([*chain.from_iterable(rows), filler])
    padded = np.full(own.shape, filler, values.dtype)
    padded[own] = values[:-1]
    return padded, own


def truncate(row: Sequence[Any], length: int, side: Side = "right") -> Any:
    """At most `length` values of a row, which keeps its type; `side` is the end that loses.

    Raises:
        UserError: a length below 1.
    """
    if length < 1:
        raise UserError(f"a row can't be truncated to {length}; keep at least 1")
    return row[:length] if side == "right" else row[max(0, len(row) - length) :]


def windows(row: Sequence[Any], length: int, stride: int = 0, side: Side = "right") -> list[Any]:
    """A row in pieces of at most `length`: what truncation keeps, then what it cut off, as overflowing tokens.

    The pieces are those of Hugging Face tokenizers' `enable_truncation(length, stride, direction=side)`.

    Args:
        stride: values that a piece shares with the one before.
        side: the end that truncation cuts at; from "left" the pieces run from the row's end to its beginning.

    Raises:
        UserError: a length below 1, or a stride that leaves a piece nothing of its own.
    """
    if length < 1 or not 0 <= stride < length:
        raise UserError(f"windows of {length} that share {stride}: the length must be at least 1, the stride below it")
    offsets = range(0, max(1, len(row) - stride), length - stride)
    if side == "right":
        return [row[start : start + length] for start in offsets]
    return [row[max(0, len(row) - end - length) : len(row) - end] for end in offsets]


def pack(
    lengths: Sequence[int], capacity: int, method: Literal["best-fit", "next-fit"] = "best-fit"
) -> list[list[int]]:
    """Which rows share a sequence, so that few sequences hold them all and none is cut.

    `best-fit` is best-fit decreasing (Ding et al. 2024, "Fewer Truncations Improve Language Modeling",
    arXiv:2404.10830, section 3.1 and algorithm 1): longest row first, each into the fullest sequence that still has
    room for it; O(n log n) to sort, O(n log capacity) to place. It needs at most about 11/9 of the fewest sequences
    possible (Johnson et al. 1974); in the rare case that the given order alone needs fewer, that is taken.
    `next-fit` keeps the order: a row that does not fit opens the next sequence; O(n).

    Args:
        lengths: of the rows.
        capacity: of a sequence.

    Returns:
        Sequences as lists of row numbers, ascending within each; the same for the same arguments.

    Raises:
        UserError: a row that is empty or longer than a sequence.
    """
    lengths = [int(length) for length in lengths]
    for row, length in enumerate(lengths):
        if not 1 <= length <= capacity:
            what = (
                f"more than the {capacity} of a sequence; truncate it first" if length else "nothing to pack; drop it"
            )
            raise UserError(f"row {row} has {length} ids, {what}")
    in_order = _next_fit(lengths, capacity)
    return in_order if method == "next-fit" else min(_best_fit(lengths, capacity), in_order, key=len)


def _next_fit(lengths: list[int], capacity: int) -> list[list[int]]:
    bins: list[list[int]] = []
    room = 0
    for row, length in enumerate(lengths):
        if length > room:
            bins.append([])
            room = capacity
        bins[-1].append(row)
        room -= length
    return bins


def _best_fit(lengths: list[int], capacity: int) -> list[list[int]]:
    """Best-fit decreasing over a segment tree whose leaves are amounts of room, as in the paper's section 3.1.

    Sequences with the same room are alike, so the tree has a leaf an amount (its own number where a sequence has that
    much room, else 0) instead of one a sequence; a node above holds the larger of its two.
    """
    leaves = 1 << capacity.bit_length()
    tree = [0] * (2 * leaves)
    with_room: dict[int, list[int]] = defaultdict(list)

    def mark(room: int, value: int) -> None:
        node = leaves + room
        tree[node] = value
        while node > 1:
            node //= 2
            tree[node] = max(tree[2 * node], tree[2 * node + 1])

    bins: list[list[int]] = []
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        length = lengths[row]
        if tree[1] < length:
            number, room = len(bins), capacity
            bins.append([])
        else:
            node = 1
            while node < leaves:
                node = 2 * node if tree[2 * node] >= length else 2 * node + 1
            room = node - leaves
            number = with_room[room].pop()
            if not with_room[room]:
                mark(room, 0)
        bins[number].append(row)
        left = room - length
        if left and not with_room[left]:
            mark(left, left)
        with_room[left].append(number)
    return [sorted(rows) for rows in bins]


@dataclass(frozen=True)
class Packed:
    """Sequences that hold several rows; each array int64 [sequences, width].

    For each row to be by itself, attention must not cross a segment's ends, and positions that a model learns (rather
    than rotates by) must be those given here.
    """

    ids: np.ndarray
    labels: np.ndarray
    """The id that follows in the same row; `ignored` at a row's last id and at padding."""
    positions: np.ndarray
    """From 0 in each row; 0 at padding."""
    segments: np.ndarray
    """Rows of a sequence, numbered from 1; 0 at padding."""


def packed(
    rows: Sequence[Sequence[int]],
    bins: Sequence[Sequence[int]],
    filler: int,
    to: int | Literal["longest"] = "longest",
    multiple: int = 1,
    ignored: int = IGNORED,
) -> Packed:
    """Rows laid end to end as `bins` (from `pack`) says, then padded on the right.

    Args:
        filler: id of the padding.
        to, multiple: width, as in `pad`.
        ignored: label where none follows.
    """
    labels = [[label for row in members for label in (*rows[row][1:], ignored)] for members in bins]
    positions = [[position for row in members for position in range(len(rows[row]))] for members in bins]
    segments = [[number for number, row in enumerate(members, 1) for _ in rows[row]] for members in bins]
    columns = ((join(rows, bins), filler), (labels, ignored), (positions, 0), (segments, 0))
    return Packed(*(pad(column, fill, to, multiple)[0] for column, fill in columns))


def join(column: Sequence[Iterable[Any]], bins: Sequence[Sequence[int]]) -> list[list[Any]]:
    """Any column of the rows (ids, flags of a loss mask) laid end to end as `bins` says: one list a sequence."""
    return [[*chain.from_iterable(column[row] for row in members)] for members in bins]
