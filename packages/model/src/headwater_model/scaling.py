"""Compute-optimal model size and tokens (Hoffmann et al., "Training compute-optimal LLMs", arXiv:2203.15556).

C = 6 N D: FLOPs of training N matrix parameters on D tokens. The paper's approaches 1 and 2 find N and D
growing alike, D about 20 N; approach 3 fits L(N, D) = E + A / N^a + B / D^b and minimises it at fixed C.
"""

from __future__ import annotations

from typing import NamedTuple

# Approach 3, equation 10: nats a token for the paper's own tokenizer and data.
E, A, B, ALPHA, BETA = 1.69, 406.4, 410.7, 0.34, 0.28


class Allocation(NamedTuple):
    """How a budget is spent."""

    parameters: float
    tokens: float


def by_ratio(flops: float, tokens_per_parameter: float = 20.0) -> Allocation:
    """N and D = ratio x N with 6 N D = flops."""
    parameters = (flops / (6 * tokens_per_parameter)) ** 0.5
    return Allocation(parameters, tokens_per_parameter * parameters)


def by_fit(flops: float) -> Allocation:
    """The minimum of `fitted_loss` on 6 N D = flops (equation 4)."""
    g = (ALPHA * A / (BETA * B)) ** (1 / (ALPHA + BETA))
    parameters = g * (flops / 6) ** (BETA / (ALPHA + BETA))
    return Allocation(parameters, flops / 6 / parameters)


def fitted_loss(parameters: float, tokens: float) -> float:
    """Loss in nats a token by the parametric fit; an extrapolation below 40M parameters."""
    return E + A / parameters**ALPHA + B / tokens**BETA


def limited_by_data(flops: float, wanted: Allocation, available: float, max_epochs: float) -> Allocation:
    """`wanted`, unless it needs more than `max_epochs` passes: then a larger model on what there is.

    Up to four passes are nearly as good as new tokens (Muennighoff et al., arXiv:2305.16264). The larger
    model spends the same budget.
    """
    most = available * max_epochs
    return wanted if wanted.tokens <= most else Allocation(flops / 6 / most, most)
