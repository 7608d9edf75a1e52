"""Where a token stands: positions under masks, sinusoids, slopes of linear biases."""

from __future__ import annotations

from math import floor, log, log2

import torch
from torch import Tensor, nn


def positions(size: int, mask: Tensor | None, start: int, device: torch.device) -> Tensor:
    """How many earlier positions each one sees: its place in its own text.

    So positions begin anew in each packed row and skip padding on the left, whatever made the mask.

    Args:
        size: positions of the queries.
        mask: bool [batch or 1, 1, size, start + size], True where masked; None: causal.
        start: keys before the first query (a filled cache).

    Returns:
        int64 [batch or 1, size].
    """
    if mask is None:
        return torch.arange(start, start + size, device=device)[None]
    earlier = torch.ones(size, start + size, dtype=torch.bool, device=device).tril(start - 1)
    return (~mask[:, 0] & earlier).sum(-1)


class Sinusoids(nn.Module):
    """Fixed positions (Vaswani et al., arXiv:1706.03762, section 3.5), without a weight.

    The paper multiplies token embeddings by sqrt(hidden) before it adds them. Here the sinusoids are divided by it,
    which is the same up to a factor that the norms take out.
    """

    def __init__(self, context: int, hidden: int):
        super().__init__()
        frequencies = torch.exp(torch.arange(0, hidden, 2) * (-log(10_000.0) / hidden))
        angles = torch.arange(context)[:, None] * frequencies
        table = torch.stack([angles.sin(), angles.cos()], -1).flatten(1) * hidden**-0.5
        self.register_buffer("table", table, persistent=False)

    def forward(self, positions: Tensor) -> Tensor:
        """int64 [...] -> [..., hidden]."""
        return self.table[positions]


def alibi_slopes(heads: int) -> list[float]:
    """What a key loses in each head for each position that it lies back (ALiBi, arXiv:2108.12409, section 3).

    2^(-8 i / heads), i from 1; where heads is no power of two: those of the power below, then every other one of
    those of the power above, as in the authors' code.
    """
    power = 2 ** floor(log2(heads))
    return [2 ** (-8 * i / power) for i in range(1, power + 1)] + [
        2 ** (-4 * (2 * i + 1) / power) for i in range(heads - power)
    ]
