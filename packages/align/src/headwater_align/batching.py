"""Rows of unequal length in batches: rows of like length together, little padding, each row by itself.

Rows are padded on the right. Attention is causal, so a token sees only what stands before it in its own row: neither
padding nor another row (pinned by a test on the model). Padding itself and packing are the contract's
(_contracts/sequences.py).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ._contracts import sequences

POOL = 32


def length_buckets(lengths: Sequence[int], batch_size: int, seed: int, epoch: int, pool: int = POOL) -> list[list[int]]:
    """One epoch's batches as lists of row numbers: every row once, in an order that (seed, epoch) decide.

    Rows are shuffled, sorted by length within pools of `pool` batches, cut into batches, and these are shuffled, so
    that lengths within a batch are close and its composition still changes from epoch to epoch.
    """
    draw = np.random.default_rng([seed, epoch])
    order = draw.permutation(len(lengths))
    batches = []
    for start in range(0, len(order), pool * batch_size):
        alike = sorted(order[start : start + pool * batch_size].tolist(), key=lambda row: (lengths[row], row))
        batches += [alike[i : i + batch_size] for i in range(0, len(alike), batch_size)]
    return [batches[i] for i in draw.permutation(len(batches))]


def pad(rows: Sequence[Sequence[int]], filler: int | bool, multiple: int = 1) -> Tensor:
    """Rows as one tensor [B, T], padded on the right to the longest, rounded up to a multiple."""
    return torch.from_numpy(sequences.pad(rows, filler, multiple=multiple)[0])
