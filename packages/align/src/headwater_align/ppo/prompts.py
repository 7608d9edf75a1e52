"""Which prompts are answered: every conversation up to the assistant's first answer, each once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..chat_format import ChatFormat
from ..conversation import before_answer, prompt_key
from ..instructions import read_split


@dataclass(frozen=True)
class Prompt:
    """What the policy is asked."""

    id: str
    """Of the first record that asks it."""
    ids: list[int]


def prompts_of(artefact: Path, side: str, chat: ChatFormat, limit: int) -> tuple[list[Prompt], int]:
    """Distinct prompts of an instructions artefact, in its order, and how many were longer than `limit` tokens."""
    asked: dict[str, tuple[str, list[dict]]] = {}
    for record in read_split(artefact, side):
        messages = record["messages"]
        asked.setdefault(prompt_key(messages), (record["id"], before_answer(messages)))
    rendered = chat.prompts([messages for _, messages in asked.values()])
    prompts = [Prompt(name, ids) for (name, _), ids in zip(asked.values(), rendered, strict=True)]
    short = [prompt for prompt in prompts if len(prompt.ids) <= limit]
    return short, len(prompts) - len(short)


def prompt_numbers(count: int, batch: int, turn: int, seed: int) -> list[int]:
    """Which of `count` prompts batch number `turn` (from 0) takes: all in turn, in an order that each pass draws."""
    first = turn * batch
    epochs = range(first // count, (first + batch - 1) // count + 1)
    orders = {epoch: np.random.default_rng([seed, epoch]).permutation(count) for epoch in epochs}
    return [int(orders[place // count][place % count]) for place in range(first, first + batch)]


def draw_seed(*parts: int) -> int:
    """One seed from several numbers, so that neighbours do not share draws."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint32)[0])
