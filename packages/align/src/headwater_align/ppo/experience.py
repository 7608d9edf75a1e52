"""What PPO learns from: sampled answers with their scores, KL, values and advantages."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from .._contracts.errors import UserError
from ..chat_format import ChatFormat
from ..config import PpoConfig
from ..engine import Loaded, Trainer, torch
from ..reward_model import RewardModel
from .estimators import explained_variance, gae, kl_estimate, masked_mean, token_rewards, whiten
from .pretraining_rows import PretrainingRows
from .rollouts import Episodes, logprobs, micro_batches, rewards, state_values

LogRow = dict[str, float]


@dataclass
class Actors:
    """The models of a run."""

    policy: Trainer
    value: Trainer
    reference: Loaded
    reward: RewardModel
    chat: ChatFormat
    pretraining: PretrainingRows | None


@dataclass(frozen=True)
class Experience:
    """A batch of episodes with all that the update needs; per-token tensors float32 [B, T - 1]."""

    episodes: Episodes
    mask: Tensor
    logprobs: Tensor
    values: Tensor
    advantages: Tensor
    returns: Tensor
    scores: Tensor
    """[B]: rewards, clipped, less the penalty of an answer without an end."""
    kl: Tensor
    """[B]: nats of an episode (k1)."""


def minibatches(config: PpoConfig, batch: int, seed: int, epoch: int) -> list[list[int]]:
    """Rows of each optimiser step in one pass over a batch."""
    order = np.random.default_rng([seed, epoch]).permutation(batch).tolist()
    part = batch // config.minibatches
    return [order[start : start + part] for start in range(0, batch, part)]


def evaluate_episodes(
    actors: Actors, episodes: Episodes, config: PpoConfig, kl_coef: float, seed: int = 0
) -> tuple[Experience, LogRow]:
    """Score episodes, spread the reward over their tokens, and estimate advantages; with figures for the log.

    The policy and the value function see the episodes in the very micro-batches of the first pass of `update` with the
    same seed, so that its first ratios are exactly 1 and its first values the old ones, in every precision.

    Raises:
        UserError: a reward that is no number, with the prompt's id.
    """
    filler, mask, lengths = actors.chat.pad, episodes.mask, [len(row) for row in episodes.rows]
    firsts = minibatches(config, len(lengths), seed, 0)
    parts = [part for rows in firsts for part in micro_batches(rows, lengths, config.micro_batch)]
    old = logprobs(actors.policy.module, episodes, filler, parts)
    reference = logprobs(actors.reference.model, episodes, filler, parts)
    values = actors.reward.gain * state_values(actors.value.module, episodes, filler, parts) + actors.reward.bias
    raw = rewards(actors.reward, episodes.rows, filler, config.micro_batch)
    _refuse_bad_rewards(raw, episodes)
    cut = ~torch.tensor(episodes.finished)
    scores = raw.clamp(-config.reward_clip, config.reward_clip) - config.missing_end_penalty * cut

    per_token = token_rewards(scores, kl_estimate(old, reference, config.kl_estimator), mask, kl_coef)
    if config.whiten_rewards:
        per_token = whiten(per_token, mask, shift_mean=False)
    advantages, returns = gae(per_token, values, mask, config.gamma, config.lam)
    kl = torch.where(mask, kl_estimate(old, reference, "k1"), 0).sum(1)
    experience = Experience(episodes, mask, old, values, whiten(advantages, mask), returns, scores, kl)
    return experience, {
        "reward": raw.mean().item(),
        "reward_deviation": raw.std(unbiased=False).item(),
        "score": scores.mean().item(),
        "total": (scores - kl_coef * kl).mean().item(),
        "kl": kl.mean().item(),
        "kl_k3": torch.where(mask, kl_estimate(old, reference, "k3"), 0).sum(1).mean().item(),
        "entropy": -masked_mean(old, mask).item(),
        "answer_tokens": float(np.mean(episodes.lengths)),
        "finished": float(np.mean(episodes.finished)),
        "value_explained": explained_variance(values, returns, mask).item(),
    }


def normalised_on_reference(actors: Actors, episodes: Episodes, size: int) -> tuple[float, float]:
    """(gain, bias) of the reward model that give these episodes of the reference mean 0 and deviation 1
    (lm-human-preferences, train_reward.py `normalize`).

    Raises:
        UserError: it gives them all the same reward.
    """
    found = rewards(actors.reward, episodes.rows, actors.chat.pad, size).double()
    _refuse_bad_rewards(found, episodes)
    mean, deviation = found.mean().item(), found.std(unbiased=False).item()
    if not deviation > 1e-6:
        raise UserError(
            "the reward model gives every answer of the reference the same reward; train it again, or set "
            "normalise_samples 0"
        )
    return actors.reward.gain / deviation, (actors.reward.bias - mean) / deviation


def _refuse_bad_rewards(found: Tensor, episodes: Episodes) -> None:
    if not bool(found.isfinite().all()):
        row = int((~found.isfinite()).int().argmax())
        name = episodes.names[row] if episodes.names else str(row)
        raise UserError(
            f"the reward model gives an answer to prompt {name} the reward {found[row].item()}; train it again, with a "
            "lower learning rate or in float32"
        )
