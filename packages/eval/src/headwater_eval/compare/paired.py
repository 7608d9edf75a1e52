"""Statistics of two runs on the same items: pure functions on numbers.

Two models that answer the same items err on much the same ones. A test that takes their scores for independent throws
that away; these look at the items whose score changed (Dietterich 1998, Neural Computation 10:1895-1923; Miller 2024,
arXiv:2411.00640, section 4.2).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import stats

from ..statistics import Estimate, ratio_bootstrap


def mcnemar(up: int, down: int) -> float:
    """Two-sided p-value of the exact McNemar test: given that an item changed, either way was equally likely.

    McNemar 1947 (Psychometrika 12:153-157), in the exact form of the binomial test. 1 where no item changed.

    Args:
        up, down: items that became right, and that became wrong.
    """
    return float(stats.binomtest(up, up + down, 0.5).pvalue) if up + down else 1.0


def difference(before: np.ndarray, after: np.ndarray, clusters: Sequence[str], resamples: int, seed: int) -> Estimate:
    """Mean of after - before with a percentile bootstrap that draws whole clusters of items.

    Args:
        before, after: float [n], scores of the same items.
        clusters: the cluster of each; items of one share a passage.
    """
    sums, sizes = by_cluster(after - before, clusters)
    return ratio_bootstrap(sums, sizes, resamples, seed)


def sign_flip(before: np.ndarray, after: np.ndarray, clusters: Sequence[str], resamples: int, seed: int) -> float:
    """Two-sided p-value of the paired permutation test: were the two runs of each cluster swapped at random, how often
    would their means lie so far apart? (Fisher 1935; Noreen 1989.) Exact where 2**clusters <= resamples.

    Args:
        before, after: float [n].
        clusters: what is swapped together.
    """
    first, _ = by_cluster(before, clusters)
    second, _ = by_cluster(after, clusters)
    if np.array_equal(first, second):
        return 1.0

    def gap(x: np.ndarray, y: np.ndarray, axis: int) -> np.ndarray:
        return np.asarray((y - x).sum(axis=axis))

    found = stats.permutation_test(
        (first, second), gap, permutation_type="samples", vectorized=True, n_resamples=resamples, batch=100,
        rng=np.random.default_rng(seed),
    )  # fmt: skip
    return float(found.pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for their number by Holm's step-down (Holm 1979, Scandinavian Journal of Statistics 6:65-70).

    Calling those below alpha real keeps the chance of one false call or more at alpha, however they depend on each
    other.
    """
    order = np.argsort(p_values, kind="stable")
    adjusted, least = [0.0] * len(order), 0.0
    for rank, i in enumerate(order):
        least = max(least, min(1.0, (len(order) - rank) * p_values[i]))
        adjusted[i] = least
    return adjusted


def by_cluster(values: np.ndarray, clusters: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Sum and number of the values of each cluster, float [clusters], clusters in sorted order."""
    _, at = np.unique(np.array(clusters), return_inverse=True)
    return np.bincount(at, weights=values), np.bincount(at).astype(float)
