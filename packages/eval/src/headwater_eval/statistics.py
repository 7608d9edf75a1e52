"""Intervals for scores: pure functions on numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

Z95 = 1.959963984540054  # the normal distribution's 97.5% quantile


class Estimate(NamedTuple):
    """A value with its standard error and the ends of its 95% interval."""

    value: float
    stderr: float
    low: float
    high: float


def wilson(successes: float, n: float) -> Estimate:
    """A proportion with Wilson's score interval (Wilson 1927; Brown, Cai, DasGupta 2001, eq. 4).

    Unlike value +- 1.96 standard errors it stays inside [0, 1] and is not empty at 0 or n successes.

    Raises:
        ValueError: no trials, or successes outside 0..n.
    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n}")
    p, z2 = successes / n, Z95**2
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 / (1 + z2 / n) * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    low, high = max(0.0, centre - half), min(1.0, centre + half)
    return Estimate(p, math.sqrt(p * (1 - p) / n), min(low, p), max(high, p))  # at 0 and n only rounding parts them


def difference_of_independent(first: Estimate, second: Estimate) -> Estimate:
    """first - second of two independent estimates, its interval from both of theirs.

    For two proportions with Wilson's intervals this is method 10 of Newcombe 1998 (Statistics in Medicine 17:873-890),
    for others the same construction (Zou, Donner 2008, Statistics in Medicine 27:1693-1702): it keeps what an interval
    has of skewness, and unlike a normal one it is not empty where a share is 0 or 1.
    """
    value = first.value - second.value
    low = value - math.hypot(first.value - first.low, second.high - second.value)
    high = value + math.hypot(first.high - first.value, second.value - second.low)
    return Estimate(value, math.hypot(first.stderr, second.stderr), low, high)


def ratio_bootstrap(numerators: np.ndarray, denominators: np.ndarray, resamples: int, seed: int) -> Estimate:
    """sum(numerators) / sum(denominators) with a percentile bootstrap over rows (Efron, Tibshirani 1993, ch. 13).

    Rows are the units that are independent of each other: documents, not tokens.

    Args:
        numerators: float [n].
        denominators: float [n], positive sum.

    Raises:
        ValueError: no rows, or lengths that differ.
    """
    n = len(numerators)
    if n == 0 or n != len(denominators):
        raise ValueError(f"{n} numerators and {len(denominators)} denominators")
    value = float(np.sum(numerators) / np.sum(denominators))
    if n == 1:
        return Estimate(value, math.nan, math.nan, math.nan)
    rng = np.random.default_rng(seed)
    ratios = np.empty(resamples)
    for i in range(resamples):
        rows = rng.integers(0, n, n)
        ratios[i] = numerators[rows].sum() / denominators[rows].sum()
    low, high = np.quantile(ratios, [0.025, 0.975])
    return Estimate(value, float(np.std(ratios, ddof=1)), float(low), float(high))


def clustered_mean(values: np.ndarray, clusters: list[str]) -> Estimate:
    """A mean whose standard error knows that items of one cluster (a passage) resemble each other.

    The cluster-robust variance of Liang and Zeger 1986 (Miller 2024, arXiv:2411.00640, section 2.2) with the correction
    G / (G - 1) for G clusters; the interval is normal. With clusters of one item it is the usual standard error.

    Args:
        values: float [n].
        clusters: the cluster of each.

    Raises:
        ValueError: no values, or lengths that differ.
    """
    if len(values) == 0 or len(values) != len(clusters):
        raise ValueError(f"{len(values)} values and {len(clusters)} clusters")
    value = float(np.mean(values))
    _, at = np.unique(np.array(clusters), return_inverse=True)
    residuals = np.bincount(at, weights=values - value)
    groups = len(residuals)
    if groups == 1:
        return Estimate(value, math.nan, math.nan, math.nan)
    stderr = math.sqrt(groups / (groups - 1) * float(residuals @ residuals)) / len(values)
    return Estimate(value, stderr, value - Z95 * stderr, value + Z95 * stderr)


def transformed(estimate: Estimate, f: Callable[[float], float]) -> Estimate:
    """A monotonic function of an estimate: value and interval by it, standard error by its slope (the delta method).

    Both ends map onto ends of the new interval, whichever way round.
    """
    value = f(estimate.value)
    if not math.isfinite(estimate.stderr):
        return Estimate(value, math.nan, math.nan, math.nan)
    step = max(1e-6, abs(estimate.value) * 1e-6)
    slope = (f(estimate.value + step) - f(estimate.value - step)) / (2 * step)
    low, high = sorted((f(estimate.low), f(estimate.high)))
    return Estimate(value, abs(slope) * estimate.stderr, low, high)


def cluster_bootstrap(
    values: Sequence[Any] | np.ndarray,
    clusters: list[str],
    statistic: Callable[[Any], float],
    resamples: int,
    seed: int,
) -> Estimate:
    """Any statistic of items with a percentile bootstrap over clusters (Davison, Hinkley 1997, section 3.8).

    Args:
        values: one entry an item: an array is sliced, a list stays one.
        clusters: the cluster of each item.
        statistic: of such an array or list, the whole or a resample.

    Raises:
        ValueError: no values, or lengths that differ.
    """
    if len(values) == 0 or len(values) != len(clusters):
        raise ValueError(f"{len(values)} values and {len(clusters)} clusters")
    whole = float(statistic(values))
    _, at = np.unique(np.array(clusters), return_inverse=True)
    members = [np.flatnonzero(at == group) for group in range(int(at.max()) + 1)]
    if len(members) == 1:
        return Estimate(whole, math.nan, math.nan, math.nan)
    rng = np.random.default_rng(seed)
    found = np.empty(resamples)
    for i in range(resamples):
        rows = np.concatenate([members[group] for group in rng.integers(0, len(members), len(members))])
        found[i] = statistic(values[rows] if isinstance(values, np.ndarray) else [values[row] for row in rows])
    low, high = np.quantile(found, [0.025, 0.975])
    return Estimate(whole, float(np.std(found, ddof=1)), float(low), float(high))


def totals_bootstrap(
    sums: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray], resamples: int = 1000, seed: int = 1234
) -> Estimate:
    """A function of totals with a percentile bootstrap over clusters (Efron, Tibshirani 1993, ch. 13).

    Accuracies, their differences, F1, StereoSet's and BBQ's scores are all functions of totals over items; the unit
    that is drawn is the cluster (a template, a target term), whose items resemble each other.

    Args:
        sums: float [clusters, k], the k sums of each cluster.
        statistic: totals [n, k] -> values [n]; NaN where it is undefined.

    Returns:
        NaN for spread and ends where there is one cluster only; resamples without a value are left out.

    Raises:
        ValueError: no clusters.
    """
    groups = len(sums)
    if groups == 0:
        raise ValueError("no clusters")
    value = float(statistic(sums.sum(0, keepdims=True))[0])
    if groups == 1 or math.isnan(value):
        return Estimate(value, math.nan, math.nan, math.nan)
    rng, share = np.random.default_rng(seed), np.full(groups, 1 / groups)
    batch = max(1, min(resamples, 2_000_000 // groups))
    drawn = [
        statistic(rng.multinomial(groups, share, min(batch, resamples - start)) @ sums)
        for start in range(0, resamples, batch)
    ]
    found = np.concatenate(drawn)
    found = found[~np.isnan(found)]
    if len(found) < 2:
        return Estimate(value, math.nan, math.nan, math.nan)
    low, high = np.quantile(found, [0.025, 0.975])
    # a score at its own maximum (icat) lies at the end of its resamples
    return Estimate(value, float(np.std(found, ddof=1)), min(float(low), value), max(float(high), value))


def share_of_clustered(values: np.ndarray, clusters: list[str]) -> Estimate:
    """`clustered_mean` of values in [0, 1], its interval cut to what a mean of them can be."""
    mean = clustered_mean(values, clusters)
    return mean._replace(low=max(mean.low, 0.0), high=min(mean.high, 1.0)) if math.isfinite(mean.low) else mean


def sums_by_cluster(values: np.ndarray, clusters: Sequence[str]) -> np.ndarray:
    """Sums [clusters, k] of the rows [n, k] of each cluster, in the order of the clusters' names."""
    _, at = np.unique(np.array(clusters), return_inverse=True)
    sums = np.zeros((int(at.max()) + 1, values.shape[1]))
    np.add.at(sums, at, values)
    return sums


def mean_of_independent(estimates: list[Estimate]) -> Estimate:
    """The plain mean of independent estimates, with a normal interval from their standard errors."""
    value = sum(e.value for e in estimates) / len(estimates)
    stderr = math.sqrt(sum(e.stderr**2 for e in estimates)) / len(estimates)
    return Estimate(value, stderr, value - Z95 * stderr, value + Z95 * stderr)
