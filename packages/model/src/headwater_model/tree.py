"""Token sequences that share beginnings, as one row in which each shared token stands once.

Scoring asks a model for many continuations of few beginnings: four answers after one question, a thousand questions
after the same five examples. A prefix tree (trie) of all of them, written down depth first, is one row; a token sees
its own ancestors and stands at its depth, so every number is the one that its sequence alone would give. The same
mask serves speculative decoding (SpecInfer, arXiv:2305.09781, section 4.2, tree attention); in depth-first order it
needs no matrix: an ancestor is an earlier token whose subtree has not ended.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Tree:
    """A row of tokens, each seeing those before it whose subtree it lies in, and itself."""

    tokens: Tensor
    """int64 [size]."""
    depths: Tensor
    """int64 [size]: how many tokens each one comes after."""
    ends: Tensor
    """int64 [size]: the place after the last token that continues each one; at least its own place + 1."""

    def mask(self) -> Tensor:
        """bool [1, 1, size, size], True where masked, as everywhere in Megatron."""
        places = torch.arange(len(self.ends), device=self.ends.device)
        later = places[None, :] > places[:, None]
        return (later | (places[:, None] >= self.ends[None, :]))[None, None]

    def to(self, device: torch.device) -> Tree:
        """The same on another device."""
        return Tree(self.tokens.to(device), self.depths.to(device), self.ends.to(device))


def trees(sequences: Sequence[Sequence[int]], size: int) -> Iterator[tuple[Tree, dict[int, list[int]]]]:
    """All sequences, in as few trees as their order allows.

    Args:
        sequences: ids, none empty. They are taken in lexicographic order, so what shares a beginning meets; a
            beginning that many share is written once a tree.
        size: tokens of a tree; one sequence may be longer.

    Yields:
        a tree, and for each sequence in it (by its index) the places of its tokens. Every sequence comes once.

    Raises:
        ValueError: an empty sequence.
    """
    if not all(len(sequence) for sequence in sequences):
        raise ValueError("an empty sequence has no place in a tree")
    growing = _Growing()
    for index in sorted(range(len(sequences)), key=lambda i: tuple(sequences[i])):
        if growing.tokens and len(growing.tokens) + growing.missing(sequences[index]) > size:
            yield growing.tree(), growing.places
            growing = _Growing()
        growing.add(index, sequences[index])
    if growing.tokens:
        yield growing.tree(), growing.places


class _Growing:
    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.depths: list[int] = []
        self.ends: list[int] = []
        self.places: dict[int, list[int]] = {}
        self._path: list[int] = []  # places of the newest sequence
        self._newest: Sequence[int] = ()

    def missing(self, sequence: Sequence[int]) -> int:
        """How many tokens of it the tree does not hold."""
        return len(sequence) - self._shared(sequence)

    def add(self, index: int, sequence: Sequence[int]) -> None:
        """Append what the tree lacks; sequences come in lexicographic order."""
        shared, start = self._shared(sequence), len(self.tokens)
        for place in self._path[shared:]:
            self.ends[place] = start
        new = len(sequence) - shared
        self.tokens += sequence[shared:]
        self.depths += range(shared, len(sequence))
        self.ends += [-1] * new  # known once another branch begins
        self._path = self._path[:shared] + list(range(start, start + new))
        self._newest = sequence
        self.places[index] = self._path

    def tree(self) -> Tree:
        ends = [len(self.tokens) if end < 0 else end for end in self.ends]
        return Tree(*(torch.tensor(column) for column in (self.tokens, self.depths, ends)))

    def _shared(self, sequence: Sequence[int]) -> int:
        """Length of the beginning that it shares with the newest one, found by bisection: slices compare fast."""
        low, high = 0, min(len(sequence), len(self._newest))
        while low < high:
            middle = (low + high + 1) // 2
            if sequence[low:middle] == self._newest[low:middle]:
                low = middle
            else:
                high = middle - 1
        return low
