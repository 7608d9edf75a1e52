"""What steers the weight of the KL penalty from step to step (Ziegler, arXiv:1909.08593, section 2.2)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class KlController:
    """The KL penalty's coefficient: fixed, or steered to a target."""

    coef: float
    """Reward lost a nat."""
    target: float | None = None
    """Nats an episode; None: the coefficient stays."""
    horizon: float = 10_000
    """Episodes, see `adapt_kl_coef`."""

    def update(self, kl: float, episodes: int) -> None:
        """After a step whose `episodes` had a mean KL of `kl` nats each."""
        if self.target is not None:
            self.coef = adapt_kl_coef(self.coef, kl, self.target, self.horizon, episodes)


def adapt_kl_coef(coef: float, kl: float, target: float, horizon: float, episodes: int) -> float:
    """Ziegler's proportional controller (section 2.2): raise the coefficient when KL per episode is above target.

    e = clip(kl / target - 1, -0.2, 0.2);  coef <- coef (1 + e episodes / horizon)

    Args:
        kl: mean KL of an episode, in nats: the sum over its tokens.
        horizon: episodes over which a constant error of 0.1 changes the coefficient by about 10%.
    """
    error = min(max(kl / target - 1, -0.2), 0.2)
    return coef * (1 + error * episodes / horizon)
