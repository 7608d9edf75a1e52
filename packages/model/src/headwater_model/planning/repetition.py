"""What repeated tokens are worth (Muennighoff et al. 2023, arXiv:2305.16264, section 3 and appendix A).

Repeated tokens lose value as exp(-repetition / R*), and so do parameters beyond those that the unique tokens can feed:

    L = E + A / N'^alpha + B / D'^beta
    D' = U + U R_D (1 - exp(-(D / U - 1) / R_D)),   U unique of D tokens
    N' = V + V R_N (1 - exp(-(N / V - 1) / R_N)),   V the optimal model for U tokens, at most N

The constants are those of the authors' code (huggingface/datablations, README.md, "Parametric fit"), fitted to C4.
"""

from __future__ import annotations

from math import exp

from .scaling import Allocation, Parametric

FIT = Parametric(
    "muennighoff", "huggingface/datablations, README.md (arXiv:2305.16264)",
    E=exp(0.6254804), A=exp(6.255414), B=exp(7.3049974), alpha=0.3526596, beta=0.3526596,
)  # fmt: skip
TOKEN_DECAY = 15.387756
"""R_D*: repetitions after which the next ones are worth 1/e of new tokens."""
PARAMETER_DECAY = 5.309743
"""R_N*: the same for parameters in excess."""


def effective(unique: float, total: float, decay: float) -> float:
    """What `total` are worth of which only `unique` are new: never more than `unique` x (1 + decay)."""
    if total <= unique:
        return total
    return unique + unique * decay * (1 - exp(-(total / unique - 1) / decay))


def loss(parameters: float, tokens: float, unique: float) -> float:
    """Nats a token after `tokens`, of which `unique` are different ones (all, if fewer are trained on)."""
    unique = min(unique, tokens)
    fed = min(parameters, FIT.parameters_for(unique))
    worth = effective(fed, parameters, PARAMETER_DECAY)
    return FIT.loss(worth, effective(unique, tokens, TOKEN_DECAY))


def optimum(flops: float, unique: float) -> Allocation:
    """The N and D with 6 N D = flops of least loss, where only `unique` tokens exist.

    By golden section over log N between a hundredth of and a hundred times the size that unlimited data would ask for.
    """
    free = FIT.optimum(flops)
    low, high = free.parameters / 100, free.parameters * 100

    def at(parameters: float) -> float:
        return loss(parameters, flops / 6 / parameters, unique)

    golden = (5**0.5 - 1) / 2
    while high / low > 1 + 1e-6:
        step = (high / low) ** golden
        if at(high / step) < at(low * step):
            high = low * step
        else:
            low = high / step
    parameters = (low * high) ** 0.5
    return Allocation(parameters, flops / 6 / parameters)
