"""Krippendorff's alpha for nominal data: how far reviewers agree beyond what chance would give."""

from __future__ import annotations

import math

import numpy as np

from ..statistics import Estimate


def counts(labels: list[list[str]]) -> tuple[np.ndarray, list[str]]:
    """How many reviewers said what of each item.

    Args:
        labels: what was said of each item, one label a reviewer who judged it.

    Returns:
        int64 [items, classes], and the classes in order.
    """
    classes = sorted({label for said in labels for label in said})
    at = {name: i for i, name in enumerate(classes)}
    table = np.zeros((len(labels), len(classes)), np.int64)
    for row, said in enumerate(labels):
        for label in said:
            table[row, at[label]] += 1
    return table, classes


def alpha(table: np.ndarray) -> float:
    """Krippendorff's alpha, nominal, any number of reviewers, missing values allowed.

    1 is agreement on everything, 0 what chance would give. Krippendorff 2011, Computing Krippendorff's
    Alpha-Reliability, section E; Hayes and Krippendorff 2007, Communication Methods and Measures 1(1), 77-89.

    Args:
        table: int64 [items, classes], how many reviewers said each class of each item. Items with fewer than two
            judgements say nothing of agreement and are left out.

    Returns:
        nan where no item has two judgements, or where all judgements are the same class (0 / 0).
    """
    table = table[table.sum(1) >= 2]
    n = table.sum()
    if n == 0:
        return math.nan
    of_item, of_class = table.sum(1), table.sum(0)
    observed = 1 - float((table * (table - 1) / (of_item - 1)[:, None]).sum()) / n
    expected = 1 - float((of_class * (of_class - 1)).sum()) / (n * (n - 1))
    return math.nan if expected == 0 else 1 - observed / expected


def alpha_with_interval(table: np.ndarray, resamples: int, seed: int) -> Estimate:
    """Alpha with a percentile interval from a bootstrap over items (Zapf et al. 2016, BMC Medical Research
    Methodology 16:93); resamples in which alpha is undefined are left out.

    Args:
        table: as in `alpha`.
    """
    table = table[table.sum(1) >= 2]
    value = alpha(table)
    if math.isnan(value) or len(table) < 2:
        return Estimate(value, math.nan, math.nan, math.nan)
    rng = np.random.default_rng(seed)
    found = np.array([alpha(table[rng.integers(0, len(table), len(table))]) for _ in range(resamples)])
    found = found[~np.isnan(found)]
    if len(found) < 2:
        return Estimate(value, math.nan, math.nan, math.nan)
    low, high = np.quantile(found, [0.025, 0.975])
    return Estimate(value, float(np.std(found, ddof=1)), float(low), float(high))


def percent_agreement(table: np.ndarray) -> float:
    """Share of the pairs of reviewers of an item who said the same, pairs weighted so that judgements count alike.

    What `alpha` corrects for chance; nan where no item has two judgements.
    """
    table = table[table.sum(1) >= 2]
    if len(table) == 0:
        return math.nan
    return float((table * (table - 1) / (table.sum(1) - 1)[:, None]).sum()) / float(table.sum())
