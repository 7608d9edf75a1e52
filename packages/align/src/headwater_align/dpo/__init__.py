"""Direct preference optimisation, the comparison beside PPO: the same preferences, no reward model, no sampling."""

from .loss import dpo_losses

__all__ = ["dpo_losses"]
