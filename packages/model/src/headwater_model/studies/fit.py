"""Own scaling laws from a grid of runs: isoFLOP valleys, the frontier through them, a parametric loss; with intervals.

Approaches 2 and 3 of Chinchilla (Hoffmann et al. 2022, arXiv:2203.15556, sections 3.2 and 3.3). Intervals by the
bootstrap of residuals (Efron 1979): sizes and tokens are chosen, not drawn, so what is drawn anew is by how much runs
deviate from the law.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import exp, log

import numpy as np

from .._contracts.errors import UserError
from ..planning.scaling import Parametric

HUBER = 1e-3
"""Where the loss of the fit turns from square to linear, in log loss (arXiv:2203.15556, appendix D.2)."""
STARTS = {"alpha": (0.3,), "beta": (0.3,), "e": (-1.0, 0.5), "a": (3.0, 9.0), "b": (3.0, 9.0)}
"""Starting points of the fit: the paper's grid, thinned."""


@dataclass(frozen=True)
class Point:
    """One run."""

    budget: float
    """FLOPs, the grid's."""
    parameters: float
    tokens: float
    loss: float
    """Held-out, nats a token."""


@dataclass(frozen=True)
class Valley:
    """The parabola through one budget's runs: loss = least + curvature x (log N - log parameters)^2."""

    budget: float
    parameters: float
    """Where the loss is least."""
    loss: float
    curvature: float
    inside: bool
    """Whether the minimum lies between the sizes that were run; beyond them it is a guess."""


@dataclass(frozen=True)
class PowerLaw:
    """y = coefficient x C ^ exponent."""

    coefficient: float
    exponent: float

    def at(self, flops: float) -> float:
        """y for C."""
        return self.coefficient * flops**self.exponent


@dataclass(frozen=True)
class Interval:
    """A figure with the middle 90% of its resampled values."""

    value: float
    low: float
    high: float


def valleys(points: Sequence[Point]) -> list[Valley]:
    """A parabola in log N through each budget's runs (approach 2); budgets without a minimum are left out.

    Raises:
        UserError: a budget with fewer than three sizes.
    """
    found = []
    for budget, runs in _by_budget(points).items():
        sizes = np.log([p.parameters for p in runs])
        if len(set(sizes)) < 3:
            raise UserError(f"budget {budget:.3g}: {len(set(sizes))} sizes have run, a parabola needs three")
        middle = sizes.mean()
        square, slope, level = np.polyfit(sizes - middle, [p.loss for p in runs], 2)
        if square <= 0:
            continue
        at = middle - slope / (2 * square)
        least = level - slope**2 / (4 * square)
        found.append(Valley(budget, exp(at), least, square, bool(sizes.min() <= at <= sizes.max())))
    return found


def frontier(found: Sequence[Valley]) -> PowerLaw:
    """The optimal size as a power of the budget, by the valleys whose minimum lies between sizes that were run.

    Raises:
        UserError: fewer than two valleys.
    """
    found = [valley for valley in found if valley.inside]
    if len(found) < 2:
        raise UserError(f"{len(found)} budgets have a minimum between their sizes, a power law needs two; widen them")
    exponent, level = np.polyfit([log(v.budget) for v in found], [log(v.parameters) for v in found], 1)
    return PowerLaw(exp(level), float(exponent))


def parametric(points: Sequence[Point], start: Parametric | None = None) -> Parametric:
    """L(N, D) = E + A / N^alpha + B / D^beta by least Huber loss of log L (approach 3).

    Args:
        start: begin there only, instead of at the grid of `STARTS`.

    Raises:
        UserError: fewer points than the law has constants, or scipy is not installed.
    """
    if len(points) < 6:
        raise UserError(f"{len(points)} runs; a law of five constants needs six at least")
    try:
        from scipy.optimize import least_squares
    except ImportError:
        raise UserError("the fit needs scipy: pip install 'headwater-model[studies]'") from None
    sizes, tokens, losses = (np.log([getattr(p, name) for p in points]) for name in ("parameters", "tokens", "loss"))

    def terms(x: np.ndarray) -> np.ndarray:
        alpha, beta, e, a, b = x
        return np.stack([a - alpha * sizes, b - beta * tokens, np.full_like(sizes, e)])

    def errors(x: np.ndarray) -> np.ndarray:
        return np.logaddexp.reduce(terms(x)) - losses

    def slopes(x: np.ndarray) -> np.ndarray:
        parts = terms(x)
        of_size, of_tokens, of_rest = np.exp(parts - np.logaddexp.reduce(parts))
        return np.stack([-of_size * sizes, -of_tokens * tokens, of_rest, of_size, of_tokens], axis=1)

    starts = [_logs(start)] if start else product(*STARTS.values())
    low, high = (0.05, 0.05, -10, -10, -10), (1.5, 1.5, 5, 60, 60)
    tried = (
        least_squares(errors, x, slopes, (low, high), x_scale="jac", loss="huber", f_scale=HUBER, max_nfev=200)
        for x in starts
    )
    best = min(tried, key=lambda found: found.cost)
    alpha, beta, e, a, b = map(float, best.x)
    return Parametric("own", f"fit to {len(points)} runs", exp(e), exp(a), exp(b), alpha, beta)


@dataclass(frozen=True)
class Fit:
    """All that a grid of runs says, and what resampled grids say."""

    points: list[Point]
    valleys: list[Valley]
    frontier: PowerLaw
    law: Parametric
    frontiers: list[PowerLaw]
    laws: list[Parametric]
    residual: float
    """Standard deviation of log loss about the law."""

    def optimum(self, flops: float) -> Interval:
        """The optimal size for a budget, by the frontier."""
        return interval(self.frontier.at(flops), [f.at(flops) for f in self.frontiers])

    def loss(self, parameters: float, tokens: float, seed: int = 0) -> Interval:
        """The loss of a run to come, with the spread of the resampled laws and of single runs about theirs."""
        noise = np.random.default_rng(seed).normal(0, self.residual, len(self.laws))
        drawn = [law.loss(parameters, tokens) * exp(n) for law, n in zip(self.laws, noise, strict=True)]
        return interval(self.law.loss(parameters, tokens), drawn)

    def exponent(self) -> Interval:
        """N_opt grows as C to this power (Chinchilla: 0.5)."""
        return interval(self.frontier.exponent, [f.exponent for f in self.frontiers])


def fit(points: Sequence[Point], draws: int = 200, seed: int = 0) -> Fit:
    """Fit valleys, frontier and law, and again to `draws` grids whose deviations from the law are drawn anew.

    Where fewer than two budgets have their minimum between their sizes, the frontier is the law's own optimum.

    Raises:
        UserError: too few runs for a fit.
    """
    found = valleys(points)
    law = parametric(points)
    fitted = np.array([law.loss(p.parameters, p.tokens) for p in points])
    errors = np.log([p.loss for p in points]) - np.log(fitted)
    errors *= np.sqrt(len(points) / max(1, len(points) - 5))  # a fit of five constants lies too near its points
    residual = float(np.sqrt((errors**2).mean()))
    generator = np.random.default_rng(seed)
    frontiers: list[PowerLaw] = []
    laws: list[Parametric] = []
    for _ in range(draws):
        losses = fitted * np.exp(generator.choice(errors, len(points)))
        sample = [replace(p, loss=float(loss)) for p, loss in zip(points, losses, strict=True)]
        laws.append(parametric(sample, law))
        frontiers.append(_frontier_or_law(valleys(sample), laws[-1]))
    return Fit(list(points), found, _frontier_or_law(found, law), law, frontiers, laws, residual)


def interval(value: float, drawn: Sequence[float]) -> Interval:
    """The middle 90% of resampled values about a figure."""
    if not drawn:
        return Interval(value, float("nan"), float("nan"))
    low, high = np.quantile(drawn, [0.05, 0.95])
    return Interval(value, float(low), float(high))


def _by_budget(points: Sequence[Point]) -> dict[float, list[Point]]:
    groups: dict[float, list[Point]] = defaultdict(list)
    for point in points:
        groups[point.budget].append(point)
    return dict(sorted(groups.items()))


def _frontier_or_law(found: Sequence[Valley], law: Parametric) -> PowerLaw:
    try:
        return frontier(found)
    except UserError:
        exponent = law.beta / (law.alpha + law.beta)
        return PowerLaw(law.optimum(1e15).parameters / 1e15**exponent, exponent)


def _logs(law: Parametric) -> tuple[float, ...]:
    return law.alpha, law.beta, log(law.E), log(law.A), log(law.B)
