"""The two losses of PPO, token by token; shapes as in estimators.py."""

from __future__ import annotations

import torch
from torch import Tensor


def policy_losses(logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, clip: float) -> tuple[Tensor, Tensor]:
    """The clipped surrogate of each token to be minimised (PPO eq. 7 with its sign turned), and where it is clipped.

    L = max(-A rho, -A clip(rho, 1 - clip, 1 + clip)),  rho = p_policy / p_old

    Returns:
        losses [B, T]; clipped, bool [B, T]: the gradient is 0 there.
    """
    ratio = (logprobs - old_logprobs).exp()
    free = -advantages * ratio
    bounded = -advantages * ratio.clamp(1 - clip, 1 + clip)
    return torch.maximum(free, bounded), bounded > free


def value_losses(values: Tensor, old_values: Tensor, returns: Tensor, clip: float) -> tuple[Tensor, Tensor]:
    """Half the squared error of each token's value, the worse of it and its clipped twin; and where clipped.

    The new value may help itself only within `clip` of the old one (lm-human-preferences, train_policy.py `loss`).
    """
    bounded = old_values + (values - old_values).clamp(-clip, clip)
    free_error, bounded_error = (values - returns).square(), (bounded - returns).square()
    return torch.maximum(free_error, bounded_error) / 2, bounded_error > free_error
