"""A reward model in use: one number for a whole conversation, read at its last token."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ._contracts.errors import UserError
from .batching import pad
from .engine import GPT, Loaded, forward, pretrained

NORMALISATION = "reward.json"


@dataclass
class RewardModel:
    """reward = gain x (scalar head at the last token) + bias, in standard deviations of the reference answers."""

    loaded: Loaded
    gain: float
    bias: float

    @classmethod
    def load(cls, folder: Path, dtype: torch.dtype) -> RewardModel:
        """Read an export of the stage `reward`.

        Raises:
            UserError: a model without a scalar head, or without its normalisation.
        """
        _, head = pretrained.read_config(folder)
        if head != "scalar":
            raise UserError(f"{folder}: a language model, no reward model; give the output of `headwater-align reward`")
        try:
            scale = json.loads((folder / NORMALISATION).read_text())
            return cls(pretrained.load(folder, dtype=dtype), float(scale["gain"]), float(scale["bias"]))
        except (OSError, ValueError, KeyError):
            raise UserError(
                f"{folder / NORMALISATION}: no readable gain and bias; train the reward model again"
            ) from None

    def __call__(self, rows: Sequence[Sequence[int]], filler: int, size: int) -> Tensor:
        """Rewards of whole conversations in ids: float32 [rows]."""
        return self.gain * last_values(self.loaded.model, rows, filler, size) + self.bias


@torch.no_grad()
def last_values(model: GPT, rows: Sequence[Sequence[int]], filler: int, size: int) -> Tensor:
    """The scalar head at each row's last token, float32 [rows]; rows of like length go through together.

    Args:
        rows: ids, none empty.
        size: rows in one forward pass.
    """
    found = torch.empty(len(rows))
    order = sorted(range(len(rows)), key=lambda row: len(rows[row]))
    for start in range(0, len(order), size):
        part = order[start : start + size]
        values = forward.values(model, pad([rows[r] for r in part], filler)).cpu()
        last = torch.tensor([len(rows[r]) - 1 for r in part])
        found[part] = values[torch.arange(len(part)), last]
    return found
