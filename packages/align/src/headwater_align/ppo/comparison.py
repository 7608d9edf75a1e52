"""SFT against PPO on held-out prompts: the same prompts, the same seeds, the reward model as the judge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ..chat_format import ChatFormat
from ..config import PpoConfig
from ..engine import GPT, torch
from ..intervals import bootstrap_mean, wilson
from ..reward_model import RewardModel
from .estimators import masked_mean
from .prompts import draw_seed
from .rollouts import logprobs, micro_batches, sample


def compare(
    models: Mapping[str, GPT],
    prompts: Sequence[Sequence[int]],
    judge: RewardModel,
    chat: ChatFormat,
    config: PpoConfig,
) -> tuple[dict, list[dict]]:
    """Mean reward of each model with interval, their paired difference, KL, entropy and lengths; and the samples.

    Args:
        models: "sft", which is also the reference of the KL, and "ppo".
        prompts: ids; each gets `config.samples_per_prompt` answers, which count as one in the intervals.

    Returns:
        metrics; samples: {"prompt", "sft", "ppo", "sft_reward", "ppo_reward"} an answer.
    """
    asked = [list(p) for p in prompts for _ in range(config.samples_per_prompt)]
    rewards: dict[str, np.ndarray] = {}
    texts: dict[str, list[str]] = {}
    metrics: dict[str, float] = {"heldout_prompts": len(prompts)}
    for name, model in models.items():
        seed = draw_seed(config.seed, 2**31)
        episodes = sample(model, asked, chat, config.max_response_length, seed, config.sample_batch)
        rewards[name] = judge(episodes.rows, chat.pad, config.micro_batch).double().numpy()
        texts[name] = [chat.text(answer) for answer in episodes.answers]
        parts = micro_batches(range(len(asked)), [len(row) for row in episodes.rows], config.micro_batch)
        own, reference = (logprobs(m, episodes, chat.pad, parts) for m in (model, models["sft"]))
        mean, low, high = bootstrap_mean(_by_prompt(rewards[name], len(prompts)), config.seed)
        metrics |= {
            f"{name}_reward": mean,
            f"{name}_reward_low": low,
            f"{name}_reward_high": high,
            f"{name}_kl": torch.where(episodes.mask, own - reference, 0).sum(1).mean().item(),
            f"{name}_entropy": -masked_mean(own, episodes.mask).item(),
            f"{name}_answer_tokens": float(np.mean(episodes.lengths)),
            f"{name}_finished": float(np.mean(episodes.finished)),
        }
    gain = rewards["ppo"] - rewards["sft"]
    mean, low, high = bootstrap_mean(_by_prompt(gain, len(prompts)), config.seed)
    wins, ties = int((gain > 0).sum()), int((gain == 0).sum())
    decided = len(gain) - ties
    won_low, won_high = wilson(wins, decided)
    metrics |= {
        "reward_gain": mean,
        "reward_gain_low": low,
        "reward_gain_high": high,
        "win_rate": wins / decided if decided else 0.5,
        "win_rate_low": won_low,
        "win_rate_high": won_high,
    }
    samples = [
        {
            "prompt": chat.text(ids),
            **{name: texts[name][row] for name in models},
            **{f"{name}_reward": float(rewards[name][row]) for name in models},
        }
        for row, ids in enumerate(asked)
    ]
    return metrics, samples


def _by_prompt(values: np.ndarray, prompts: int) -> np.ndarray:
    """Mean over the samples of each prompt: [prompts x samples] -> [prompts]."""
    return values.reshape(prompts, -1).mean(1)
