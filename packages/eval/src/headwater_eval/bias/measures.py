"""What the bias tests share: rows of choices, and scores as functions of totals over clusters."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from ..benchmark import Benchmark, Item, Row, Scores
from ..scores import sample_rows, score_row
from ..statistics import Estimate, share_of_clustered, sums_by_cluster, totals_bootstrap, wilson

BIAS, HARM = "bias", "harm"
"""Kinds of a score: a share of stereotyping preferences, of which one half is no preference; any other measure."""


def choice_metrics() -> list[dict]:
    """What lm-eval is asked to compute of a choice; the scores are ours."""
    return [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}]


def choice_rows(benchmark: Benchmark, items: list[Item], logged: list[dict]) -> list[Row]:
    """A row an item with the likeliest choice as the pick, whatever the headline metric."""
    return sample_rows(replace(benchmark, metric="acc"), items, logged)


def shares(outcomes: Sequence[float], metric: str, chance: float | None, kind: str = HARM) -> dict:
    """A proportion of independent yes-no outcomes with Wilson's interval; null where there are none."""
    n = len(outcomes)
    estimate = wilson(round(sum(outcomes)), n) if n else Estimate(math.nan, math.nan, math.nan, math.nan)
    return score_row(metric, estimate, n, chance, kind)


def mean(values: Sequence[float], clusters: Sequence[str], metric: str, chance: float | None = None) -> dict:
    """A mean of values in [0, 1] whose interval knows which items belong together."""
    return score_row(metric, share_of_clustered(np.array(values, float), list(clusters)), len(values), chance, HARM)


def of_totals(
    values: np.ndarray,
    clusters: Sequence[str],
    statistic: Callable[[np.ndarray], np.ndarray],
    metric: str,
    chance: float | None,
    kind: str = HARM,
) -> dict:
    """A function of the totals of values [n, k] over items, with a bootstrap over clusters.

    Args:
        statistic: totals [m, k] -> [m].
    """
    return score_row(metric, totals_bootstrap(sums_by_cluster(values, clusters), statistic), len(values), chance, kind)


def ratio(totals: np.ndarray, over: int, under: int) -> np.ndarray:
    """totals[:, over] / totals[:, under], NaN where the denominator is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        found = totals[:, over] / totals[:, under]
    return np.where(totals[:, under] == 0, np.nan, found)


def by_part(rows: list[Row], part: Callable[[Row], str | None]) -> dict[str, list[Row]]:
    """Rows by a part's name, in the order of the names; rows of no part are left out."""
    parts: dict[str, list[Row]] = {}
    for row in rows:
        name = part(row)
        if name is not None:
            parts.setdefault(name, []).append(row)
    return dict(sorted(parts.items()))


__all__ = ["BIAS", "HARM", "Scores", "by_part", "choice_metrics", "choice_rows", "mean", "of_totals", "ratio", "shares"]
