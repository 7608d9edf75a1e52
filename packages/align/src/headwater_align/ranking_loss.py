"""The ranking loss of a reward model: K completions of one prompt, each forwarded once, every pair compared.

InstructGPT (Ouyang et al. 2022, arXiv:2203.02155) eq. 1. A pair of answers is its case K = 2, the loss of Bradley and
Terry.
"""

from __future__ import annotations

import math

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


def ties(prompt: Tensor, ranks: Tensor) -> tuple[Tensor, Tensor]:
    """Every pair of completions of one prompt and one rank, each once: their places, int64 [pairs] each."""
    equal = (prompt[:, None] == prompt[None]) & (ranks[:, None] == ranks[None])
    one, other = equal.triu(1).nonzero(as_tuple=True)
    return one, other


def ranking_losses(
    rewards: Tensor, prompt: Tensor, ranks: Tensor, margins: Tensor | None = None, tie_threshold: float = 0.0
) -> Tensor:
    """Mean over a prompt's comparisons of -log sigmoid(r_better - r_worse), [P]; without ties that is eq. 1.

    A prompt counts as one whatever its K, since its comparisons depend on each other: InstructGPT over-fitted as long
    as each was an example of its own.

    Args:
        rewards: float [N], one a completion.
        prompt: int64 [N], 0 to P - 1; a prompt without a comparison costs nothing.
        ranks: int64 [N], 1 = best, dense: ties share a rank, the next rank follows.
        margins: float [P], by how much the first shall be ahead of the last (Llama 2, arXiv:2307.09288, eq. 2); a
            pair in between gets its share by the distance of its ranks. None: no margin.
        tie_threshold: eta = log theta of Rao and Kupper (1967, Journal of the American Statistical Association 62,
            194-204): what differs by less is seldom told apart, P(better) = sigmoid(d - eta),
            P(tie) = (e^(2 eta) - 1) sigmoid(d - eta) sigmoid(-d - eta). 0: ties give no pair.
    """
    winner, loser = comparisons(prompt, ranks)
    gaps = rewards[winner] - rewards[loser] - tie_threshold
    count = int(prompt.max()) + 1
    if margins is not None:
        last = torch.zeros(count, dtype=ranks.dtype, device=ranks.device).scatter_reduce(0, prompt, ranks, "amax")
        distance = (ranks[loser] - ranks[winner]).to(rewards.dtype) / (last[prompt[winner]] - 1)
        gaps = gaps - margins[prompt[winner]] * distance
    losses, owner = -F.logsigmoid(gaps), prompt[winner]
    if tie_threshold:
        one, other = ties(prompt, ranks)
        apart = rewards[one] - rewards[other]
        told = F.logsigmoid(apart - tie_threshold) + F.logsigmoid(-apart - tie_threshold)
        losses = torch.cat([losses, -told - math.log(math.expm1(2 * tie_threshold))])
        owner = torch.cat([owner, prompt[one]])
    return prompt_means(losses, owner, count)


def prompt_means(values: Tensor, owner: Tensor, count: int) -> Tensor:
    """Mean of the values [M] of each of `count` prompts, [count]; 0 where a prompt owns none.

    Args:
        owner: int64 [M], the prompt of each value.
    """
    sums = values.new_zeros(count).index_add(0, owner, values)
    return sums / owner.bincount(minlength=count).clamp(min=1)
