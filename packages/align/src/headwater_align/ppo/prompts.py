"""Which prompts are answered, in ids, and in which order."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..chat_format import ChatFormat
from ..conversation import Turns, asked
from ..instructions import read_split


@dataclass(frozen=True)
class Prompt:
    """What the policy is asked."""

    id: str
    """Of the first record that asks it."""
    ids: list[int]


def prompts_of(artefact: Path, side: str, chat: ChatFormat, limit: int, turns: Turns) -> tuple[list[Prompt], int]:
    """Distinct prompts of an instructions artefact, in its order, and how many were longer than `limit` tokens."""
    found = asked(read_split(artefact, side), turns)
    rendered = chat.prompts([messages for _, messages in found])
    prompts = [Prompt(record["id"], ids) for (record, _), ids in zip(found, rendered, strict=True)]
    short = [prompt for prompt in prompts if len(prompt.ids) <= limit]
    return short, len(prompts) - len(short)


def prompt_numbers(count: int, batch: int, turn: int, seed: int) -> list[int]:
    """Which of `count` prompts batch number `turn` (from 0) takes: all in turn, in an order that each pass draws."""
    first = turn * batch
    epochs = range(first // count, (first + batch - 1) // count + 1)
    orders = {epoch: np.random.default_rng([seed, epoch]).permutation(count) for epoch in epochs}
    return [int(orders[place // count][place % count]) for place in range(first, first + batch)]
