"""The ranking loss of a reward model: K completions of one prompt, each forwarded once, every pair compared.

InstructGPT (Ouyang et al. 2022, arXiv:2203.02155) eq. 1. A pair of answers is its case K = 2, the loss of Bradley and
Terry.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def comparisons(prompt: Tensor, ranks: Tensor) -> tuple[Tensor, Tensor]:
    """Every pair of completions of one prompt of which one is better: their places, int64 [pairs] each, better first.

    Args:
        prompt: int64 [N], which prompt each completion answers.
        ranks: int64 [N], 1 = best; of equals neither is better, so they make no pair.
    """
    better = (prompt[:, None] == prompt[None]) & (ranks[:, None] < ranks[None])
    winner, loser = better.nonzero(as_tuple=True)
    return winner, loser


def ranking_losses(rewards: Tensor, prompt: Tensor, ranks: Tensor, margins: Tensor | None = None) -> Tensor:
    """Mean over a prompt's comparisons of -log sigmoid(r_better - r_worse), [P]; without ties that is eq. 1.

    A prompt counts as one whatever its K, since its comparisons depend on each other: InstructGPT over-fitted as long
    as each was an example of its own.

    Args:
        rewards: float [N], one a completion.
        prompt: int64 [N], 0 to P - 1; a prompt whose answers all tie costs nothing.
        ranks: int64 [N], 1 = best, dense: ties share a rank, the next rank follows.
        margins: float [P], by how much the first shall be ahead of the last (Llama 2, arXiv:2307.09288, eq. 2); a
            pair in between gets its share by the distance of its ranks. None: no margin.
    """
    winner, loser = comparisons(prompt, ranks)
    gaps = rewards[winner] - rewards[loser]
    count = int(prompt.max()) + 1
    if margins is not None:
        last = torch.zeros(count, dtype=ranks.dtype, device=ranks.device).scatter_reduce(0, prompt, ranks, "amax")
        distance = (ranks[loser] - ranks[winner]) / (last[prompt[winner]] - 1)
        gaps = gaps - margins[prompt[winner]] * distance
    sums = rewards.new_zeros(count).index_add(0, prompt[winner], -F.logsigmoid(gaps))
    return sums / prompt[winner].bincount(minlength=count).clamp(min=1)
