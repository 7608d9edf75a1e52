"""Intervals for what is reported: a proportion's (Wilson) and a mean's (bootstrap)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

Z95 = 1.959963984540054  # 97.5% quantile of the standard normal distribution


def wilson(successes: float, n: float) -> tuple[float, float]:
    """95% interval of a proportion (Wilson 1927): right for small n and near 0 and 1, where p +- 1.96 se is not."""
    if n == 0:
        return 0.0, 1.0
    p = successes / n
    centre = (p + Z95**2 / (2 * n)) / (1 + Z95**2 / n)
    half = Z95 / (1 + Z95**2 / n) * math.sqrt(p * (1 - p) / n + Z95**2 / (4 * n * n))
    # At 0 and n the limits are 0 and 1 exactly, which rounding would miss.
    return (0.0 if successes == 0 else centre - half), (1.0 if successes == n else centre + half)


def bootstrap_mean(
    values: Sequence[float] | np.ndarray, seed: int, resamples: int = 2000, clusters: Sequence[str] | None = None
) -> tuple[float, float, float]:
    """Mean and 95% percentile-bootstrap interval.

    Args:
        clusters: [N], what each value shares with others that are not independent of it (the conversation that several
            prompts are of): whole clusters are drawn. None: every value stands alone.
    """
    x = np.asarray(values, dtype=np.float64)
    if len(x) == 0:
        return 0.0, 0.0, 0.0
    if clusters is not None and len(set(clusters)) < len(x):
        sums = resampled_sums(np.stack([x, np.ones_like(x)], 1), clusters, seed, resamples)
        low, high = np.quantile(sums[:, 0] / sums[:, 1], [0.025, 0.975])
        return float(x.mean()), float(low), float(high)
    picks = np.random.default_rng(seed).integers(0, len(x), size=(resamples, len(x)))
    low, high = np.quantile(x[picks].mean(1), [0.025, 0.975])
    return float(x.mean()), float(low), float(high)


def wilson_clustered(hits: np.ndarray, clusters: Sequence[int]) -> tuple[float, float]:
    """95% interval of a share of hits that come in clusters (the pairs of one prompt): Wilson's for as many independent
    hits as would vary so much, the effective sample size (Kish 1965, Survey Sampling, section 8.2). A bootstrap of
    clusters would call a share of 1 certain.

    Args:
        hits: [N], 0 to 1.
        clusters: [N], the cluster of each hit.
    """
    _, number = np.unique(np.asarray(clusters), return_inverse=True)
    share, count = float(hits.mean()), int(number.max()) + 1
    if count == len(hits):
        return wilson(float(hits.sum()), count)
    sums = np.bincount(number, hits - share)
    variance = count / max(count - 1, 1) * float(np.sum(sums**2)) / len(hits) ** 2
    size = share * (1 - share) / variance if variance > 0 else count
    size = min(max(size, 1.0), len(hits))
    return wilson(share * size, size)


def resampled_sums(
    rows: np.ndarray, clusters: Sequence[int] | Sequence[str], seed: int, resamples: int = 2000
) -> np.ndarray:
    """Column sums of bootstrap samples that draw whole clusters, with replacement: [resamples, columns].

    A statistic of sums (a share is hits over pairs) taken of each row gives its percentile interval. What shares a
    cluster (the pairs of one prompt) need not be independent.

    Args:
        rows: [N, columns].
        clusters: [N], the cluster of each row.
    """
    _, number = np.unique(np.asarray(clusters), return_inverse=True)
    count = int(number.max()) + 1
    sums = np.zeros((count, rows.shape[1]))
    np.add.at(sums, number, rows)
    draw = np.random.default_rng(seed)
    return np.array([sums[draw.integers(0, count, count)].sum(0) for _ in range(resamples)])
