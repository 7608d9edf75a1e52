"""Answers of a model to many prompts, as all stages draw them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .chat_format import ChatFormat
from .engine import GPT, generation


def draw_seed(*parts: int) -> int:
    """One seed from several numbers, so that neighbours do not share draws."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint32)[0])


def sample(
    model: GPT,
    prompts: Sequence[list[int]],
    chat: ChatFormat,
    tokens: int,
    seeds: Sequence[int],
    size: int,
    temperature: float = 1.0,
    top_p: float = 1.0,
) -> list[list[int]]:
    """One answer a prompt, in ids; the last is a stop id unless the answer was cut.

    Each row draws from a seed of its own, so an answer does not depend on the rows beside it, but for rounding.

    Args:
        tokens: longest answer.
        seeds: one a prompt.
        size: rows at once; rows of like length go together.
    """
    answers: list[list[int]] = [[] for _ in prompts]
    order = sorted(range(len(prompts)), key=lambda row: len(prompts[row]))
    for start in range(0, len(order), size):
        part = order[start : start + size]
        made = generation.generate(
            model, [prompts[row] for row in part], tokens, temperature=temperature, top_p=top_p, stop_ids=chat.stops,
            seeds=[seeds[row] for row in part],
        )  # fmt: skip
        for row, answer in zip(part, made, strict=True):
            answers[row] = answer.tokens
    return answers
