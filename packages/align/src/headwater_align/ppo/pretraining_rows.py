"""Rows of pre-training text for PPO-ptx, from a token dataset in Megatron's format."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torch import Tensor

from .._contracts.errors import UserError
from ..engine import torch


class PretrainingRows:
    """Windows of consecutive tokens of train.bin, across document ends as in pre-training."""

    def __init__(self, folder: Path, length: int):
        """Open the dataset.

        Args:
            length: tokens of a row that have a successor to be foretold.

        Raises:
            UserError: it holds too few tokens.
        """
        from megatron.core.datasets.indexed_dataset import IndexedDataset

        index = IndexedDataset(str(folder / "train")).index
        self.tokens = np.memmap(folder / "train.bin", dtype=index.dtype, mode="r")
        self.length = length
        if len(self.tokens) <= length:
            raise UserError(f"{folder}: {len(self.tokens)} tokens, too few for rows of {length}; lower ptx_length")

    def draw(self, rows: int, seed: int) -> Tensor:
        """int64 [rows, length + 1] at places that `seed` picks, the same on every rank."""
        starts = np.random.default_rng(seed).integers(0, len(self.tokens) - self.length, size=rows)
        return torch.from_numpy(np.stack([self.tokens[s : s + self.length + 1].astype(np.int64) for s in starts]))
