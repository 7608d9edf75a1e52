"""Intervals: against published values, exact formulas and coverage."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater_eval.statistics import (
    Estimate,
    cluster_bootstrap,
    clustered_mean,
    mean_of_independent,
    ratio_bootstrap,
    share_of_clustered,
    sums_by_cluster,
    totals_bootstrap,
    transformed,
    wilson,
)


def test_wilson_gives_newcombes_published_intervals() -> None:
    """Newcombe 1998, Statistics in Medicine 17, table I, method 3: 81/263, 15/148, 0/20, 1/29."""
    for successes, n, low, high in (
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ):
        estimate = wilson(successes, n)
        assert (estimate.low, estimate.high) == (pytest.approx(low, abs=6e-5), pytest.approx(high, abs=6e-5))


@given(st.integers(1, 5000), st.data())
def test_wilson_stays_inside_zero_to_one_and_around_the_value(n: int, data: st.DataObject) -> None:
    estimate = wilson(data.draw(st.integers(0, n)), n)
    assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1 and estimate.low < estimate.high


def test_wilson_covers_the_truth_nineteen_times_in_twenty() -> None:
    draws = np.random.default_rng(0).binomial(40, 0.3, 4000)
    covered = sum(e.low <= 0.3 <= e.high for e in (wilson(int(k), 40) for k in draws))
    assert 0.935 < covered / 4000 < 0.975


def test_bootstrap_agrees_with_the_ratio_estimators_variance() -> None:
    """Cochran 1977, eq. 2.45: var(R) = sum (y - R x)^2 / (n (n - 1) mean(x)^2)."""
    rng = np.random.default_rng(1)
    x = rng.integers(200, 4000, 300).astype(float)
    y = 1.7 * x + rng.normal(0, 300, 300)
    estimate = ratio_bootstrap(y, x, 2000, seed=5)
    exact = math.sqrt(np.sum((y - estimate.value * x) ** 2) / (300 * 299)) / x.mean()
    assert estimate.stderr == pytest.approx(exact, rel=0.1)
    assert estimate.low < estimate.value < estimate.high
    assert ratio_bootstrap(y, x, 2000, seed=5) == estimate


def test_one_document_has_a_value_and_no_interval() -> None:
    estimate = ratio_bootstrap(np.array([6.0]), np.array([3.0]), 100, 0)
    assert estimate.value == 2 and math.isnan(estimate.low)


def test_the_mean_of_independent_scores_has_the_smaller_error() -> None:
    mean = mean_of_independent([Estimate(0.4, 0.03, 0, 1), Estimate(0.6, 0.04, 0, 1)])
    assert mean.value == pytest.approx(0.5) and mean.stderr == pytest.approx(0.025)


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=30))
def test_clusters_of_one_give_the_usual_standard_error(values: list[float]) -> None:
    found = clustered_mean(np.array(values), [str(i) for i in range(len(values))])
    assert found.stderr == pytest.approx(np.std(values, ddof=1) / math.sqrt(len(values)), abs=1e-9)
    assert found.value == pytest.approx(np.mean(values), abs=1e-9)


def test_items_that_always_agree_count_as_one() -> None:
    """Each answer five times over: the interval is that of the answers once."""
    once = clustered_mean(np.array([0.0, 1.0, 1.0, 0.0]), list("abcd"))
    again = clustered_mean(np.repeat([0.0, 1.0, 1.0, 0.0], 5), [c for c in "abcd" for _ in range(5)])
    assert again.stderr == pytest.approx(once.stderr) and again.value == once.value
    assert math.isnan(clustered_mean(np.array([1.0, 0.0]), ["a", "a"]).stderr)


def test_a_bootstrap_over_clusters_agrees_with_the_clustered_standard_error_of_a_mean() -> None:
    rng = np.random.default_rng(5)
    centres = rng.normal(size=60)
    clusters = [f"c{i}" for i in range(60) for _ in range(4)]
    values = np.repeat(centres, 4) + rng.normal(scale=0.2, size=240)
    analytic = clustered_mean(values, clusters)
    resampled = cluster_bootstrap(values, clusters, np.mean, 1000, 0)
    assert resampled.value == pytest.approx(analytic.value)
    assert resampled.stderr == pytest.approx(analytic.stderr, rel=0.12)
    assert resampled.stderr > 1.5 * np.std(values) / math.sqrt(240)  # items of a cluster are no independent ones
    assert cluster_bootstrap(list(values), clusters, lambda v: sum(v) / len(v), 50, 0).low == pytest.approx(
        cluster_bootstrap(values, clusters, np.mean, 50, 0).low
    )
    alone = cluster_bootstrap([1.0, 3.0], ["a", "a"], np.mean, 50, 0)
    assert alone.value == 2 and math.isnan(alone.low)
    with pytest.raises(ValueError, match="2 values and 1 clusters"):
        cluster_bootstrap([1.0, 2.0], ["a"], np.mean, 50, 0)


def test_a_monotonic_function_carries_value_and_ends_along_whichever_way_it_runs() -> None:
    mean = Estimate(-2.0, 0.1, -2.2, -1.8)
    perplexity = transformed(mean, lambda nats: math.exp(-nats))
    assert perplexity.value == pytest.approx(math.e**2) and perplexity.stderr == pytest.approx(
        0.1 * math.e**2, rel=1e-4
    )
    assert (perplexity.low, perplexity.high) == pytest.approx((math.exp(1.8), math.exp(2.2)))
    assert math.isnan(transformed(mean._replace(stderr=math.nan), math.exp).low)


def test_a_bootstrap_over_clusters_agrees_with_the_cluster_robust_error_of_a_mean() -> None:
    rng = np.random.default_rng(1)
    clusters = [str(i // 5) for i in range(1000)]
    values = (rng.random(1000) < np.repeat(rng.random(200), 5)).astype(float)
    sums = sums_by_cluster(np.stack([values, np.ones(1000)], 1), clusters)
    found = totals_bootstrap(sums, lambda t: t[:, 0] / t[:, 1], resamples=4000)
    expected = clustered_mean(values, clusters)
    assert found.value == pytest.approx(expected.value) and found.stderr == pytest.approx(expected.stderr, rel=0.06)
    assert found.low == pytest.approx(expected.low, abs=0.005) and found.high == pytest.approx(expected.high, abs=0.005)


def test_a_bootstrap_of_one_cluster_or_of_an_undefined_value_has_no_interval() -> None:
    one = totals_bootstrap(np.array([[1.0, 2]]), lambda t: t[:, 0] / t[:, 1])
    assert one.value == 0.5 and math.isnan(one.low)
    undefined = totals_bootstrap(np.zeros((3, 2)), lambda t: np.full(len(t), np.nan))
    assert math.isnan(undefined.value) and math.isnan(undefined.high)


def test_the_interval_of_a_share_stays_between_nought_and_one() -> None:
    share = share_of_clustered(np.array([0.0] * 9 + [1.0]), [str(i) for i in range(10)])
    assert share.low == 0 and 0.1 < share.high < 1
