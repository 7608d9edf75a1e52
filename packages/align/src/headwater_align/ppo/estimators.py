"""Estimators of PPO for language models, as functions of tensors and masks.

Shapes: B episodes, T response positions. Every mask is bool [B, T], True where a response token was sampled; what
stands elsewhere is ignored, whatever its value. All quantities are per token, in nats where they are logarithms.

    GAE         Schulman et al. 2016, arXiv:1506.02438
    PPO         Schulman et al. 2017, arXiv:1707.06347
    Ziegler     Fine-Tuning Language Models from Human Preferences, arXiv:1909.08593; its code: lm-human-preferences
    InstructGPT Ouyang et al. 2022, arXiv:2203.02155
"""

from __future__ import annotations

import torch
from torch import Tensor


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Mean of x [B, T] where mask holds; 0 where it holds nowhere."""
    return torch.where(mask, x, 0).sum() / mask.sum().clamp(min=1)


def whiten(x: Tensor, mask: Tensor, shift_mean: bool = True) -> Tensor:
    """x [B, T] scaled to variance 1 and shifted to mean 0 over the masked positions; 0 elsewhere.

    Args:
        shift_mean: False keeps the mean, as Ziegler's code does with rewards.
    """
    mean = masked_mean(x, mask)
    variance = masked_mean((x - mean) ** 2, mask)
    white = (x - mean) * torch.rsqrt(variance + 1e-8)
    return torch.where(mask, white if shift_mean else white + mean, 0)


def kl_estimate(logprobs: Tensor, reference: Tensor, estimator: str = "k1") -> Tensor:
    """Per-token estimate of KL(policy || reference) at tokens that the policy sampled, [B, T].

    With r = p_reference / p_policy (Schulman, "Approximating KL divergence", 2020):
    k1 = -log r, unbiased, may be negative, what InstructGPT and Ziegler put into the reward;
    k2 = (log r)^2 / 2, biased, low variance; k3 = (r - 1) - log r, unbiased, never negative.
    """
    log_ratio = reference - logprobs
    if estimator == "k1":
        return -log_ratio
    if estimator == "k2":
        return log_ratio.square() / 2
    if estimator == "k3":
        return log_ratio.expm1() - log_ratio
    raise ValueError(f"KL estimator {estimator}: k1, k2 or k3")


def token_rewards(scores: Tensor, kl: Tensor, mask: Tensor, kl_coef: float) -> Tensor:
    """The reward of each token, [B, T]: minus kl_coef times its KL, and the episode's score at its last token.

    InstructGPT eq. 2 without the pre-training term, spread over tokens as in Ziegler section 2.2.

    Args:
        scores: [B], the reward model's, one an episode.
        kl: [B, T], of `kl_estimate`.
        mask: [B, T]; at least one token in each row.
    """
    rewards = torch.where(mask, -kl_coef * kl, 0)
    last = mask.shape[1] - 1 - mask.flip(1).int().argmax(1)
    return rewards.scatter_add(1, last[:, None], scores[:, None].to(rewards.dtype))


def gae(rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, lam: float) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimation: advantages and returns, each [B, T], 0 outside the mask.

    delta_t = r_t + gamma V_{t+1} - V_t;  A_t = delta_t + gamma lam A_{t+1}  (GAE eq. 16; PPO eqs. 11, 12).
    The return A_t + V_t is the value function's target. Masked-out positions are passed over, so padding inside or
    after a response changes nothing; the value after the last token is 0, since every episode ends there.
    """
    advantages = torch.zeros_like(rewards)
    next_value = torch.zeros_like(rewards[:, 0])
    next_advantage = torch.zeros_like(rewards[:, 0])
    for t in range(rewards.shape[1] - 1, -1, -1):
        here = mask[:, t]
        delta = rewards[:, t] + gamma * next_value - values[:, t]
        advantage = delta + gamma * lam * next_advantage
        next_advantage = torch.where(here, advantage, next_advantage)
        next_value = torch.where(here, values[:, t], next_value)
        advantages[:, t] = torch.where(here, advantage, 0)
    return advantages, torch.where(mask, advantages + values, 0)


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor) -> Tensor:
    """1 less the share of the returns' variance that the values [B, T] leave over: 1 at best, 0 for a constant."""
    residual = masked_mean((returns - values) ** 2, mask)
    spread = masked_mean((returns - masked_mean(returns, mask)) ** 2, mask)
    return 1 - residual / spread.clamp(min=1e-8)
