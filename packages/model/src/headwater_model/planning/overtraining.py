"""A smaller model trained for longer: what it costs in training, loses in loss, and saves whenever it is used.

The loss is a parametric law's; inference costs 2 N FLOPs a token, training 6 N D (Kaplan et al. 2020, section 2.1);
the idea of charging both to the model is that of Sardana and Frankle, "Beyond Chinchilla-optimal", arXiv:2401.00448.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .scaling import Allocation, Parametric

FRACTIONS = (2.0, 1.5, 1.0, 0.75, 0.5, 0.35, 0.25)
"""Sizes shown, in optimal models."""


@dataclass(frozen=True)
class SameBudget:
    """A model of another size on the optimal one's training budget."""

    fraction: float
    """Of the optimal model's parameters."""
    allocation: Allocation
    loss_added: float
    """Nats a token above the optimum; above zero on both sides of it."""
    compute_wasted: float
    """Share of the budget without which the optimal model would have had this loss."""


@dataclass(frozen=True)
class SameLoss:
    """A model of another size trained until it has the optimal one's loss."""

    fraction: float
    allocation: Allocation
    """Tokens are infinite where a model so small never gets there."""
    training_added: float
    """FLOPs above the optimum's budget, as a share of it."""
    inference_saved: float
    """FLOPs a token served, as a share of the optimal model's; below zero for a larger one."""
    break_even: float
    """Tokens served from which on the smaller model has cost less in all; infinite for a larger or equal one."""


def same_budget(law: Parametric, flops: float, fractions: Sequence[float] = FRACTIONS) -> list[SameBudget]:
    """Over- and under-training at one budget: the loss that leaving the optimum costs."""
    best = law.optimum(flops)
    floor = law.loss(*best)
    rows = []
    for fraction in fractions:
        parameters = best.parameters * fraction
        here = Allocation(parameters, flops / 6 / parameters)
        loss = law.loss(*here)
        needed = flops if fraction == 1 else law.flops_to_reach(loss)
        rows.append(SameBudget(fraction, here, loss - floor, max(0.0, 1 - needed / flops)))
    return rows


def same_loss(law: Parametric, flops: float, fractions: Sequence[float] = FRACTIONS) -> list[SameLoss]:
    """Smaller and larger models with the loss of the optimal one: training added, inference saved, break-even."""
    best = law.optimum(flops)
    target = law.loss(*best)
    rows = []
    for fraction in fractions:
        parameters = best.parameters * fraction
        tokens = best.tokens if fraction == 1 else law.tokens_to_reach(target, parameters)
        here = Allocation(parameters, tokens)
        pays = break_even(here, best) if fraction < 1 else float("inf")
        rows.append(SameLoss(fraction, here, here.flops / flops - 1, 1 - fraction, pays))
    return rows


def break_even(smaller: Allocation, larger: Allocation) -> float:
    """Tokens served from which on the smaller of two models of one loss has cost fewer FLOPs in all."""
    return max(0.0, (smaller.flops - larger.flops) / (2 * (larger.parameters - smaller.parameters)))


def lifetime_optimum(law: Parametric, loss: float, served: float) -> Allocation:
    """The model of this loss for which training and serving `served` tokens cost least: min 6 N D + 2 N T.

    Where d/dN is zero: with a = A / N^alpha and b = B / D^beta, a + b = loss - E, and
    alpha a / (beta b) = 1 + T / (3 D). The left side falls and the right side rises with N, so bisection finds it.

    Args:
        loss: above the law's irreducible loss.
        served: tokens over the model's life.
    """
    if loss <= law.E:
        return Allocation(float("inf"), float("inf"))
    low = (law.A / (loss - law.E)) ** (1 / law.alpha) * (1 + 1e-9)  # below it no number of tokens is enough
    high = low * 1e6
    while high / low > 1 + 1e-9:
        middle = (low * high) ** 0.5
        tokens = law.tokens_to_reach(loss, middle)
        a, b = law.A / middle**law.alpha, law.B / tokens**law.beta
        if law.alpha * a / (law.beta * b) > 1 + served / (3 * tokens):
            low = middle
        else:
            high = middle
    return Allocation(high, law.tokens_to_reach(loss, high))
