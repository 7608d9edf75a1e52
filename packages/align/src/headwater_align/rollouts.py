"""Rollouts: answers sampled from the policy, and everything that PPO needs to know of them.

Every per-token tensor is [B, T - 1] and aligned to the token it speaks of less one: column t holds the probability of
token t + 1, and the value of the state in which it was chosen. `mask` marks the columns of sampled tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .batching import pad
from .chat_format import ChatFormat
from .engine import GPT, forward, generation


@dataclass(frozen=True)
class Episodes:
    """Prompts with their sampled answers."""

    prompts: list[list[int]]
    answers: list[list[int]]
    """Sampled ids; the last is a stop id unless the answer was cut."""
    finished: list[bool]

    @property
    def rows(self) -> list[list[int]]:
        """Prompt and answer together."""
        return [p + a for p, a in zip(self.prompts, self.answers, strict=True)]

    @property
    def mask(self) -> Tensor:
        """bool [B, T - 1]: columns whose token was sampled."""
        masks = [[False] * (len(p) - 1) + [True] * len(a) for p, a in zip(self.prompts, self.answers, strict=True)]
        return pad(masks, False)

    @property
    def lengths(self) -> list[int]:
        """Sampled tokens of each answer."""
        return [len(a) for a in self.answers]


def sample(model: GPT, prompts: list[list[int]], chat: ChatFormat, tokens: int, seed: int, size: int) -> Episodes:
    """One answer a prompt, at temperature 1, `size` prompts of like length at a time.

    Args:
        tokens: longest answer; one without an end by then is cut and not `finished`.
        seed: of all draws.
    """
    order = sorted(range(len(prompts)), key=lambda row: len(prompts[row]))
    answers: list[list[int]] = [[] for _ in prompts]
    for start in range(0, len(order), size):
        part = order[start : start + size]
        made = generation.generate(
            model, [prompts[r] for r in part], tokens, stop_ids=chat.stops, seed=draw_seed(seed, start)
        )
        for row, answer in zip(part, made, strict=True):
            answers[row] = answer.tokens
    return Episodes(prompts, answers, [answer[-1] in chat.stops for answer in answers])


@torch.no_grad()
def logprobs(model: GPT, episodes: Episodes, filler: int, size: int) -> Tensor:
    """Log-probability of each sampled token under `model`, by the very forward pass that training uses.

    Returns:
        float32 [B, T - 1], 0 outside the mask.
    """
    mask = episodes.mask

    def of(tokens: Tensor, part: list[int]) -> Tensor:
        return forward.token_logprobs(model, tokens, wanted=mask[part, : tokens.shape[1] - 1])

    return _in_parts(episodes.rows, filler, size, of)


@torch.no_grad()
def state_values(model: GPT, episodes: Episodes, filler: int, size: int) -> Tensor:
    """The scalar head before each token, float32 [B, T - 1]."""
    return _in_parts(episodes.rows, filler, size, lambda tokens, _: forward.values(model, tokens[:, :-1]))


def _in_parts(
    rows: Sequence[Sequence[int]], filler: int, size: int, of: Callable[[Tensor, list[int]], Tensor]
) -> Tensor:
    out = torch.zeros(len(rows), max(len(row) for row in rows) - 1)
    order = sorted(range(len(rows)), key=lambda row: len(rows[row]))
    for start in range(0, len(order), size):
        part = order[start : start + size]
        found = of(pad([rows[r] for r in part], filler), part).cpu()
        out[part, : found.shape[1]] = found
    return out


def draw_seed(*parts: int) -> int:
    """One seed from several numbers, so that neighbours do not share draws."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint32)[0])


def prompt_numbers(count: int, batch: int, step: int, seed: int) -> list[int]:
    """Which of `count` prompts step `step` (from 0) takes: all in turn, in an order that each pass draws anew."""
    numbers = []
    for position in range(step * batch, (step + 1) * batch):
        epoch, place = divmod(position, count)
        numbers.append(int(np.random.default_rng([seed, epoch]).permutation(count)[place]))
    return numbers
