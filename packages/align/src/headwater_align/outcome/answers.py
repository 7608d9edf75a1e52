"""Answers of one model to the held-out prompts, scored: what every figure of the outcome is computed from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from .. import jsonl
from ..chat_format import ChatFormat
from ..engine import GPT, torch
from ..ppo.rollouts import Episodes, logprobs, micro_batches
from ..reward_model import RewardModel
from ..sampling import draw_seed, sample


@dataclass(frozen=True)
class Answer:
    """One sampled answer."""

    prompt: int
    """Number of the prompt."""
    text: str
    tokens: int
    finished: bool
    """Whether it ended by itself."""
    reward: float
    """The reward model's, normalised."""
    kl: float
    """log p(answer) under its model less under the SFT model, nats: an unbiased estimate of the KL."""
    surprise: float
    """-log p(answer) under its model, nats: its mean is the entropy of answers."""


def draw(
    model: GPT, prompts: Sequence[list[int]], samples: int, chat: ChatFormat, tokens: int, seed: int, batch: int
) -> Episodes:
    """`samples` answers a prompt at temperature 1; the n-th answer to a prompt has one seed whatever the model is."""
    asked = [(number, prompt, n) for number, prompt in enumerate(prompts) for n in range(samples)]
    seeds = [draw_seed(seed, number, n) for number, _, n in asked]
    repeated = [prompt for _, prompt, _ in asked]
    answers = sample(model, repeated, chat, tokens, seeds, batch)
    return Episodes(repeated, answers, [a[-1] in chat.stops for a in answers])


def score(
    episodes: Episodes, samples: int, model: GPT, reference: GPT, judge: RewardModel, chat: ChatFormat, batch: int
) -> list[Answer]:
    """Reward and KL of each answer.

    Args:
        reference: the SFT model.
    """
    rewards = judge(episodes.rows, chat.pad, batch)
    parts = micro_batches(range(len(episodes.rows)), [len(row) for row in episodes.rows], batch)
    own = logprobs(model, episodes, chat.pad, parts)
    other = own if model is reference else logprobs(reference, episodes, chat.pad, parts)
    mask = episodes.mask
    gaps = torch.where(mask, own - other, 0).double().sum(1)
    surprise = -torch.where(mask, own, 0).double().sum(1)
    return [
        Answer(
            row // samples, chat.text(answer), len(answer), episodes.finished[row], float(rewards[row]),
            float(gaps[row]), float(surprise[row]),
        )
        for row, answer in enumerate(episodes.answers)
    ]  # fmt: skip


def save(path: Path, answers: Sequence[Answer]) -> None:
    """As JSON lines."""
    jsonl.write(path, map(asdict, answers))


def load(path: Path) -> list[Answer] | None:
    """What `save` wrote; None where there is nothing."""
    if not path.exists():
        return None
    return [Answer(**row) for row in jsonl.read(path)]


def table(answers: Sequence[Answer], prompts: int) -> dict[str, np.ndarray]:
    """Each quantity as float64 [prompts, samples]."""
    names = ("reward", "kl", "surprise", "tokens", "finished")
    return {name: np.array([float(getattr(a, name)) for a in answers]).reshape(prompts, -1) for name in names}
